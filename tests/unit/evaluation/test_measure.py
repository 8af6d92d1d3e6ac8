"""What is measured of anything that scores: in one call, with every part, and each of the parts is of its own
texts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clickbait.errors import BundleError
from clickbait.evaluation import behaviour, measure
from clickbait.evaluation.behaviour import Case, Functionality, Invariance
from clickbait.evaluation.measure import Split
from clickbait.registry import bundle, model_card
from tests.tiny import tiny_bundle

TEST = Split(["One", "Two!"], np.array([0, 1]))
TRANSFER = Split(["BIG!", "Small"], np.array([1, 1]))
CASES: tuple[Case, ...] = (
    Functionality(kind="minimum_functionality", group="loud", name="loud", text="Loud!", expect="clickbait"),
    Functionality(kind="minimum_functionality", group="loud", name="quiet", text="Quiet", expect="clickbait"),
    Invariance(kind="invariance", group="case", name="same", text="Same!", variants=("same!",)),
)


class Exclaims:
    """Scores by the exclamation mark, and notes each call."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def __call__(self, texts: list[str]) -> np.ndarray:
        self.calls.append(texts)
        return np.array([0.9 if "!" in text else 0.1 for text in texts])


def measured(score: Exclaims, transfer: Split | None = TRANSFER, threshold: float = 0.5) -> dict[str, Any]:
    return measure.measure(score, TEST, transfer=transfer, cases=CASES, threshold=threshold, worst=5)


def test_everything_is_scored_in_one_call() -> None:
    score = Exclaims()
    found = measured(score)
    assert len(score.calls) == 1
    assert set(found) == {"threshold", "test", "slices", "flips", "transfer", "behaviour", "worst"}
    assert found["test"]["accuracy"] == 1.0
    assert found["transfer"]["accuracy"] == 0.5
    assert found["transfer"]["lower"] == {"accuracy": 0.5, "auc": None}
    # The second one's mark is dropped; the first gets a full stop, which is none.
    assert found["flips"] == {"lower": 0.0, "upper": 0.0, "title": 0.0, "punctuation": 0.5, "spaces": 0.0}
    assert found["worst"] == []


def test_the_cases_are_judged_by_their_own_scores_and_the_threshold() -> None:
    found = measured(Exclaims())["behaviour"]
    assert (found["cases"], found["passed"]) == (3, 2)
    assert found["kinds"] == {
        "minimum_functionality": {"cases": 2, "passed": 1, "rate": 0.5},
        "invariance": {"cases": 1, "passed": 1, "rate": 1.0},
    }
    assert set(found["groups"]) == {"loud", "case"}
    (failed,) = found["failed"]
    assert (failed["name"], failed["text"], failed["expect"], failed["scores"]) == (
        "quiet",
        "Quiet",
        "clickbait",
        [0.1],
    )
    assert measured(Exclaims(), threshold=0.05)["behaviour"]["passed"] == 3


def test_a_model_whose_scores_are_no_numbers_is_one_line() -> None:
    with pytest.raises(
        BundleError, match="score is not a number for 1 of 16 headlines: train it again with a smaller lr"
    ):
        measure.measure(
            lambda texts: np.array([np.nan, *np.zeros(len(texts) - 1)]),
            TEST,
            transfer=None,
            cases=CASES,
            threshold=0.5,
            worst=5,
        )


def test_without_a_transfer_set_nothing_of_it_is_scored_and_the_rest_stays() -> None:
    score = Exclaims()
    found = measured(score, transfer=None)
    assert found["transfer"] is None
    assert not {"BIG!", "Small"} & set(score.calls[0])
    assert found["behaviour"] == measured(Exclaims())["behaviour"]


@pytest.mark.parametrize("rows", [1, 3, 500])
def test_speed_is_measured_on_a_split_of_any_size(rows: int) -> None:
    score = Exclaims()
    found = measure.speed(score, [f"Headline {row}" for row in range(rows)], threads=2)
    assert set(found) == {"single_p50_ms", "single_p95_ms", "batch16_per_second", "threads"}
    assert found["threads"] == 2
    assert {len(call) for call in score.calls} == {1, measure.BATCH}


def test_the_card_says_how_many_cases_hold(tmp_path: Path) -> None:
    manifest = bundle.read_manifest(tiny_bundle(tmp_path / "bundle"))
    found = {"behaviour": behaviour.judge(CASES, np.array([0.9, 0.1, 0.9, 0.9]), threshold=0.5)}
    assert "| behaviour | 2 of 3 cases hold |" in model_card.render(manifest, found)
    assert "behaviour" not in model_card.render(manifest, {})
