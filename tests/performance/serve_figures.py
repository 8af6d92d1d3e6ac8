"""From what `bench_serve` measured to its figures: medians over rounds, the ratios that the README quotes, a
table and a plot.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.performance.peers.servers import OURS, OURS_FAST, OURS_HAPROXY, OURS_PUBLIC, PEERS, RAY_DEFAULT
from tests.performance.wrk import Result

BATCH_OF = 32  # headlines of a batch request
Rounds = dict[str, list[dict[str, Result]]]
"""By server, a round's results by scenario: `single-64`, `batch-16`."""


def per_second(measured: Rounds, name: str, scenario: str) -> float:
    """The median over rounds of a server's good answers a second."""
    return statistics.median(each[scenario].per_second for each in measured[name])


def medians(measured: Rounds) -> dict[str, dict[str, dict[str, float]]]:
    """By server and scenario: requests and headlines a second, latencies in ms, errors of all rounds
    together.
    """
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, rounds in measured.items():
        found[name] = {}
        for scenario in rounds[0]:
            results = [each[scenario] for each in rounds]
            rate = statistics.median(result.per_second for result in results)
            found[name][scenario] = {
                "requests_per_second": round(rate, 2),
                "headlines_per_second": round(rate * (BATCH_OF if scenario.startswith("batch") else 1), 1),
                **{
                    key: statistics.median(getattr(result, key) for result in results)
                    for key in ("p50_ms", "p95_ms", "p99_ms")
                },
                "errors": sum(result.errors for result in results),
            }
    return found


def best_peer(measured: Rounds) -> str | None:
    """Who of the peers answers most at 64 connections; None where there is none."""
    there = [name for name in PEERS if measured.get(name)]
    return max(there, key=lambda name: per_second(measured, name, "single-64"), default=None)


def _batches(measured: Rounds, name: str, connections: Sequence[int]) -> float:
    """Headlines a second in batches, at the number of connections that suits the server best."""
    return BATCH_OF * max(per_second(measured, name, f"batch-{count}") for count in connections)


def shows(measured: Rounds, ceilings: Sequence[float]) -> dict[str, float]:
    """The ratios of issue 4; those whose servers were left out are missing."""
    found: dict[str, float] = {}
    if OURS not in measured:
        return found
    peers = [name for name in PEERS if name in measured]
    ours = per_second(measured, OURS, "single-64")
    if peer := best_peer(measured):
        found["single_c64_vs_best_peer"] = ours / per_second(measured, peer, "single-64")
    if RAY_DEFAULT in measured:
        found["single_c64_vs_ray_default"] = ours / per_second(measured, RAY_DEFAULT, "single-64")
    if "fastapi" in measured:
        found["single_c1_vs_fastapi"] = per_second(measured, OURS, "single-1") / per_second(
            measured, "fastapi", "single-1"
        )
    found["batch32_vs_ceiling"] = _batches(measured, OURS, (1, 16)) / statistics.median(ceilings)
    if peers:
        found["batch32_vs_best_peer"] = _batches(measured, OURS, (1, 16, 64)) / max(
            _batches(measured, name, (1, 16, 64)) for name in peers
        )
    if OURS_FAST in measured:
        found["fast_model_vs_minilm"] = per_second(measured, OURS_FAST, "single-64") / ours
    if OURS_HAPROXY in measured and peer:
        found["haproxy_c64_vs_best_peer"] = per_second(measured, OURS_HAPROXY, "single-64") / per_second(
            measured, peer, "single-64"
        )
        if "fastapi" in measured:
            found["haproxy_c1_vs_fastapi"] = per_second(measured, OURS_HAPROXY, "single-1") / per_second(
                measured, "fastapi", "single-1"
            )
    if OURS_HAPROXY in measured and OURS_PUBLIC in measured:
        for scenario in ("single-1", "single-64"):
            key = f"private_parts_{scenario.replace('single-', 'c')}_vs_public"
            found[key] = per_second(measured, OURS_HAPROXY, scenario) / per_second(
                measured, OURS_PUBLIC, scenario
            )
    return {key: round(value, 4) for key, value in found.items()}


def at_rate(rate: float, sent: int, good_ms: Sequence[float]) -> dict[str, float]:
    """What came of `sent` requests at a fixed rate; `good_ms` are the sorted latencies of the good ones, and
    none fails all.
    """

    def percentile(share: float) -> float:
        return good_ms[min(int(share * len(good_ms)), len(good_ms) - 1)] if good_ms else float("inf")

    return {
        "rate": rate,
        "p50_ms": percentile(0.5),
        "p95_ms": percentile(0.95),
        "p99_ms": percentile(0.99),
        "failed": sent - len(good_ms),
    }


def median_rates(rounds: Sequence[Sequence[dict[str, float]]]) -> list[dict[str, float]]:
    """The rounds' median at each rate; failures are summed."""
    found = []
    for same in zip(*rounds, strict=True):
        entry = {key: round(statistics.median(one[key] for one in same), 2) for key in same[0]}
        found.append(entry | {"failed": sum(one["failed"] for one in same)})
    return found


def table(measured: Rounds) -> str:
    """Requests a second and p99 of every server in every scenario."""
    found = medians(measured)
    scenarios = list(next(iter(found.values())))
    lines = [f"{'requests/s (p99 ms)':<16}" + "".join(f"{name:>16}" for name in scenarios)]
    for name, each in found.items():
        cells = [each.get(scenario) for scenario in scenarios]
        told = [f"{cell['requests_per_second']:.0f} ({cell['p99_ms']:.0f})" if cell else "" for cell in cells]
        lines.append(f"{name:<16}" + "".join(f"{cell:>16}" for cell in told))
    return "\n".join(lines)


def plot(measured: Rounds, ceilings: Sequence[float], path: Path) -> None:
    """Three panels as SVG: requests a second and p99 of single headlines over connections, headlines a second
    in batches.
    """
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    found = medians(measured)
    figure = Figure(figsize=(15, 4.4), layout="constrained")
    FigureCanvasSVG(figure)
    rate, latency, batches = figure.subplots(1, 3)
    for name, each in found.items():
        strong: dict[str, Any] = {
            "linewidth": 2.6 if name.startswith("ours") else 1.4,
            "marker": "o",
            "markersize": 4,
            "label": name,
        }
        for axes, kind, key in (
            (rate, "single", "requests_per_second"),
            (latency, "single", "p99_ms"),
            (batches, "batch", "headlines_per_second"),
        ):
            points = [
                (int(at.split("-")[1]), values[key]) for at, values in each.items() if at.startswith(kind)
            ]
            if points:
                axes.plot(*zip(*points, strict=True), **strong)
    batches.axhline(
        statistics.median(ceilings), color="#888888", linestyle="--", linewidth=1.2, label="the engine alone"
    )
    for axes, title in (
        (rate, "one headline a request: requests a second"),
        (latency, "one headline a request: p99, ms"),
        (batches, f"batches of {BATCH_OF}: headlines a second"),
    ):
        axes.set_title(title, fontsize=11)
        axes.set_xscale("log", base=4)
        axes.xaxis.set_major_formatter("{x:.0f}")
        axes.set_xlabel("connections")
        axes.grid(visible=True, alpha=0.3)
    rate.set_ylim(bottom=0)
    batches.set_ylim(bottom=0)
    latency.set_yscale("log")
    latency.yaxis.set_major_formatter("{x:g}")
    rate.legend(fontsize=8, frameon=False)
    batches.legend(fontsize=8, frameon=False)
    figure.savefig(path, format="svg")
