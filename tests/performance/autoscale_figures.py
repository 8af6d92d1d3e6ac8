"""From samples and replica counts to the figures and the plot of `bench_autoscale`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from clickbait.reports import plots
from tests.performance.keepalive import NO_RETRY_AFTER
from tests.performance.openloop import Sample

CALM_S = 3  # seconds in a row that count as back to normal


@dataclass(frozen=True)
class Look:
    """How many replicas there were."""

    at: float
    """Seconds from the start of the load."""
    running: tuple[str, ...]
    """The ids of those that serve."""
    others: int
    """That start or stop."""


def failed(samples: Iterable[Sample]) -> int:
    """Answers that are neither 200 nor 429 with Retry-After, and requests that were lost."""
    return sum(sample.status not in (200, 429) or sample.error == NO_RETRY_AFTER for sample in samples)


def server_errors(samples: Iterable[Sample]) -> int:
    """Answers of 5xx."""
    return sum(sample.status >= 500 for sample in samples)


def statuses(samples: Iterable[Sample]) -> dict[str, int]:
    """How often each status and error came."""
    counted = Counter(f"{sample.status} {sample.error}".strip() for sample in samples)
    return dict(sorted(counted.items()))


def p99_ms(samples: Iterable[Sample], status: int = 200) -> float:
    """The 99th percentile of the latency of the answers with `status`; 0 where there is none."""
    good = sorted(sample.seconds for sample in samples if sample.status == status)
    return round(1000 * good[int(0.99 * (len(good) - 1))], 2) if good else 0.0


def timeline(samples: Sequence[Sample], step: float = 1.0) -> list[dict[str, float]]:
    """Per step: when, requests due a second, good answers a second, refused a second, failed, p99 in ms."""
    if not samples:
        return []
    groups: list[list[Sample]] = [[] for _ in range(int(samples[-1].at / step) + 1)]
    for sample in samples:
        groups[int(sample.at / step)].append(sample)
    return [
        {
            "at": index * step,
            "load": len(group) / step,
            "good": sum(sample.status == 200 for sample in group) / step,
            "refused": sum(sample.status == 429 for sample in group) / step,
            "failed": failed(group),
            "p99_ms": p99_ms(group),
        }
        for index, group in enumerate(groups)
    ]


def recovery_s(
    samples: Sequence[Sample], looks: Sequence[Look], killed: str, at: float, wanted: int
) -> tuple[float, float]:
    """Seconds from the kill at `at` until `wanted` others serve, and until p99 is back to normal as well; to
    the run's end if never.

    Normal is at most twice the p99 before the kill, or 50 ms more, with no failure, for CALM_S seconds in a
    row.
    """
    end = samples[-1].at
    back = next(
        (
            look.at
            for look in looks
            if look.at > at and len(look.running) >= wanted and killed not in look.running
        ),
        end,
    )
    before = p99_ms(sample for sample in samples if sample.at < at)
    bound = max(2 * before, before + 50)
    steps = [step for step in timeline(samples) if step["at"] >= at - 1]
    calm = [step["failed"] == 0 and step["p99_ms"] <= bound for step in steps]
    good = (
        steps[index]["at"] for index in range(len(calm) - CALM_S + 1) if all(calm[index : index + CALM_S])
    )
    normal = next((each for each in good if each >= back - 1), end)
    return round(back - at, 2), round(max(back, normal) - at, 2)


def plot(samples: Sequence[Sample], looks: Sequence[Look]) -> str:
    """Load, replicas and p99 over time: an SVG that stands by itself, light and dark."""
    with mpl.rc_context(plots.STYLE):
        figure = Figure(figsize=(7.6, 6.0), layout="constrained")
        FigureCanvasSVG(figure)
        load, replicas, latency = figure.subplots(3, 1, sharex=True, height_ratios=(3, 2, 3))
        steps = timeline(samples)
        at = [step["at"] for step in steps]
        load.step(
            at,
            [step["load"] for step in steps],
            where="post",
            color=plots.MUTED,
            linewidth=1.2,
            label="asked",
        )
        load.step(
            at, [step["good"] for step in steps], where="post", color=plots.NEWS, label="answered with 200"
        )
        if any(step["refused"] for step in steps):
            load.step(
                at,
                [step["refused"] for step in steps],
                where="post",
                color=plots.CLICKBAIT,
                label="refused with 429",
            )
        load.set_ylabel("requests a second")
        load.set_ylim(bottom=0)
        load.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, labelcolor=plots.INK)
        replicas.step(
            [look.at for look in looks], [len(look.running) for look in looks], where="post", color=plots.INK
        )
        replicas.set_ylabel("replicas")
        replicas.set_ylim(0, max([2, *(len(look.running) for look in looks)]) + 0.5)
        replicas.yaxis.set_major_locator(MaxNLocator(integer=True))
        good = [step for step in steps if step["p99_ms"] > 0]
        latency.plot(
            [step["at"] for step in good],
            [step["p99_ms"] for step in good],
            color=plots.CLICKBAIT,
            linewidth=1.5,
        )
        latency.set_yscale("log")
        latency.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        latency.set_ylabel("p99, ms")
        latency.set_xlabel("seconds")
        return _alone(plots.to_svg(figure, "Load, replicas and p99 over time"))


def _alone(svg: str) -> str:
    """The colours, which a page's style gives elsewhere."""
    light = ":root{--ink:#1a1f25;--muted:#5b6570;--line:#dfe4e9;--clickbait:#d4500c;--news:#1f6fd1}"
    dark = ":root{--ink:#e7ebef;--muted:#9aa5b1;--line:#2b333d;--clickbait:#ff9257;--news:#6db1ff}"
    style = f"<style>{light}@media(prefers-color-scheme:dark){{{dark}}}text{{font-family:system-ui,sans-serif}}</style>"
    return re.sub(r"(<svg[^>]*>)", rf"\1{style}", svg, count=1)


def rounded(steps: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """For the JSON."""
    return [{key: round(value, 2) for key, value in step.items()} for step in steps]
