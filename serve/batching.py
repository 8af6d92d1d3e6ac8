"""Many requests, one engine: a work-conserving batcher in plain asyncio, without Ray.

It takes what waits whenever the engine is free, and never waits for more to come: an idle engine computes a lone request at once, and a
busy one finds its next batch grown by itself. A batch is filled in order of arrival up to a budget of tokens: its cost is that of the
rectangle that a padded model computes, longest x count. It is computed sorted by length. A request that is larger than a batch is computed
in slices, shortest items first, and goes to the back of the queue after each batch that it filled alone: whoever waits, waits for at most
one slice of each request before him, and a large request comes round again after a bounded queue. No item is passed over for its length.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from clickbait.errors import DeadlineExceeded, NotReady, Overloaded

T = TypeVar("T")
_FORGET = 0.1  # the newest batch's share in the estimate of what a token costs
_QUIET = 3  # turns of the loop: one accepts a connection, the next reads its request, the next brings it here


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a request comes to."""

    scores: list[float]
    """In the order of its items."""
    queued_s: float
    """Until its first item was computed, and between its slices."""
    computed_s: float
    """On the engine."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What was computed at once, for metrics."""

    items: int
    tokens: int
    """Of the items themselves."""
    padded: int
    """Of the rectangle: longest x items."""
    seconds: float
    waited_s: float
    """The longest that one of its requests had waited for it."""
    waiting: int
    """Requests that wait now."""


class _Request(Generic[T]):
    """Items of one caller, the scores computed so far, and the future that he awaits."""

    __slots__ = ("computed_s", "deadline", "done", "future", "items", "lengths", "order", "scores", "submitted")

    def __init__(self, items: Sequence[T], lengths: Sequence[int], deadline: float, future: asyncio.Future[Outcome], now: float) -> None:
        self.order = range(1) if len(items) == 1 else sorted(range(len(items)), key=lengths.__getitem__)
        self.items = items
        self.lengths = lengths
        self.deadline = deadline
        self.future = future
        self.submitted = now
        self.computed_s = 0.0
        self.done = 0  # of `order`
        self.scores = [0.0] * len(items)


_Part = tuple[_Request[T], Sequence[int]]  # a request, and which of its items


