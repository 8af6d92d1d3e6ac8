"""Behavioural tests: hand-written cases with an expected result (Ribeiro et al. 2020, "CheckList").

A YAML catalogue (`configs/behaviour.yaml`) holds three kinds of case:

    minimum_functionality   a headline and its correct verdict
    invariance              variants of a headline that must have the same verdict, right or wrong
    direction               a changed headline whose score must be larger (`more`) or smaller (`less`)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, Field

from clickbait.config import Config, read_yaml, validate
from clickbait.errors import ConfigError
from clickbait.text import Label

# A direction case also passes if both scores are within this distance of the end that the score should move
# to: there is no room left to move.
SATURATED = 0.01


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must be a headline, not blanks")
    return text


Headline = Annotated[str, AfterValidator(_not_blank)]


class _Case(Config):
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    """Unique name of the case. It says what is tested."""
    group: str = Field(pattern=r"^[a-z][a-z-]*$")
    """Group of the case in the report."""
    text: Headline
    """The headline."""


class Functionality(_Case):
    """A headline with an obvious verdict."""

    kind: Literal["minimum_functionality"]
    expect: Label
    """The correct verdict."""


class Invariance(_Case):
    """A headline and variants of it that must all have the same verdict."""

    kind: Literal["invariance"]
    variants: tuple[Headline, ...] = Field(min_length=1)
    """Other ways to write the headline."""


class Direction(_Case):
    """A headline and a changed form of it, whose score must be larger or smaller."""

    kind: Literal["direction"]
    variant: Headline
    """The changed headline."""
    expect: Literal["more", "less"]
    """Whether P(clickbait) of the changed headline must be larger (`more`) or smaller (`less`)."""


Case = Functionality | Invariance | Direction
KINDS: dict[str, type[Case]] = {
    "minimum_functionality": Functionality,
    "invariance": Invariance,
    "direction": Direction,
}


class Catalogue(Config):
    """The content of a catalogue file."""

    cases: tuple[dict[str, Any], ...]
    """The cases before validation. Each case is validated separately, so that an error names its case."""


def load(path: str) -> tuple[Case, ...]:
    """Reads the cases of the catalogue at `path`.

    Raises:
        ConfigError: the file is missing or not YAML, there is no case, a case is not valid, or two cases have
            the same name.
    """
    document = read_yaml(path, "give --behaviour-file a catalogue of cases")
    cases = tuple(
        _case(values, f"{path}: case {number}")
        for number, values in enumerate(validate(Catalogue, document, path).cases, 1)
    )
    if not cases:
        raise ConfigError(f"{path}: cases: the list is empty: add at least one case")
    names = [case.name for case in cases]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f'{path}: two cases are named "{name}": give each case a unique name')
    return cases


def texts(cases: Sequence[Case]) -> list[str]:
    """All headlines of the cases, in the order in which `judge` expects the scores."""
    return [text for case in cases for text in _texts(case)]


def judge(cases: Sequence[Case], scores: np.ndarray, threshold: float) -> dict[str, Any]:
    """Judges the scores of the cases.

    Args:
        cases: the cases.
        scores: P(clickbait) of `texts(cases)`, (n,).
        threshold: a score from here on means clickbait.

    Returns:
        cases, passed, kinds and groups (a dict from name to cases, passed and rate), and failed (every failed
        case with its scores).
    """
    assert not np.isnan(scores).any(), (
        "a score is not a number"
    )  # NaN >= threshold is false, so it would mean news
    outcomes = []
    start = 0
    for case in cases:
        count = len(_texts(case))
        case_scores = [float(score) for score in scores[start : start + count]]
        start += count
        outcomes.append((case, case_scores, _passes(case, case_scores, threshold)))
    assert start == len(scores), "one score per text"
    return {
        "cases": len(cases),
        "passed": sum(passed for _, _, passed in outcomes),
        "kinds": _pass_rates([(case.kind, passed) for case, _, passed in outcomes]),
        "groups": _pass_rates([(case.group, passed) for case, _, passed in outcomes]),
        "failed": [
            {**case.model_dump(mode="json"), "scores": case_scores}
            for case, case_scores, passed in outcomes
            if not passed
        ],
    }


def _case(values: dict[str, Any], where: str) -> Case:
    where = f"{where}, {values.get('name')!r}"
    kind = values.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ConfigError(f"{where}: kind: must be one of {', '.join(KINDS)}, not {kind!r}")
    return validate(KINDS[kind], values, where)


def _texts(case: Case) -> list[str]:
    if isinstance(case, Invariance):
        return [case.text, *case.variants]
    return [case.text, case.variant] if isinstance(case, Direction) else [case.text]


def _passes(case: Case, scores: list[float], threshold: float) -> bool:
    verdicts = {score >= threshold for score in scores}
    if isinstance(case, Functionality):
        return verdicts == {case.expect == "clickbait"}
    if isinstance(case, Invariance):
        return len(verdicts) == 1
    before, after = scores if case.expect == "more" else (1.0 - scores[0], 1.0 - scores[1])
    return after > before or min(before, after) >= 1.0 - SATURATED


def _pass_rates(outcomes: Sequence[tuple[str, bool]]) -> dict[str, dict[str, Any]]:
    """Number of cases, passed cases and pass rate of each name, from (name, passed) pairs."""
    rates: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(name for name, _ in outcomes):
        passed = [case_passed for case_name, case_passed in outcomes if case_name == name]
        rates[name] = {"cases": len(passed), "passed": sum(passed), "rate": sum(passed) / len(passed)}
    return rates
