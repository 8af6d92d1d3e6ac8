"""Behavioural cases: the catalogue is whole, each kind decides as it says, and a broken catalogue is told in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clickbait import behaviour, evaluation
from clickbait.behaviour import Direction, Functionality, Invariance
from clickbait.errors import ConfigError
from tests.conftest import ROOT

CATALOGUE = str(ROOT / "configs" / "behaviour.yaml")


def test_the_catalogue_is_whole() -> None:
    cases = behaviour.load(CATALOGUE)
    assert len(cases) >= 100
    assert {case.kind for case in cases} == set(behaviour.KINDS)
    expected = [case.expect for case in cases if isinstance(case, Functionality)]
    assert 0.35 < expected.count("news") / len(expected) < 0.65, "a model that says one thing would pass"
    said = [text for case in cases for text in behaviour.texts([case])]
    assert len(set(said)) == len(said), "a headline stands twice"


def holds(case: behaviour.Case, *scores: float) -> bool:
    return behaviour.judge([case], np.array(scores), threshold=0.5)["passed"] == 1


def test_functionality_is_the_verdict() -> None:
    case = Functionality(kind="minimum_functionality", group="g", name="n", text="t", expect="news")
    assert holds(case, 0.49)
    assert not holds(case, 0.5)
    assert holds(case.model_copy(update={"expect": "clickbait"}), 0.5)


def test_invariance_keeps_the_verdict_right_or_wrong() -> None:
    case = Invariance(kind="invariance", group="g", name="n", text="t", variants=("a", "b"))
    assert holds(case, 0.9, 0.6, 0.51)
    assert holds(case, 0.1, 0.2, 0.3)
    assert not holds(case, 0.9, 0.6, 0.4)


def test_direction_moves_or_has_no_room() -> None:
    more = Direction(kind="direction", group="g", name="n", text="t", variant="v", expect="more")
    assert holds(more, 0.2, 0.3)
    assert not holds(more, 0.3, 0.2)
    assert not holds(more, 0.3, 0.3)
    assert holds(more, 0.999, 0.995), "past 0.99 there is nowhere to go"
    less = more.model_copy(update={"expect": "less"})
    assert holds(less, 0.3, 0.2)
    assert not holds(less, 0.2, 0.3)
    assert holds(less, 0.001, 0.002)
    assert not holds(less, 0.999, 0.9995)


def test_what_fails_is_listed_with_its_scores() -> None:
    cases = behaviour.load(CATALOGUE)
    found = behaviour.judge(cases, np.full(len(behaviour.texts(cases)), 0.3), threshold=0.5)
    wrong = [case for case in cases if isinstance(case, Functionality) and case.expect == "clickbait"]
    moved = [case for case in cases if isinstance(case, Direction)]
    assert {item["name"] for item in found["failed"]} == {case.name for case in [*wrong, *moved]}
    assert found["cases"] - found["passed"] == len(found["failed"])
    assert found["kinds"]["invariance"]["rate"] == 1.0
    assert sum(group["cases"] for group in found["groups"].values()) == len(cases)
    assert found["failed"][0]["scores"] == [0.3]


def test_everything_is_scored_in_one_call() -> None:
    calls: list[list[str]] = []

    def score(texts: list[str]) -> np.ndarray:
        calls.append(texts)
        return np.array([0.9 if "!" in text else 0.1 for text in texts])

    test = evaluation.Split(["One", "Two!"], np.array([0, 1]))
    transfer = evaluation.Split(["BIG!", "Small"], np.array([1, 1]))
    found = evaluation.measure(score, test, transfer=transfer, cases=behaviour.load(CATALOGUE), threshold=0.5, worst=5)
    assert len(calls) == 1
    assert found["test"]["accuracy"] == 1.0
    assert found["transfer"]["accuracy"] == 0.5
    assert found["transfer"]["lower"]["accuracy"] == 0.5
    assert found["flips"]["lower"] == 0.0
    assert found["flips"]["punctuation"] == 0.5  # the exclamation mark is dropped


CASE = "{kind: minimum_functionality, group: g, name: one, text: t, expect: news}"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"cases: [{CASE}, {CASE}]", 'two cases are named "one"'),
        ("cases: [{kind: negation, group: g, name: one, text: t}]", "minimum_functionality"),
        ("cases: [{kind: minimum_functionality, group: g, name: one, expect: news}]", "text"),
        ("cases: [{kind: invariance, group: g, name: one, text: t, variants: []}]", "variants"),
        ("cases: []", "cases"),
        ("case: []", 'did you mean "cases"'),
        ("- 1\n- [", "not YAML"),
    ],
)
def test_a_broken_catalogue_is_one_line(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "cases.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=told) as caught:
        behaviour.load(str(path))
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="cannot be read"):
        behaviour.load(str(tmp_path / "none.yaml"))
