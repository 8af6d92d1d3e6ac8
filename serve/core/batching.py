"""Many requests, one engine: a batcher in plain asyncio, without Ray.

It takes what waits whenever the engine is free, and never waits for more to come: an idle engine computes a
lone request at once, and a busy one finds that its next batch has grown meanwhile. A batch holds up to
`max_tokens` tokens, counted as the rectangle that a padded model computes (longest x count), and is computed
sorted by length. No item is passed over for its length.

Requests wait in two lines, each first come, first served. A request that fits in one batch is short; every
other one is long, and is computed in slices, shortest items first, until it is done. While both lines wait,
their batches alternate, so

- before each batch of the short line, at most one slice of a long request is computed: a headline beside bulk
  work waits for some 20 ms;
- before each slice of the long line, at most one batch of short requests: long requests have at least half of
  the engine.

A request is admitted by time, not by number. The work that stands before it, in tokens, times the measured
seconds per token, must leave it enough time for its own work before its deadline. Otherwise it is refused at
once, with the seconds after which it would fit. `max_waiting` bounds the number of requests, and with it the
memory.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from clickbait.errors import DeadlineExceeded, NotReady, Overloaded

log = logging.getLogger(__name__)

T = TypeVar("T")
_FORGET = 0.1  # the newest batch's share in the estimate of what a token costs
_FULL = 0.5  # a batch with this share of its tokens costs per token what a full one costs
_MARGIN = (
    1.25  # an estimate is off by some percent, and an answer that is late by one millisecond is worth nothing
)
_RECENT_S = 1.0  # what short requests take of the engine is averaged over about so long
_HALF = 0.5  # the most that short requests take of the engine while a long one waits
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
    work_s: float
    """Seconds of work that wait now, estimated."""


class _Line(Generic[T]):
    """A queue of requests, first come, first served.

    `tokens` counts what is not computed yet, including the request that is in the engine.
    """

    __slots__ = ("queue", "tokens")

    def __init__(self) -> None:
        self.queue: OrderedDict[_Request[T], None] = OrderedDict()  # whoever leaves is removed at once
        self.tokens = 0


class _Request(Generic[T]):
    """Items of one caller, the scores computed so far, and the future that the caller awaits."""

    __slots__ = (
        "computed_s",
        "deadline",
        "done",
        "future",
        "items",
        "left",
        "lengths",
        "line",
        "order",
        "scores",
        "submitted",
        "waited",
    )

    def __init__(
        self,
        items: Sequence[T],
        lengths: Sequence[int],
        tokens: int,
        deadline: float,
        future: asyncio.Future[Outcome],
        line: _Line[T],
        *,
        waited: bool,
    ) -> None:
        self.order = range(1) if len(items) == 1 else sorted(range(len(items)), key=lengths.__getitem__)
        self.items = items
        self.lengths = lengths
        self.left = tokens  # not computed yet
        self.deadline = deadline
        self.future = future
        self.line = line
        self.waited = waited  # there was other work when it came
        self.submitted = time.perf_counter()
        self.computed_s = 0.0
        self.done = 0  # of `order`
        self.scores = [0.0] * len(items)


_Part = tuple[_Request[T], Sequence[int]]  # a request, and which of its items


class Batcher(Generic[T]):
    """Collects items into batches and calls `score` with one batch at a time.

    A batch has at most `max_tokens` tokens, or one item that is longer. `score` returns one float per item.
    It runs on its own thread, or on the event loop if the batch is expected to take less than `inline_s`
    seconds, which saves the way to the thread and back. If it raises an exception, each request of the batch
    is tried alone, so only the requests that cause it fail. `observe` is called with every batch. `token_s`
    is the time per token in seconds, until it is measured.
    """

    def __init__(
        self,
        score: Callable[[list[T]], Sequence[float]],
        *,
        max_tokens: int = 512,
        max_waiting: int = 256,
        inline_s: float = 0.0,
        token_s: float = 0.0,
        observe: Callable[[Batch], None] | None = None,
    ) -> None:
        self._score = score
        self._max_tokens = max_tokens
        self._max_waiting = max_waiting
        self._inline_s = inline_s
        self._observe = observe
        # of the last batches, whatever their size; where nothing is known, a batch may not keep the loop
        self._token_s = token_s or None
        self._full_token_s = token_s  # of full batches, which is what a queue is computed in
        self._short, self._long = _Line[T](), _Line[T]()
        self._long_is_next = False  # where both wait
        self._short_share = 0.0  # of the last seconds: what short requests took of the engine
        self._measured = self._round = (
            time.perf_counter()
        )  # the end of the last batch; of that, or when the engine got its work
        self._worker: asyncio.Task[None] | None = None  # alive while there is work
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._closing = False
        self._came = 0  # requests, those that were refused too

    @property
    def waiting(self) -> int:
        """Requests that wait for the engine; the one it computes is not among them."""
        return len(self._short.queue) + len(self._long.queue)

    @property
    def work_s(self) -> float:
        """Seconds of work that was accepted and is not computed yet, estimated."""
        return (self._short.tokens + self._long.tokens) * self._full_token_s

    @property
    def closing(self) -> bool:
        """Whether `close` was called: what was accepted is still answered, nothing more is taken."""
        return self._closing

    async def submit(self, items: Sequence[T], lengths: Sequence[int], deadline: float) -> Outcome:
        """Returns the scores of `items`, in their order.

        Args:
            items: what is scored.
            lengths: the tokens of each item.
            deadline: a time of the running loop's clock.

        Raises:
            Overloaded: `max_waiting` requests wait already, or the waiting work leaves too little time before the
                deadline.
            DeadlineExceeded: the deadline passed; the rest of the request is not computed.
            NotReady: `close` was called.
        """
        self._came += 1
        if self._closing:
            raise _shuts_down()
        if not items:
            return Outcome([], 0.0, 0.0)
        loop = asyncio.get_running_loop()
        if len(items) == 1:
            tokens, line = lengths[0], self._short
        else:
            tokens = sum(lengths)
            line = self._short if max(lengths) * len(items) <= self._max_tokens else self._long
        waited = bool(self._short.tokens or self._long.tokens)
        if (
            waited
        ):  # an idle engine takes everything: a wrong estimate must not refuse the work that would correct it
            self._admit(line, tokens, deadline - loop.time())
        request = _Request(items, lengths, tokens, deadline, loop.create_future(), line, waited=waited)
        line.queue[request] = None
        line.tokens += tokens
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
            line.queue.pop(request, None)
            line.tokens -= request.left
            request.left = 0

    def check(self, tokens: int, deadline: float) -> None:
        """Refuses a long request of about so many tokens as `submit` would, before somebody tokenizes it.

        Raises:
            Overloaded, DeadlineExceeded, NotReady: as `submit`.
        """
        self._came += 1
        if self._closing:
            raise _shuts_down()
        if self._short.tokens or self._long.tokens:
            self._admit(self._long, tokens, deadline - asyncio.get_running_loop().time())

    async def close(self) -> None:
        """Takes nothing more, answers what was accepted, ends the thread."""
        self._closing = True
        if self._worker is not None:
            await asyncio.wait([self._worker])
        self._executor.shutdown(wait=False)

    async def _work(self) -> None:
        """Computes until nothing waits."""
        batch: list[_Part[T]] = []
        try:
            held = self._round = time.perf_counter()
            while batch := self._take():
                await self._compute(batch)
                if (
                    time.perf_counter() - held > self._inline_s
                ):  # batches on the loop follow each other, but it has other work too
                    await self._others()
                    held = time.perf_counter()
        except Exception:  # a bug of ours: who waits is told, and the next request starts anew
            log.exception("the batcher failed")
            for request in [*(request for request, _ in batch), *self._short.queue, *self._long.queue]:
                if not request.future.done():
                    request.future.set_exception(RuntimeError("the batcher failed"))
        finally:
            self._worker = None  # no await since the queue was seen empty, so nobody is forgotten

    async def _others(self) -> None:
        """Lets the loop work until it brings nothing more, or has had as long as a batch.

        One turn is too little: uvloop accepts one connection a turn (libuv/libuv#3696), so that a proxy's new
        connections to a server that gives one turn every 20 ms wait for seconds.
        """
        quiet, end = 0, time.perf_counter() + self._inline_s
        while quiet < _QUIET:
            came = self._came
            await asyncio.sleep(0)
            quiet = quiet + 1 if self._came == came else 0
            if time.perf_counter() > end:
                break

    def _admit(self, line: _Line[T], tokens: int, left_s: float) -> None:
        """Refuses a request that has `left_s` seconds to its deadline, where that is too little.

        Raises:
            Overloaded: it is.
            DeadlineExceeded: nothing is left.
        """
        if left_s <= 0:
            raise _late()
        if self.waiting >= self._max_waiting:
            wait = f"{self._max_waiting} requests wait already: try again after Retry-After seconds"
            raise Overloaded(wait, retry_after_s=math.ceil(min(self.work_s, left_s)))
        needed_s = _MARGIN * self._seconds(line, tokens)
        if (
            needed_s > left_s
        ):  # by its deadline, all that waits now is answered or late, however wrong the estimate is
            raise _full(math.ceil(min(needed_s - left_s, left_s)))

    def _seconds(self, line: _Line[T], tokens: int) -> float:
        """How long a request that comes now would take to be done, estimated."""
        mine = line.tokens + tokens
        if line is self._short:  # at worst a slice of a long one before each batch
            total: float = mine + min(self._long.tokens, mine + self._max_tokens)
        else:  # what waits in the short line, or what goes on coming there
            total = max(mine + min(self._short.tokens, mine), mine / (1.0 - self._share()))
        return total * self._full_token_s

    def _share(self) -> float:
        """The share of the engine's time that short requests took recently, at most `_HALF`."""
        return min(self._short_share * math.exp((self._measured - time.perf_counter()) / _RECENT_S), _HALF)

    def _take(self) -> list[_Part[T]]:
        """Takes the next batch.

        A batch of short requests is not filled up with long ones: a headline would have to wait for them.
        """
        batch: list[_Part[T]] = []
        if self._long_is_next or not self._short.queue:
            longest = self._fill(batch, self._long, 0)
            self._fill(batch, self._short, longest)
            self._long_is_next = False
        else:
            self._fill(batch, self._short, 0)
            self._long_is_next = bool(self._long.queue)
            if not batch:  # all of them had gone
                self._fill(batch, self._long, 0)
        return batch

    def _fill(self, batch: list[_Part[T]], line: _Line[T], longest: int) -> int:
        """Moves requests from `line` to `batch` while they fit; returns the longest item's length."""
        queue = line.queue
        if not queue:
            return longest
        now = asyncio.get_running_loop().time()
        count = sum([len(indices) for _, indices in batch])
        while queue:
            request = next(iter(queue))
            if request.future.done():  # its client has gone
                del queue[request]
                continue
            if request.deadline <= now:  # its timer is due, and has only not run yet
                del queue[request]
                request.future.set_exception(_late())
                continue
            if (
                line is self._long
                and request.waited
                and not request.done
                and (late_s := self._late_by(request, now)) > 0
            ):
                del queue[request]  # the engine got slower since it was admitted: nothing is spent on it
                request.future.set_exception(_full(math.ceil(late_s)))
                continue
            end = request.done
            while end < len(request.order):
                longer = max(longest, request.lengths[request.order[end]])
                if count and longer * (count + 1) > self._max_tokens:
                    break
                count, longest, end = count + 1, longer, end + 1
            if end == request.done:  # full: it is the next one's first
                break
            del queue[request]
            batch.append((request, request.order[request.done : end]))
            if end < len(request.order):  # full in the middle of it
                break
        return longest

    def _late_by(self, request: _Request[T], now: float) -> float:
        """Estimates by how many seconds a request would miss its deadline if it began now.

        Its last slice may have to wait for one more batch.
        """
        return (
            now
            + (request.left + self._max_tokens) * self._full_token_s / (1.0 - self._share())
            - request.deadline
        )

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
        end = time.perf_counter()
        seconds = end - start
        longest = pairs[-1][0].lengths[pairs[-1][1]]
        self._measure(batch, len(pairs), tokens, longest * len(pairs), seconds, end)
        for (request, index), score in zip(pairs, scores, strict=True):
            request.scores[index] = score
        for request, indices in batch:
            self._deliver(request, indices, seconds)
        if self._observe is not None:
            waited = start - min(request.submitted for request, _ in batch)
            self._observe(
                Batch(len(pairs), tokens, longest * len(pairs), seconds, waited, self.waiting, self.work_s)
            )

    def _measure(
        self, batch: list[_Part[T]], items: int, tokens: int, padded: int, seconds: float, end: float
    ) -> None:
        """Keeps what a batch tells of the engine's speed, and of who had the engine."""
        newest = seconds / max(tokens, 1)
        self._token_s = (
            newest if self._token_s is None else self._token_s + _FORGET * (newest - self._token_s)
        )
        # A queue is computed at the pace of whole rounds, from the end of one batch to the end of the next:
        # the loop has other work too.
        newest = (end - self._round) / max(tokens, 1)
        if not self._full_token_s:
            self._full_token_s = newest
        elif (
            padded >= _FULL * self._max_tokens or newest < self._full_token_s
        ):  # a token costs most in a small batch
            self._full_token_s += _FORGET * (newest - self._full_token_s)
        if batch[-1][0].line is batch[0][0].line:
            of_short = float(batch[0][0].line is self._short)
        else:
            of_short = (
                sum([len(indices) for request, indices in batch if request.line is self._short]) / items
            )
        elapsed = max(end - self._measured, 1e-9)
        share = of_short * (end - self._round) / elapsed
        self._short_share += min(elapsed / _RECENT_S, 1.0) * (share - self._short_share)
        self._measured = self._round = end

    def _deliver(self, request: _Request[T], indices: Sequence[int], seconds: float) -> None:
        """Answers the request, or puts it back at the front of its line for the rest of its items."""
        if request.future.done():
            return
        request.done += len(indices)
        request.computed_s += seconds
        whole = request.done == len(request.order)
        tokens = request.left if whole else sum(map(request.lengths.__getitem__, indices))
        request.left -= tokens
        request.line.tokens -= tokens
        if whole:
            elapsed = time.perf_counter() - request.submitted
            request.future.set_result(
                Outcome(request.scores, max(elapsed - request.computed_s, 0.0), request.computed_s)
            )
        else:
            request.line.queue[request] = None
            request.line.queue.move_to_end(request, last=False)

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


def _shuts_down() -> NotReady:
    """What a request gets that comes after `close`."""
    return NotReady("the server shuts down: send the request again, another replica takes it")


def _full(retry_after_s: int) -> Overloaded:
    wait = (
        "the work that waits leaves too little time for this request: try again after Retry-After seconds, "
        "or send fewer texts"
    )
    return Overloaded(wait, retry_after_s=retry_after_s)


def _late() -> DeadlineExceeded:
    return DeadlineExceeded("the answer did not come in time: try again, or send fewer texts")
