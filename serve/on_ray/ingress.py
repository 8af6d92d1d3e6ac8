"""The outermost part of a replica's HTTP server: the direct path to the application, or Ray's public way.

Ray loads this middleware in every replica (RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH). The direct path
(`serve.on_ray.ray_private`) saves what Ray Serve does per request and this application does not need, but it
uses private parts of Ray. With another version of Ray, after any surprise, or with
CLICKBAIT_PUBLIC_APIS_ONLY=1, every request takes Ray's public way. That is slower, and there is no shared
port: Ray has no public way to count its requests, or to learn that the replica stops.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
from time import perf_counter
from typing import TYPE_CHECKING

import ray
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from serve.core.background import Background
from serve.http.protocol import public_apis_only
from serve.on_ray import shared_port
from serve.on_ray.haproxy_process import METHODS

if TYPE_CHECKING:
    from serve.on_ray.ray_private import DirectPath

log = logging.getLogger(__name__)

ENVIRONMENT = {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve.on_ray.ingress.middlewares"}
"""For replicas only: a proxy may run where this package is not installed."""
# Headers for Ray's way: Ray starts no task that watches for a client that leaves, or that keeps a time limit.
# Ray takes the last header of a name, so the client's own headers do not count.
_RAY_HEADERS = [(b"x-request-disconnect-disabled", b"?1"), (b"x-request-timeout-seconds", b"0")]

_shared: list[tuple[str, int, str, int]] = []  # the arguments of `share`, until the server starts
_background = Background(lambda _: None)  # failures are in the log; there are no metrics here


class Ingress:
    """ASGI middleware around Ray's `app`."""

    def __init__(self, app: ASGIApp) -> None:
        self._ray = app
        self._direct = None if public_apis_only() else self._direct_path()
        if self._direct is None:
            if _shared:
                log.warning("no shared port: it needs private parts of Ray, which are not used")
                _shared.clear()
            return
        direct = self._direct
        _check_host(direct.host)
        if _shared:
            arguments = _shared.pop()
            _background.keep(
                "shared port", lambda: shared_port.serve(self, *arguments, lambda: direct.shutting_down)
            )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._ray(scope, receive, send)
            return
        direct = self._direct
        told = None
        if direct is not None:
            try:
                told = direct.start(scope)
            except Exception as error:  # a surprise in Ray: this request can still take Ray's way
                self._give_up(error)
        if direct is None or told is None:
            scope["headers"] = [*scope["headers"], *_RAY_HEADERS]
            scope["method"] = scope["method"] if scope["method"] in METHODS else "other"  # a label of Ray's
            await self._ray(scope, receive, send)
            return
        started = perf_counter()
        try:
            await direct.application(scope, receive, send)
        finally:
            try:
                direct.finish(scope["method"], told, (perf_counter() - started) * 1000)
            except Exception as error:  # the request has its answer
                self._give_up(error)

    def _direct_path(self) -> DirectPath | None:
        try:
            from serve.on_ray import ray_private

            return ray_private.direct_path(self._ray)
        except Exception as error:  # a moved import, another signature: whatever it is, Ray's way works
            self._give_up(error)
            return None

    def _give_up(self, error: Exception) -> None:
        """Every later request takes Ray's way; one warning says so."""
        self._direct = None
        log.warning(
            "every request takes Ray's public way, which is slower: %s: %s", type(error).__name__, error
        )


def _check_host(host: str | None) -> None:
    """Logs an error if HAProxy on other machines cannot reach this replica.

    Args:
        host: Ray Serve's `http_options.host`.
    """
    with contextlib.suppress(ValueError):  # a name: it may resolve to any address
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host or "")
        if address.is_loopback and _machines() > 1:
            log.error(
                "http_options.host is %s, and this Ray has several machines: HAProxy on the others cannot "
                "reach this replica; set it to 0.0.0.0 (docs/serving.md)",
                host,
            )


def _machines() -> int:
    """The number of machines in this Ray; tests that share one machine count addresses."""
    if not ray.is_initialized():
        return 1
    return len({node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]})


def share(host: str, port: int, owner: str, keep_alive_s: int) -> None:
    """Opens a shared port (`serve.on_ray.shared_port`) once Ray starts this replica's HTTP server."""
    _shared[:] = [(host, port, owner, keep_alive_s)]


def middlewares() -> list[Middleware]:
    """The function that Ray calls for its list of middlewares."""
    return [Middleware(Ingress)]
