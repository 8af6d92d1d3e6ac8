"""All that knows Ray Serve's parts: HAProxy, the ingress, the shared port, scaling, Ray's metrics."""
