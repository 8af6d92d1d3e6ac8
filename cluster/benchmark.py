"""Asks a server over HTTP, and says how long it took: 1,000 headlines, mean, median, p95, max, requests a
second.

    python -m cluster.benchmark --url https://clickbait-api-123456789012.europe-west4.run.app --output artifacts/bench/cloud.json
    BENCHMARK_API_KEY=... python -m cluster.benchmark --url http://127.0.0.1:8000 --requests 200 --concurrency
    4

For a server anywhere: it measures what a client there would see, network and all. A closed loop: each of
--concurrency clients keeps one connection and asks again when it was answered, so a slower server is asked
less (tests/performance/openloop.py has the other kind). One headline that is not counted is sent first on
each connection: the handshake, and on Cloud Run an instance's start, are not the speed of the server.
Headlines are generated (`clickbait.sample`). Ends with 1 where any answer was not 200.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import math
import os
import ssl
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from clickbait import cli, sample
from clickbait.errors import ConfigError, Refused, StorageError

MAX_REQUESTS, MAX_CONCURRENCY = 100_000, 256  # a benchmark, not a siege
# Variables: a command line can be read by every process of the machine.
KEY, TOKEN = "BENCHMARK_API_KEY", "BENCHMARK_IDENTITY_TOKEN"


@dataclass(frozen=True, slots=True)
class Target:
    """What is asked, and how."""

    url: str
    path: str = "/classify"
    requests: int = 1000
    concurrency: int = 16
    timeout_s: float = 30.0
    headers: dict[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"--url {self.url}: an http:// or https:// address is needed")
        if parts.path.strip("/") or parts.query or parts.fragment:
            raise ConfigError(f"--url {self.url}: the server only; the rest goes to --path")
        if not self.path.startswith("/"):
            raise ConfigError(f"--path {self.path}: starts with /")
        if not 1 <= self.requests <= MAX_REQUESTS:
            raise ConfigError(f"--requests {self.requests}: 1 to {MAX_REQUESTS}")
        if not 1 <= self.concurrency <= MAX_CONCURRENCY:
            raise ConfigError(f"--concurrency {self.concurrency}: 1 to {MAX_CONCURRENCY}")
        if not 0 < self.timeout_s <= 600:
            raise ConfigError(f"--timeout {self.timeout_s}: seconds, up to 600")


@dataclass(frozen=True, slots=True)
class Answer:
    """One request: its latency, and its status, or the name of what happened instead."""

    seconds: float
    status: str
    model: str = ""


@dataclass(frozen=True, slots=True)
class Figures:
    """Of a run; latencies in milliseconds, of answers with 200 only."""

    url: str
    requests: int
    concurrency: int
    answered: int
    statuses: dict[str, int]
    models: list[str]
    seconds: float
    requests_per_second: float
    mean_ms: float | None
    median_ms: float | None
    p95_ms: float | None
    max_ms: float | None


class Client:
    """One connection that is kept, and opened again where the server closed it."""

    def __init__(self, target: Target) -> None:
        parts = urlsplit(target.url)
        self._target = target
        self._headers = {"content-type": "application/json", "accept": "application/json", **target.headers}
        host, port = str(parts.hostname), parts.port
        self._connection: http.client.HTTPConnection
        if parts.scheme == "https":
            self._connection = http.client.HTTPSConnection(
                host, port, timeout=target.timeout_s, context=ssl.create_default_context()
            )
        else:
            self._connection = http.client.HTTPConnection(host, port, timeout=target.timeout_s)

    def ask(self, headline: str) -> Answer:
        """Sends one headline and reads the whole answer; never raises for what a server or a network does."""
        start = time.perf_counter()
        try:
            self._connection.request("POST", self._target.path, json.dumps({"text": headline}), self._headers)
            answer = self._connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            return Answer(time.perf_counter() - start, type(error).__name__)
        return Answer(
            time.perf_counter() - start, str(answer.status), _model(body) if answer.status == 200 else ""
        )

    def close(self) -> None:
        self._connection.close()


def _model(body: bytes) -> str:
    """The version that the answer names; a server of another kind may name none."""
    try:
        parsed = json.loads(body)
    except ValueError:
        return ""
    return str(parsed.get("model", "")) if isinstance(parsed, dict) else ""


def measure(target: Target, headlines: Sequence[str]) -> Figures:
    """Sends `target.requests` headlines, over and over if there are fewer.

    Raises:
        ConfigError: nobody answers at all.
    """
    number, lock = itertools.count(), threading.Lock()
    clients = [Client(target) for _ in range(min(target.concurrency, target.requests))]

    def work(client: Client) -> list[Answer]:
        answers: list[Answer] = []
        while True:
            with lock:
                index = next(number)
            if index >= target.requests:
                return answers
            answers.append(client.ask(headlines[index % len(headlines)]))

    with ThreadPoolExecutor(len(clients)) as pool:
        try:
            first = list(pool.map(lambda client: client.ask(headlines[0]), clients))  # not counted
            if not any(answer.status.isdigit() for answer in first):
                raise ConfigError(f"--url {target.url}: nobody answers there ({first[0].status})")
            start = time.perf_counter()
            answers = [answer for some in pool.map(work, clients) for answer in some]
            seconds = time.perf_counter() - start
        finally:
            for client in clients:
                client.close()
    return figures(target, answers, seconds)


def figures(target: Target, answers: Sequence[Answer], seconds: float) -> Figures:
    """What the answers come to. p95 is the latency that 95 of 100 stayed at or below (nearest rank)."""
    good = sorted(answer.seconds * 1000 for answer in answers if answer.status == "200")
    return Figures(
        url=target.url,
        requests=target.requests,
        concurrency=target.concurrency,
        answered=len(good),
        statuses=dict(sorted(Counter(answer.status for answer in answers).items())),
        models=sorted({answer.model for answer in answers} - {""}),
        seconds=round(seconds, 3),
        requests_per_second=round(len(good) / seconds, 1) if seconds > 0 else 0.0,
        mean_ms=round(statistics.fmean(good), 2) if good else None,
        median_ms=round(statistics.median(good), 2) if good else None,
        p95_ms=round(good[math.ceil(0.95 * len(good)) - 1], 2) if good else None,
        max_ms=round(good[-1], 2) if good else None,
    )


def show(found: Figures) -> str:
    """A short table."""
    latencies = {"mean": found.mean_ms, "median": found.median_ms, "p95": found.p95_ms, "max": found.max_ms}
    rows = {
        "answered with 200": f"{found.answered} of {found.requests}",
        "clients": str(found.concurrency),
        "seconds": f"{found.seconds:.2f}",
        "requests a second": f"{found.requests_per_second:.1f}",
        **{name: "-" if value is None else f"{value:.1f} ms" for name, value in latencies.items()},
        **{f"status {status}": str(count) for status, count in found.statuses.items() if status != "200"},
        **({"model": ", ".join(found.models)} if found.models else {}),
    }
    return "\n".join(f"{name:<18} {value}" for name, value in rows.items())


def main(args: Sequence[str] | None = None) -> int:
    """Measures and prints; the exit code is `clickbait.cli.Code`, and 1 where an answer was not 200."""
    return cli.exit_code(lambda: _run(args))


def _run(args: Sequence[str] | None) -> None:
    parser = cli.Parser(prog="python -m cluster.benchmark", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--url", required=True, help="the server, as https://host[:port]")
    parser.add_argument("--path", default="/classify", help="takes {'text': ...} as JSON")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--concurrency", type=int, default=16, help="connections that ask at once")
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds a request may take")
    parser.add_argument("--output", type=Path, help="the figures as JSON")
    parser.add_argument("--seed", type=int, default=0, help="of the generated headlines")
    given = parser.parse_args(args)
    headers = {"x-api-key": os.environ[KEY]} if os.environ.get(KEY) else {}
    if os.environ.get(TOKEN):  # Cloud Run's own; it takes it off, so that Authorization stays the server's
        headers["x-serverless-authorization"] = f"Bearer {os.environ[TOKEN]}"
    target = Target(given.url, given.path, given.requests, given.concurrency, given.timeout, headers)
    headlines = [text for text, _ in sample.generate(min(target.requests, 1000), given.seed)]
    found = measure(target, headlines)
    print(show(found))
    if given.output:
        _write(given.output, found)
    if found.answered < found.requests:
        raise Refused(
            f"{found.requests - found.answered} of {found.requests} requests were not answered with 200"
        )


def _write(path: Path, found: Figures) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(found), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise StorageError(f"--output {path}: cannot be written: {error.strerror}") from None


if __name__ == "__main__":
    sys.exit(main())
