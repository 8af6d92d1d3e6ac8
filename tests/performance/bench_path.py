"""Where a request's microseconds go between the server's `receive` and `send`, with a model that answers at
once.

    python -m tests.performance.bench_path

The ASGI application is called directly, without sockets, by one loop: first whole, then each stage alone.
What the stages leave of the whole is under "between". The stub keeps of the real service that its answer is
awaited and names its version. Prints a markdown table and no verdict: run it on a quiet machine. Best of
rounds, since what disturbs only adds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter
from types import SimpleNamespace
from typing import Any

import orjson
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.types import ASGIApp

from clickbait import sample
from clickbait.inference.scorer import Scorer
from serve.core.engine import Answer
from serve.core.metrics import Metrics
from serve.http.api import create_app
from serve.http.parsing import check_headers, check_text, headers_of, read_body, text_of
from serve.http.routes import JSON, _one, _unless_gone
from serve.http.schemas import Result
from serve.settings import Settings

CALLS, ROUNDS = 2000, 7
HEADERS = [
    (b"host", b"127.0.0.1:8000"),
    (b"user-agent", b"python-client/1.0"),
    (b"accept", b"*/*"),
    (b"content-type", b"application/json"),
    (b"content-length", b"62"),
]


class Stub:
    """A service that answers at once."""

    ready, version = True, "v1"

    def __init__(self) -> None:
        self.metrics = Metrics()
        manifest = SimpleNamespace(threshold=0.5, labels=("news", "clickbait"))
        scorer: Any = Scorer.__new__(Scorer)  # its own `result`, without a model
        scorer.manifest, scorer.version = manifest, "v1"
        self.scorer = scorer

    async def score(self, texts: list[str], deadline: float, *, version: str | None = None) -> Answer:
        return Answer([0.123456] * len(texts), self.scorer, 12, 0.0, 0.001)

    def start(self) -> None:
        pass

    async def close(self) -> None:
        pass


async def _sink(message: Any) -> None:
    pass


def _receiver(body: bytes) -> Callable[[], Awaitable[Any]]:
    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


def by_fastapi() -> FastAPI:
    """POST /classify as FastAPI's tutorial has it: the same work, less than half of our checks."""
    app, stub = FastAPI(), Stub()

    @app.post("/classify")
    async def classify(asked: Asked) -> Result:
        answer = await stub.score([asked.text], 0.0)
        return Result(**answer.scorer.result(answer.scores[0]))

    return app


class Asked(BaseModel):
    """The body of POST /classify."""

    text: str


async def whole(app: ASGIApp, path: str, body: bytes) -> float:
    """Microseconds of a request to `path`."""
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "root_path": "",
        "query_string": b"",
        "headers": HEADERS,
        "http_version": "1.1",
    }

    async def request() -> None:
        await app(dict(scope), _receiver(body), _sink)

    return await timed(request)


async def timed(work: Callable[[], Awaitable[object]]) -> float:
    """Microseconds of one `await work()`, the best of rounds."""
    rounds = []
    for _ in range(ROUNDS):
        started = perf_counter()
        for _ in range(CALLS):
            await work()
        rounds.append((perf_counter() - started) / CALLS * 1e6)
    return min(rounds)


async def stages(text: str, settings: Settings) -> dict[str, float]:
    """Microseconds of each stage of POST /classify, each alone."""
    body = orjson.dumps({"text": text})
    stub, scope = Stub(), {"headers": HEADERS}
    answer = await stub.score([text], 0.0)
    loop = asyncio.get_running_loop()

    def awaited(work: Callable[[], object]) -> Callable[[], Awaitable[object]]:
        async def call() -> object:
            return work()

        return call

    async def body_read() -> None:
        await read_body(_receiver(body), settings.max_body_bytes, loop.time() + 5.0)

    async def submit() -> None:
        await _unless_gone(stub.score([text], 0.0), _receiver(body))

    async def send() -> None:
        headers = [*JSON, (b"content-length", b"%d" % 60), (b"server-timing", b"x"), (b"x-request-id", b"x")]
        await _sink({"type": "http.response.start", "status": 200, "headers": headers})
        await _sink({"type": "http.response.body", "body": body})

    nothing = await timed(awaited(lambda: None))
    validated = await timed(awaited(lambda: check_text(text, "text", settings.max_characters)))
    found = {
        "headers": await timed(awaited(lambda: check_headers(headers_of(scope), settings.max_body_bytes))),
        "read body": await timed(body_read),
        "parse": await timed(awaited(lambda: text_of(body, settings))) - validated + nothing,
        "validate": validated,
        "submit, and watch for a client that goes": await timed(submit),
        "render": await timed(awaited(lambda: _one(answer))),
        "send": await timed(send),
        "count": await timed(awaited(lambda: stub.metrics.count_answer("/classify", 200, 0.001))),
    }
    return {name: max(cost - nothing, 0.0) for name, cost in found.items()}


async def main() -> None:
    """Prints the tables."""
    settings = Settings()
    texts = [text for text, _ in sample.generate(32)]
    one = orjson.dumps({"text": texts[0]})
    found = await stages(texts[0], settings)
    app: ASGIApp = create_app(Stub(), settings)  # type: ignore[arg-type]
    total = await whole(app, "/classify", one)
    print("| stage of POST /classify | µs |\n| --- | --- |")
    for name, cost in {**found, "between": total - sum(found.values())}.items():
        print(f"| {name} | {cost:.1f} |")
    print(f"| whole | {total:.1f} |\n")
    print("| request | µs |\n| --- | --- |")
    for name, asked, path, body in (
        ("`/classify`", app, "/classify", one),
        ("`/classify` written as FastAPI's tutorial has it", by_fastapi(), "/classify", one),
        ("`/classify/batch` of 32", app, "/classify/batch", orjson.dumps({"texts": texts})),
        (
            "`/predict` as huggingface_hub sends it",
            app,
            "/predict",
            orjson.dumps({"inputs": texts[0], "parameters": {}}),
        ),
    ):
        print(f"| {name} | {await whole(asked, path, body):.1f} |")


if __name__ == "__main__":
    asyncio.run(main())
