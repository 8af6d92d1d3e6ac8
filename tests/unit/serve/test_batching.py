"""The batcher's promises, on an engine that the test starts and stops by hand: no clock, no sleep.

Work-conserving, bounded, in order of arrival, without starvation; whoever has gone is not computed; who fails
fails alone; what was accepted is answered, and in time (there on a clock of the test's own).
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import selectors
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clickbait.errors import DeadlineExceeded, NotReady, Overloaded
from serve.core.batching import Batch, Batcher, Outcome

NEVER = 1e9  # a deadline that does not come
POISON = "poison"


def number_of(text: str) -> int:
    """The request's, of a text that `Bench.submit` made."""
    return int(text.split()[1])


def value(text: str) -> float:
    return float(sum(text.encode()))


class Engine:
    """Keeps of the real one: it holds its thread while it computes, fails a batch as a whole, and a score
    depends on the text alone.
    """

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.released = 0
        self._go = threading.Semaphore(0)

    def __call__(self, texts: list[str]) -> Sequence[float]:
        self.batches.append(texts)
        assert self._go.acquire(timeout=60)
        if any(POISON in text for text in texts):
            raise ArithmeticError("poisoned")
        return [value(text) for text in texts]

    @property
    def busy(self) -> bool:
        return len(self.batches) > self.released

    def release(self, times: int = 1) -> None:
        self.released += times
        self._go.release(times)


class Bench:
    """A batcher on an engine, and requests whose texts tell whose they are."""

    def __init__(self, **limits: Any) -> None:
        self.engine = Engine()
        self.batcher = Batcher(self.engine, **limits)
        self.requests: list[asyncio.Task[list[float]]] = []
        self.texts: list[list[str]] = []

    async def submit(
        self, size: int = 1, *, poison: bool = False, deadline: float = NEVER
    ) -> asyncio.Task[list[float]]:
        name = f"{POISON if poison else 'request'} {len(self.requests)}"
        self.texts.append([f"{name} text {index}" for index in range(size)])
        self.requests.append(asyncio.ensure_future(self._scores(self.texts[-1], deadline)))
        await asyncio.sleep(0)
        return self.requests[-1]

    async def _scores(self, texts: list[str], deadline: float) -> list[float]:
        return (await self.batcher.submit(texts, [1] * len(texts), deadline)).scores

    async def settle(self) -> None:
        """Until the engine computes or has nothing to compute, and every callback has run."""
        while self.batcher._worker is not None and not self.engine.busy:  # noqa: ASYNC110  # the engine is on its thread
            await asyncio.sleep(0)
        for _ in range(5):
            await asyncio.sleep(0)

    async def step(self) -> list[str]:
        """Lets the batch that is computed end, and gives the next."""
        assert self.engine.busy
        self.engine.release()
        await self.settle()
        return self.engine.batches[-1] if self.engine.busy else []

    async def drain(self) -> None:
        await self.settle()
        while self.engine.busy:
            await self.step()


@pytest.fixture(scope="module", autouse=True)
def _only_our_garbage() -> Iterator[None]:
    """`run` collects what its scenario left; beside all that torch and Ray hold in a session of tests, that
    takes most of a second.
    """
    gc.freeze()
    yield
    gc.unfreeze()


def run(scenario: Callable[[Bench], Awaitable[Any]], **limits: int) -> None:
    """Runs the scenario on a loop that reports what nobody caught."""
    uncaught: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: uncaught.append(context))
        bench = Bench(**limits)
        try:
            await scenario(bench)
        finally:
            bench.engine.release(10_000)
            await bench.batcher.close()
            await asyncio.gather(*bench.requests, return_exceptions=True)

    asyncio.run(main())
    gc.collect()
    assert not uncaught


def test_an_idle_engine_computes_a_lone_request_at_once() -> None:
    async def scenario(bench: Bench) -> None:
        request = await bench.submit()
        await bench.settle()
        assert bench.engine.batches == bench.texts
        assert bench.batcher.waiting == 0
        await bench.step()
        assert await request == [value(bench.texts[0][0])]

    run(scenario, max_tokens=32)


