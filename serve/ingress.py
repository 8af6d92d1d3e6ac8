"""What Ray Serve is told of each request in a replica behind HAProxy: deadlines and clients that go are the application's own business.

Ray would start two tasks a request, to watch for a client that goes and to hold a time limit, and wait for either; `serve.routes` does both
for less (a timer, and a task only for what takes longer than most). Ray 2.60 leaves it to whoever asks with these two headers. They are
added here rather than by clients, by a middleware that Ray loads in the replica (RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH).
"""

from __future__ import annotations

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

ENVIRONMENT = {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve.ingress.middlewares"}
"""For replicas alone: a proxy may run where this package is not installed."""
_ASKED = [(b"x-request-disconnect-disabled", b"?1"), (b"x-request-timeout-seconds", b"0")]


class Unwatched:
    """ASGI middleware: adds the headers. Ray takes the last of a name, so a client's own do not count."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["headers"] = [*scope["headers"], *_ASKED]
        await self._app(scope, receive, send)


def middlewares() -> list[Middleware]:
    """What Ray calls."""
    return [Middleware(Unwatched)]
