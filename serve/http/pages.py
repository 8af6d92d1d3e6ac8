"""The routes that FastAPI serves: health, model, metrics, the inference protocol's metadata, docs.

`serve.http.api` stands in front of it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from clickbait.errors import NotReady
from serve.core.service import Service
from serve.http import v2
from serve.http.keys import Keys
from serve.http.openapi import document, errors
from serve.http.parsing import headers_of
from serve.http.schemas import Health, Live, Model, ModelMetadata, ModelReady, Ready, ServerMetadata
from serve.settings import Settings

_RAISED = "clickbait.raised"  # in the ASGI scope
_METRICS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus' text format"}
}
_NAMES = (
    "/",
    "/healthz",
    "/readyz",
    "/model",
    "/metrics",
    "/v2",
    "/v2/health/live",
    "/v2/health/ready",
    "/docs",
    "/openapi.json",
)


def create(service: Service, settings: Settings, keys: Keys) -> FastAPI:
    """The pages. An exception of a route is not answered: `raised` has it."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
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
    app.router.routes[:] = [
        route
        for route in app.router.routes
        if getattr(route, "path", "") != app.swagger_ui_oauth2_redirect_url
    ]
    _add_health(app, service, keys)
    _add_inference_protocol(app, service)

    @app.exception_handler(HTTPException)
    async def no_route(_: Request, error: Exception) -> Response:
        raise error

    app.openapi = lambda: _cached_document(app, settings)  # type: ignore[method-assign]
    app.add_middleware(_Keep)
    return app


def name_of(path: str) -> str:
    """What metrics call a request for `path`: one of a few names, whatever is asked for."""
    if path in _NAMES:
        return path
    return "/v2/models" if path.startswith("/v2/models/") else "other"


def raised(scope: Scope) -> Exception | None:
    """What the route of a finished request raised."""
    error = scope.get(_RAISED)
    assert error is None or isinstance(error, Exception)
    return error


class _Keep:
    """Keeps a route's exception for `raised`: Starlette's outermost layer would answer it itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except Exception as error:
            if scope["type"] != "http":
                raise
            scope[_RAISED] = error


def _add_health(app: FastAPI, service: Service, keys: Keys) -> None:
    def health(request: Request, **instead: str) -> Health:
        """The state of the server; a client with a key gets all fields.

        The reason of a refusal names the registry's bucket, so it is not shown to everybody.
        """
        message = "Clickbait detector: POST a headline to /classify; /docs shows how"
        found = service.health()
        if not keys.among(headers_of(request.scope)):
            found = {"status": found["status"]}
        return Health.model_validate({"message": message, **found, **instead})

    @app.get("/", summary="Health, for people", responses=errors(500), response_model_exclude_unset=True)
    async def root(request: Request) -> Health:
        return health(request)

    @app.get(
        "/healthz", summary="The process is alive", responses=errors(500), response_model_exclude_unset=True
    )
    async def healthz(request: Request) -> Health:
        return health(request, status="alive")

    @app.get(
        "/readyz",
        summary="A model is loaded and warmed",
        responses=errors(500, 503),
        response_model_exclude_unset=True,
    )
    async def readyz(request: Request) -> Health:
        _check_ready(service)
        return health(request)

    @app.get("/model", summary="The version that is served", responses=errors(500, 503))
    async def model() -> Model:
        return Model.model_validate(service.summary())

    @app.get(
        "/metrics",
        summary="What the server counts",
        response_class=Response,
        responses={**errors(500), **_METRICS},
    )
    async def metrics() -> Response:
        return Response(service.metrics.render(), media_type=CONTENT_TYPE_LATEST)


def _add_inference_protocol(app: FastAPI, service: Service) -> None:
    @app.get("/v2", summary="Inference protocol: the server", responses=errors(500))
    async def server() -> ServerMetadata:
        return ServerMetadata.model_validate(v2.SERVER)

    @app.get("/v2/health/live", summary="Inference protocol: the process is alive", responses=errors(500))
    async def live() -> Live:
        return Live(live=True)

    @app.get("/v2/health/ready", summary="Inference protocol: a model is loaded", responses=errors(500, 503))
    async def ready() -> Ready:
        _check_ready(service)
        return Ready(ready=True)

    of_model = errors(404, 500, 503)

    @app.get("/v2/models/{name}", summary="Inference protocol: the model", responses=of_model)
    async def model_metadata(name: str) -> ModelMetadata:
        return ModelMetadata.model_validate(v2.metadata(service, name, None))

    @app.get(
        "/v2/models/{name}/versions/{version}", summary="Inference protocol: a version", responses=of_model
    )
    async def version_metadata(name: str, version: str) -> ModelMetadata:
        return ModelMetadata.model_validate(v2.metadata(service, name, version))

    @app.get("/v2/models/{name}/ready", summary="Inference protocol: the model is loaded", responses=of_model)
    async def model_ready(name: str) -> ModelReady:
        v2.check_model(service, name, None)
        return ModelReady(name=name, ready=True)

    @app.get(
        "/v2/models/{name}/versions/{version}/ready",
        summary="Inference protocol: a version is loaded",
        responses=of_model,
    )
    async def version_ready(name: str, version: str) -> ModelReady:
        v2.check_model(service, name, version)
        return ModelReady(name=name, ready=True)


def _check_ready(service: Service) -> None:
    if not service.ready:
        raise NotReady("no model is loaded, or the server shuts down: try again after Retry-After seconds")


def _cached_document(app: FastAPI, settings: Settings) -> dict[str, Any]:
    if app.openapi_schema is None:
        app.openapi_schema = document(app, settings)
    return app.openapi_schema
