"""The rows of `tuning.compare` as a table for a terminal, as one in Markdown, and as one self-contained HTML
page.

Names are the user's and hostile: they are escaped wherever they stand, and a plot never sees them.
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
    "model", "parameters", "MB", "accuracy", "p, as the best", *(f"flips, {name}" for name in _FLIPS), "transfer AUC",
    "transfer accuracy, lower case", "ECE", "behaviour", "headlines/s", "ms", "training s", "gate",
)  # fmt: skip
_GLYPH, _LINE, _MARGIN = (
    0.56,
    1.25,
    7.0,
)  # of a label: width and height of a character in sizes of the font; points away from its mark


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
    """A line a figure, a column a model: a screen is not wide enough for a column a figure."""
    table = list(zip(COLUMNS, *(cells(row) for row in rows), strict=True))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for line in table:
        figures = [text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True)]
        lines.append("  ".join([line[0].ljust(widths[0]), *figures]))
    return "\n".join(lines)


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """A row a model, with the checks that it failed."""
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


@plots._styled
def accuracy_plot(points: Sequence[Point]) -> str:
    """Accuracy over headlines a second: up and to the right is better."""
    return _scatter(
        "Test accuracy over headlines a second", points, "headlines a second", "accuracy", more=True
    )


@plots._styled
def transfer_plot(points: Sequence[Point]) -> str:
    """Transfer AUC over megabytes: up and to the left is better. Empty where there is no transfer set."""
    return _scatter(
        "Transfer AUC over the size of the served file", points, "MB served", "transfer AUC", more=False
    )


def frontier(points: Sequence[tuple[float, float]], *, more: bool) -> list[tuple[float, float]]:
    """The Pareto-optimal points by x: no other is as good in both and better in one. Large y is good, large x
    where `more`.
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
    figure, axes = plots._figure()
    best = frontier(
        [(x, y) for point, x, y in shown if point.passed], more=more
    )  # what is refused is no choice
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
    figure.canvas.draw()  # settles the layout: the labels go where pixels say that there is room
    _label(axes, [(point.name, x, y) for point, x, y in shown], best)
    svg = plots._svg(figure, name)
    for at, (point, _, _) in enumerate(shown):
        svg = svg.replace(_stand_in(at), html.escape(point.name))
    return svg


def _axes(axes: Axes, xs: Sequence[float], ys: Sequence[float]) -> None:
    """A logarithmic x with room on both sides, and y as far as the points go."""
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
    """Each name beside its mark, at the place of eight where it covers least of the marks, the line and the
    other names.
    """
    size = float(plots._STYLE["font.size"]) - 1.5
    scale = 72 / axes.figure.dpi
    marks = [tuple(scale * axes.transData.transform((x, y))) for _, x, y in points]
    left, right = (scale * edge for edge in axes.get_window_extent().intervalx)
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in marks]
    for one, other in pairwise(scale * axes.transData.transform(line) if line else []):
        taken += [(x - 1, y - 1, x + 1, y + 1) for x, y in np.linspace(one, other, 40)]
    for at, ((name, x, y), (px, py)) in enumerate(zip(points, marks, strict=True)):
        width, height = _GLYPH * size * len(name), _LINE * size
        places = [
            (dx, dy) for dy in (0.0, -height, height, -2 * height) for dx in (_MARGIN, -_MARGIN - width)
        ]
        boxes = [(px + dx, py + dy - height / 2, px + dx + width, py + dy + height / 2) for dx, dy in places]
        cost = [
            sum(_overlap(box, other) for other in taken) + max(left - box[0], 0.0) + max(box[2] - right, 0.0)
            for box in boxes
        ]
        place = cost.index(min(cost))
        taken.append(boxes[place])
        axes.annotate(
            _stand_in(at), (x, y), places[place], textcoords="offset points", fontsize=size, va="center", ha="left", in_layout=False,
        )  # fmt: skip


