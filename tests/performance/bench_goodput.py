"""Goodput: what bulk clients get of a server that they overload, and what a single headline waits beside
them.

    make bench-goodput                                              # needs a bundle of `make bench-models`
    python -m tests.performance.bench_goodput --bundle artifacts/demo/bundle --against ../old-checkout

`serve.standalone` (one process, one core) is asked over 16 and over 64 connections for 256 headlines a
request. Each connection asks again as soon as it has its answer; after a 429 it waits for Retry-After. Beside
them single headlines come at a fixed rate, whose latency counts from when they were due. Goodput are the
headlines of answers with status 200, a second. `--against` measures the server of another checkout too, in
turn with this one. Figures are medians over rounds: artifacts/bench/goodput.json. Loopback only; the clients
share the cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

from clickbait import cli
from clickbait.errors import ConfigError
from clickbait.sample import generate
from tests.performance import openloop, results
from tests.performance.processes import free_port, started

BUNDLE = results.ROOT / "artifacts" / "bench" / "models" / "bundles" / "minilm"
CONNECTIONS = (16, 64)
TEXTS = 256  # headlines of a bulk request
SINGLES = 20.0  # single headlines a second
WARM_S = 3.0  # not counted: the first requests find an empty queue
LOST_S = 30.0  # without an answer
UP_S = 90.0
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_CLOSE = re.compile(rb"connection: *close", re.IGNORECASE)
_RETRY_AFTER = re.compile(rb"retry-after: *(\d+)", re.IGNORECASE)

_PUBLISH = """
import sys
from pathlib import Path
from clickbait.registry import Registry
registry = Registry(sys.argv[1])
registry.set_alias(registry.publish(Path(sys.argv[2])), "production")
"""

Answer = tuple[float, float, int]
"""When it came (`time.monotonic`), the seconds it took, its status; 0: there was none."""


async def client(port: int, bodies: list[bytes], end: float) -> list[Answer]:
    """Asks again and again until `end`; the answers."""
    answers: list[Answer] = []
    number = 0
    reader = writer = None
    while (begin := time.monotonic()) < end:
        if writer is None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert reader is not None
        body = bodies[number % len(bodies)]
        number += 1
        writer.write(
            b"POST /classify/batch HTTP/1.1\r\nhost: localhost\r\ncontent-type: "
            b"application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body
        )
        try:
            async with asyncio.timeout(LOST_S):
                head = await reader.readuntil(b"\r\n\r\n")
                length = _LENGTH.search(head)
                assert length is not None, head
                await reader.readexactly(int(length[1]))
        except (TimeoutError, OSError, EOFError):
            answers.append((time.monotonic(), time.monotonic() - begin, 0))
            writer.close()
            writer = None
            continue
        status = int(head[9:12])
        answers.append((time.monotonic(), time.monotonic() - begin, status))
        if _CLOSE.search(head):
            writer.close()
            writer = None
        if status == 429 and (wait := _RETRY_AFTER.search(head)):
            await asyncio.sleep(min(int(wait[1]), max(end - time.monotonic(), 0.0)))
    if writer is not None:
        writer.close()
    return answers


def bulk(port: int, connections: int, start: float, end: float) -> dict[str, Any]:
    """What the bulk clients got from `start` to `end`."""
    texts = [text for text, _ in generate(connections * TEXTS * 2, seed=3)]
    bodies = [json.dumps({"texts": texts[at : at + TEXTS]}).encode() for at in range(0, len(texts), TEXTS)]

    async def all_of_them() -> list[Answer]:
        found = await asyncio.gather(
            *(client(port, bodies[2 * number : 2 * number + 2], end) for number in range(connections))
        )
        return [answer for each in found for answer in each if start <= answer[0] <= end]

    answers = asyncio.run(all_of_them())
    good = sorted(seconds for _, seconds, status in answers if status == 200)
    return {
        "goodput": len(good) * TEXTS / (end - start),
        "p50_s": statistics.median(good) if good else None,
        "statuses": {
            str(status): count
            for status, count in sorted(Counter(status for _, _, status in answers).items())
        },
    }


def singles(port: int, start: float, end: float) -> dict[str, Any]:
    """What single headlines got from `start` to `end`."""
    texts = [text for text, _ in generate(5000, seed=5)]
    begin = time.monotonic()
    samples = openloop.run(
        f"http://127.0.0.1:{port}", [(end - begin, SINGLES)], texts, timeout_s=LOST_S, start=begin
    )
    counted = [sample for sample in samples if begin + sample.at >= start]
    good = sorted(1000 * sample.seconds for sample in counted if sample.status == 200 and not sample.error)
    return {
        "p50_ms": statistics.median(good) if good else None,
        "p99_ms": good[int(len(good) * 0.99)] if good else None,
        "asked": len(counted),
        "failed": len(counted) - len(good),
    }


def measure(checkout: Path, registry: str, connections: int, seconds: float, folder: Path) -> dict[str, Any]:
    """Starts a checkout's server, and loads it for `seconds`."""
    port = free_port()
    command = [sys.executable, "-m", "serve.standalone", "--registry", registry, "--port", str(port)]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    with started(command, environment, folder / "server.log", cwd=checkout) as server:
        wait_for(f"http://127.0.0.1:{port}/readyz", server)
        context = multiprocessing.get_context("spawn")
        with context.Pool(2) as pool:
            pool.map(abs, range(2))  # both are up, with what they import
            start = time.monotonic() + WARM_S
            asked = pool.apply_async(bulk, (port, connections, start, start + seconds))
            beside = pool.apply_async(singles, (port, start, start + seconds))
            return {"bulk": asked.get(), "single": beside.get()}


