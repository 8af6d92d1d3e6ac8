"""A load generator with a fixed rate of arrivals, which does not slow down when the server does.

    python -m tests.performance.openloop --url http://127.0.0.1:8000 --phases 10:100,20:400 --out samples.json
    python -m tests.performance.openloop --url http://127.0.0.1:8000 --closed 32:5 --out samples.json

A generator that waits for an answer before it asks again asks less of a slow server, and never sees the wait
of those who would have come meanwhile (coordinated omission). Here each request has its time on a schedule,
is sent then whatever became of the others, and its latency counts from that time. `closed` is the other kind,
a number of connections that each ask again at once: for measuring what a server can do.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from clickbait.errors import ConfigError
from tests.performance.keepalive import MAX_CONNECTIONS, Pool, Request

MAX_REQUESTS, MAX_SECONDS = 1_000_000, 1800.0  # of a run: its samples lie in memory, and nobody waits longer


@dataclass(frozen=True, slots=True)
class Sample:
    """One request and what became of it."""

    at: float
    """Seconds from the run's start to the time it was due."""
    seconds: float
    """From the time it was due to the end of its answer, or to its failure."""
    status: int
    """Of the answer; 0: there was none."""
    version: str
    """The model that the answer names; empty if none."""
    error: str
    """The body's error_type, or how the connection failed; empty for a good answer."""


def run(
    url: str,
    phases: list[tuple[float, float]],
    texts: list[str],
    *,
    path: str = "/classify",
    timeout_s: float = 10.0,
    start: float | None = None,
) -> list[Sample]:
    """Sends at the rates of `phases`, each (seconds, requests a second), and returns a sample for each
    request, in order of schedule.

    `start` is a time of `time.monotonic`, which all processes of a machine share; None: now.

    Raises:
        ConfigError: no phase or text, or more requests or seconds than a run may have.
    """
    due = _schedule(phases)
    load = _Load(url, path, texts, timeout_s)
    return asyncio.run(load.at(due, start if start is not None else time.monotonic()))


def closed(
    url: str, connections: int, seconds: float, texts: list[str], *, path: str = "/classify"
) -> list[Sample]:
    """Asks over `connections` connections, each again as soon as it has its answer, for `seconds`.

    Raises:
        ConfigError: no text, or more connections or seconds than a run may have.
    """
    if not (1 <= connections <= MAX_CONNECTIONS and 0 < seconds <= MAX_SECONDS):
        raise ConfigError(
            f"closed {connections}:{seconds:g}: 1 to {MAX_CONNECTIONS} connections and at most "
            f"{MAX_SECONDS:g} s"
        )
    return asyncio.run(_Load(url, path, texts, timeout_s=10.0).again_and_again(connections, seconds))


def parse_phases(text: str) -> list[tuple[float, float]]:
    """`10:100,20:400` as pairs.

    Raises:
        ConfigError: not of that form.
    """
    try:
        return [
            (float(seconds), float(rate)) for seconds, rate in (phase.split(":") for phase in text.split(","))
        ]
    except ValueError:
        raise ConfigError(
            f"{text!r}: phases are seconds:rate with commas between, such as 10:100,20:400"
        ) from None


def _schedule(phases: list[tuple[float, float]]) -> list[float]:
    """When each request is due, in seconds from the start."""
    if not phases or not all(seconds > 0 and rate >= 0 for seconds, rate in phases):
        raise ConfigError("phases: each is seconds above 0 and requests a second, such as 10:100,20:400")
    count, lasts = sum(seconds * rate for seconds, rate in phases), sum(seconds for seconds, _ in phases)
    if count > MAX_REQUESTS or lasts > MAX_SECONDS:
        raise ConfigError(
            f"phases: {count:,.0f} requests in {lasts:,.0f} s: ask for at most {MAX_REQUESTS:,} in "
            f"{MAX_SECONDS:,.0f} s"
        )
    due, begin = [], 0.0
    for seconds, rate in phases:
        due += [begin + index / rate for index in range(round(seconds * rate))]
        begin += seconds
    return due


class _Load:
    """The requests of one run, and their samples."""

    def __init__(self, url: str, path: str, texts: list[str], timeout_s: float) -> None:
        where = urlsplit(url)
        if where.scheme != "http" or where.hostname is None or not texts:
            raise ConfigError(f"{url}: an http:// URL and at least one text are needed")
        self._pool = Pool(where.hostname, where.port or 80, timeout_s, self._done)
        self._payloads = [_payload(where.netloc, path, text) for text in texts]
        self._samples: list[Sample] = []
        self._start = 0.0
        self._then: Callable[[], object] = lambda: None

    async def at(self, due: list[float], start: float) -> list[Sample]:
        self._start = start
        watching = asyncio.create_task(self._pool.watch())
        for index, at in enumerate(due):
            if (wait := start + at - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            elif index % 64 == 0:
                await asyncio.sleep(0)  # behind the schedule: answers are read meanwhile
            self._ask(index, start + at)
        return await self._end(watching)

    async def again_and_again(self, connections: int, seconds: float) -> list[Sample]:
        self._start = time.monotonic()
        watching = asyncio.create_task(self._pool.watch())
        loop, asked = asyncio.get_running_loop(), 0

        def again() -> None:
            nonlocal asked
            if time.monotonic() < self._start + seconds and asked < MAX_REQUESTS:
                asked += 1
                self._ask(asked, time.monotonic())

        self._then = lambda: loop.call_soon(again)  # when the connection is free again
        for _ in range(connections):
            again()
        await asyncio.sleep(seconds)
        return await self._end(watching)

    def _ask(self, index: int, due: float) -> None:
        self._pool.ask(Request(due, self._payloads[index % len(self._payloads)]))

    def _done(self, due: float, now: float, status: int, version: str, error: str) -> None:
        self._samples.append(Sample(round(due - self._start, 6), round(now - due, 6), status, version, error))
        self._then()

    async def _end(self, watching: asyncio.Task[None]) -> list[Sample]:
        self._pool.end()
        await watching
        return sorted(self._samples, key=lambda sample: sample.at)


def _payload(host: str, path: str, text: str) -> bytes:
    body = json.dumps({"text": text}).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: "
        f"{len(body)}\r\n\r\n"
    )
    return head.encode() + body


def main() -> None:
    """Loads a server and writes the samples."""
    parser = argparse.ArgumentParser(description="Loads a server at a fixed rate of arrivals.")
    parser.add_argument("--url", required=True)
    parser.add_argument("--path", default="/classify")
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--phases", help="seconds:requests a second, with commas between")
    kind.add_argument("--closed", help="connections:seconds")
    parser.add_argument("--start", type=float, help="a time of time.monotonic(); now if not given")
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds until a request counts as lost")
    parser.add_argument("--seed", type=int, default=0, help="of the headlines")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    from clickbait.sample import generate

    texts = [text for text, _ in generate(4000, given.seed)]
    if given.phases:
        samples = run(
            given.url,
            parse_phases(given.phases),
            texts,
            path=given.path,
            timeout_s=given.timeout,
            start=given.start,
        )
    else:
        connections, seconds = parse_phases(given.closed)[0]
        samples = closed(given.url, int(connections), seconds, texts, path=given.path)
    given.out.write_text(json.dumps([asdict(sample) for sample in samples]), encoding="utf-8")


if __name__ == "__main__":
    main()