def _stand_in(at: int) -> str:
    """What a plot says in place of a name, which matplotlib might read as mathematics or have no glyph
    for.
    """
    return f"LABEL{at:03d}"


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    width, height = (
        min(one[2], other[2]) - max(one[0], other[0]),
        min(one[3], other[3]) - max(one[1], other[1]),
    )
    return width * height if width > 0 and height > 0 else 0.0


def _number(value: float | None, digits: int = 0) -> str:
    return DASH if value is None else f"{value:,.{digits}f}"


def _percent(value: float | None) -> str:
    return DASH if value is None else f"{value:.2%}"


def _inert(name: str) -> str:
    """A name that neither ends a cell of a Markdown table nor is read as markup."""
    return "".join(f"&#{ord(c)};" if c in "|\\`*_[]<>&~" else c for c in " ".join(name.split()))


_BODY = """\
{% if document.synthetic %}
<p class="banner"><b>Synthetic headlines.</b> The figures show that the pipeline works, not how well a model reads real ones.</p>
{% endif %}
<header>
<h1>{{ title }}</h1>
<p class="about"><span>dataset <code>{{ document.dataset }}</code></span>
<span>test split of <b>{{ "{:,}".format(document.test_rows) }}</b> headlines</span>
{% if document.transfer %}
<span>transfer set <b><bdi>{{ document.transfer }}</bdi></b>, {{ "{:,}".format(document.transfer_rows) }} headlines</span>
{% for reason, rows in document.transfer_left_out.items() %}
<span>left out: {{ "{:,}".format(rows) }} {{ reason|replace("_", " ") }}</span>
{% endfor %}{% endif %}
</p>
</header>

<section><h2>Every model</h2>
<div class="scroll"><table>
<thead><tr>{% for column in columns %}<th{% if not loop.first and not loop.last %} class="n"{% endif %}>{{ column }}</th>{% endfor %}
<th>failed</th></tr></thead>
{% for cells, failed in rows %}
<tr><td><bdi>{{ cells[0] }}</bdi></td>{% for cell in cells[1:-1] %}<td class="n">{{ cell }}</td>{% endfor %}
<td><span class="tag {{ 'bad' if failed else 'good' }}">{{ cells[-1] }}</span></td>
<td class="muted failed">{{ failed|join(", ")|replace("_", " ") }}</td></tr>
{% endfor %}
</table></div>
<p class="muted foot">MB of the file that is served. p, as the best: the probability that two equally good models differ as much or more
on these test headlines as this one and the most accurate (exact McNemar test, two-sided, not corrected for the choice of the best): a
larger one than 0.05 says that the test split does not tell the two apart. Flips: test verdicts that change when the headline is written
otherwise.
Headlines/s: in batches of 16, {{ document.threads }} thread{{ "s" if document.threads > 1 }}, from text to score, median of rounds in which
the models take turns. ms: median of one headline. The gate's bounds are those of a promotion, against no champion.</p>
</section>

<section><h2>What is paid for what</h2>
<div class="plots">
{% for caption, svg in figures if svg %}<figure>{{ svg|safe }}<figcaption>{{ caption }}</figcaption></figure>{% endfor %}
</div>
<p class="muted foot">Filled: the gate promotes it. Hollow: refused. Squares: the shallow references. Broken line: of those promoted,
no other is better in one and as good in the other.</p>
</section>
"""
_STYLE = """
main { max-width:1560px; }
table { border-collapse:separate; border-spacing:0; }
td { line-height:22px; } /* whole pixels: the first column covers its neighbours, not their lines */
thead th, thead .n { white-space:normal; vertical-align:bottom; }
td:first-child { position:sticky; left:0; background:var(--panel); min-width:120px; max-width:220px;
  overflow-wrap:break-word; font-weight:600; }
.failed { min-width:150px; }
.foot { margin:14px 0 0; }
"""


@functools.cache
def _template() -> jinja2.Template:
    return page.template(_BODY, style=_STYLE, filters={})
