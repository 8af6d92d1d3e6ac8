"""The report: hostile headlines stay text, nothing is fetched, the same metrics give the same page, and parts
may be missing.
"""

from __future__ import annotations

import re
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest

from clickbait.evaluation import metrics
from clickbait.reports import report
from tests.conftest import ROOT

HOSTILE = "<script>alert(1)</script> \"quoted\" & 'single' {{ 7 * 7 }}"
OPTIONAL = (
    "model",
    "synthetic",
    "dataset",
    "threshold",
    "slices",
    "flips",
    "transfer",
    "latency",
    "export",
    "history",
    "worst",
    "verdict",
    "behaviour",
)
SECTIONS = {
    "slices": "Slices",
    "flips": "Invariances",
    "transfer": "Transfer",
    "history": "Learning curves",
    "worst": "Worst errors",
    "behaviour": "Behaviour",
    "verdict": "Gate:",
    "synthetic": "Synthetic headlines.",
}


def document() -> dict[str, Any]:
    """A metrics.json with every part, from 200 made-up scores."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 200)
    scores = np.clip(0.25 + 0.5 * labels + random.normal(0, 0.2, 200), 0, 1)
    texts = [f"{HOSTILE} number {i}" if i % 2 else "One more question?" for i in range(200)]
    split = {**metrics.classification(labels, scores, 0.5), "curves": metrics.curves(labels, scores)}
    check = {"name": "min_auc", "value": 0.99, "bound": 0.98, "op": ">=", "passed": True, "note": HOSTILE}
    return {
        "model": {"name": "clickbait-model", "version": "v3", "base_model": HOSTILE},
        "synthetic": True,
        "dataset": "0123abcd",
        "threshold": 0.5,
        "test": dict(split),
        "slices": {
            **metrics.slices(texts, labels, scores, 0.5),
            HOSTILE: {"rows": 1, "accuracy": 1.0, "f1": None, "share_clickbait": 0.0},
        },
        "flips": {"lower": 0.001, "upper": 0.0, "title": 0.002, "punctuation": 0.5, "spaces": 0.0},
        "transfer": {**split, "source": HOSTILE},
        "latency": {"single_p50_ms": 2.0, "single_p95_ms": 3.0, "batch16_per_second": 500.0, "threads": 1},
        "export": {
            "fp32": {"agreement": 1.0, "max_difference": 1e-6, "per_second": 150.0},
            "int8": {"agreement": 0.99, "max_difference": 0.04, "per_second": 500.0},
            "torch": {"per_second": 140.0},
            "size_mb": {"fp32": 90.9, "int8": 23.1},
        },
        "history": [
            {
                "epoch": e,
                "step": 10 * e,
                "train_loss": 1 / e,
                "val_log_loss": 1.1 / e,
                "val_accuracy": 0.9,
                "val_auc": None,
            }
            | {"lr": 1e-4, "seconds": 3.0}
            for e in (1, 2)
        ],
        "behaviour": {
            "cases": 2,
            "passed": 1,
            "kinds": {"direction": {"cases": 2, "passed": 1, "rate": 0.5}},
            "groups": {
                name: {"cases": 2, "passed": 1, "rate": 0.5} for name in (HOSTILE, "short", "toned-down")
            },
            "failed": [
                {"name": "worse", "text": HOSTILE, "variant": HOSTILE, "expect": "more", "scores": [0.5, 0.4]}
            ],
        },
        "worst": metrics.worst(texts, labels, scores, 20, 0.5),
        "verdict": {
            "decision": "refused",
            "checks": [check, {**check, "passed": False}, {**check, "value": None}],
            "compared": [
                {
                    "version": HOSTILE,
                    "role": "best",
                    "rows": 3199,
                    "accuracy": 0.9953,
                    "candidate_accuracy": 0.9841,
                    "only_version_right": 77,
                    "only_candidate_right": 41,
                    "p_value": 0.000612,
                },
            ],
        },
    }


class Page(HTMLParser):
    """What a browser would see: elements, their addresses and ids, and whether every element that opens also
    closes.
    """

    VOID = ("meta", "br")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [
            value or ""
            for name, value in attrs
            if name in ("src", "href", "xlink:href", "srcset", "action", "data")
        ]
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def html() -> str:
    return report.render(document(), HOSTILE)


def test_hostile_text_stays_text(html: str) -> None:
    page = Page(html)
    assert "script" not in page.tags
    assert "<script" not in html
    assert page.text.count(HOSTILE) > 6  # title, model, note, slice, source, headlines: shown, to the letter
    assert page.open == []


def test_a_comparison_on_the_same_headlines_shows_its_figures(html: str) -> None:
    text = Page(html).text
    assert all(
        figure in text
        for figure in ("3,199", "99.53%", "98.41%", "77", "41", "0.000612", "best version ever promoted")
    )


def test_the_page_asks_for_nothing(html: str) -> None:
    page = Page(html)
    assert page.addresses  # the markers of the plots
    assert all(address.startswith("#") for address in page.addresses)
    assert not set(page.tags) & {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
    assert "url(#" in html
    assert not re.search(r"@import|url\((?!#)", html)
    assert "default-src 'none'" in html
    assert set(re.findall(r"https?://[^\s\"'<]*", html)) == {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }


def test_ids_are_unique_and_each_reference_has_its_target(html: str) -> None:
    page = Page(html)
    assert len(page.ids) == len(set(page.ids))
    assert {address[1:] for address in page.addresses} | set(re.findall(r"url\(#(\w+)\)", html)) <= set(
        page.ids
    )


def test_plots_follow_the_pages_colours(html: str) -> None:
    assert html.count("<svg") == 10
    for svg in re.findall(r"<svg.*?</svg>", html, re.DOTALL):
        assert not re.search(r"(?:fill|stroke): #", svg)
        assert "aria-label" in svg
    assert "prefers-color-scheme: dark" in html


def test_the_same_metrics_give_the_same_bytes_and_no_global_style(html: str) -> None:
    before = dict(mpl.rcParams)
    assert report.render(document(), HOSTILE) == html
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize("missing", OPTIONAL)
@pytest.mark.parametrize("null", [True, False])
def test_a_missing_part_takes_its_section_along_and_no_other(missing: str, null: bool, html: str) -> None:
    metrics_document = document()
    for split in ("test", "transfer"):
        del metrics_document[split]["curves"]  # the plots of the splits are what takes long
    if null:
        metrics_document[missing] = None
    else:
        del metrics_document[missing]
    text = Page(report.render(metrics_document, "t")).text
    for part, heading in SECTIONS.items():
        assert (heading in text) == (part != missing)


def test_behaviour_names_its_kinds_groups_and_failed_cases_with_a_score_each() -> None:
    failed = [
        {"name": "plain", "text": "One", "expect": "news", "scores": [0.911]},
        {"name": "varied", "text": "Two", "variants": ["Three", "Four"], "scores": [0.922, 0.133, 0.144]},
        {"name": "moved", "text": "Five", "variant": "Six", "expect": "less", "scores": [0.355, 0.466]},
    ]
    part = {**document()["behaviour"], "failed": failed}
    html = report.render({"test": {"rows": 1}, "behaviour": part}, "t")
    rows = [
        " ".join(Page(row.replace("</td>", " </td>")).text.split())
        for row in re.findall(r"<tr>.*?</tr>", html, re.DOTALL)
    ]
    assert {"plain One 91.1% news", "varied Two 92.2% the same", "Three 13.3%", "Four 14.4%"} <= set(rows)
    assert {"moved Five 35.5% less clickbait", "Six 46.6%"} <= set(rows)
    assert {"direction 2 1 50.0%", "short 2 1 50.0%", "toned down 2 1 50.0%"} <= set(rows), (
        "a group is not the slice of its name"
    )


def test_only_the_test_split_is_needed() -> None:
    test = {key: value for key, value in document()["test"].items() if key != "curves"}
    page = Page(report.render({"test": test}, "bare"))
    assert "svg" not in page.tags
    assert not any(heading in page.text for heading in SECTIONS.values())


def test_one_class_only_renders() -> None:
    labels, scores = np.ones(3, dtype=np.int64), np.array([0.2, 0.7, 0.9])
    split = {**metrics.classification(labels, scores, 0.5), "curves": metrics.curves(labels, scores)}
    assert report.render({"test": split}, "t").count("<svg") == 2  # neither ROC nor PR is defined


def test_write_takes_what_has_no_utf8_form(tmp_path: Path) -> None:
    metrics_document = document()
    metrics_document["worst"] = [{"text": "lone \ud800 surrogate", "label": 1, "score": 0.1}]
    report.write(metrics_document, tmp_path / "report.html", "t")
    assert "lone ? surrogate" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_draft_is_shown_without_a_version() -> None:
    draft = document()
    draft["model"]["version"] = None
    assert "<b>clickbait-model</b>" in report.render(draft, "Draft")
    assert "<b>clickbait-model v3</b>" in report.render(document(), "Version")


def test_a_wheel_contains_every_template() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    package_data = project["tool"]["setuptools"]["package-data"]
    folders = [folder for root in ("clickbait", "tuning") for folder in (ROOT / root).rglob("templates")]
    assert len(folders) == 3
    for folder in folders:
        package = ".".join(folder.parent.relative_to(ROOT).parts)
        assert package_data[package] == ["templates/*"], package
