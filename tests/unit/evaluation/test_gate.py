"""The gate: every bound decides, what could not be measured does not pass, and a synthetic model never
replaces a real one.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from typing import Any

import pytest

from clickbait.config import GateConfig
from clickbait.errors import BundleError
from clickbait.evaluation.gate import Best, Champion, Comparison, Fastest, decide, table
from clickbait.evaluation.metrics import Discordant

GOOD: dict[str, Any] = {
    "synthetic": False,
    "test": {"rows": 1000, "accuracy": 0.99, "auc": 0.999, "ece": 0.005},
    "flips": {"lower": 0.0, "upper": 0.0, "title": 0.0, "punctuation": 0.001, "spaces": 0.0},
    "transfer": {"auc": 0.995},
    "export": {"int8": {"agreement": 0.999}},
    "behaviour": {
        "kinds": {
            kind: {"cases": 50, "passed": 49, "rate": 0.98}
            for kind in ("minimum_functionality", "invariance", "direction")
        },
    },
    "latency": {"single_p50_ms": 3.0},
}


def compared(
    only_version: int, only_candidate: int, *, accuracy: float = 0.99, rows: int = 1000, version: str = "v1"
) -> Comparison:
    return Comparison(version, rows, accuracy, Discordant(only_version, only_candidate))


CHAMPION = Champion(compared(5, 5), synthetic=False, latency_ratio=1.0)


def failed(
    metrics: dict[str, Any], champion: Champion | None = None, best: Best | None = None, **bounds: Any
) -> set[str]:
    """The checks that did not pass; the decision must say the same."""
    verdict = decide(metrics, champion, GateConfig(**bounds), best=best)
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


@pytest.mark.parametrize(
    ("only_version", "only_candidate", "refused"),
    [
        (0, 0, False),  # the same verdicts
        (4, 0, False),  # 1 in 16: chance
        (5, 0, True),  # 1 in 32
        (20, 11, False),
        (21, 11, False),  # p 0.055
        (22, 11, True),  # p 0.040
        (11, 22, False),  # better
    ],
)
def test_a_candidate_that_is_significantly_worse_than_the_champion_is_refused(
    only_version: int, only_candidate: int, refused: bool
) -> None:
    champion = Champion(compared(only_version, only_candidate), synthetic=False, latency_ratio=1.0)
    assert failed(GOOD, champion) == ({"champion_p_value"} if refused else set())


def test_a_slower_candidate_is_refused() -> None:
    assert failed(GOOD, Champion(compared(5, 5), synthetic=False, latency_ratio=2.0)) == {
        "latency_vs_champion"
    }
    for ratio, decision in ((1.5, "promoted"), (1.51, "refused")):
        assert (
            decide(GOOD, CHAMPION, GateConfig(), fastest=Fastest("v1", ratio, of=3))["decision"] == decision
        )


@pytest.mark.parametrize(
    ("rows", "allowed"), [(50, 1), (199, 1), (200, 1), (399, 1), (400, 2), (1000, 5), (3200, 16)]
)
def test_the_floor_is_the_best_version_less_a_margin_of_one_headline_at_least(
    rows: int, allowed: int
) -> None:
    """McNemar's test says nothing of few headlines: there the floor decides."""
    metrics = {**GOOD, "test": {**GOOD["test"], "rows": rows}}
    for lost, refused in ((allowed, set()), (allowed + 1, {"accuracy_vs_best"})):
        pair = compared(lost, 0, rows=rows, version="v3")
        assert (
            failed(metrics, CHAMPION, Best("v3", pair.accuracy, of=4, compared=pair), champion_alpha=0.0)
            == refused
        )


def test_the_floor_of_a_version_that_is_gone_is_its_manifests() -> None:
    assert failed(GOOD, CHAMPION, Best("v3", 0.995, of=2, compared=None)) == set()
    assert failed(GOOD, CHAMPION, Best("v3", 0.9951, of=2, compared=None)) == {"accuracy_vs_best"}


