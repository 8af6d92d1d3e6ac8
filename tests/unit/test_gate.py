"""The gate: every bound decides, what could not be measured does not pass, and a synthetic model never replaces a real one."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from clickbait.config import GateConfig
from clickbait.errors import BundleError
from clickbait.gate import Champion, decide, table

GOOD: dict[str, Any] = {
    "synthetic": False,
    "test": {"accuracy": 0.99, "auc": 0.999, "ece": 0.005},
    "flips": {"lower": 0.0, "upper": 0.0, "title": 0.0, "punctuation": 0.001, "spaces": 0.0},
    "transfer": {"auc": 0.995},
    "export": {"int8": {"agreement": 0.999}},
    "behaviour": {
        "kinds": {kind: {"cases": 50, "passed": 49, "rate": 0.98} for kind in ("minimum_functionality", "invariance", "direction")},
    },
    "latency": {"single_p50_ms": 3.0},
}
CHAMPION = Champion(version="v1", synthetic=False, accuracy=0.99, latency_ratio=1.0)


def failed(metrics: dict[str, Any], champion: Champion | None = None, **bounds: Any) -> set[str]:
    """The checks that did not pass; the decision must say the same."""
    verdict = decide(metrics, champion, GateConfig(**bounds))
    names = {item["name"] for item in verdict["checks"] if not item["passed"]}
    assert verdict["decision"] == ("refused" if names else "promoted")
    return names


def test_a_good_candidate_is_promoted_with_and_without_a_champion() -> None:
    assert failed(GOOD) == set()
    assert failed(GOOD, CHAMPION) == set()


@pytest.mark.parametrize(
    ("path", "value", "name"),
    [
        (("test", "accuracy"), 0.90, "accuracy"),
        (("test", "auc"), 0.90, "auc"),
        (("test", "auc"), None, "auc"),
        (("test", "ece"), 0.2, "ece"),
        (("flips", "lower"), 0.5, "flip_lower"),
        (("flips", "upper"), 0.5, "flip_upper"),
        (("flips", "title"), 0.5, "flip_title"),
        (("flips", "punctuation"), 0.5, "flip_punctuation"),
        (("flips", "spaces"), 0.5, "flip_spaces"),
        (("behaviour", "kinds", "minimum_functionality", "rate"), 0.5, "behaviour_minimum_functionality"),
        (("behaviour", "kinds", "invariance", "rate"), 0.5, "behaviour_invariance"),
        (("behaviour", "kinds", "direction", "rate"), 0.5, "behaviour_direction"),
        (("transfer", "auc"), 0.5, "transfer_auc"),
        (("export", "int8", "agreement"), 0.9, "int8_agreement"),
        (("latency", "single_p50_ms"), 5000.0, "latency_ms"),
        (("test", "accuracy"), float("nan"), "accuracy"),
    ],
)
def test_each_bound_refuses_alone(path: tuple[str, ...], value: float | None, name: str) -> None:
    metrics = copy.deepcopy(GOOD)
    part = metrics
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    assert failed(metrics) == {name}


def test_the_champion_is_beaten_or_matched_within_the_margin() -> None:
    better = Champion("v1", synthetic=False, accuracy=0.995, latency_ratio=1.0)
    assert failed(GOOD, better) == {"accuracy_vs_champion"}
    assert failed(GOOD, better, champion_margin=0.01) == set()
    slower = Champion("v1", synthetic=False, accuracy=0.9, latency_ratio=2.0)
    assert failed(GOOD, slower) == {"latency_vs_champion"}


def test_a_synthetic_model_never_replaces_a_real_one() -> None:
    synthetic = {**GOOD, "synthetic": True}
    assert failed(synthetic, CHAMPION) == {"synthetic_over_real"}
    assert failed(synthetic, Champion("v1", synthetic=True, accuracy=0.9, latency_ratio=1.0)) == set()


def test_a_transfer_set_can_be_required() -> None:
    without = {**GOOD, "transfer": None}
    assert failed(without) == set()
    assert failed(without, require_transfer=True) == {"transfer_auc"}


def test_a_candidate_that_was_not_evaluated_is_no_candidate() -> None:
    with pytest.raises(BundleError, match="evaluate"):
        decide({"export": {}}, None, GateConfig())


KINDS = {"behaviour_minimum_functionality", "behaviour_invariance", "behaviour_direction"}


@pytest.mark.parametrize("null", [True, False])
def test_a_candidate_of_before_the_catalogue_is_refused_and_told_to_evaluate_again(null: bool) -> None:
    old = {name: part for name, part in GOOD.items() if name != "behaviour"} | ({"behaviour": None} if null else {})
    assert failed(old) == KINDS
    checks = decide(old, None, GateConfig())["checks"]
    assert all("evaluate again" in item["note"] and item["value"] is None for item in checks if item["name"] in KINDS)


def test_a_catalogue_without_a_kind_is_refused_for_that_kind_alone() -> None:
    metrics = copy.deepcopy(GOOD)
    del metrics["behaviour"]["kinds"]["direction"]
    assert failed(metrics) == {"behaviour_direction"}
    (told,) = (item["note"] for item in decide(metrics, None, GateConfig())["checks"] if item["name"] == "behaviour_direction")
    assert "no such case" in told


def test_the_table_names_what_failed() -> None:
    text = table(decide({**GOOD, "synthetic": True}, CHAMPION, GateConfig()))
    assert "FAIL  synthetic_over_real" in text
    assert "gate: refused" in text
