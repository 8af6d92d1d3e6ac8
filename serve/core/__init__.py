"""The server without HTTP and without Ray: the batcher, the engine, the service, following an alias,
metrics.
"""
