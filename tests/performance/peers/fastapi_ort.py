"""FastAPI and onnxruntime: pydantic models, `def` endpoints that Starlette runs on its pool of threads, the
model loaded in the lifespan.

    PEER_BUNDLE=bundle uvicorn tests.performance.peers.fastapi_ort:app --workers 2

PEER_POOL is the number of the pool's threads (Starlette's default is 40): with as many as cores, no two runs
fight for one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio.to_thread
from fastapi import FastAPI, Request
from pydantic import BaseModel, Field

from tests.performance.peers.model import Model, setting


class Headline(BaseModel):
    """A request for one."""

    text: str = Field(min_length=1, max_length=512)


class Headlines(BaseModel):
    """A request for many."""

    texts: list[str] = Field(min_length=1, max_length=256)


class Result(BaseModel):
    """The answer for a text."""

    label: str
    score: float


class Results(BaseModel):
    """The answers for many, in order."""

    results: list[Result]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Loads the model before the first request."""
    anyio.to_thread.current_default_thread_limiter().total_tokens = setting("POOL", 40)
    app.state.model = Model()
    yield


app = FastAPI(lifespan=lifespan)


@app.post("/classify")
def classify(headline: Headline, request: Request) -> Result:
    """One headline."""
    return Result(**request.app.state.model([headline.text])[0])


@app.post("/classify/batch")
def classify_batch(headlines: Headlines, request: Request) -> Results:
    """Many headlines."""
    return Results(results=[Result(**result) for result in request.app.state.model(headlines.texts)])
