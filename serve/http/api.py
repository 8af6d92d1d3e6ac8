"""The HTTP API: it dispatches requests, and one table maps exceptions to statuses.

    GET /  /healthz  /readyz  /model  /metrics  /docs
    GET /v2  /v2/health/live  /v2/health/ready  /v2/models/...
    POST /classify {"text"}  /classify/batch {"texts"}  /predict {"inputs"}  /explain {"text"}
    POST /v2/models/NAME/infer

It is the same under uvicorn and in a Ray Serve replica. The POST routes (`serve.http.routes`) do not pass
through FastAPI; everything else does (`serve.http.pages`). `serve.http.openapi` documents both.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
import secrets
from http import HTTPStatus
from time import perf_counter

import orjson
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope, Send

from clickbait.errors import (
    BadRequest,
    BodyTooLarge,
    DeadlineExceeded,
    InvalidText,
    NotReady,
    Overloaded,
    TooManyTexts,
    Unauthorized,
    UnknownModel,
    UnsupportedMediaType,
)
from serve.core.metrics import CANCELLED, CLIENT_GONE
from serve.core.service import Service
from serve.http import pages, v2
from serve.http.keys import CHALLENGE, Keys, needs_key
from serve.http.parsing import TOLD, ClientGone, Incoming, headers_of
from serve.http.routes import JSON, Header, posts
from serve.settings import Settings

log = logging.getLogger(__name__)


STATUS: dict[type[Exception], int] = {
    BadRequest: 400,
    Unauthorized: 401,
    UnknownModel: 404,
    BodyTooLarge: 413,
    UnsupportedMediaType: 415,
    InvalidText: 422,
    TooManyTexts: 422,  # the body is well-formed and small enough; what it asks for is not
    Overloaded: 429,
    NotReady: 503,
    DeadlineExceeded: 504,
}
"""Whatever is not here is a 500, and says nothing of what it was."""

_TOLD = {
    404: "no such route: /docs lists them",
    405: "the route does not take this method: /docs shows which",
}
_RETRY = frozenset({429, 503})
_REQUEST_ID = b"x-request-id"
_GOOD_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_FULL = "as many requests as this replica may have are under way: try again after Retry-After seconds"
_INTERNAL = (500, "InternalError", "the server failed: report it with the request_id")


def create_app(service: Service, settings: Settings, *, under_ray: bool = False) -> Api:
    """Creates the application.

    `service` may still be loading: until it is ready, /readyz and the POST routes answer 503. The
    application's lifespan starts the service's polling and closes the service.

    Args:
        service: the model and its metrics.
        settings: the limits and the keys.
        under_ray: Ray Serve returns the x-request-id header itself, except on the direct path of
            `serve.on_ray.ingress`.

    Raises:
        ConfigError: the keys that clients must send cannot be read.
    """
    return Api(service, settings, under_ray=under_ray)


class Api:
    """The ASGI application: request id, key, route, answer or error, metrics."""

    def __init__(self, service: Service, settings: Settings, *, under_ray: bool) -> None:
        self._keys = Keys(settings)
        self._pages = pages.create(service, settings, self._keys)
        self._posts = posts(service, settings)
        self._metrics = service.metrics
        self._retry_after_s = settings.retry_after_s
        self._echo_id = not under_ray
        server = secrets.token_hex(8).encode()
        self._ids = (
            b"%b%08x" % (server, number) for number in itertools.count()
        )  # nobody else's, and a uuid costs ten times as much

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._pages(scope, receive, send)
            return
        started = perf_counter()
        headers = headers_of(scope)
        given = headers.get(_REQUEST_ID)
        request_id = given if given is not None and _GOOD_ID.fullmatch(given) else next(self._ids)
        request = Incoming(
            scope["path"].removeprefix(scope.get("root_path", "")), headers, request_id, started
        )
        told = scope.get(TOLD)
        echoed = [(_REQUEST_ID, request_id)] if self._echo_id or told else []
        post = self._posts.get(request.path) or (self._posts[v2.INFER] if v2.is_infer(request.path) else None)
        if scope["method"] == "HEAD":
            scope, send = {**scope, "method": "GET"}, _without_body(send)
        if post is None or scope["method"] != "POST":
            post_only = post is not None and (request.path, scope["method"]) != ("/", "GET")
            name = post.name if post is not None and post_only else pages.name_of(request.path)
            status = await self._get(request, scope, receive, send, echoed, post_only=post_only)
        else:
            name = post.name
            try:
                if told and told.full:
                    raise Overloaded(_FULL)
                if self._keys:
                    self._keys.check(headers)
                await post(request, receive, send, echoed)
                status = 200
            except (ClientGone, asyncio.CancelledError) as gone:
                self._metrics.count_unanswered(
                    name, CLIENT_GONE if isinstance(gone, ClientGone) else CANCELLED
                )
                if told:
                    told.route = name  # its status says already that nobody was answered
                if isinstance(gone, ClientGone):
                    return
                raise
            except Exception as error:
                status = await self._refuse(error, request, send, echoed)
        self._metrics.count_answer(name, status, perf_counter() - started)
        if told:
            told.route, told.status = name, status

    async def _get(
        self,
        request: Incoming,
        scope: Scope,
        receive: Receive,
        send: Send,
        echoed: list[Header],
        *,
        post_only: bool,
    ) -> int:
        """Answers what is not posted to a POST route; returns the status."""
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *echoed]
            await send(message)

        try:
            if post_only:
                raise HTTPException(
                    405, headers={"allow": "GET, HEAD, POST" if request.path == "/" else "POST"}
                )
            if self._keys and needs_key(request.path):
                self._keys.check(request.headers)
            await self._pages(scope, receive, sending)
            if (error := pages.raised(scope)) is not None:
                raise error
        except Exception as error:
            if status:  # the answer is half sent: the server cuts the connection
                raise
            status = await self._refuse(error, request, send, echoed)
        return status

    async def _refuse(self, error: Exception, request: Incoming, send: Send, echoed: list[Header]) -> int:
        """Sends the answer that the table has for `error`; returns its status."""
        more: list[Header] = []
        status, kind, told = _INTERNAL
        if isinstance(error, HTTPException):
            status, kind = error.status_code, HTTPStatus(error.status_code).phrase.title().replace(" ", "")
            told = _TOLD.get(status, kind)
            more = [
                (name.lower().encode(), _with_head(value).encode())
                for name, value in (error.headers or {}).items()
            ]
        elif found := next((STATUS[base] for base in type(error).__mro__ if base in STATUS), None):
            status, kind, told = found, type(error).__name__, str(error)
        else:
            log.error("request %s failed", request.request_id.decode(), exc_info=error)
        if status in _RETRY:
            more = [(b"retry-after", b"%d" % max(self._retry_after_s, getattr(error, "retry_after_s", 0)))]
        elif status == 401:
            more = [(b"www-authenticate", CHALLENGE)]
        body = orjson.dumps({"error": told, "error_type": kind, "request_id": request.request_id.decode()})
        headers = [*JSON, (b"content-length", b"%d" % len(body)), *more, *echoed]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        return status


def _without_body(send: Send) -> Send:
    """For HEAD: what GET answers, with the length of the body that it leaves out."""

    async def sending(message: Message) -> None:
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    return sending


def _with_head(allowed: str) -> str:
    """An `allow` header: FastAPI knows nothing of HEAD, which every route that takes GET takes too."""
    return "GET, HEAD" if allowed == "GET" else allowed
