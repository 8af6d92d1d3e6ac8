"""A sweep's plots as inline SVG, drawn with `clickbait.reports.plots`.

A trial's label is its number in the table: names are long.
"""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from clickbait.reports import plots

TICKS = 5  # on an axis of the parallel coordinates
LETTERS = 18  # a longer choice is cut
WORDS = {"log_loss": "log loss", "flip_rate": "flip rate", "latency_ms": "latency (ms)"}
Trial = Mapping[str, Any]


class Scale:
    """Where a value stands on a parallel axis, from 0 to 1."""

    def __init__(self, domain: Mapping[str, Any] | None, values: Sequence[Any]) -> None:
        kind = domain["type"] if domain else "uniform"
        self.choices = list(domain["values"]) if domain and kind == "choice" else None
        self.log = kind == "log_uniform" or bool(domain and domain.get("log"))
        if self.choices is None:
            self.low, self.high = (domain["low"], domain["high"]) if domain else (min(values), max(values))

    def place(self, value: Any) -> float:
        """The value's height."""
        if self.choices is not None:
            return (self.choices.index(value) + 0.5) / len(self.choices)
        if self.high == self.low:
            return 0.5
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return float((value - self.low) / (self.high - self.low))

    def ticks(self) -> list[tuple[float, str]]:
        """Heights and their labels."""
        if self.choices is not None:
            return [(self.place(value), _short(str(value))) for value in self.choices]
        if self.high == self.low:
            return [(0.5, f"{self.low:.3g}")]
        shares = [at / (TICKS - 1) for at in range(TICKS)]
        if self.log:
            return [(at, f"{self.low * (self.high / self.low) ** at:.2g}") for at in shares]
        return [(at, f"{self.low + at * (self.high - self.low):.3g}") for at in shares]


@plots.styled
def parallel(trials: Sequence[Trial], space: Mapping[str, Any], best: str | None) -> str:
    """One line per trial through its values and its log loss; empty if no trial has a log loss."""
    shown = [trial for trial in trials if trial["metrics"]["log_loss"] is not None]
    if not shown:
        return ""
    columns = [(name, domain, [trial["config"][name] for trial in shown]) for name, domain in space.items()]
    columns.append(("log_loss", None, [trial["metrics"]["log_loss"] for trial in shown]))
    figure, axes = plots.new_figure()
    figure.set_size_inches(10.8, 3.6)
    scales = [Scale(domain, values) for _, domain, values in columns]
    for row, trial in sorted(enumerate(shown), key=lambda pair: pair[1]["name"] == best):
        heights = [scale.place(values[row]) for scale, (_, _, values) in zip(scales, columns, strict=True)]
        axes.plot(range(len(columns)), heights, **_line(trial, best), clip_on=False)
    labels: dict[str, str] = {}
    for at, scale in enumerate(scales):
        axes.axvline(at, color=plots.LINE, linewidth=1.2, zorder=1)
        for height, label in scale.ticks():
            # A choice is a user's text: matplotlib may read it as a formula, or have no glyph for it.
            labels[placeholder := f"@{at}.{len(labels)}@"] = label
            axes.annotate(
                placeholder,
                (at, height),
                (5, 0),
                textcoords="offset points",
                fontsize=8.5,
                va="center",
                color=plots.MUTED,
            )
    axes.set(xlim=(-0.05, len(columns) - 0.6), ylim=(-0.04, 1.04))
    axes.set_xticks(range(len(columns)), [WORDS.get(name, name.replace("_", " ")) for name, *_ in columns])
    axes.yaxis.set_major_locator(NullLocator())
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.grid(visible=False)
    _legend(axes, trials, best)
    svg = plots.to_svg(figure, "Parallel coordinates: searched values and log loss")
    for placeholder, label in labels.items():
        svg = svg.replace(placeholder, html.escape(label))
    return svg


@plots.styled
def curves(trials: Sequence[Trial], best: str | None) -> str:
    """Log loss over epochs, one line per trial; a cross where a trial was stopped early."""
    figure, axes = plots.new_figure()
    drawn = [trial for trial in trials if trial["history"]]
    if not drawn:
        return ""
    for trial in sorted(drawn, key=lambda trial: trial["name"] == best):
        xs, ys = (
            [entry["epoch"] for entry in trial["history"]],
            [entry["log_loss"] for entry in trial["history"]],
        )
        look = _line(trial, best)
        axes.plot(xs, ys, **look)
        marker = {"stopped early": "x", "failed": "v"}.get(trial["status"], "o")
        axes.plot(
            xs[-1:], ys[-1:], marker=marker, markersize=6, markeredgewidth=1.8, color=look["color"], zorder=4
        )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _log_y(axes, [entry["log_loss"] for trial in drawn for entry in trial["history"]])
    axes.set(xlabel="epoch", ylabel="calibrated validation log loss")
    _legend(axes, trials, best)
    return plots.to_svg(figure, "Log loss over epochs")


