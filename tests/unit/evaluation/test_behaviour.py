"""Behavioural cases: the catalogue is whole, each kind decides as it says, and a broken catalogue is told in
one line.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from clickbait.config import GateConfig, load
from clickbait.errors import ConfigError
from clickbait.evaluation import behaviour
from clickbait.evaluation.behaviour import Direction, Functionality, Invariance
from tests.conftest import ROOT

CATALOGUE = str(ROOT / "configs" / "behaviour.yaml")


def test_the_catalogue_is_whole() -> None:
    cases = behaviour.load(CATALOGUE)
    assert len(cases) >= 130
    assert {case.kind for case in cases} == set(behaviour.KINDS)
    expected = [case.expect for case in cases if isinstance(case, Functionality)]
    assert 0.35 < expected.count("news") / len(expected) < 0.65, "a model that says one thing would pass"
    moves = [case.expect for case in cases if isinstance(case, Direction)]
    assert moves.count("more") == moves.count("less"), "a score that always rises would pass"
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
    assert holds(less, 0.01, 0.01), "the bound belongs to the end"
    assert not holds(less, 0.009, 0.02), "back out of the end is a move"
    assert not holds(less, 0.999, 0.9995)


def test_a_score_that_is_no_number_is_no_verdict() -> None:
    case = Functionality(kind="minimum_functionality", group="g", name="n", text="t", expect="news")
    with pytest.raises(AssertionError, match="not a number"):
        holds(case, float("nan"))


def capitals(text: str) -> bool:
    """Most words start with a capital."""
    starts = [start for start in re.findall(r"(?<!\S)[^\w\s]*(\w)", text) if not start.isdigit()]
    return sum(start.isupper() for start in starts) > len(starts) / 2


SHORTCUTS: dict[str, Callable[[str], bool]] = {
    "news, always": lambda text: False,
    "clickbait, always": lambda text: True,
    "a digit": lambda text: any(c.isdigit() for c in text),
    "a question": lambda text: "?" in text,
    "its length": lambda text: len(text) >= 50,
    "capitals": capitals,
    "six words": lambda text: bool(re.search(r"\b(you|your|this|these|we|here's)\b", text.lower())),
}


@pytest.mark.parametrize("name", SHORTCUTS)
def test_no_shortcut_passes_the_plain_cases(name: str) -> None:
    """By the gate's own bound: the catalogue is passed by reading, or not at all."""
    cases = behaviour.load(CATALOGUE)
    scores = np.array([0.9 if SHORTCUTS[name](text) else 0.1 for text in behaviour.texts(cases)])
    bound = load(GateConfig, str(ROOT / "configs" / "gate.yaml")).min_minimum_functionality
    rate = behaviour.judge(cases, scores, threshold=0.5)["kinds"]["minimum_functionality"]["rate"]
    assert rate < bound - 0.05, rate


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


CASE = "{kind: minimum_functionality, group: g, name: one, text: t, expect: news}"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"cases: [{CASE}, {CASE}]", 'two cases are named "one"'),
        (
            f"cases: [{CASE[:-1]}, expct: x}}]",
            """case 1, 'one': expct: unknown key; did you mean "expect"\\?$""",
        ),
        (
            "cases: [{kind: negation, group: g, name: one, text: t}]",
            "case 1, 'one': kind: must be one of .*, not 'negation'$",
        ),
        ("cases: [{group: g, name: one, text: t}]", "case 1, 'one': kind: must be one of "),
        (
            f"cases: [{CASE}, {{kind: minimum_functionality, group: g, name: two, expect: news}}]",
            "case 2, 'two': text: Field required$",
        ),
        (
            "cases: [{kind: minimum_functionality, group: g, name: one, text: ' ', expect: news}]",
            "text: must be a headline",
        ),
        ("cases: [{kind: invariance, group: g, name: one, text: t, variants: []}]", "variants"),
        (
            "cases: [{kind: invariance, group: g, name: one, text: t, variants: ['']}]",
            "variants.0: must be a headline",
        ),
        ("cases: []", "cases: the list is empty"),
        ("case: []", 'did you mean "cases"'),
        ("[]", "must be a mapping of keys to values, not a list"),
        ("", "cases: Field required"),
        ("- 1\n- [", "not YAML"),
    ],
)
def test_a_broken_catalogue_is_one_line(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "cases.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=told) as caught:
        behaviour.load(str(path))
    assert "\n" not in str(caught.value)


def test_a_catalogue_that_is_not_there_names_the_flag(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read .*: give --behaviour-file"):
        behaviour.load(str(tmp_path / "none.yaml"))
