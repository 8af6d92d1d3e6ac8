"""Where a request's processor time goes between the client and the model: by process, with and without Ray
Serve around it.

    python -m tests.performance.bench_hops [--bundle artifacts/bench/models/bundles/minilm]

`serve.standalone`, then Ray Serve with configs/serve.yaml and with one and two replicas behind HAProxy, and
two at their shared port, each loaded by wrk with one headline a request. The kernel tells what each process
computed meanwhile (schedstat); divided by the requests that is the table. What a request takes on top of the
sum is waiting: wake-ups of sleeping processes, and queues. Writes artifacts/bench/hops.json. Run it on a
quiet machine.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import secrets
import tempfile
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tests.performance import results
from tests.performance.bench_serve import BUNDLES, Bench
from tests.performance.peers import servers
from tests.performance.peers.servers import Server
from tests.performance.processes import marked

CONNECTIONS = (1, 64)
UNDER_WAY = (
    1,
    2,
    4,
    8,
    16,
    32,
    64,
)  # connections that each have one request under way, for one replica's curve
SECONDS = 4.0
ALONE = "1 replica"


def part(process: str) -> str:
    """What a process of the server is to a request."""
    if "haproxy" in process.lower():
        return "HAProxy's metrics (Ray)" if "HAProxyManager" in process else "HAProxy"
    replica = "ServeReplica" in process or "serve.standalone" in process
    return "replica: HTTP, parsing, batcher, tokenizer, model" if replica else "the rest of Ray"


def nanoseconds(mark: str) -> dict[int, tuple[str, int]]:
    """By process of this server: what it is to a request, and its threads' time on a processor."""
    found = {}
    for pid in marked(mark):
        with contextlib.suppress(OSError):  # gone meanwhile
            process = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            tasks = list(Path(f"/proc/{pid}/task").glob("*/schedstat"))
            found[pid] = (
                part(process),
                sum(int(task.read_text(encoding="ascii").split()[0]) for task in tasks),
            )
    return found


def measure(bench: Bench, server: Server, connections: int, url: str, mark: str) -> dict[str, float]:
    """Microseconds a request by part; the request's own under "latency, p50"."""
    before = nanoseconds(mark)
    result = bench.load(url, server, connections, SECONDS)
    spent: Counter[str] = Counter()
    for pid, (kind, time) in nanoseconds(mark).items():
        spent[kind] += time - before.get(pid, (kind, 0))[1]
    found = {kind: round(time / 1000 / result.requests, 1) for kind, time in sorted(spent.items())}
    return {
        **found,
        "latency, p50": round(1000 * result.p50_ms, 1),
        "requests a second": round(result.per_second, 1),
    }


def variants(bench: Bench) -> dict[str, Server]:
    """By name."""
    ours = bench.servers[servers.OURS_HAPROXY][0]
    assert ours.ray_serve is not None
    alone: dict[str, Any] = copy.deepcopy(ours.ray_serve)
    alone["applications"][0]["deployments"][0]["num_replicas"] = 1
    return {
        "standalone": bench.servers[servers.STANDALONE][0],
        ALONE: replace(ours, ray_serve=alone),
        "2 replicas": ours,
        "2 replicas, shared port": bench.servers[servers.OURS][0],
    }


def main() -> None:
    """Prints and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, default=BUNDLES / "minilm")
    given = parser.parse_args()
    columns: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="hops-", ignore_cleanup_errors=True) as folder:
        bench = Bench(Path(folder), given.bundle, None, SECONDS)
        for name, server in variants(bench).items():
            mark = secrets.token_hex(8)
            with servers.running(server, bench.folder, mark) as url:
                bench.load(url, server, 16, 2)
                for connections in CONNECTIONS:
                    columns[f"{name}, {connections}"] = measure(bench, server, connections, url, mark)
                if name == ALONE:
                    curve = {
                        connections: bench.load(url, server, connections, SECONDS)
                        for connections in UNDER_WAY
                    }
    rows = list(dict.fromkeys(row for column in columns.values() for row in column))
    rows.sort(key=lambda row: row in ("latency, p50", "requests a second"))
    print("| µs a request | " + " | ".join(columns) + " |\n| --- |" + " ---: |" * len(columns))
    for row in rows:
        print(
            f"| {row} | "
            + " | ".join(f"{column[row]:,.0f}" if row in column else "" for column in columns.values())
            + " |"
        )
    print("\n| requests under way | requests a second | p50, ms |\n| ---: | ---: | ---: |")
    for connections, result in curve.items():
        print(f"| {connections} | {result.per_second:,.0f} | {result.p50_ms:.1f} |")
    results.save(
        "hops", {}, columns=columns, curve={str(count): asdict(result) for count, result in curve.items()}
    )


if __name__ == "__main__":
    main()