def test_what_waits_when_the_engine_is_free_is_one_batch() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.submit()
        await bench.settle()
        for size in (1, 2, 1, 3):
            await bench.submit(size)
        assert len(bench.engine.batches) == 1
        oldest_five = [*bench.texts[1], *bench.texts[2], *bench.texts[3], *bench.texts[4][:1]]
        assert await bench.step() == oldest_five
        assert await bench.step() == bench.texts[4][1:]

    run(scenario, max_tokens=5)


def test_no_text_needs_no_engine() -> None:
    async def scenario(bench: Bench) -> None:
        assert (await bench.batcher.submit([], [], NEVER)).scores == []
        assert bench.engine.batches == []

    run(scenario)


def test_the_queue_is_bounded_and_a_place_that_is_left_is_free() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.submit()
        await bench.settle()  # in the engine: it does not wait
        waiting = [await bench.submit() for _ in range(3)]
        with pytest.raises(Overloaded, match="3 requests wait"):
            await bench.batcher.submit(["more"], [1], NEVER)
        waiting[1].cancel()
        await bench.settle()
        assert bench.batcher.waiting == 2
        again = await bench.submit()
        await bench.drain()
        assert await again == [value(bench.texts[4][0])]
        assert not any(text == bench.texts[2][0] for batch in bench.engine.batches for text in batch)

    run(scenario, max_tokens=1, max_waiting=3)


def test_a_deadline_that_passes_is_not_computed() -> None:
    async def scenario(bench: Bench) -> None:
        loop = asyncio.get_running_loop()
        now = [0.0]
        loop.time = lambda: now[0]  # type: ignore[method-assign]
        with pytest.raises(DeadlineExceeded):
            await bench.batcher.submit(["too late from the start"], [1], 0.0)
        first = await bench.submit(deadline=1.0)
        second = await bench.submit(deadline=2.0)
        third = await bench.submit(2, deadline=3.0)
        await bench.settle()
        assert bench.engine.batches == [bench.texts[0]]
        now[0] = 2.5
        await bench.settle()
        for late in (first, second):  # the first is being computed, the second waits: neither waits longer
            with pytest.raises(DeadlineExceeded):
                await late
        assert await bench.step() == bench.texts[2][:1]
        now[0] = 3.5
        await bench.settle()
        with pytest.raises(DeadlineExceeded):
            await third
        assert await bench.step() == []  # its second text is not computed
        assert bench.engine.batches == [bench.texts[0], bench.texts[2][:1]]

    run(scenario, max_tokens=1)


def test_who_has_just_gone_is_not_taken() -> None:
    """Within one tick of the loop: the caller had no turn yet to leave the queue himself."""

    async def scenario(bench: Bench) -> None:
        await bench.submit()
        await bench.settle()
        gone = await bench.submit()
        gone.cancel()
        assert bench.batcher._take() == []

    run(scenario)


def test_a_deadline_holds_where_its_timer_is_late() -> None:
    async def scenario(bench: Bench) -> None:
        loop = asyncio.get_running_loop()
        now = [0.0]
        loop.time = lambda: now[0]  # type: ignore[method-assign]
        await bench.submit()
        await bench.settle()
        late = await bench.submit(deadline=1.0)
        now[0] = 1.5
        assert bench.batcher._take() == []  # in this very tick: no timer has run
        with pytest.raises(DeadlineExceeded):
            await late

    run(scenario)


def test_a_failing_item_fails_alone() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.submit()
        await bench.settle()
        good, bad, large = await bench.submit(2), await bench.submit(poison=True), await bench.submit(9)
        await bench.drain()
        with pytest.raises(ArithmeticError, match="poisoned"):
            await bad
        assert await good == [value(text) for text in bench.texts[1]]
        assert await large == [value(text) for text in bench.texts[3]]
        assert (await bench.batcher.submit([], [], NEVER)).scores == []

    run(scenario, max_tokens=4)


