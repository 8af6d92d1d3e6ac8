"""A model version's metrics.json as one HTML page (`templates/report.html`).

The same metrics give the same bytes.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from clickbait.reports import page, plots
from clickbait.reports.page import DASH

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
"""Slices and invariances in words. Any other key is shown with spaces for its underscores."""


def write(metrics: Mapping[str, Any], path: Path, title: str) -> None:
    """Writes `render(metrics, title)` to the local `path`.

    A lone surrogate, which UTF-8 cannot hold, becomes a question mark.
    """
    path.write_text(render(metrics, title), encoding="utf-8", errors="replace")


def render(metrics: Mapping[str, Any], title: str) -> str:
    """The page of a metrics.json.

    Every part of `metrics` but "test" may be missing or null: the page then has no section for it.
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


def _split_plots(split: Mapping[str, Any], split_name: str, threshold: float | None) -> list[tuple[str, str]]:
    """Caption and SVG of each curve of a split. The page leaves an empty SVG out."""
    curves = split.get("curves")
    if not curves:
        return []
    return [
        ("Precision and recall", plots.precision_recall(curves["pr"], split_name)),
        ("ROC", plots.roc(curves["roc"], split_name)),
        (
            "Reliability: the closer to the diagonal, the better calibrated",
            plots.reliability(curves["reliability"], split_name),
        ),
        ("Scores by true class, logarithmic", plots.histogram(curves["histogram"], split_name, threshold)),
    ]


def _number(value: object, digits: int | None = None) -> str:
    """A number with its thousands separated; a dash for anything else.

    It has `digits` digits after the point, or four significant ones.
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
        "clickbait.reports",
        "report.html",
        filters={"number": _number, "percent": _percent},
        undefined=jinja2.ChainableUndefined,
    )