def test_the_verdict_keeps_the_figures_of_both_comparisons() -> None:
    best = Best("v3", 0.992, of=4, compared=compared(3, 1, accuracy=0.992, version="v3"))
    verdict = decide(
        {**GOOD, "test_split": {"sha256": "abc"}},
        dataclasses.replace(CHAMPION, dataset="0123"),
        GateConfig(),
        best=best,
    )
    assert verdict["champion"] == "v1"
    assert verdict["test_split"] == {"sha256": "abc"}
    champion, floor = verdict["compared"]
    assert (champion["role"], champion["version"], champion["p_value"]) == (
        "champion",
        "v1",
        pytest.approx(638 / 1024),
    )
    assert (floor["role"], floor["version"], floor["rows"]) == ("best", "v3", 1000)
    assert (floor["only_version_right"], floor["only_candidate_right"], floor["p_value"]) == (
        3,
        1,
        pytest.approx(5 / 16),
    )
    assert (floor["accuracy"], floor["candidate_accuracy"]) == (0.992, pytest.approx(0.990))
    notes = {item["name"]: item["note"] for item in verdict["checks"]}
    assert (
        "5 are right only with v1 and 5 only with the candidate; p 0.623; v1 was trained on 0123"
        in notes["champion_p_value"]
    )
    assert "v3 is the best of 4" in notes["accuracy_vs_best"]
    assert "3 are right only with v3 and 1 only with the candidate; p 0.312" in notes["accuracy_vs_best"]
    json.dumps(verdict, allow_nan=False)


def test_a_synthetic_model_never_replaces_a_real_one() -> None:
    synthetic = {**GOOD, "synthetic": True}
    assert failed(synthetic, CHAMPION) == {"synthetic_over_real"}
    assert failed(synthetic, Champion(compared(5, 5), synthetic=True, latency_ratio=1.0)) == set()


def test_a_transfer_set_can_be_required() -> None:
    without = {**GOOD, "transfer": None}
    assert failed(without) == set()
    assert failed(without, require_transfer=True) == {"transfer_auc"}


def test_the_check_of_the_transfer_set_says_what_was_left_out_of_it() -> None:
    metrics = {**GOOD, "transfer": {"auc": 0.99, "left_out": {"unknown_label": 4100, "duplicate": 2}}}
    (told,) = (
        item["note"]
        for item in decide(metrics, None, GateConfig())["checks"]
        if item["name"] == "transfer_auc"
    )
    assert told == "4,102 rows left out: 4,100 unknown_label, 2 duplicate"


def test_a_candidate_that_was_not_evaluated_is_no_candidate() -> None:
    with pytest.raises(BundleError, match="evaluate"):
        decide({"export": {}}, None, GateConfig())


def test_the_plain_graph_must_agree_too() -> None:
    export = {"int8": {"agreement": 0.999}, "int8_plain": {"agreement": 0.999}}
    assert failed({**GOOD, "export": export}) == set()
    for form in export:
        assert failed({**GOOD, "export": {**export, form: {"agreement": 0.9}}}) == {"int8_agreement"}


def test_int8_agreement_counts_at_the_bundles_threshold_alone() -> None:
    """An export of before the document named the threshold measured at 0.5."""
    at = {**GOOD, "threshold": 0.9}
    assert failed(at) == {"int8_agreement"}
    (told,) = (
        item["note"] for item in decide(at, None, GateConfig())["checks"] if item["name"] == "int8_agreement"
    )
    assert told == "measured at threshold 0.5, not at the bundle's: export again (ray_jobs.export)"
    assert failed({**at, "export": {**GOOD["export"], "threshold": 0.9}}) == set()
    assert failed({**GOOD, "threshold": 0.5}) == set()


KINDS = {"behaviour_minimum_functionality", "behaviour_invariance", "behaviour_direction"}


@pytest.mark.parametrize("null", [True, False])
def test_a_candidate_of_before_the_catalogue_is_refused_and_told_to_evaluate_again(null: bool) -> None:
    old = {name: part for name, part in GOOD.items() if name != "behaviour"} | (
        {"behaviour": None} if null else {}
    )
    assert failed(old) == KINDS
    checks = decide(old, None, GateConfig())["checks"]
    assert all(
        "evaluate again" in item["note"] and item["value"] is None for item in checks if item["name"] in KINDS
    )


def test_a_catalogue_without_a_kind_is_refused_for_that_kind_alone() -> None:
    metrics = copy.deepcopy(GOOD)
    del metrics["behaviour"]["kinds"]["direction"]
    assert failed(metrics) == {"behaviour_direction"}
    (told,) = (
        item["note"]
        for item in decide(metrics, None, GateConfig())["checks"]
        if item["name"] == "behaviour_direction"
    )
    assert "no such case" in told


def test_the_table_names_what_failed() -> None:
    text = table(decide({**GOOD, "synthetic": True}, CHAMPION, GateConfig()))
    assert "FAIL  synthetic_over_real" in text
    assert "gate: refused" in text
