"""The rows of `tuning.compare` as a table for a terminal, a Markdown table and an HTML page.

Names come from the user and may be hostile: every output escapes them, and matplotlib never sees them.
"""

from __future__ import annotations

import functools
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import jinja2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, ScalarFormatter

from clickbait.reports import page, plots
from clickbait.reports.page import DASH

_FLIPS = ("lower", "upper", "title", "punctuation", "spaces")
COLUMNS = (
    "model",
    "parameters",
    "MB",
    "accuracy",
    "p, as the best",
    *(f"flips, {name}" for name in _FLIPS),
    "transfer AUC",
    "transfer accuracy, lower case",
    "ECE",
    "behaviour",
    "headlines/s",
    "ms",
    "training s",
    "gate",
)
_GLYPH, _LINE = 0.56, 1.25  # width and height of a label's character, as a share of the font size
_MARGIN = 7.0  # points between a mark and its label


def cells(row: Mapping[str, Any]) -> list[str]:
    """The texts of `COLUMNS` for one row."""
    return [
        row["name"],
        _number(row["parameters"]),
        _number(row["size_mb"], 1 if row["size_mb"] >= 1 else 3),
        _percent(row["accuracy"]),
        "best" if row["beside_best"] is None else f"{row['beside_best']['p_value']:.2g}",
        *(_percent(row["flips"][name]) for name in _FLIPS),
        _number(row["transfer_auc"], 4),
        _percent(row["transfer_lower"]),
        _percent(row["ece"]),
        f"{row['behaviour']['passed']} of {row['behaviour']['cases']}",
        _number(row["per_second"], 0),
        _number(row["latency_ms"], 2),
        _number(row["seconds"], 0),
        row["verdict"]["decision"],
    ]


