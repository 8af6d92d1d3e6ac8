"""The references: the cased one reads capitals, so the gate refuses it; the lower-cased one cannot."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clickbait.config import GateConfig, load
from clickbait.evaluation import behaviour
from clickbait.evaluation.measure import Split
from tests.conftest import ROOT
from tuning.compare import __main__ as compare
from tuning.compare import references

WORDS = (
    "river",
    "harbour",
    "school",
    "winter",
    "garden",
    "market",
    "bridge",
    "council",
    "ticket",
    "kitchen",
    "summer",
    "window",
    "music",
    "doctor",
    "village",
)


def capitals(rows: int, seed: int) -> Split:
    """Headlines of the same words in both classes but for one: clickbait has every word capitalised, news the
    first.
    """
    rng = np.random.default_rng(seed)
    texts, labels = [], []
    for at in range(rows):
        words = [str(word) for word in rng.choice(WORDS, 7)]
        label = at % 2
        if rng.random() < 0.9:
            words.insert(int(rng.integers(1, 7)), "secret" if label else "minister")
        texts.append(" ".join(words).title() if label else " ".join(words).capitalize())
        labels.append(label)
    return Split(texts, np.array(labels))


def real(data_dir: Path) -> list[Split]:
    """Splits of 3,000, 500 and 500 of the real headlines."""
    with (data_dir / "stop-clickbait" / "clickbait_data.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    order = np.random.default_rng(0).permutation(len(rows))[:4000]
    return [
        Split(
            [rows[row]["headline"] for row in part], np.array([int(rows[row]["clickbait"]) for row in part])
        )
        for part in np.split(order, [3000, 3500])
    ]


def judged(
    train: Split, validation: Split, test: Split, monkeypatch: pytest.MonkeyPatch
) -> dict[str, dict[str, Any]]:
    """The comparison's rows of both references, judged by the project's own bounds."""
    monkeypatch.setattr(compare, "HEADLINES", 160)
    contenders = [
        compare.reference(references.train(train, validation, cased=cased)) for cased in (True, False)
    ]
    cases = behaviour.load(str(ROOT / "configs" / "behaviour.yaml"))
    rows = compare.measure(
        contenders, test, None, cases, load(GateConfig, str(ROOT / "configs" / "gate.yaml"))
    )
    return {row["name"]: row for row in rows}


def check(rows: dict[str, dict[str, Any]]) -> None:
    cased, lower = rows[references.CASED], rows[references.LOWER]
    assert cased["accuracy"] > lower["accuracy"]  # it looks better
    assert cased["accuracy"] > 0.97
    assert cased["flips"]["lower"] > 0.1
    assert cased["verdict"]["decision"] == "refused"
    assert "flip_lower" in cased["failed"]
    assert lower["flips"]["lower"] == lower["flips"]["title"] == 0.0
    assert "flip_lower" not in lower["failed"]


def test_the_gate_refuses_what_reads_capitals(monkeypatch: pytest.MonkeyPatch) -> None:
    check(judged(capitals(800, 0), capitals(200, 1), capitals(200, 2), monkeypatch))


def test_the_gate_refuses_what_reads_the_capitals_of_real_headlines(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(judged(*real(data_dir), monkeypatch))


def test_a_reference_is_a_function_of_its_splits_and_says_what_it_weighs() -> None:
    train, validation = capitals(200, 0), capitals(60, 1)
    one, two = (references.train(train, validation, cased=True) for _ in range(2))
    texts = ["Village Secret", "", "\ud800 lone", "harbour  \n council"]
    np.testing.assert_array_equal(one.score(texts), two.score(texts))
    assert one.score(["harbour council"]) == one.score(texts)[3]  # cleaned as a bundle's scorer cleans
    assert one.threshold == two.threshold
    assert one.parameters == len(one.vectors.get_feature_names_out()) > 0
    assert one.size > 8 * one.parameters
    assert one.seconds > 0
