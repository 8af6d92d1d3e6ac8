"""The gate: decides from measurements whether a candidate is promoted. Pure functions; `ray_jobs.promote`
measures and acts.
"""

from __future__ import annotations

import operator
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clickbait.config import GateConfig
from clickbait.errors import BundleError
from clickbait.evaluation import behaviour
from clickbait.evaluation.measure import latency, left_out
from clickbait.evaluation.metrics import Discordant
from clickbait.inference.scorer import Scorer

ROUNDING = 1e-9  # of a bound: the difference of two shares of the same headlines is no exact number
# of an export whose document names none: before it named one, agreement was measured at 0.5 whatever the
# bundle's
OLD_THRESHOLD = 0.5
_COMPARE = {">=": operator.ge, "<=": operator.le, "==": operator.eq}


@dataclass(frozen=True)
class Comparison:
    """A version of the registry and the candidate, scored on the same headlines in the same minute: the
    candidate's test split.
    """

    version: str
    """The version."""
    rows: int
    """Headlines."""
    accuracy: float
    """The version's accuracy on them, at its own threshold."""
    discordant: Discordant
    """Headlines that only one of the two judges right; the version is the first."""

    @property
    def candidate_accuracy(self) -> float:
        """The candidate's accuracy on them, at its own threshold."""
        return self.accuracy + (self.discordant.only_second - self.discordant.only_first) / self.rows

    def note(self, dataset: str | None) -> str:
        """The figures in words. `dataset`: where the version was trained on another one than the
        candidate.
        """
        pair = self.discordant
        words = (
            f"of {self.rows:,} headlines only {self.version} judges {pair.only_first} right, only the "
            f"candidate {pair.only_second}; "
            f"p {pair.p_second_is_worse():.3g}"
        )
        return words + (
            f"; {self.version} was trained on {dataset}, perhaps on some of these" if dataset else ""
        )

    def document(self, role: str) -> dict[str, Any]:
        """The figures as the verdict keeps them. `role`: `champion` or `best`."""
        return {
            "version": self.version,
            "role": role,
            "rows": self.rows,
            "accuracy": self.accuracy,
            "candidate_accuracy": self.candidate_accuracy,
            "only_version_right": self.discordant.only_first,
            "only_candidate_right": self.discordant.only_second,
            "p_value": self.discordant.p_second_is_worse(),
        }


@dataclass(frozen=True)
class Champion:
    """The version that the alias points at."""

    compared: Comparison
    """Its verdicts beside the candidate's."""
    synthetic: bool
    """Whether it was trained on generated headlines."""
    latency_ratio: float
    """The candidate's median latency over the champion's."""
    dataset: str | None = None
    """The fingerprint of the dataset that it was trained on, where that is not the candidate's."""


@dataclass(frozen=True)
class Best:
    """The most accurate version on the candidate's test split that the alias ever named."""

    version: str
    """The version."""
    accuracy: float
    """Its accuracy on the test split: measured now, or its manifest's where it cannot be loaded any more."""
    of: int
    """How many versions it is the best of."""
    compared: Comparison | None
    """Its verdicts beside the candidate's; None where it cannot be loaded any more."""
    dataset: str | None = None
    """The fingerprint of the dataset that it was trained on, where that is not the candidate's."""


@dataclass(frozen=True)
class Fastest:
    """The fastest version that the alias ever named."""

    version: str
    """The version."""
    latency_ratio: float
    """The candidate's median latency over its own, measured in turn."""
    of: int
    """How many versions it is the fastest of."""