def terminal(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line per figure, one column per model: a screen has no room for one column per figure."""
    table = list(zip(COLUMNS, *(cells(row) for row in rows), strict=True))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for line in table:
        figures = [text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True)]
        lines.append("  ".join([line[0].ljust(widths[0]), *figures]))
    return "\n".join(lines)


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """One row per model, with the checks that it failed."""
    lines = [
        "| " + " | ".join((*COLUMNS, "failed")) + " |",
        "| --- |" + " ---: |" * (len(COLUMNS) - 1) + " --- |",
    ]
    for row in rows:
        name, *figures = cells(row)
        lines.append("| " + " | ".join([_inert(name), *figures, ", ".join(row["failed"])]) + " |")
    return "\n".join(lines) + "\n"


def render(document: Mapping[str, Any]) -> str:
    """The page of compare.json."""
    rows = document["models"]
    speed = [
        Point(row["name"], row["per_second"], row["accuracy"], row["reference"], not row["failed"])
        for row in rows
    ]
    size = [
        Point(row["name"], row["size_mb"], row["transfer_auc"], row["reference"], not row["failed"])
        for row in rows
    ]
    return _template().render(
        title="Models compared",
        document=document,
        columns=COLUMNS,
        rows=[(cells(row), row["failed"]) for row in rows],
        figures=[
            ("Accuracy on the test split over headlines a second", accuracy_plot(speed)),
            ("AUC on the transfer set over the size of the served file", transfer_plot(size)),
        ],
    )


@dataclass(frozen=True)
class Point:
    """A model in a plot."""

    name: str
    x: float
    y: float | None
    reference: bool
    passed: bool


@plots.styled
def accuracy_plot(points: Sequence[Point]) -> str:
    """Accuracy over headlines per second: up and to the right is better."""
    return _scatter(
        "Test accuracy over headlines a second", points, "headlines a second", "accuracy", more=True
    )


@plots.styled
def transfer_plot(points: Sequence[Point]) -> str:
    """Transfer AUC over megabytes: up and to the left is better. Empty without a transfer set."""
    return _scatter(
        "Transfer AUC over the size of the served file", points, "MB served", "transfer AUC", more=False
    )


def frontier(points: Sequence[tuple[float, float]], *, more: bool) -> list[tuple[float, float]]:
    """The Pareto-optimal points by x: no other point is at least as good in both and better in one.

    A large y is good; a large x is good if `more`, else a small one.
    """
    best: list[tuple[float, float]] = []
    for x, y in sorted(set(points), key=lambda point: (-point[0] if more else point[0], -point[1])):
        if not best or y > best[-1][1]:
            best.append((x, y))
    return sorted(best)


def _scatter(name: str, points: Sequence[Point], xlabel: str, ylabel: str, *, more: bool) -> str:
    shown = [(point, point.x, point.y) for point in points if point.y is not None]
    if not shown:
        return ""
    figure, axes = plots.new_figure()
    # Only models that the gate promotes can be chosen.
    best = frontier([(x, y) for point, x, y in shown if point.passed], more=more)
    axes.plot(
        [x for x, _ in best],
        [y for _, y in best],
        color=plots.NEWS,
        linewidth=1,
        linestyle=(0, (4, 4)),
        zorder=2,
    )
    for point, x, y in shown:
        face = plots.CLICKBAIT if point.passed else "none"
        marker = "s" if point.reference else "o"
        axes.scatter(
            [x],
            [y],
            s=42,
            marker=marker,
            facecolors=face,
            edgecolors=plots.CLICKBAIT,
            linewidths=1.5,
            zorder=3,
        )
    _axes(axes, [x for _, x, _ in shown], [y for *_, y in shown])
    axes.set(xlabel=xlabel, ylabel=ylabel)
    figure.canvas.draw()  # settles the layout, so that labels can be placed by pixels
    _label(axes, [(point.name, x, y) for point, x, y in shown], best)
    svg = plots.to_svg(figure, name)
    for at, (point, _, _) in enumerate(shown):
        svg = svg.replace(_placeholder(at), html.escape(point.name))
    return svg


def _axes(axes: Axes, xs: Sequence[float], ys: Sequence[float]) -> None:
    """A logarithmic x axis with room on both sides, and a y axis around the points."""
    axes.set_xscale("log")
    axes.set_xlim(min(xs) / 2.5, max(xs) * 2.5)
    room = 0.15 * (max(ys) - min(ys)) or 0.01
    axes.set_ylim(min(ys) - room, max(ys) + room)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if max(xs) < 100 * min(xs) else (1.0,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.12g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(ScalarFormatter(useOffset=False))


def _label(
    axes: Axes, points: Sequence[tuple[str, float, float]], line: Sequence[tuple[float, float]]
) -> None:
    """Writes each name beside its mark, at the best of eight places.

    The best place covers the smallest area of the marks, the line and the names placed before.
    """
    size = float(plots.STYLE["font.size"]) - 1.5
    scale = 72 / axes.figure.dpi
    marks = [tuple(scale * axes.transData.transform((x, y))) for _, x, y in points]
    left, right = (scale * edge for edge in axes.get_window_extent().intervalx)
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in marks]
    for start, end in pairwise(scale * axes.transData.transform(line) if line else []):
        taken += [(x - 1, y - 1, x + 1, y + 1) for x, y in np.linspace(start, end, 40)]
    for at, ((name, x, y), (px, py)) in enumerate(zip(points, marks, strict=True)):
        width, height = _GLYPH * size * len(name), _LINE * size
        places = [
            (dx, dy) for dy in (0.0, -height, height, -2 * height) for dx in (_MARGIN, -_MARGIN - width)
        ]
        boxes = [(px + dx, py + dy - height / 2, px + dx + width, py + dy + height / 2) for dx, dy in places]
        cost = [
            sum(_overlap(box, area) for area in taken) + max(left - box[0], 0.0) + max(box[2] - right, 0.0)
            for box in boxes
        ]
        place = cost.index(min(cost))
        taken.append(boxes[place])
        axes.annotate(
            _placeholder(at),
            (x, y),
            places[place],
            textcoords="offset points",
            fontsize=size,
            va="center",
            ha="left",
            in_layout=False,
        )


def _placeholder(at: int) -> str:
    """Drawn in place of a name: matplotlib may read a name as a formula, or have no glyph for it."""
    return f"LABEL{at:03d}"


def _overlap(box: tuple[float, ...], other: tuple[float, ...]) -> float:
    """The area that two boxes (left, bottom, right, top) share."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    return width * height if width > 0 and height > 0 else 0.0


def _number(value: float | None, digits: int = 0) -> str:
    return DASH if value is None else f"{value:,.{digits}f}"


def _percent(value: float | None) -> str:
    return DASH if value is None else f"{value:.2%}"


def _inert(name: str) -> str:
    """The name, escaped: it can neither end a cell of a Markdown table nor be read as markup."""
    return "".join(f"&#{ord(c)};" if c in "|\\`*_[]<>&~" else c for c in " ".join(name.split()))


@functools.cache
def _template() -> jinja2.Template:
    return page.template("tuning.compare", "compare.html", filters={})
