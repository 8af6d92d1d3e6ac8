"""A model version's metrics.json as one HTML page (`clickbait.reports.page`). The same metrics give the same
bytes.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from clickbait.reports import page, plots
from clickbait.reports.page import DASH
from clickbait.reports.template import BODY

NAMES = {
    "short": "short (below 40 characters)",
    "medium": "medium (40 to 69)",
    "long": "long (70 and more)",
    "title_case": "every word capitalised",
    "not_title_case": "not every word capitalised",
    "lower": "lower case",
    "upper": "upper case",
    "title": "title case",
    "punctuation": "punctuation at the end dropped or added",
    "spaces": "extra spaces",
}
"""Slices and invariances in words; another key stands as it is, blanks for underscores."""


def write(metrics: Mapping[str, Any], path: Path, title: str) -> None:
    """Writes `render(metrics, title)` to the local `path`. A lone surrogate, which has no UTF-8 form, becomes
    a question mark.
    """
    path.write_text(render(metrics, title), encoding="utf-8", errors="replace")


def render(metrics: Mapping[str, Any], title: str) -> str:
    """The page. `metrics` is the document of metrics.json; every part but "test" may be missing or null, and
    is then left out.
    """
    threshold = metrics.get("threshold")
    history = metrics.get("history") or []
    return _template().render(
        title=title,
        m=metrics,
        names=NAMES,
        threshold=threshold,
        learning=[("Loss", plots.loss(history)), ("Validation", plots.quality(history))],
        test_plots=_split_plots(metrics["test"], "test split", threshold),
        transfer_plots=_split_plots(metrics.get("transfer") or {}, "transfer set", threshold),
    )


def _split_plots(split: Mapping[str, Any], of: str, threshold: float | None) -> list[tuple[str, str]]:
    """Caption and SVG of each curve of a split; an empty SVG is not shown."""
    curves = split.get("curves")
    if not curves:
        return []
    return [
        ("Precision and recall", plots.precision_recall(curves["pr"], of)),
        ("ROC", plots.roc(curves["roc"], of)),
        (
            "Reliability: the closer to the diagonal, the better calibrated",
            plots.reliability(curves["reliability"], of),
        ),
        ("Scores by true class, logarithmic", plots.histogram(curves["histogram"], of, threshold)),
    ]


def _number(value: object, digits: int | None = None) -> str:
    """Thousands separated; `digits` after the point, or four significant ones. A dash for what is not
    there.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return DASH
    if digits is not None:
        return f"{value:,.{digits}f}"
    return f"{value:,}" if isinstance(value, int) or abs(value) >= 1000 else f"{value:.4g}"


def _percent(value: object, digits: int = 2) -> str:
    return f"{_number(100 * value, digits)}%" if isinstance(value, int | float) else DASH


@functools.cache
def _template() -> jinja2.Template:
    return page.template(
        BODY, filters={"number": _number, "percent": _percent}, undefined=jinja2.ChainableUndefined
    )
