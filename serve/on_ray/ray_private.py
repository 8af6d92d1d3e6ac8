"""The direct path of a request, from a replica's HTTP server to the application: private parts of Ray Serve.

This is the only module of the project's serving half that uses private parts of Ray, and
`serve.on_ray.ingress` is the only one that imports it. `direct_path` raises an exception if anything differs
from the version of Ray that this module was written for; the caller then takes Ray's public way.

Ray 2.60 makes a context, metadata of a dozen fields, two ids, a turn of a semaphore and three wrappers for
every request that HAProxy sends to a replica (docs/http.md has the cost). The application does not need them:
it has its own deadlines, bounded queue and request ids, and it notices clients that leave. What Ray needs is
kept: the number of ongoing requests, which scaling and draining read, and Ray's metrics.
"""

from __future__ import annotations

import inspect
from typing import Any, Protocol

import ray
from starlette.types import ASGIApp, Scope

from serve.http.parsing import TOLD, Told
from serve.on_ray.haproxy_process import METHODS, RAY

METRICS_METHODS: dict[str, tuple[str, ...]] = {
    "inc_num_ongoing_requests": ("request_metadata",),
    "dec_num_ongoing_requests": ("request_metadata",),
    "get_num_ongoing_requests": (),
    "record_request_metrics": ("route", "latency_ms", "is_error", "exception_type"),
    "record_ingress_request_metrics": (
        "protocol",
        "method",
        "route",
        "app_name",
        "deployment_name",
        "latency_ms",
        "is_error",
        "status_code",
    ),
}
"""The methods that are used of Ray's ReplicaMetricsManager, with their arguments."""
_OF_RAY = ("/-/healthz", "/-/routes")


class UnknownRay(Exception):
    """This is not the Ray that this module was written for."""


class Replica(Protocol):
    """What is used of Ray's own class. A test compares it with the installed Ray."""

    _route_prefix: str | None
    _deployment_id: Any
    _metrics_manager: Any
    _user_callable_asgi_app: ASGIApp | None
    _user_callable_wrapper: Any
    _shutting_down: bool
    max_ongoing_requests: int


class DirectPath:
    """Passes requests to the application directly, and counts them as Ray does."""

    def __init__(self, replica: Replica, metadata: Any, http: Any) -> None:
        self._replica = replica
        self._metadata = metadata  # Ray reads only the protocol from it
        self._http = http

    @property
    def host(self) -> str | None:
        """Ray Serve's `http_options.host`, where it is known."""
        return getattr(getattr(self._replica, "_http_options", None), "host", None)

    @property
    def shutting_down(self) -> bool:
        """Whether Ray stops this replica."""
        return self._replica._shutting_down

    @property
    def application(self) -> ASGIApp:
        """The application of the replica; `start` has checked that there is one."""
        application = self._replica._user_callable_asgi_app
        assert application is not None
        return application

    def start(self, scope: Scope) -> Told | None:
        """Counts a request and prepares its scope. None: this request is for Ray.

        These take Ray's way: its own routes, a path outside the application's prefix, and a replica whose
        application has its own event loop.
        """
        replica = self._replica
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        prefix = replica._route_prefix or "/"
        if (
            replica._user_callable_asgi_app is None
            or replica._user_callable_wrapper._run_user_code_in_separate_thread
            or not path.startswith(prefix)
            or path in _OF_RAY
        ):
            return None
        metrics = replica._metrics_manager
        told = Told(metrics.get_num_ongoing_requests() >= replica.max_ongoing_requests)
        metrics.inc_num_ongoing_requests(self._metadata)
        if prefix != "/":
            scope["root_path"] = scope.get("root_path", "") + prefix
        scope[TOLD] = told
        return told

    def finish(self, method: str, told: Told, milliseconds: float) -> None:
        """Counts the answer; every `start` that did not return None needs one `finish`."""
        replica, status = self._replica, str(told.status)
        metrics = replica._metrics_manager
        metrics.dec_num_ongoing_requests(self._metadata)
        metrics.record_request_metrics(
            route=told.route,
            latency_ms=milliseconds,
            is_error=told.status >= 500,
            exception_type="HTTP" + status if told.status >= 500 else None,
        )
        metrics.record_ingress_request_metrics(
            protocol=self._http,
            method=metric_method(method),
            route=told.route,
            app_name=replica._deployment_id.app_name,
            deployment_name=replica._deployment_id.name,
            latency_ms=milliseconds,
            is_error=told.status >= 400,
            status_code=status,
        )


def metric_method(method: str) -> str:
    """The label of an HTTP method in metrics: one of a few, because clients can invent methods."""
    return method if method in METHODS else "other"


def direct_path(app: ASGIApp) -> DirectPath:
    """The direct path around `app`, which is Ray's own handler below Ray's own middleware.

    Raises:
        UnknownRay: the version, an attribute or a signature is not the known one.
        Exception: whatever a private part of another Ray raises.
    """
    if ray.__version__ != RAY:
        raise UnknownRay(f"Ray is {ray.__version__}, not {RAY}")
    from ray.serve._private.common import RequestMetadata, RequestProtocol

    replica: Any = getattr(getattr(app, "_app", app), "__self__", None)
    for name in Replica.__annotations__:
        if not hasattr(replica, name):
            raise UnknownRay(f"Ray's replica has no {name}")
    for name, arguments in METRICS_METHODS.items():
        signature = inspect.signature(getattr(replica._metrics_manager, name))
        if name.startswith(("inc", "dec")):
            signature.bind(*arguments)
        else:
            signature.bind(**dict.fromkeys(arguments))
    metadata = RequestMetadata(
        "", "", is_streaming=True, _request_protocol=RequestProtocol.HTTP, is_direct_ingress=True
    )
    return DirectPath(replica, metadata, RequestProtocol.HTTP)
