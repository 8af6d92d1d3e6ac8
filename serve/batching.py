"""Many requests, one engine: a work-conserving batcher in plain asyncio, without Ray.

It takes what waits whenever the engine is free, and never waits for more to come: an idle engine computes a lone request at once, and a
busy one finds its next batch grown by itself. A batch is filled in order of arrival. A request that is larger than a batch is computed
in slices, and goes to the back of the queue after each batch that it filled alone: whoever waits, waits for at most one slice of each
request before him, and a large request comes round again after a bounded queue.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from clickbait.errors import DeadlineExceeded, NotReady, Overloaded


class _Request:
    """Texts of one caller, the scores computed so far, and the future that he awaits."""

    __slots__ = ("deadline", "future", "scores", "texts")

    def __init__(self, texts: Sequence[str], deadline: float, future: asyncio.Future[list[float]]) -> None:
        self.texts = texts
        self.deadline = deadline
        self.future = future
        self.scores: list[float] = []


_Slice = tuple[_Request, list[str]]


class Batcher:
    """Calls `score` with lists of at most `max_batch` texts, on one thread of its own, one call at a time.

    `score` gives as many floats as it gets texts. Where it raises, each request of the batch is tried alone, so only those that
    cause it fail.
    """

    def __init__(self, score: Callable[[list[str]], Sequence[float]], *, max_batch: int = 32, max_waiting: int = 256) -> None:
        self._score = score
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._queue: OrderedDict[_Request, None] = OrderedDict()  # first come first; whoever leaves is removed at once
        self._worker: asyncio.Task[None] | None = None  # alive while there is work
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._closing = False

    @property
    def waiting(self) -> int:
        """Requests that wait for the engine; the one it computes is not among them."""
        return len(self._queue)

    @property
    def closing(self) -> bool:
        """Whether `close` was called: what was accepted is still answered, nothing more is taken."""
        return self._closing

    async def submit(self, texts: Sequence[str], deadline: float) -> list[float]:
        """The scores of `texts`, in their order. `deadline` is a time of the running loop's clock.

        Raises:
            Overloaded: `max_waiting` requests wait already.
            DeadlineExceeded: the deadline passed; what was not computed yet is not computed any more.
            NotReady: `close` was called.
        """
        if self._closing:
            raise NotReady("the server shuts down: send the request again, another replica takes it")
        if len(self._queue) >= self._max_waiting:
            raise Overloaded(f"{self._max_waiting} requests wait already: try again after Retry-After seconds")
        if not texts:
            return []
        loop = asyncio.get_running_loop()
        request = _Request(texts, deadline, loop.create_future())
        self._queue[request] = None
        if self._worker is None:
            self._worker = loop.create_task(self._work())
        try:
            async with asyncio.timeout_at(deadline) as timeout:
                return await request.future
        except TimeoutError:
            if timeout.expired():
                raise _late() from None
            raise  # the engine's own
        finally:
            self._queue.pop(request, None)

    async def close(self) -> None:
        """Takes nothing more, answers what was accepted, ends the thread."""
        self._closing = True
        if self._worker is not None:
            await asyncio.wait([self._worker])
        self._executor.shutdown(wait=False)

    async def _work(self) -> None:
        """Computes until nothing waits."""
        try:
            while batch := self._take():
                await self._compute(batch)
        finally:
            self._worker = None  # no await since the queue was seen empty, so nobody is forgotten

    def _take(self) -> list[_Slice]:
        """The next batch, from the front of the queue."""
        now = asyncio.get_running_loop().time()
        batch: list[_Slice] = []
        room = self._max_batch
        while self._queue and room:
            request, _ = self._queue.popitem(last=False)
            if request.future.done():  # its client has gone
                continue
            if request.deadline <= now:  # its timer is due, and has only not run yet
                request.future.set_exception(_late())
                continue
            start = len(request.scores)
            texts = list(request.texts[start : start + room])
            batch.append((request, texts))
            room -= len(texts)
        return batch

    async def _compute(self, batch: list[_Slice]) -> None:
        """Runs one batch and hands out its scores, or the exception to those who cause it."""
        try:
            scores = await self._run([text for _, texts in batch for text in texts])
        except Exception as error:
            if len(batch) > 1:
                for part in batch:
                    if not part[0].future.done():
                        await self._compute([part])
            elif not batch[0][0].future.done():
                batch[0][0].future.set_exception(error)
            return
        start = 0
        for request, texts in batch:
            self._deliver(request, scores[start : start + len(texts)])
            start += len(texts)

    def _deliver(self, request: _Request, scores: list[float]) -> None:
        """Answers the request, or queues it for the rest of its texts."""
        if request.future.done():
            return
        request.scores += scores
        if len(request.scores) == len(request.texts):
            request.future.set_result(request.scores)
            return
        self._queue[request] = None
        if len(scores) < self._max_batch:  # it only had what others left: its turn is still to come
            self._queue.move_to_end(request, last=False)

    async def _run(self, texts: list[str]) -> list[float]:
        scores = await asyncio.get_running_loop().run_in_executor(self._executor, self._call, texts)
        if len(scores) != len(texts):
            raise RuntimeError(f"the engine gave {len(scores)} scores for {len(texts)} texts")
        return list(scores)

    def _call(self, texts: list[str]) -> Sequence[float]:
        """On the engine's thread. What no future can carry (a panic in Rust is no Exception) becomes an error like others."""
        try:
            return self._score(texts)
        except BaseException as error:
            if isinstance(error, Exception) and not isinstance(error, StopIteration):
                raise
            raise RuntimeError(f"the engine failed: {type(error).__name__}") from error


def _late() -> DeadlineExceeded:
    return DeadlineExceeded("the answer did not come in time: try again, or send fewer texts")