def publish(checkout: Path, bundle: Path, registry: str) -> None:
    """A registry with the bundle as its production version, written by the checkout's own code: another one
    may have another format.

    Raises:
        ConfigError: that code does not take the bundle.
    """
    command = [sys.executable, "-c", _PUBLISH, registry, str(bundle)]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigError(f"{bundle}: {checkout} does not take it: {done.stderr.strip().splitlines()[-1]}")


def wait_for(url: str, server: Any) -> None:
    """Until the server is ready.

    Raises:
        ConfigError: it ended, or took too long.
    """
    end = time.monotonic() + UP_S
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            if server.ended() or time.monotonic() > end:
                raise ConfigError(f"the server does not come up: {server.told()}") from None
            time.sleep(0.2)


def shows(measured: dict[str, dict[str, list[dict[str, Any]]]]) -> dict[str, float]:
    """The figures: medians over the rounds."""
    found: dict[str, float] = {}
    for name, by_connections in measured.items():
        for connections, rounds in by_connections.items():
            found[f"goodput_{connections}_{name}"] = statistics.median(
                one["bulk"]["goodput"] for one in rounds
            )
            p99 = [one["single"]["p99_ms"] for one in rounds if one["single"]["p99_ms"] is not None]
            if p99:
                found[f"single_p99_ms_beside_{connections}_{name}"] = statistics.median(p99)
            found[f"single_failed_beside_{connections}_{name}"] = float(
                sum(one["single"]["failed"] for one in rounds)
            )
    return found


def parse(args: list[str] | None = None) -> argparse.Namespace:
    """The flags.

    Raises:
        ConfigError: no bundle, or no checkout, where one is named.
    """
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=BUNDLE, help="the model that is served")
    parser.add_argument(
        "--against", type=Path, help="another checkout, whose server is measured too, as `before`"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement")
    arguments = parser.parse_args(args)
    if not (arguments.bundle / "manifest.json").is_file():
        raise ConfigError(
            f"{arguments.bundle}: no bundle there: `make bench-models` makes it, or name one with --bundle"
        )
    if arguments.against and not (arguments.against / "serve" / "standalone.py").is_file():
        raise ConfigError(f"{arguments.against}: no checkout of this project there")
    if arguments.rounds < 1 or arguments.seconds < 1:
        raise ConfigError("--rounds and --seconds: at least 1")
    return arguments


def bench(arguments: argparse.Namespace, folder: Path) -> None:
    """All of it, printed and saved."""
    checkouts = {"now": results.ROOT} | ({"before": arguments.against.resolve()} if arguments.against else {})
    for name, checkout in checkouts.items():
        publish(checkout, arguments.bundle.resolve(), f"{folder}/{name}")
    measured: dict[str, dict[str, list[dict[str, Any]]]] = {
        name: {str(connections): [] for connections in CONNECTIONS} for name in checkouts
    }
    for number in range(arguments.rounds):
        for connections in CONNECTIONS:
            for name in sorted(checkouts, reverse=bool(number % 2)):
                one = measure(checkouts[name], f"{folder}/{name}", connections, arguments.seconds, folder)
                measured[name][str(connections)].append(one)
                print(f"   {connections} x {TEXTS}, {name}: {json.dumps(one)}", flush=True)
    results.save(
        "goodput",
        shows(measured),
        measured=measured,
        model=arguments.bundle.name,
        seconds=arguments.seconds,
        singles=SINGLES,
    )


def main() -> int:
    """Measures; the exit code is `clickbait.cli.Code`."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return cli.exit_code(_run)


def _run() -> None:
    arguments = parse()
    with tempfile.TemporaryDirectory(prefix="goodput-") as folder:
        bench(arguments, Path(folder))


if __name__ == "__main__":
    sys.exit(main())
