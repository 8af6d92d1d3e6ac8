"""A request's way from a replica's HTTP server to the application, past what Ray Serve would do with it in
between.

Ray 2.60 makes a context, metadata of a dozen fields, two ids, a semaphore's turn and three wrappers for every
request that HAProxy sends to a replica (what that costs: docs/http.md). The application needs none of it: it
has deadlines, a bounded queue and ids, and sees clients that go. What Ray does need is kept: the count of
requests under way, which scaling and draining read, and its metrics, which its dashboard shows.

A middleware that Ray loads in the replica (RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH) is the outermost part
of that server, so it chooses. Ray's own routes, what is outside the application's prefix, and a replica whose
application has an event loop of its own take Ray's way.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
from time import perf_counter
from typing import Any, Protocol

import ray
from ray.serve._private.common import RequestMetadata, RequestProtocol
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from serve.core.background import Background
from serve.http.parsing import TOLD, Told
from serve.on_ray import shared_port
from serve.on_ray.haproxy_process import METHODS

log = logging.getLogger(__name__)

_shared: list[tuple[str, int, str, int]] = []  # what `share` was told; and what it leads to, while it runs
_background = Background(lambda _: None)  # the log tells of what failed: no metrics are at hand here
ENVIRONMENT = {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve.on_ray.ingress.middlewares"}
"""For replicas alone: a proxy may run where this package is not installed."""
BOOKS = (
    "inc_num_ongoing_requests",
    "dec_num_ongoing_requests",
    "get_num_ongoing_requests",
    "record_request_metrics",
    "record_ingress_request_metrics",
)
"""What is used of a replica's ReplicaMetricsManager."""
# On Ray's way: it starts no tasks to watch for a client that goes or to hold a time limit. It takes the last
# of a name, so a client's own do not count.
_ASKED = [(b"x-request-disconnect-disabled", b"?1"), (b"x-request-timeout-seconds", b"0")]


class Replica(Protocol):
    """What is used of Ray's own; a test holds the installed Ray against it."""

    _route_prefix: str | None
    _deployment_id: Any
    _metrics_manager: Any
    _user_callable_asgi_app: ASGIApp | None
    _user_callable_wrapper: Any
    _shutting_down: bool
    max_ongoing_requests: int


class Straight:
    """ASGI middleware around Ray's `app`: to the application at once, and counted as Ray counts."""

    def __init__(self, app: ASGIApp) -> None:
        self._ray = app
        self._replica: Replica | None = _replica(app)
        if self._replica is None:
            log.warning(
                "this Ray's replica is not the one that serve/on_ray/ingress.py knows: every request takes "
                "Ray's way, which is slower"
            )
        self._metadata = RequestMetadata(
            "", "", is_streaming=True, _request_protocol=RequestProtocol.HTTP, is_direct_ingress=True
        )
        _look_who_reaches(getattr(getattr(self._replica, "_http_options", None), "host", None))
        if self._replica is not None and _shared:
            replica, shared = self._replica, _shared.pop()
            _background.keep(
                "shared port", lambda: shared_port.serve(self, *shared, lambda: replica._shutting_down)
            )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        replica = self._replica
        if scope["type"] != "http" or replica is None or not _straight(replica, scope):
            if scope["type"] == "http":
                scope["headers"] = [*scope["headers"], *_ASKED]
                scope["method"] = _label(scope["method"])  # Ray makes a label of it
            await self._ray(scope, receive, send)
            return
        if replica._route_prefix != "/":
            scope["root_path"] = scope.get("root_path", "") + (replica._route_prefix or "")
        books, application = replica._metrics_manager, replica._user_callable_asgi_app
        assert application is not None
        told = scope[TOLD] = Told(books.get_num_ongoing_requests() >= replica.max_ongoing_requests)
        books.inc_num_ongoing_requests(self._metadata)
        started = perf_counter()
        try:
            await application(scope, receive, send)
        finally:
            books.dec_num_ongoing_requests(self._metadata)
            self._record(replica, scope["method"], told, (perf_counter() - started) * 1000)

    def _record(self, replica: Replica, method: str, told: Told, milliseconds: float) -> None:
        books, status = replica._metrics_manager, str(told.status)
        books.record_request_metrics(
            route=told.route,
            latency_ms=milliseconds,
            is_error=told.status >= 500,
            exception_type="HTTP" + status if told.status >= 500 else None,
        )
        books.record_ingress_request_metrics(
            protocol=RequestProtocol.HTTP,
            method=_label(method),
            route=told.route,
            app_name=replica._deployment_id.app_name,
            deployment_name=replica._deployment_id.name,
            latency_ms=milliseconds,
            is_error=told.status >= 400,
            status_code=status,
        )


def _look_who_reaches(host: str | None) -> None:
    """Logs an error where HAProxy on other machines cannot reach this replica. `host`: Ray Serve's
    http_options.host.
    """
    with contextlib.suppress(ValueError):  # a name: whoever gives one knows where it leads
        if (
            ipaddress.ip_address("127.0.0.1" if host == "localhost" else host or "").is_loopback
            and _machines() > 1
        ):
            log.error(
                "http_options.host is %s, and this Ray has several machines: HAProxy on the others cannot "
                "reach this replica; "
                "set it to 0.0.0.0 (docs/serving.md)",
                host,
            )


def _machines() -> int:
    """How many this Ray has; those of a test that share one are told apart by their addresses."""
    return (
        len({node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]})
        if ray.is_initialized()
        else 1
    )


def _label(method: str) -> str:
    """The method in metrics: one of a few, whatever a client invents."""
    return method if method in METHODS else "other"


def _straight(replica: Replica, scope: Scope) -> bool:
    """Whether the request is the application's, and the application is on this event loop."""
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    if (
        replica._user_callable_asgi_app is None
        or replica._user_callable_wrapper._run_user_code_in_separate_thread
    ):
        return False
    return path.startswith(replica._route_prefix or "/") and path not in ("/-/healthz", "/-/routes")


def _replica(app: ASGIApp) -> Replica | None:
    """Whose method `app` is, below the middleware that Ray itself puts around it; None where anything that is
    used is not there.
    """
    found = getattr(getattr(app, "_app", app), "__self__", None)
    manager = getattr(found, "_metrics_manager", None)
    there = all(hasattr(found, name) for name in Replica.__annotations__) and all(
        hasattr(manager, name) for name in BOOKS
    )
    return found if there else None


def share(host: str, port: int, owner: str, keep_alive_s: int) -> None:
    """Has this process's replica listen on a shared port too (`serve.on_ray.shared_port`), once Ray starts
    its HTTP server.
    """
    _shared[:] = [(host, port, owner, keep_alive_s)]


def middlewares() -> list[Middleware]:
    """What Ray calls."""
    return [Middleware(Straight)]
