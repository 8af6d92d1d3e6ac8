"""The server without HTTP and Ray: batcher, engine, service, following an alias, metrics."""