class Batcher(Generic[T]):
    """Calls `score` with lists of items worth at most `max_tokens`, or with one that is longer, one call at a time.

    `score` gives as many floats as it gets items. It runs on a thread of its own, or on the event loop where the batch is expected to take
    less than `inline_s` seconds, which saves a hop to the thread and back. Where it raises, each request of the batch is tried alone,
    so only those that cause it fail. `observe` is told of every batch.
    """

    def __init__(
        self,
        score: Callable[[list[T]], Sequence[float]],
        *,
        max_tokens: int = 512,
        max_waiting: int = 256,
        inline_s: float = 0.0,
        observe: Callable[[Batch], None] | None = None,
    ) -> None:
        self._score = score
        self._max_tokens = max_tokens
        self._max_waiting = max_waiting
        self._inline_s = inline_s
        self._observe = observe
        self._token_s: float | None = None  # seconds a token, estimated; the first batch may not keep the loop
        self._queue: OrderedDict[_Request[T], None] = OrderedDict()  # first come first; whoever leaves is removed at once
        self._worker: asyncio.Task[None] | None = None  # alive while there is work
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._closing = False
        self._came = 0  # requests, those that were refused too

    @property
    def waiting(self) -> int:
        """Requests that wait for the engine; the one it computes is not among them."""
        return len(self._queue)

    @property
    def closing(self) -> bool:
        """Whether `close` was called: what was accepted is still answered, nothing more is taken."""
        return self._closing

    async def submit(self, items: Sequence[T], lengths: Sequence[int], deadline: float) -> Outcome:
        """The scores of `items`, in their order. `lengths` are their tokens, `deadline` is a time of the running loop's clock.

        Raises:
            Overloaded: `max_waiting` requests wait already.
            DeadlineExceeded: the deadline passed; what was not computed yet is not computed any more.
            NotReady: `close` was called.
        """
        self._came += 1
        if self._closing:
            raise closing()
        if len(self._queue) >= self._max_waiting:
            raise Overloaded(f"{self._max_waiting} requests wait already: try again after Retry-After seconds")
        if not items:
            return Outcome([], 0.0, 0.0)
        loop = asyncio.get_running_loop()
        request = _Request(items, lengths, deadline, loop.create_future(), time.perf_counter())
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
            held = time.perf_counter()
            while batch := self._take():
                await self._compute(batch)
                if time.perf_counter() - held > self._inline_s:  # batches on the loop follow each other, but it has other work too
                    await self._others()
                    held = time.perf_counter()
        finally:
            self._worker = None  # no await since the queue was seen empty, so nobody is forgotten

    async def _others(self) -> None:
        """Lets the loop work until it brings nothing more, or has had as long as a batch.

        One turn is too little: uvloop accepts one connection a turn (libuv/libuv#3696), so that a proxy's new connections to a server
        that gives one turn every 20 ms wait for seconds.
        """
        quiet, end = 0, time.perf_counter() + self._inline_s
        while quiet < _QUIET:
            came = self._came
            await asyncio.sleep(0)
            quiet = quiet + 1 if self._came == came else 0
            if time.perf_counter() > end:
                break

    def _take(self) -> list[_Part[T]]:
        """The next batch, from the front of the queue."""
        now = asyncio.get_running_loop().time()
        batch: list[_Part[T]] = []
        count = longest = 0
        while self._queue:
            request = next(iter(self._queue))
            if request.future.done():  # its client has gone
                del self._queue[request]
                continue
            if request.deadline <= now:  # its timer is due, and has only not run yet
                del self._queue[request]
                request.future.set_exception(_late())
                continue
            end = request.done
            while end < len(request.order):
                longer = max(longest, request.lengths[request.order[end]])
                if count and longer * (count + 1) > self._max_tokens:
                    break
                count, longest, end = count + 1, longer, end + 1
            if end == request.done:  # full: it is the next one's first
                break
            del self._queue[request]
            batch.append((request, request.order[request.done : end]))
            if end < len(request.order):  # full in the middle of it
                break
        return batch

    async def _compute(self, batch: list[_Part[T]]) -> None:
        """Runs one batch and hands out its scores, or the exception to those who cause it."""
        pairs = [(request, index) for request, indices in batch for index in indices]
        pairs.sort(key=lambda pair: pair[0].lengths[pair[1]])
        tokens = sum(request.lengths[index] for request, index in pairs)
        start = time.perf_counter()
        try:
            scores = await self._run([request.items[index] for request, index in pairs], tokens)
        except Exception as error:
            if len(batch) > 1:
                for part in batch:
                    if not part[0].future.done():
                        await self._compute([part])
            elif not batch[0][0].future.done():
                batch[0][0].future.set_exception(error)
            return
        seconds = time.perf_counter() - start
        newest = seconds / max(tokens, 1)
        self._token_s = newest if self._token_s is None else self._token_s + _FORGET * (newest - self._token_s)
        for (request, index), score in zip(pairs, scores, strict=True):
            request.scores[index] = score
        for request, indices in batch:
            self._deliver(request, len(indices), seconds, alone=len(batch) == 1)
        if self._observe is not None:
            longest = pairs[-1][0].lengths[pairs[-1][1]]
            waited = start - min(request.submitted for request, _ in batch)
            self._observe(Batch(len(pairs), tokens, longest * len(pairs), seconds, waited, len(self._queue)))

    def _deliver(self, request: _Request[T], count: int, seconds: float, *, alone: bool) -> None:
        """Answers the request, or queues it for the rest of its items."""
        if request.future.done():
            return
        request.done += count
        request.computed_s += seconds
        if request.done == len(request.order):
            elapsed = time.perf_counter() - request.submitted
            request.future.set_result(Outcome(request.scores, max(elapsed - request.computed_s, 0.0), request.computed_s))
            return
        self._queue[request] = None
        if not alone:  # it only had what others left: its turn is still to come
            self._queue.move_to_end(request, last=False)

    async def _run(self, items: list[T], tokens: int) -> Sequence[float]:
        if self._token_s is not None and tokens * self._token_s < self._inline_s:
            scores = self._call(items)
        else:
            scores = await asyncio.get_running_loop().run_in_executor(self._executor, self._call, items)
        if len(scores) != len(items):
            raise RuntimeError(f"the engine gave {len(scores)} scores for {len(items)} items")
        return scores

    def _call(self, items: list[T]) -> Sequence[float]:
        """What no future can carry (a panic in Rust is no Exception) becomes an error like others."""
        try:
            return self._score(items)
        except BaseException as error:
            if isinstance(error, Exception) and not isinstance(error, StopIteration):
                raise
            raise RuntimeError(f"the engine failed: {type(error).__name__}") from error


def closing() -> NotReady:
    """What a request gets that comes after `close`."""
    return NotReady("the server shuts down: send the request again, another replica takes it")


def _late() -> DeadlineExceeded:
    return DeadlineExceeded("the answer did not come in time: try again, or send fewer texts")
