"""The HTTP api: routes, limits, and one table from exception to status. The same under uvicorn and in a Ray Serve replica.

    GET /  /healthz  /readyz  /model  /docs      POST /classify {"text"}      POST /classify/batch {"texts"}

The two POST routes are parsed by hand, without FastAPI: they are the hot path, where FastAPI's own layers cost a third of the throughput
of an empty handler. `serve.openapi` documents them.
"""

from __future__ import annotations

import asyncio
import logging
import re
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.responses import Response
from fastapi_offline import FastAPIOffline
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clickbait.errors import (
    BadRequest,
    BodyTooLarge,
    DeadlineExceeded,
    InvalidText,
    NotReady,
    Overloaded,
    TooManyTexts,
    UnsupportedMediaType,
)
from serve.openapi import Health, Model, document, errors
from serve.parsing import ClientGone, Parsed, check_headers, parse_many, parse_one, read_body
from serve.service import Service
from serve.settings import Settings

log = logging.getLogger(__name__)


STATUS: dict[type[Exception], int] = {
    BadRequest: 400,
    BodyTooLarge: 413,
    UnsupportedMediaType: 415,
    InvalidText: 422,
    TooManyTexts: 422,  # the body is well-formed and small enough; what it asks for is not
    Overloaded: 429,
    NotReady: 503,
    DeadlineExceeded: 504,
}
"""Whatever is not here is a 500, and says nothing of what it was."""

_RETRY = frozenset({429, 503})
_REQUEST_ID = "x-request-id"
_GOOD_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_ID_KEY = "clickbait.request_id"  # in the ASGI scope


def create_app(service: Service, settings: Settings, *, under_ray: bool = False) -> FastAPI:
    """The application. `service` may still be loading: until it is ready, /readyz and the POST routes answer 503.

    `under_ray`: Ray Serve itself returns the x-request-id header, and cancels the handler of a client that has gone. Elsewhere both
    are done here.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await service.close()

    app = FastAPIOffline(  # /docs with nothing from a CDN: a closed network has none
        title="Clickbait detector",
        version="1",
        description="Scores headlines: the probability that they are clickbait.",
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False, "operation_spans": False},
    )
    # A redirect for OAuth, which there is none of.
    app.router.routes[:] = [route for route in app.router.routes if getattr(route, "path", "") != app.swagger_ui_oauth2_redirect_url]
    app.router.routes += [
        Route("/classify", _Post(parse_one, service, settings, watch=not under_ray), methods=["POST"]),
        Route("/classify/batch", _Post(parse_many, service, settings, watch=not under_ray), methods=["POST"]),
    ]

    def health(status: str | None = None) -> Health:
        status = status or ("ready" if service.ready else "not ready")
        message = "Clickbait detector: POST a headline to /classify; /docs shows how"
        return Health.model_validate({"message": message, "status": status, "model": service.version})

    @app.get("/", summary="Health, for people", responses=errors(500))
    async def root() -> Health:
        return health()

    @app.get("/healthz", summary="The process is alive", responses=errors(500))
    async def healthz() -> Health:
        return health("alive")

    @app.get("/readyz", summary="A model is loaded and warmed", responses=errors(500, 503))
    async def readyz() -> Health:
        if not service.ready:
            raise NotReady("no model is loaded, or the server shuts down: try again after Retry-After seconds")
        return health()

    @app.get("/model", summary="The version that is served", responses=errors(500, 503))
    async def model() -> Model:
        return Model.model_validate(service.summary())

    @app.exception_handler(HTTPException)
    async def no_route(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        kind = HTTPStatus(error.status_code).phrase.title().replace(" ", "")
        told = {404: "no such route: /docs lists them", 405: "the route does not take this method: /docs shows which"}
        body = _error(told.get(error.status_code, kind), kind, request.scope)
        return _Json(body, error.status_code, headers=dict(error.headers or {}))

    app.openapi = lambda: _cached_document(app, settings)  # type: ignore[method-assign]
    app.add_middleware(_Guard, retry_after_s=settings.retry_after_s, echo_id=not under_ray)
    return app


class _Guard:
    """Outermost: gives each request its id, and makes an answer of every exception."""

    def __init__(self, app: ASGIApp, retry_after_s: int, echo_id: bool) -> None:
        self._app = app
        self._retry_after = str(retry_after_s)
        self._echo_id = echo_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = scope[_ID_KEY] = _request_id(scope)
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                if self._echo_id:
                    MutableHeaders(scope=message)[_REQUEST_ID] = request_id
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except ClientGone:
            return
        except Exception as error:
            if started:
                raise
            await self._answer(error, scope)(scope, receive, sending)

    def _answer(self, error: Exception, scope: Scope) -> Response:
        status = next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)
        if status == 500:
            log.error("request %s failed", scope[_ID_KEY], exc_info=error)
            return _Json(_error("the server failed: report it with the request_id", "InternalError", scope), 500)
        headers = {"retry-after": self._retry_after} if status in _RETRY else None
        return _Json(_error(str(error), type(error).__name__, scope), status, headers=headers)


class _Post:
    """A thin ASGI route: reads the body within its limits, parses it, classifies, answers."""

    def __init__(self, parse: Callable[[bytes, Settings], Parsed], service: Service, settings: Settings, *, watch: bool) -> None:
        self._parse = parse
        self._service = service
        self._settings = settings
        self._watch = watch

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        deadline = asyncio.get_running_loop().time() + self._settings.timeout_s
        check_headers(Headers(scope=scope), self._settings.max_body_bytes)
        try:
            async with asyncio.timeout_at(deadline):
                body = await read_body(receive, self._settings.max_body_bytes)
        except TimeoutError:
            raise DeadlineExceeded("the body did not come in time: send it faster, or less of it") from None
        texts, single = self._parse(body, self._settings)
        work = self._service.classify(texts, deadline)
        results = await (_unless_gone(work, receive) if self._watch else work)
        await _Json(results[0] if single else {"results": results})(scope, receive, send)


async def _unless_gone(work: Coroutine[Any, Any, list[dict[str, Any]]], receive: Receive) -> list[dict[str, Any]]:
    """What `work` gives; where the client goes first, `work` is cancelled, so that nobody computes for him."""
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_gone(receive))
    watching.add_done_callback(lambda _: working.cancel())
    try:
        return await working
    except asyncio.CancelledError:
        if watching.done() and not watching.cancelled():
            raise ClientGone from None
        raise
    finally:
        watching.cancel()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _request_id(scope: Scope) -> str:
    given = Headers(scope=scope).get(_REQUEST_ID, "")
    return given if _GOOD_ID.fullmatch(given) else uuid.uuid4().hex


def _error(told: str, kind: str, scope: Scope) -> dict[str, str]:
    return {"error": told, "error_type": kind, "request_id": scope[_ID_KEY]}


class _Json(Response):
    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content)


def _cached_document(app: FastAPI, settings: Settings) -> dict[str, Any]:
    if app.openapi_schema is None:
        app.openapi_schema = document(app, settings)
    return app.openapi_schema
