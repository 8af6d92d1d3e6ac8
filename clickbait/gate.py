"""The gate: decides from measurements whether a candidate is promoted. Pure functions; `ray_jobs.promote` measures and acts."""

from __future__ import annotations

import operator
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clickbait import behaviour
from clickbait.config import GateConfig
from clickbait.errors import BundleError
from clickbait.evaluation import latency
from clickbait.scorer import Scorer

_COMPARE = {">=": operator.ge, "<=": operator.le, "==": operator.eq}


@dataclass(frozen=True)
class Champion:
    """The version the alias points at, measured on the candidate's test split in the same minute."""

    version: str
    synthetic: bool
    accuracy: float
    latency_ratio: float
    """The candidate's median latency over the champion's."""


def decide(metrics: Mapping[str, Any], champion: Champion | None, config: GateConfig) -> dict[str, Any]:
    """The verdict: {"decision": "promoted" | "refused", "champion", "checks": [{name, value, bound, op, passed, note}]}.

    Raises:
        BundleError: the candidate was not evaluated.
    """
    if "test" not in metrics:
        raise BundleError("the bundle has no test metrics: python -m ray_jobs.evaluate --config configs/evaluate.yaml")
    test, flips, export = metrics["test"], metrics["flips"], metrics["export"]
    transfer = metrics.get("transfer")
    checks: list[dict[str, Any]] = []

    def check(name: str, value: float | None, op: str, bound: float, note: str = "") -> None:
        passed = value is not None and bool(_COMPARE[op](value, bound))  # a figure that could not be measured does not pass
        checks.append({"name": name, "value": value, "op": op, "bound": bound, "passed": passed, "note": note})

    check("accuracy", test["accuracy"], ">=", config.min_accuracy)
    check("auc", test["auc"], ">=", config.min_auc)
    check("ece", test["ece"], "<=", config.max_ece)
    for name in ("lower", "upper", "title", "punctuation", "spaces"):
        check(f"flip_{name}", flips[name], "<=", getattr(config, f"max_flip_{name}"))
    if transfer is not None or config.require_transfer:
        check("transfer_auc", (transfer or {}).get("auc"), ">=", config.min_transfer_auc, "" if transfer else "no transfer set was given")
    measured = metrics.get("behaviour")
    for kind in behaviour.KINDS:
        found = measured["kinds"].get(kind) if measured else None
        missing = "the catalogue has no such case: add some" if measured else "not measured: evaluate again (ray_jobs.evaluate)"
        note = f"{found['passed']} of {found['cases']} cases" if found else missing
        check(f"behaviour_{kind}", found["rate"] if found else None, ">=", getattr(config, f"min_{kind}"), note)
    if "int8" in export:
        check("int8_agreement", export["int8"]["agreement"], ">=", config.min_int8_agreement)
    check("latency_ms", metrics["latency"]["single_p50_ms"], "<=", config.max_latency_ms)
    if champion is not None:
        name = f"against {champion.version}"
        check("accuracy_vs_champion", test["accuracy"], ">=", champion.accuracy - config.champion_margin, name)
        check("latency_vs_champion", champion.latency_ratio, "<=", config.max_latency_ratio, name)
        demoted = float(bool(metrics["synthetic"]) and not champion.synthetic)
        check("synthetic_over_real", demoted, "==", 0.0, f"{name}: a model of synthetic headlines never replaces one of real ones")
    return {
        "decision": "promoted" if all(item["passed"] for item in checks) else "refused",
        "champion": None if champion is None else champion.version,
        "checks": checks,
    }


def latency_ratio(candidate: Scorer, champion: Scorer, texts: Sequence[str]) -> float:
    """The candidate's median latency over the champion's, text by text in turn, so that a noisy machine troubles both alike."""
    ours, theirs = [], []
    for text in texts:
        ours += latency(candidate.score, [text])
        theirs += latency(champion.score, [text])
    return statistics.median(ours) / statistics.median(theirs)


def table(verdict: Mapping[str, Any]) -> str:
    """The verdict for a terminal, a line a check."""
    lines = []
    for item in verdict["checks"]:
        value = "none" if item["value"] is None else f"{item['value']:.4f}"
        mark = "pass" if item["passed"] else "FAIL"
        lines.append(f"  {mark}  {item['name']:<22} {value:>9} {item['op']} {item['bound']:<8.4f} {item['note']}".rstrip())
    return "\n".join([*lines, f"  gate: {verdict['decision']}"])