@plots.styled
def importance(shares: Mapping[str, float]) -> str:
    """One bar per searched key; empty if nothing is known."""
    if not shares:
        return ""
    figure, axes = plots.new_figure()
    names = sorted(shares, key=lambda name: shares[name])
    bars = axes.barh(
        [name.replace("_", " ") for name in names],
        [shares[name] for name in names],
        color=plots.NEWS,
        height=0.6,
    )
    axes.bar_label(bars, fmt=lambda share: f"{share:.0%}", padding=5, color=plots.INK)
    axes.set_xlim(0, 1.12 * max(max(shares.values()), 0.01))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    axes.set_xlabel("share of the log loss's variance")
    axes.grid(visible=False, axis="y")
    return plots.to_svg(figure, "Importance of the searched keys")


def pareto(trials: Sequence[Trial], objectives: Sequence[str]) -> list[tuple[str, str]]:
    """Caption and SVG of each pair of objectives, for the finished trials."""
    figures = []
    for x, y in itertools.combinations(objectives, 2):
        rows = [(at, trial) for at, trial in enumerate(trials, 1) if trial["status"] == "finished"]
        if rows:
            figures.append(
                (
                    f"{WORDS[y].capitalize()} over {WORDS[x]}: down and to the left is better",
                    _scatter(rows, x, y),
                )
            )
    return figures


@plots.styled
def _scatter(rows: Sequence[tuple[int, Trial]], x: str, y: str) -> str:
    figure, axes = plots.new_figure()
    for at, trial in rows:
        place = trial["metrics"][x], trial["metrics"][y]
        face = plots.CLICKBAIT if trial["pareto"] else "none"
        axes.scatter(*place, s=42, facecolors=face, edgecolors=plots.CLICKBAIT, linewidths=1.5, zorder=3)
        axes.annotate(str(at), place, (6, 4), textcoords="offset points", fontsize=9, color=plots.MUTED)
    axes.margins(0.12)
    axes.set_xlim(left=max(axes.get_xlim()[0], -0.05 * axes.get_xlim()[1]))  # no objective is negative
    axes.set_ylim(bottom=max(axes.get_ylim()[0], -0.05 * axes.get_ylim()[1]))
    axes.ticklabel_format(useOffset=False)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.set(xlabel=WORDS[x], ylabel=WORDS[y])
    return plots.to_svg(figure, f"{WORDS[y]} over {WORDS[x]}")


def _line(trial: Trial, best: str | None) -> dict[str, Any]:
    """The style of a trial's line: the best, a finished, or any other."""
    if trial["name"] == best:
        return {"color": plots.CLICKBAIT, "linewidth": 2.6, "zorder": 3}
    if trial["status"] == "finished":
        return {"color": plots.NEWS, "linewidth": 1.5, "zorder": 2.5}
    return {"color": plots.MUTED, "linewidth": 1.1, "alpha": 0.8, "zorder": 2}


def _legend(axes: Axes, trials: Sequence[Trial], best: str | None) -> None:
    kinds = {
        "best": [trial for trial in trials if trial["name"] == best],
        "finished": [trial for trial in trials if trial["status"] == "finished" and trial["name"] != best],
        "stopped early or failed": [trial for trial in trials if trial["status"] != "finished"],
    }
    lines = [(name, Line2D([], [], **_line(of[0], best))) for name, of in kinds.items() if of]
    names, handles = zip(*lines, strict=True)
    axes.legend(handles, names, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, labelcolor=plots.INK)


def _log_y(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic y axis with plain numbers.

    On a linear axis, the first epoch of a bad trial would press all other lines flat.
    """
    axes.set_yscale("log")
    wide = max(values) > 8 * min(values)
    axes.yaxis.set_major_locator(
        LogLocator(subs=(1.0, 2.0, 5.0)) if wide else LogLocator(subs=tuple(range(1, 10)))
    )
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _short(text: str) -> str:
    return text if len(text) <= LETTERS else f"{text[: LETTERS - 1]}…"