def decide(
    metrics: Mapping[str, Any],
    champion: Champion | None,
    config: GateConfig,
    *,
    best: Best | None = None,
    fastest: Fastest | None = None,
) -> dict[str, Any]:
    """The verdict on a candidate with the metrics document `metrics`.

    Keys: decision (`promoted` or `refused`), champion (its version or None), checks (each with name, value,
    op, bound, passed, note; a value that could not be measured is None, and does not pass), compared
    (`Comparison.document` of the champion and of the best version), test_split (as in the metrics document:
    what tells test splits apart).

    Raises:
        BundleError: the candidate was not evaluated.
    """
    if "test" not in metrics:
        raise BundleError(
            "the bundle has no test metrics: python -m ray_jobs.evaluate --config configs/evaluate.yaml"
        )
    test, flips, export = metrics["test"], metrics["flips"], metrics["export"]
    transfer = metrics.get("transfer")
    checks: list[dict[str, Any]] = []

    def check(name: str, value: float | None, op: str, bound: float, note: str = "") -> None:
        passed = value is not None and bool(
            _COMPARE[op](value, bound)
        )  # a figure that could not be measured does not pass
        checks.append(
            {"name": name, "value": value, "op": op, "bound": bound, "passed": passed, "note": note}
        )

    check("accuracy", test["accuracy"], ">=", config.min_accuracy)
    check("auc", test["auc"], ">=", config.min_auc, _one_class(test, "test split"))
    check("ece", test["ece"], "<=", config.max_ece)
    for name in ("lower", "upper", "title", "punctuation", "spaces"):
        check(f"flip_{name}", flips[name], "<=", getattr(config, f"max_flip_{name}"))
    if transfer is not None or config.require_transfer:
        note = _transfer_note(transfer) if transfer else "no transfer set was given"
        check("transfer_auc", (transfer or {}).get("auc"), ">=", config.min_transfer_auc, note)
    measured = metrics.get("behaviour")
    for kind in behaviour.KINDS:
        found = measured["kinds"].get(kind) if measured else None
        missing = (
            "the catalogue has no such case: add some"
            if measured
            else "not measured: evaluate again (ray_jobs.evaluate)"
        )
        note = f"{found['passed']} of {found['cases']} cases" if found else missing
        check(
            f"behaviour_{kind}", found["rate"] if found else None, ">=", getattr(config, f"min_{kind}"), note
        )
    if "int8" in export:
        at = export.get("threshold", OLD_THRESHOLD)
        agreement = export["int8"]["agreement"] if at == metrics.get("threshold", OLD_THRESHOLD) else None
        note = (
            ""
            if agreement is not None
            else f"measured at the threshold {at:g}, not at the bundle's: export again (ray_jobs.export)"
        )
        check("int8_agreement", agreement, ">=", config.min_int8_agreement, note)
    check("latency_ms", metrics["latency"]["single_p50_ms"], "<=", config.max_latency_ms)
    compared = []
    if champion is not None:
        against = champion.compared
        compared.append(against.document("champion"))
        name = f"against {against.version}"
        p_value = against.discordant.p_second_is_worse()
        check("champion_p_value", p_value, ">=", config.champion_alpha, against.note(champion.dataset))
        check("latency_vs_champion", champion.latency_ratio, "<=", config.max_latency_ratio, name)
        demoted = float(bool(metrics["synthetic"]) and not champion.synthetic)
        check(
            "synthetic_over_real",
            demoted,
            "==",
            0.0,
            f"{name}: a model of synthetic headlines never replaces one of real ones",
        )
    if best is not None:
        note = f"{best.version} is the best of {best.of}: "
        margin = max(config.best_margin, 1.0 / test["rows"])
        if best.compared is None:
            accuracy = test["accuracy"]
            note += "its accuracy is its manifest's, for it cannot be loaded"
        else:
            compared.append(best.compared.document("best"))
            accuracy = best.compared.candidate_accuracy
            note += best.compared.note(best.dataset)
        check("accuracy_vs_best", accuracy, ">=", best.accuracy - margin - ROUNDING, note)
    if fastest is not None:
        note = f"{fastest.version} is the fastest of {fastest.of}"
        check("latency_vs_fastest", fastest.latency_ratio, "<=", config.max_latency_vs_fastest, note)
    return {
        "decision": "promoted" if all(item["passed"] for item in checks) else "refused",
        "champion": None if champion is None else champion.compared.version,
        "checks": checks,
        "compared": compared,
        "test_split": metrics.get("test_split"),
    }


def _one_class(split: Mapping[str, Any], name: str) -> str:
    """Why a split has no AUC; empty where it has one."""
    only = split.get("only_class")
    return (
        f"not defined: every headline of the {name} is {only}: give headlines of both classes" if only else ""
    )


def _transfer_note(transfer: Mapping[str, Any]) -> str:
    missing = transfer.get("left_out")
    return "; ".join(
        filter(None, [_one_class(transfer, "transfer set"), left_out(missing) if missing else ""])
    )


def latency_ratio(candidate: Scorer, champion: Scorer, texts: Sequence[str]) -> float:
    """The candidate's median latency over the champion's, text by text in turn, so that a noisy machine
    troubles both alike.
    """
    ours, theirs = [], []
    for text in texts:
        ours += latency(candidate.score, [text])
        theirs += latency(champion.score, [text])
    return statistics.median(ours) / statistics.median(theirs)


def table(verdict: Mapping[str, Any]) -> str:
    """The verdict for a terminal: one line per check."""
    lines = []
    width = max(len(item["name"]) for item in verdict["checks"])
    for item in verdict["checks"]:
        value = "none" if item["value"] is None else f"{item['value']:.4f}"
        mark = "pass" if item["passed"] else "FAIL"
        lines.append(
            f"  {mark}  {item['name']:<{width}} {value:>9} {item['op']} {item['bound']:<8.4f} "
            f"{item['note']}".rstrip()
        )
    return "\n".join([*lines, f"  gate: {verdict['decision']}"])