@pytest.mark.parametrize(
    "raised",
    [StopIteration(), SystemExit(1), BaseException("a panic in Rust"), TimeoutError("the engine's own")],
)
def test_whatever_the_engine_raises_reaches_the_caller_and_the_next_is_served(raised: BaseException) -> None:
    async def scenario() -> None:
        def engine(texts: list[str]) -> list[float]:
            if "bad" in texts:
                raise raised
            return [1.0] * len(texts)

        batcher = Batcher(engine)
        with pytest.raises((RuntimeError, TimeoutError)) as caught:
            await batcher.submit(["bad"], [1], NEVER)
        assert not isinstance(caught.value, DeadlineExceeded)
        assert (await batcher.submit(["good"], [1], NEVER)).scores == [1.0]
        await batcher.close()

    asyncio.run(scenario())


def test_an_engine_that_miscounts_is_an_error_and_not_another_ones_score() -> None:
    async def scenario() -> None:
        batcher: Batcher[str] = Batcher(lambda texts: [0.5])
        with pytest.raises(RuntimeError, match="1 scores for 2 items"):
            await batcher.submit(["one", "two"], [1, 1], NEVER)
        await batcher.close()

    asyncio.run(scenario())


def test_small_requests_wait_for_one_slice_of_a_large_one_and_for_nothing_else_of_it() -> None:
    async def scenario(bench: Bench) -> None:
        large = await bench.submit(12)
        await bench.settle()
        small = [await bench.submit() for _ in range(3)]
        assert await bench.step() == [*bench.texts[1], *bench.texts[2], *bench.texts[3]]
        assert await bench.step() == bench.texts[0][4:8]
        assert all(request.done() for request in small)
        await bench.drain()
        assert await large == [value(text) for text in bench.texts[0]]

    run(scenario, max_tokens=4)


def test_large_requests_are_computed_one_after_the_other() -> None:
    async def scenario(bench: Bench) -> None:
        first = await bench.submit(7)
        await bench.settle()
        second, third = await bench.submit(6), await bench.submit(5)
        assert await bench.step() == bench.texts[0][4:] + bench.texts[1][:1]
        assert await bench.step() == bench.texts[1][1:5]
        assert first.done()
        assert await bench.step() == bench.texts[1][5:] + bench.texts[2][:3]
        assert not second.done()
        assert await bench.step() == bench.texts[2][3:]
        assert second.done()
        await bench.drain()
        assert third.done()

    run(scenario, max_tokens=4)


def test_who_goes_while_a_failed_batch_is_tried_again_is_not_computed() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.submit()
        await bench.settle()
        await bench.submit(poison=True)
        gone, stays = await bench.submit(), await bench.submit()
        await bench.step()
        assert await bench.step() == bench.texts[1]  # alone
        gone.cancel()
        assert await bench.step() == bench.texts[3]
        await bench.drain()
        assert stays.done()

    run(scenario)


def test_a_large_request_is_done_however_many_small_ones_come() -> None:
    """A flood that fills the queue again after each batch: every second batch is the large one's."""

    async def scenario(bench: Bench) -> None:
        large = await bench.submit(20)
        await bench.settle()
        batches = 0
        while not large.done():
            while bench.batcher.waiting < 8:
                await bench.submit()
            await bench.step()
            batches += 1
            assert batches <= 5 * 2

    run(scenario, max_tokens=4, max_waiting=8)


def test_close_answers_what_was_accepted_and_refuses_the_rest() -> None:
    async def scenario(bench: Bench) -> None:
        requests = [await bench.submit(size) for size in (1, 7, 2)]
        await bench.settle()
        closing = asyncio.ensure_future(bench.batcher.close())
        await bench.settle()
        assert bench.batcher.closing
        with pytest.raises(NotReady):
            await bench.batcher.submit(["new"], [1], NEVER)
        assert not closing.done()
        await bench.drain()
        await closing
        for request, texts in zip(requests, bench.texts, strict=True):
            assert request.result() == [value(text) for text in texts]
        await bench.batcher.close()  # twice is fine

    run(scenario, max_tokens=3)


