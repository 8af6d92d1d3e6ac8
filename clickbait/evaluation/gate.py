"""The gate: decides from a candidate's measurements whether it is promoted.

These are pure functions. `ray_jobs.promote` measures, and acts on the decision.
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

ROUNDING = 1e-9  # tolerance for the difference of two accuracies, which floats cannot represent exactly
# Metrics documents of old exports have no threshold: agreement was always measured at 0.5.
OLD_THRESHOLD = 0.5
_COMPARE = {">=": operator.ge, "<=": operator.le, "==": operator.eq}


@dataclass(frozen=True)
class Comparison:
    """A version and the candidate, both scored on the candidate's test split at the same time."""

    version: str
    """Name of the version in the registry."""
    rows: int
    """Number of headlines."""
    accuracy: float
    """Accuracy of the version at its own threshold."""
    discordant: Discordant
    """Headlines that only one of the two classifies correctly. `first` is the version."""

    @property
    def candidate_accuracy(self) -> float:
        """Accuracy of the candidate at its own threshold."""
        return self.accuracy + (self.discordant.only_second - self.discordant.only_first) / self.rows

    def note(self, dataset: str | None) -> str:
        """The figures in words.

        `dataset` is the dataset that the version was trained on, if it is not the candidate's.
        """
        pair = self.discordant
        words = (
            f"of {self.rows:,} headlines, {pair.only_first} are right only with {self.version} and "
            f"{pair.only_second} only with the candidate; p {pair.p_second_is_worse():.3g}"
        )
        return words + (
            f"; {self.version} was trained on {dataset}, perhaps on some of these headlines"
            if dataset
            else ""
        )

    def document(self, role: str) -> dict[str, Any]:
        """The figures for the verdict document. `role` is `champion` or `best`."""
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
    """Comparison of the champion's verdicts with the candidate's."""
    synthetic: bool
    """Whether the champion was trained on synthetic headlines."""
    latency_ratio: float
    """The candidate's median latency divided by the champion's."""
    dataset: str | None = None
    """Fingerprint of the champion's dataset, if it is not the candidate's."""


@dataclass(frozen=True)
class Best:
    """The version with the best accuracy on the candidate's test split, of all that the alias pointed at."""

    version: str
    """Name of the version."""
    accuracy: float
    """Accuracy on the test split: measured now, or that of the manifest if the version cannot be loaded."""
    of: int
    """Number of versions that were compared."""
    compared: Comparison | None
    """Comparison of this version's verdicts with the candidate's. None if the version cannot be loaded."""
    dataset: str | None = None
    """Fingerprint of this version's dataset, if it is not the candidate's."""


@dataclass(frozen=True)
class Fastest:
    """The fastest of all versions that the alias pointed at."""

    version: str
    """Name of the version."""
    latency_ratio: float
    """The candidate's median latency divided by this version's. Both are measured in turns."""
    of: int
    """Number of versions that were compared."""


def decide(
    metrics: Mapping[str, Any],
    champion: Champion | None,
    config: GateConfig,
    *,
    best: Best | None = None,
    fastest: Fastest | None = None,
) -> dict[str, Any]:
    """Decides about a candidate from its metrics document.

    Returns:
        decision (`promoted` or `refused`), champion (its version or None), checks (each with name, value, op,
        bound, passed and note), compared (`Comparison.document` of the champion and of the best version), and
        test_split (the identity of the test split, from the metrics document). The value of a check that
        could not be measured is None, and the check fails.

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
        passed = value is not None and bool(_COMPARE[op](value, bound))
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
    behaviour_metrics = metrics.get("behaviour")
    for kind in behaviour.KINDS:
        result = behaviour_metrics["kinds"].get(kind) if behaviour_metrics else None
        if result:
            note = f"{result['passed']} of {result['cases']} cases"
        elif behaviour_metrics:
            note = "the catalogue has no such case: add some"
        else:
            note = "not measured: evaluate again (ray_jobs.evaluate)"
        rate = result["rate"] if result else None
        check(f"behaviour_{kind}", rate, ">=", getattr(config, f"min_{kind}"), note)
    if "int8" in export:
        threshold = export.get("threshold", OLD_THRESHOLD)
        if threshold == metrics.get("threshold", OLD_THRESHOLD):
            # The optimised graph, which is served, and the plain one. Earlier exports have one of them.
            agreement = min(export[form]["agreement"] for form in ("int8", "int8_plain") if form in export)
            note = ""
        else:
            agreement = None
            note = f"measured at threshold {threshold:g}, not at the bundle's: export again (ray_jobs.export)"
        check("int8_agreement", agreement, ">=", config.min_int8_agreement, note)
    check("latency_ms", metrics["latency"]["single_p50_ms"], "<=", config.max_latency_ms)
    compared = []
    if champion is not None:
        comparison = champion.compared
        compared.append(comparison.document("champion"))
        against = f"against {comparison.version}"
        p_value = comparison.discordant.p_second_is_worse()
        check("champion_p_value", p_value, ">=", config.champion_alpha, comparison.note(champion.dataset))
        check("latency_vs_champion", champion.latency_ratio, "<=", config.max_latency_ratio, against)
        synthetic_over_real = float(bool(metrics["synthetic"]) and not champion.synthetic)
        note = f"{against}: a model of synthetic headlines never replaces a model of real headlines"
        check("synthetic_over_real", synthetic_over_real, "==", 0.0, note)
    if best is not None:
        note = f"{best.version} is the best of {best.of}: "
        margin = max(config.best_margin, 1.0 / test["rows"])
        if best.compared is None:
            accuracy = test["accuracy"]
            note += "its accuracy is from its manifest, because it cannot be loaded"
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
    """Why a split has no AUC. Empty if it has one."""
    only = split.get("only_class")
    return (
        f"not defined: every headline of the {name} is {only}: give headlines of both classes" if only else ""
    )


def _transfer_note(transfer: Mapping[str, Any]) -> str:
    reasons = transfer.get("left_out")
    notes = [_one_class(transfer, "transfer set"), left_out(reasons) if reasons else ""]
    return "; ".join(note for note in notes if note)


def latency_ratio(candidate: Scorer, champion: Scorer, texts: Sequence[str]) -> float:
    """The candidate's median latency divided by the champion's.

    The two score each text in turns, so that noise on the machine affects both equally.
    """
    candidate_ms, champion_ms = [], []
    for text in texts:
        candidate_ms += latency(candidate.score, [text])
        champion_ms += latency(champion.score, [text])
    return statistics.median(candidate_ms) / statistics.median(champion_ms)


def table(verdict: Mapping[str, Any]) -> str:
    """The verdict as text for a terminal, one line per check."""
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
