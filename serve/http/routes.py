"""The POST routes, from bytes to bytes, without FastAPI, whose layers cost more (docs/http.md).

A route is a `Post`: check the headers, read the body, parse the texts, score them, send two messages. Errors
are raised, and `serve.http.api` answers them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from time import perf_counter
from typing import Any

import orjson
from starlette.types import Receive, Send

from serve.core.engine import Answer
from serve.core.service import Service
from serve.http import explain, predict, v2
from serve.http.parsing import JSON_TYPES, ClientGone, Incoming, check_headers, read_body, text_of, texts_of
from serve.settings import Settings

Header = tuple[bytes, bytes]
Rendered = tuple[bytes, list[Header]]
Asked = tuple[list[str], Callable[[Answer], Rendered]]
"""The texts to score, and how to answer."""
JSON: list[Header] = [(b"content-type", b"application/json")]
_WATCH_AFTER_S = 0.01  # most are answered by then, and need nobody to see whether their client is still there


class Post:
    """A route. `name` is what metrics call it, `types` the content types that it takes."""

    def __init__(
        self,
        name: str,
        read: Callable[[Incoming], Asked],
        service: Service,
        settings: Settings,
        *,
        types: frozenset[bytes] = JSON_TYPES,
    ) -> None:
        self.name = name
        self._read = read
        self._service = service
        self._limit = settings.max_body_bytes
        self._timeout_s = settings.timeout_s
        self._types = types

    async def __call__(self, request: Incoming, receive: Receive, send: Send, echoed: list[Header]) -> None:
        """Answers `request` with 200, or raises an exception that `serve.http.api` has a status for.

        The answer has the headers `echoed` among its own.
        """
        deadline = asyncio.get_running_loop().time() + self._timeout_s
        check_headers(request.headers, self._limit, self._types)
        request.body = await read_body(receive, self._limit, deadline)
        arrived = perf_counter()
        texts, render = self._read(request)
        parsed = perf_counter()
        work = self._service.score(texts, deadline, version=request.version)
        answer = await _unless_gone(work, receive)
        body, headers = render(answer)
        timing = b"parse;dur=%.2f, queue;dur=%.2f, compute;dur=%.2f, total;dur=%.2f" % (
            (parsed - arrived) * 1000,
            answer.queued_s * 1000,
            answer.computed_s * 1000,
            (perf_counter() - request.started) * 1000,
        )
        headers = [*headers, (b"content-length", b"%d" % len(body)), (b"server-timing", timing), *echoed]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def _unless_gone(work: Coroutine[Any, Any, Answer], receive: Receive) -> Answer:
    """Awaits `work`, and cancels it if the client leaves first."""
    watch = _Watch(receive)
    try:
        return await work
    except asyncio.CancelledError:
        if watch.gone:
            raise ClientGone from None
        raise
    finally:
        watch.end()


class _Watch:
    """Cancels the task that created it once the client has left.

    It starts after a delay, because one task per request costs more than parsing it.
    """

    def __init__(self, receive: Receive) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.gone = False
        self._task = task
        self._receive = receive
        self._watching: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(_WATCH_AFTER_S, self._begin)

    def end(self) -> None:
        self._timer.cancel()
        if self._watching is not None:
            self._watching.cancel()

    def _begin(self) -> None:
        self._watching = asyncio.get_running_loop().create_task(self._until_gone())

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        self._task.cancel()


def posts(service: Service, settings: Settings) -> dict[str, Post]:
    """Each route by its path; the inference protocol's, which has names in its path, is under `v2.INFER`."""

    def one(request: Incoming) -> Asked:
        return [text_of(request.body, settings)], _one

    def many(request: Incoming) -> Asked:
        return texts_of(request.body, settings), _many

    def ranked(request: Incoming) -> Asked:
        asked = predict.asked_of(request.body, settings, nested=request.path == "/")
        return asked.texts, lambda answer: (asked.render(answer), JSON)

    def explained(request: Incoming) -> Asked:
        text = text_of(request.body, settings)
        words = explain.words_of(text, settings)
        return explain.occluded(text, words), lambda answer: (
            orjson.dumps(explain.explanation(answer, words)),
            JSON,
        )

    def inferred(request: Incoming) -> Asked:
        asked = v2.asked_of(request, service, settings)
        return asked.texts, asked.render

    ranking = Post("/predict", ranked, service, settings)
    return {
        "/classify": Post("/classify", one, service, settings),
        "/classify/batch": Post("/classify/batch", many, service, settings),
        "/predict": ranking,
        "/": ranking,
        "/explain": Post("/explain", explained, service, settings),
        v2.INFER: Post("/v2/infer", inferred, service, settings, types=v2.TYPES),
    }


def _one(answer: Answer) -> Rendered:
    return orjson.dumps(answer.scorer.result(answer.scores[0])), JSON


def _many(answer: Answer) -> Rendered:
    result = answer.scorer.result
    return orjson.dumps({"results": [result(score) for score in answer.scores]}), JSON
