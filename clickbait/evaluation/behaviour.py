"""Behavioural tests of a model: small cases of our own writing that say what a careful reader would (Ribeiro
et al. 2020, "CheckList").

Three kinds of case, in a YAML catalogue (`configs/behaviour.yaml`):

    minimum_functionality   a headline and its verdict
    invariance              variants of a headline that must keep its verdict, right or wrong
    direction               a change that must make the score larger (`more`) or smaller (`less`)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, Field

from clickbait.config import Config, read_yaml, validate
from clickbait.errors import ConfigError
from clickbait.text import Label

SATURATED = 0.01  # two scores this near to the end that a case points to have no room left to move


def _some_text(text: str) -> str:
    if not text.strip():
        raise ValueError("must be a headline, not blanks")
    return text


Headline = Annotated[str, AfterValidator(_some_text)]


class _Case(Config):
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    """What is tested, unique."""
    group: str = Field(pattern=r"^[a-z][a-z-]*$")
    """What it belongs to in the report."""
    text: Headline
    """The headline."""


class Functionality(_Case):
    """A headline whose verdict is plain."""

    kind: Literal["minimum_functionality"]
    expect: Label
    """The verdict it must have."""


class Invariance(_Case):
    """Variants that must keep the verdict."""

    kind: Literal["invariance"]
    variants: tuple[Headline, ...] = Field(min_length=1)
    """The same headline otherwise."""


class Direction(_Case):
    """A change that must move the score."""

    kind: Literal["direction"]
    variant: Headline
    """The changed headline."""
    expect: Literal["more", "less"]
    """Where P(clickbait) must go."""


Case = Functionality | Invariance | Direction
KINDS: dict[str, type[Case]] = {
    "minimum_functionality": Functionality,
    "invariance": Invariance,
    "direction": Direction,
}


class Catalogue(Config):
    """The file."""

    cases: tuple[dict[str, Any], ...]
    """Every case, unread: each is validated by itself, so that an error names its case."""


def load(path: str) -> tuple[Case, ...]:
    """The cases of the catalogue at `path`.

    Raises:
        ConfigError: no such file, not YAML, a case that does not fit, or two of one name.
    """
    document = read_yaml(path, "give --behaviour-file a catalogue of cases")
    cases = tuple(
        _case(values, f"{path}: case {at}")
        for at, values in enumerate(validate(Catalogue, document, path).cases, 1)
    )
    if not cases:
        raise ConfigError(f"{path}: cases: has none: give one at least")
    names = [case.name for case in cases]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f'{path}: two cases are named "{name}": give each a name of its own')
    return cases


def texts(cases: Sequence[Case]) -> list[str]:
    """Every headline of the cases, in the order that `judge` takes the scores."""
    return [text for case in cases for text in _texts(case)]


def judge(cases: Sequence[Case], scores: np.ndarray, threshold: float) -> dict[str, Any]:
    """What holds: cases, passed, kinds and groups (each name to cases, passed, rate), and every failed case
    with its scores.

    `scores` are P(clickbait) of `texts(cases)`, (n,).
    """
    assert not np.isnan(scores).any(), "a score is not a number"  # NaN compares false: it would pass for news
    outcomes = []
    start = 0
    for case in cases:
        count = len(_texts(case))
        own = [float(score) for score in scores[start : start + count]]
        start += count
        outcomes.append((case, own, _holds(case, own, threshold)))
    assert start == len(scores), "one score a text"
    return {
        "cases": len(cases),
        "passed": sum(held for _, _, held in outcomes),
        "kinds": _shares([(case.kind, held) for case, _, held in outcomes]),
        "groups": _shares([(case.group, held) for case, _, held in outcomes]),
        "failed": [
            {**case.model_dump(mode="json"), "scores": own} for case, own, held in outcomes if not held
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


def _holds(case: Case, scores: list[float], threshold: float) -> bool:
    verdicts = {score >= threshold for score in scores}
    if isinstance(case, Functionality):
        return verdicts == {case.expect == "clickbait"}
    if isinstance(case, Invariance):
        return len(verdicts) == 1
    before, after = scores if case.expect == "more" else (1.0 - scores[0], 1.0 - scores[1])
    return after > before or min(before, after) >= 1.0 - SATURATED


def _shares(pairs: Sequence[tuple[str, bool]]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(name for name, _ in pairs):
        held = [one for other, one in pairs if other == name]
        found[name] = {"cases": len(held), "passed": sum(held), "rate": sum(held) / len(held)}
    return found