def test_a_storm_of_cancellations_leaves_nothing_behind() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.submit()
        await bench.settle()
        storm = [await bench.submit(2) for _ in range(200)]
        for request in storm[::2]:
            request.cancel()
        bench.requests[0].cancel()  # the one that is being computed
        await bench.settle()
        assert bench.batcher.waiting == 100
        await bench.drain()
        computed = {text for batch in bench.engine.batches[1:] for text in batch}
        assert computed == {text for texts in bench.texts[2::2] for text in texts}
        assert [request.result() for request in storm[1::2]] == [
            [value(text) for text in texts] for texts in bench.texts[2::2]
        ]

    run(scenario, max_tokens=8)


_OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.integers(1, 11), st.sampled_from([False, False, False, True])),
        st.tuples(st.just("cancel"), st.integers(0, 50), st.none()),
        st.tuples(st.just("step"), st.none(), st.none()),
    ),
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(
    operations=_OPERATIONS, max_tokens=st.integers(1, 6), max_waiting=st.integers(1, 8), close=st.booleans()
)
def test_any_history(operations: list[Any], max_tokens: int, max_waiting: int, close: bool) -> None:
    async def scenario(bench: Bench) -> None:
        gone: dict[int, int] = {}  # request to the number of batches begun when it was cancelled
        poisoned = set()
        for kind, number, poison in operations:
            if kind == "submit":
                if poison:
                    poisoned.add(len(bench.requests))
                full = bench.batcher.waiting >= max_waiting
                request = await bench.submit(number, poison=poison)
                await bench.settle()
                assert request.done() == full  # refused at once, or accepted
            elif kind == "cancel" and bench.requests:
                index = number % len(bench.requests)
                if bench.requests[index].cancel():
                    gone[index] = len(bench.engine.batches)
            elif kind == "step" and bench.engine.busy:
                batch = await bench.step()
                if not poisoned:
                    large = any(len(bench.texts[number_of(text)]) > max_tokens for text in batch)
                    left = bench.batcher._short.queue or (large and bench.batcher._long.queue)
                    assert (
                        not left or len(batch) == max_tokens
                    )  # full, where something is left over that may come with it
            await bench.settle()
            assert bench.batcher.waiting <= max_waiting + 1  # the rest of a large one has its place
            assert bench.engine.busy or not bench.batcher.waiting  # work-conserving
        if close:
            closing = asyncio.ensure_future(bench.batcher.close())
            await bench.drain()
            await closing
        else:
            await bench.drain()
        assert bench.batcher.waiting == 0
        computed = [text for batch in bench.engine.batches for text in batch]
        assert all(len(batch) <= max_tokens for batch in bench.engine.batches)
        for index, (request, texts) in enumerate(zip(bench.requests, bench.texts, strict=True)):
            assert request.done()
            if index in gone:
                after = [text for batch in bench.engine.batches[gone[index] :] for text in batch]
                assert not set(after) & set(texts)
            elif isinstance(request.exception(), Overloaded):
                assert not set(computed) & set(texts)
            elif index in poisoned:
                assert isinstance(request.exception(), ArithmeticError)
            else:
                assert request.result() == [value(text) for text in texts]
                assert poisoned or all(computed.count(text) == 1 for text in texts)

    run(scenario, max_tokens=max_tokens, max_waiting=max_waiting)


@settings(max_examples=60, deadline=None)
@given(arrivals=st.lists(st.lists(st.integers(1, 14), max_size=4), max_size=25), max_tokens=st.integers(1, 5))
def test_large_and_small_requests_take_turns(arrivals: list[list[int]], max_tokens: int) -> None:
    """Whoever waits, waits for at most one batch of the other kind before each batch of the own, and both
    kinds keep their order.
    """

    async def scenario(bench: Bench) -> None:
        passed = {True: 0, False: 0}  # batches since the kind (large or not) had one, while it waited
        begun: dict[bool, list[int]] = {True: [], False: []}
        waiting_before = {True: False, False: False}

        def is_large(number: int) -> bool:
            return len(bench.texts[number]) > max_tokens

        for sizes in [*arrivals, *[[]] * 200]:
            for size in sizes:
                await bench.submit(size)
            await bench.settle()
            if not bench.engine.busy:
                continue
            batch = bench.engine.batches[-1]
            numbers = list(dict.fromkeys(number_of(text) for text in batch))
            for kind in (True, False):
                of_kind = [number for number in numbers if is_large(number) == kind]
                begun[kind] += [number for number in of_kind if number not in begun[kind]]
                passed[kind] = 0 if of_kind or not waiting_before[kind] else passed[kind] + 1
                assert passed[kind] <= 1
            lines = {True: bench.batcher._long, False: bench.batcher._short}
            waiting_before = {kind: bool(line.queue) for kind, line in lines.items()}
            bench.engine.release()
            await bench.settle()
        for kind in (True, False):
            assert begun[kind] == sorted(begun[kind])

    run(scenario, max_tokens=max_tokens)


