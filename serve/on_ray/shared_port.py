"""A port that the replicas of a machine share, without HAProxy (SO_REUSEPORT, Linux).

The kernel gives each new connection to one of the replicas. This saves the cost of a proxy, but also loses
what a proxy does: a request to a replica that died is not sent again, and the port answers only on machines
that have a replica. Use it on one machine, or behind a load balancer. HAProxy's port works beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import uvicorn
from starlette.types import ASGIApp

from clickbait.errors import ClickbaitError, PortInUse
from serve import ports
from serve.http.protocol import http_protocol

log = logging.getLogger(__name__)

_MAX_AGE_S = 60.0  # then a connection is made anew, and a replica that came later gets its share
_LOOK_S = 0.1
# for clients to hear with an answer that the connection ends; below HAProxy's own time to learn of it
# (serve/on_ray/haproxy.py)
_LEAVE_S = 3.0


async def serve(
    app: ASGIApp, host: str, port: int, owner: str, keep_alive_s: int, leaving: Callable[[], bool]
) -> None:
    """Listens until `leaving` says that the replica goes, then answers what was accepted, and returns.

    If the port is not available, a warning is logged: HAProxy still serves the replica.

    Args:
        app: the application.
        host: interface to listen on.
        port: the port; every replica of `owner` on this machine gives the same.
        owner: one text for all replicas that may share it, and for no others.
        keep_alive_s: seconds that a connection is kept without a request.
        leaving: asked every tenth of a second.
    """
    try:
        claim, listener = _listen(host, port, owner)
    except ClickbaitError as error:
        log.warning("no shared port: %s", error)
        return
    with claim:
        protocol = http_protocol(_MAX_AGE_S)
        server = _Server(
            uvicorn.Config(
                app,
                http=protocol,
                ws="none",
                lifespan="off",
                access_log=False,
                log_config=None,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=keep_alive_s,
            )
        )
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            while not leaving() and not serving.done():
                await asyncio.wait({serving}, timeout=_LOOK_S)
            await _leave(server, protocol, serving)
        finally:
            server.should_exit = True
            await serving


class _Server(uvicorn.Server):
    """A uvicorn server that leaves the process's signals to Ray."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Installs no signal handler."""
        yield


async def _leave(server: uvicorn.Server, protocol: Any, serving: asyncio.Task[None]) -> None:
    """Takes no new connections; those that are open end with their next answer."""
    if isinstance(protocol, str):
        return  # uvicorn's own implementation cannot do this: it closes connections without a request at once
    protocol.leaving = True
    for listening in getattr(server, "servers", []):
        listening.close()
    end = time.monotonic() + _LEAVE_S
    while server.server_state.connections and time.monotonic() < end and not serving.done():
        await asyncio.wait({serving}, timeout=_LOOK_S)


def _listen(host: str, port: int, owner: str) -> tuple[IO[str], socket.socket]:
    """The claim to the port, which holds until it is closed, and a socket bound to it.

    Raises:
        PortInUse: somebody else's, be it replicas of another Ray.
        ConfigError: no such interface, or a port that this user may not take.
    """
    claim = _claim(host, port, owner)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        claim.close()
        raise PortInUse(f"{host}:{port}: {error.strerror}: give another shared_port") from None
    return claim, listener


def _claim(host: str, port: int, owner: str) -> IO[str]:
    """Locks a file that says which replicas own the port.

    Without it, replicas of two Rays would answer in turns.

    Raises:
        PortInUse: as `_listen`.
    """
    path = Path(tempfile.gettempdir()) / f"clickbait-{os.getuid()}-{port}.port"
    try:
        claim = os.fdopen(
            os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600),
            "r+",
            encoding="utf-8",
        )
    except OSError as error:
        raise PortInUse(f"{path}: {error.strerror}: give another shared_port") from None
    try:
        with contextlib.suppress(BlockingIOError):  # others hold it
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ports.bind(host, port).close()  # nobody at all listens there
            claim.truncate(0)
            claim.write(owner)
            claim.flush()
        fcntl.flock(claim, fcntl.LOCK_SH)
        claim.seek(0)
        if claim.read() != owner:
            raise PortInUse(f"{host}:{port}: replicas of another Ray have it: give another shared_port")
    except ClickbaitError:
        claim.close()
        raise
    return claim
