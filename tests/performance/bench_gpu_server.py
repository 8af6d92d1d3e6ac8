"""The server on a GPU, beside the same server on a CPU core: requests and headlines a second, and a batch's
scores beside single ones.

    python -m tests.performance.bench_gpu_server artifacts/bench/models/bundles/minilm            # cuda, and a core with int8
    python -m tests.performance.bench_gpu_server artifacts/bench/models/bundles/minilm cpu        # where there is no GPU

Needs what `bench_gpu` needs, not Ray: `python -m serve.standalone` is one process that listens, computes and
answers. Each client asks again at once on its own connection; they are one Python process on another core,
which at some 10,000 requests a second is what holds them back. Prints a line a device, writes
artifacts/bench/gpu-server.json. Loopback only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from clickbait.registry.registry import Registry
from clickbait.sample import generate
from tests.performance import results
from tests.performance.processes import free_port, started

LOADS = ((1, 1), (64, 1), (16, 32), (16, 256))  # connections, headlines a request
SECONDS, COMPARED, UP_S = 4.0, 128, 90.0


async def client(port: int, texts: list[str], at: int, size: int, end: float) -> list[float]:
    """Asks for `size` headlines again and again; the seconds of each answer of 200, and none of another."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    path = "/classify" if size == 1 else "/classify/batch"
    times = []
    while (begin := time.perf_counter()) < end:
        some = [texts[(at + number) % len(texts)] for number in range(size)]
        at += size
        body = json.dumps({"text": some[0]} if size == 1 else {"texts": some}).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: "
            f"{len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(answer.partition(b"content-length:")[2].split(b"\r\n", 1)[0]))
        if answer.startswith(b"http/1.1 200"):
            times.append(time.perf_counter() - begin)
    writer.close()
    return times


def load(port: int, connections: int, size: int) -> dict[str, float]:
    """Headlines a second, and latencies in ms."""

    async def all_of_them() -> list[float]:
        texts = [text for text, _ in generate(20_000, seed=3)]
        end = time.perf_counter() + SECONDS
        found = await asyncio.gather(
            *(client(port, texts, number * 617, size, end) for number in range(connections))
        )
        return sorted(seconds for each in found for seconds in each)

    times = asyncio.run(all_of_them())
    if not times:
        return {"headlines_per_second": 0.0}
    p99 = times[int(len(times) * 0.99)]
    return {
        "headlines_per_second": len(times) * size / SECONDS,
        "p50_ms": statistics.median(times) * 1e3,
        "p99_ms": p99 * 1e3,
    }


def ask(port: int, path: str, body: Any = None) -> Any:
    """The JSON of an answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", data, {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


def measure(registry: str, device: str, folder: Path) -> dict[str, Any]:
    """A server's figures. `max_waiting` is above what the clients have under way: nothing is refused for its
    number.
    """
    port = free_port()
    command = [sys.executable, "-m", "serve.standalone", "--registry", registry, "--port", str(port)]
    environment = {**os.environ, "CLICKBAIT_DEVICE": device, "CLICKBAIT_MAX_WAITING": "4096"}
    with started(command, environment, folder / f"{device}.log") as server:
        end = time.monotonic() + UP_S
        while True:
            try:
                ask(port, "/readyz")
                break
            except OSError:
                if server.ended() or time.monotonic() > end:
                    raise RuntimeError(f"the server does not come up: {server.told()}") from None
                time.sleep(0.2)
        texts = [text for text, _ in generate(COMPARED, seed=4)]
        together = [each["score"] for each in ask(port, "/classify/batch", {"texts": texts})["results"]]
        alone = [ask(port, "/classify", {"text": text})["score"] for text in texts]
        found: dict[str, Any] = {"runtime": ask(port, "/model")["runtime"]}
        found["batch_or_alone"] = max(abs(a - b) for a, b in zip(alone, together, strict=True))
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            for connections, size in LOADS:
                found[f"{connections}x{size}"] = pool.apply(load, (port, connections, size))
    return found


def main() -> None:
    """Prints and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("devices", nargs="*", default=["cuda", "cpu"])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gpu-server-") as where:
        registry = Registry(f"{where}/registry")
        registry.set_alias(registry.publish(args.bundle), "production")
        table = {}
        for device in args.devices:
            table[device] = measure(f"{where}/registry", device, Path(where))
            print(f"{device}: {json.dumps(table[device])}", flush=True)
    shows = {f"{device}_batch_or_alone": found["batch_or_alone"] for device, found in table.items()}
    results.save("gpu-server", shows, table=table, model=args.bundle.name)


if __name__ == "__main__":
    main()