class Lengths:
    """An engine whose items are their lengths: it notes the batches, and its score of an item is ten times
    it.
    """

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.threads: set[str] = set()

    def __call__(self, items: list[int]) -> list[float]:
        self.batches.append(items)
        self.threads.add(threading.current_thread().name)
        return [10.0 * item for item in items]


@settings(max_examples=100, deadline=None)
@given(
    requests=st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=12), max_size=12),
    max_tokens=st.integers(1, 120),
)
def test_a_batch_keeps_within_its_tokens_and_is_sorted(requests: list[list[int]], max_tokens: int) -> None:
    engine = Lengths()
    seen: list[Batch] = []

    async def main() -> list[Any]:
        batcher = Batcher(engine, max_tokens=max_tokens, observe=seen.append)
        found = await asyncio.gather(*(batcher.submit(items, items, NEVER) for items in requests))
        await batcher.close()
        return found

    for items, outcome in zip(requests, asyncio.run(main()), strict=True):
        assert outcome.scores == [10.0 * item for item in items]
        assert outcome.queued_s >= 0.0 < outcome.computed_s
    assert sorted(item for batch in engine.batches for item in batch) == sorted(
        item for items in requests for item in items
    )
    for batch, told in zip(engine.batches, seen, strict=True):
        assert batch == sorted(batch)
        assert len(batch) == 1 or batch[-1] * len(batch) <= max_tokens
        assert (told.items, told.tokens, told.padded) == (len(batch), sum(batch), batch[-1] * len(batch))
    for batch, then in itertools.pairwise(
        engine.batches if all(len(items) == 1 for items in requests) else []
    ):  # full
        assert max(batch[-1], then[-1]) * (len(batch) + 1) > max_tokens


def test_a_long_item_is_not_passed_over_for_short_ones() -> None:
    engine = Lengths()

    async def main() -> None:
        batcher = Batcher(engine, max_tokens=40)
        await asyncio.gather(*(batcher.submit([length], [length], NEVER) for length in (10, 10, 40, 1, 1, 1)))
        await batcher.close()

    asyncio.run(main())
    assert engine.batches == [[10, 10], [40], [1, 1, 1]]


def test_a_batch_that_is_quick_is_computed_where_it_is() -> None:
    async def main(inline_s: float) -> set[str]:
        engine = Lengths()
        batcher = Batcher(engine, inline_s=inline_s)
        await batcher.submit([1], [1], NEVER)  # nothing is known of the engine's speed yet
        engine.threads.clear()
        await batcher.submit([1], [1], NEVER)
        await batcher.close()
        return engine.threads

    assert asyncio.run(main(0.0)) == {"engine_0"}
    assert asyncio.run(main(60.0)) == {threading.main_thread().name}


def test_a_loop_that_computes_takes_its_connections() -> None:
    connections, batches = 40, 600

    async def main() -> int:
        engine, loop, came, before = (
            Lengths(),
            asyncio.get_running_loop(),
            list[asyncio.Task[Any]](),
            list[int](),
        )

        def slow(items: list[int]) -> Sequence[float]:
            time.sleep(0.001)
            return engine(items)

        batcher = Batcher(slow, max_tokens=1, max_waiting=batches, inline_s=0.003)
        await batcher.submit([1], [1], NEVER)  # on the thread: nothing is known of the engine's speed yet

        class Asks(asyncio.Protocol):
            def data_received(self, data: bytes) -> None:
                before.append(len(engine.batches))
                came.append(loop.create_task(batcher.submit([1], [1], NEVER)))

        server = await loop.create_server(Asks, "127.0.0.1", 0, backlog=connections)
        clients = [socket.create_connection(server.sockets[0].getsockname()) for _ in range(connections)]
        for client in clients:
            client.send(b"?")
        busy = [loop.create_task(batcher.submit([1], [1], NEVER)) for _ in range(batches - connections)]
        await asyncio.gather(*busy)
        await asyncio.gather(*came)
        for client in clients:
            client.close()
        server.close()
        await batcher.close()
        assert len(before) == connections
        return before[-1]

    assert uvloop.run(main()) < batches / 4


