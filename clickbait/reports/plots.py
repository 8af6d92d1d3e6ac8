"""The report's plots as inline SVG: matplotlib's object-oriented API, no pyplot, no global state kept.

The same numbers give the same bytes (fixed hash salt, no metadata). The colours are the page's CSS variables,
so one SVG works in light and dark mode: matplotlib draws in placeholder colours, which are replaced in its
output. Text stays text, so the page's font applies.

`split` is the split's name. It is part of the label for screen readers, and keeps the ids of two plots of one
kind apart. Pass a constant, never a user's text.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

# Placeholders: no plot uses these colours otherwise.
INK, MUTED, LINE, CLICKBAIT, NEWS = (f"#00000{i}" for i in range(1, 6))
_CSS = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    LINE: "var(--line)",
    CLICKBAIT: "var(--clickbait)",
    NEWS: "var(--news)",
}
STYLE: dict[Any, Any] = {  # Any: matplotlib has a type for each key
    "svg.fonttype": "none",
    "font.size": 10.5,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.major.pad": 7,
    "ytick.major.pad": 7,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "legend.frameon": False,
    "lines.linewidth": 2.0,
}
styled = mpl.rc_context(STYLE)
"""Decorator: `STYLE` applies while the function draws."""


@styled
def loss(history: Sequence[Mapping[str, Any]]) -> str:
    """Training and validation log loss over optimizer steps."""
    return _lines(
        "Loss over training steps",
        history,
        {"train_loss": "training loss", "val_log_loss": "validation log loss"},
        "log loss",
    )


@styled
def quality(history: Sequence[Mapping[str, Any]]) -> str:
    """Validation accuracy and AUC over optimizer steps."""
    return _lines(
        "Validation accuracy and AUC",
        history,
        {"val_accuracy": "accuracy", "val_auc": "AUC"},
        "validation split",
    )


@styled
def precision_recall(curve: Mapping[str, Sequence[float]], split: str) -> str:
    """Precision over recall; empty if the split has one class only."""
    if not curve["recall"]:
        return ""
    figure, axes = new_figure()
    axes.plot(curve["recall"], curve["precision"], color=CLICKBAIT, clip_on=False, zorder=3)
    _unit(axes, "recall", "precision")
    return to_svg(figure, f"Precision over recall, {split}")


@styled
def roc(curve: Mapping[str, Sequence[float]], split: str) -> str:
    """True over false positive rate; empty if the split has one class only."""
    if not curve["fpr"]:
        return ""
    figure, axes = new_figure()
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 4)))
    axes.plot(curve["fpr"], curve["tpr"], color=CLICKBAIT, clip_on=False, zorder=3)
    _unit(axes, "false positive rate", "true positive rate")
    return to_svg(figure, f"ROC: true over false positive rate, {split}")


@styled
def reliability(curve: Mapping[str, Sequence[float]], split: str) -> str:
    """Share of clickbait over mean score; a dot's area grows with the rows of its bin."""
    figure, axes = new_figure()
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 4)))
    total = sum(curve["count"])
    area = [24 + 240 * count / total for count in curve["count"]]
    axes.plot(curve["mean_score"], curve["observed"], color=CLICKBAIT, linewidth=1, alpha=0.5, clip_on=False)
    axes.scatter(
        curve["mean_score"],
        curve["observed"],
        s=area,
        color=CLICKBAIT,
        alpha=0.75,
        linewidths=0,
        clip_on=False,
        zorder=3,
    )
    _unit(axes, "mean P(clickbait) of the bin", "share of clickbait")
    return to_svg(figure, f"Reliability: share of clickbait over mean score, {split}")


@styled
def histogram(curve: Mapping[str, Sequence[float]], split: str, threshold: float | None) -> str:
    """Headlines per score and class.

    The scale is logarithmic: a good model has few scores in the middle, and a linear scale would hide them.
    A dashed line marks the threshold, if there is one.
    """
    figure, axes = new_figure()
    edges = curve["edges"]
    middles = [(low + high) / 2 for low, high in pairwise(edges)]
    width = 0.42 * (edges[1] - edges[0])
    for name, colour, side in (("news", NEWS, -0.5), ("clickbait", CLICKBAIT, 0.5)):
        axes.bar([x + side * width for x in middles], curve[name], width=width, color=colour, label=name)
    if threshold is not None:
        axes.axvline(threshold, color=MUTED, linewidth=1, linestyle=(0, (4, 4)))
    axes.set_yscale("log", nonpositive="clip")
    axes.set_ylim(0.5, 2 * max(1, *curve["news"], *curve["clickbait"]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.minorticks_off()
    axes.set_xlim(0, 1)
    axes.set_xlabel("P(clickbait)")
    axes.set_ylabel("headlines")
    axes.grid(visible=False, axis="x")
    _legend(axes)
    return to_svg(figure, f"Histogram of scores by class, {split}")


def _lines(name: str, history: Sequence[Mapping[str, Any]], series: Mapping[str, str], ylabel: str) -> str:
    """The keys of `series` over `step`. Rows without a value are left out; without any value, empty."""
    figure, axes = new_figure()
    drawn = False
    for (key, label), colour in zip(series.items(), (NEWS, CLICKBAIT), strict=True):
        points = [(row["step"], row[key]) for row in history if row.get(key) is not None]
        if points:
            axes.plot(
                *zip(*points, strict=True),
                color=colour,
                marker="o",
                markersize=4.5 if len(points) < 40 else 0,
                label=label,
            )
            drawn = True
    if not drawn:
        return ""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.set_xlabel("optimizer step")
    axes.set_ylabel(ylabel)
    _legend(axes)
    return to_svg(figure, name)


def new_figure() -> tuple[Figure, Axes]:
    """An empty figure with one plot in it."""
    figure = Figure(figsize=(5.2, 3.5), layout="constrained")
    FigureCanvasSVG(figure)
    return figure, figure.add_subplot()


def _unit(axes: Axes, xlabel: str, ylabel: str) -> None:
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel=xlabel, ylabel=ylabel)


def _legend(axes: Axes) -> None:
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, labelcolor=INK)


def to_svg(figure: Figure, name: str) -> str:
    """The figure as one <svg> element, with `name` as its label for screen readers."""
    out = io.StringIO()
    # The name is the salt of the ids of clip paths and markers: figures on one page must not share ids.
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(
            out, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
        )
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :].strip()
    # Ids such as axes_1: every figure has them and nothing refers to them.
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)  # it would style the whole page
    svg = re.sub(r" font-family: [^;]*;", "", svg)  # the page's own font
    for colour, variable in _CSS.items():
        svg = svg.replace(colour, variable)
    return svg.replace("<svg", f'<svg role="img" aria-label="{name}"', 1)
