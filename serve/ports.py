"""Takes a TCP port, or says in one line why not: before a model is loaded for nothing."""

from __future__ import annotations

import errno
import socket

from clickbait.errors import ConfigError, PortInUse


def bind(host: str, port: int) -> socket.socket:
    """A socket bound to `host` and `port`; 0 takes a free port.

    It does not listen yet, so clients are refused until the server is up.

    Raises:
        PortInUse: another process listens there.
        ConfigError: there is no such interface, or this user may not use the port.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise ConfigError(
            f"host {host}: {error.strerror}: give an address of this machine, such as 127.0.0.1"
        ) from None
    bound = socket.socket(family, kind, protocol)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(
                f"{host}:{port}: somebody listens there already: stop that, or give another --port"
            ) from None
        raise ConfigError(f"{host}:{port}: {error.strerror}: give another --host or --port") from None
    return bound


def url(host: str, port: int) -> str:
    """Where a client on this machine finds a server that listens on `host`."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