TOKEN_S = 0.001  # of the engine below
TIMEOUT_S = 5.0


class Clock(selectors.DefaultSelector):
    """Time that passes only while an engine computes or everybody sleeps: five seconds of a loop take
    milliseconds, and always the same.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "everybody waits, and nobody will come"
        self.now += timeout
        return super().select(0)


class Timed:
    """A batcher whose engine takes TOKEN_S for a token, on a loop with a clock of its own."""

    def __init__(self, clock: Clock, factor: float = 1.0, **limits: Any) -> None:
        self.computed = 0  # tokens
        self.answered = 0  # tokens, of requests that were answered in time
        self.late = 0
        self.refused: list[int] = []
        self.waits: list[float] = []  # of single items
        self.factor = factor  # by which the engine is slower than it was when it was warmed

        def compute(items: list[int]) -> list[float]:
            clock.now += sum(items) * TOKEN_S * self.factor
            self.computed += sum(items)
            return [1.0] * len(items)

        self.batcher = Batcher(compute, **({"max_tokens": 20, "token_s": TOKEN_S} | limits))

    async def ask(self, items: list[int]) -> int:
        """Retry-After where it was refused, else 0."""
        loop = asyncio.get_running_loop()
        came = loop.time()
        try:
            await self.batcher.submit(items, items, came + TIMEOUT_S)
        except Overloaded as error:
            self.refused.append(error.retry_after_s)
            return error.retry_after_s
        except DeadlineExceeded:
            self.late += 1
        else:
            self.answered += sum(items)
            if len(items) == 1:
                self.waits.append(loop.time() - came)
        return 0


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Timed], Awaitable[None]]], Timed]:
    """Runs a scenario on a clock of its own."""

    def run_timed(scenario: Callable[[Timed], Awaitable[None]], **limits: Any) -> Timed:
        clock = Clock()
        loop = asyncio.SelectorEventLoop(clock)
        loop.time = lambda: clock.now  # type: ignore[method-assign]

        def on_the_loop(
            _: Any, function: Any, *args: Any
        ) -> asyncio.Future[Any]:  # a thread would have real time
            future = loop.create_future()
            loop.call_soon(lambda: future.set_result(function(*args)))
            return future

        loop.run_in_executor = on_the_loop  # type: ignore[assignment, method-assign]
        monkeypatch.setattr("serve.core.batching.time", SimpleNamespace(perf_counter=lambda: clock.now))
        bench = Timed(clock, **limits)
        try:
            loop.run_until_complete(scenario(bench))
            loop.run_until_complete(bench.batcher.close())
        finally:
            loop.close()
        return bench

    return run_timed


LARGE = [5] * 50  # a quarter of a second: twelve of them take three seconds, and forty take ten


@pytest.mark.parametrize("clients", [12, 40])
def test_clients_of_large_requests_get_what_the_engine_can_do(clients: int, timed: Any) -> None:
    """They ask again at once, or after Retry-After. Nothing is computed in vain, and a single item beside
    them hardly waits.
    """

    async def scenario(bench: Timed) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + 40.0

        async def client() -> None:
            while loop.time() < end:  # noqa: ASYNC110  # it asks meanwhile
                await asyncio.sleep(await bench.ask(LARGE))

        async def singles() -> None:
            while loop.time() < end:
                await asyncio.sleep(0.1)
                await bench.ask([5])

        await asyncio.gather(singles(), *(client() for _ in range(clients)))

    bench = timed(scenario)
    assert bench.late == 0
    assert bench.answered == bench.computed > 0.98 * 40.0 / TOKEN_S
    assert bool(bench.refused) == (clients == 40)
    assert max(bench.waits) <= 2 * 20 * TOKEN_S + 0.01


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arrivals=st.lists(st.tuples(st.floats(0.0, 0.6), st.integers(1, 150)), max_size=60))
def test_what_is_admitted_is_answered_in_time(arrivals: list[tuple[float, int]], timed: Any) -> None:
    """Whatever comes when, of large requests. Who is refused fits after the seconds that it was told, if
    nobody else comes.
    """

    async def scenario(bench: Timed) -> None:
        async with asyncio.TaskGroup() as group:
            for pause, size in arrivals:
                await asyncio.sleep(pause)
                group.create_task(bench.ask([5] * (4 + size)))
        refused = len(bench.refused)
        if refused:
            assert min(bench.refused) >= 1

    bench = timed(scenario)
    assert bench.late == 0
    assert bench.answered == bench.computed


def test_retry_after_is_when_the_request_fits(timed: Any) -> None:
    async def scenario(bench: Timed) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(40):
                group.create_task(bench.ask(LARGE))
            await asyncio.sleep(0.1)
            wait = await bench.ask(LARGE)
            assert wait >= 1
            await asyncio.sleep(wait)
            assert await bench.ask(LARGE) == 0
        assert bench.late == 0

    timed(scenario)


def test_an_engine_that_gets_slower_spends_nothing_on_who_will_be_late(timed: Any) -> None:
    async def scenario(bench: Timed) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(40):
                group.create_task(bench.ask(LARGE))
            await asyncio.sleep(0.5)
            bench.factor = 3.0

    bench = timed(scenario)
    assert bench.computed - bench.answered <= sum(LARGE) * max(bench.late, 1)
    assert bench.late <= 1


def test_an_estimate_that_is_wrong_is_put_right(timed: Any) -> None:
    """A warm-up beside a busy neighbour: by its measure not even one request fits. The idle engine takes it,
    and measures.
    """

    async def scenario(bench: Timed) -> None:
        for _ in range(4):
            assert await bench.ask(LARGE) == 0
        await asyncio.gather(*(bench.ask(LARGE) for _ in range(4)))

    bench = timed(scenario, token_s=100 * TOKEN_S)
    assert (bench.late, bench.refused) == (0, [])


def test_singles_that_cannot_be_answered_in_time_are_refused(timed: Any) -> None:
    """Beside large requests singles have at least half of the engine; more than that is refused, and nobody
    is late.
    """

    async def scenario(bench: Timed) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            for _ in range(10):
                group.create_task(bench.ask(LARGE))
            while loop.time() < 20.0:
                for _ in range(30):  # one and a half times what the engine can do
                    group.create_task(bench.ask([5]))
                await asyncio.sleep(0.1)

    bench = timed(scenario, max_waiting=100_000)
    assert bench.late == 0
    assert bench.refused
    assert bench.answered == bench.computed


def test_a_burst_of_singles_beside_large_requests_is_admitted_as_far_as_its_half_goes(timed: Any) -> None:
    async def scenario(bench: Timed) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(9):
                group.create_task(bench.ask(LARGE))
            await asyncio.sleep(0.05)
            for _ in range(790):  # four seconds of work, which would fit alone
                group.create_task(bench.ask([5]))

    bench = timed(scenario, max_waiting=100_000)
    assert bench.late == 0
    assert bench.refused
    assert bench.answered == bench.computed


def test_a_bug_in_the_batcher_is_seen_and_hangs_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        raised = [ZeroDivisionError("in a metric")]

        def observe(batch: Batch) -> None:
            if raised:
                raise raised.pop()

        batcher = Batcher(Lengths(), max_tokens=1, observe=observe)
        first, *others = await asyncio.gather(
            *(batcher.submit([1], [1], NEVER) for _ in range(3)), return_exceptions=True
        )
        assert isinstance(first, Outcome)
        assert all(isinstance(other, RuntimeError) for other in others)
        assert (await batcher.submit([1], [1], NEVER)).scores == [10.0]
        await batcher.close()

    asyncio.run(scenario())
    assert "the batcher failed" in caplog.text
