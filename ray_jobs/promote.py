"""Judge a bundle with the gate. If it passes, publish it as a version and move an alias to it.

    python -m ray_jobs.promote --config configs/promote.yaml --alias production
    python -m ray_jobs.promote --alias canary --champion production    # compare with production, move canary
    python -m ray_jobs.promote --publish-only          # publish a version, move no alias
    python -m ray_jobs.promote --version v3            # judge a published version
    python -m ray_jobs.promote --rollback              # move the alias back to its previous version

Exit code: 0 promoted, 1 refused by the gate; `clickbait.cli` lists the others.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clickbait import cli
from clickbait.config import GateConfig, PromoteConfig, load
from clickbait.data.dataset import Dataset, open_dataset
from clickbait.errors import BundleError, DataError, Refused, RegistryError, StorageError
from clickbait.evaluation import gate, metrics
from clickbait.inference.scorer import Scorer
from clickbait.registry import bundle, model_card, workspace
from clickbait.registry.bundle import Manifest
from clickbait.registry.registry import Alias, Registry
from clickbait.reports import report
from clickbait.training import tracking

log = logging.getLogger(__name__)

LATENCY_HEADLINES = 100


@dataclass(frozen=True)
class Outcome:
    """The result of a promotion."""

    decision: str
    """`promoted`, `refused`, `published` or `rolled back`."""
    version: str | None
    """The version that was published or that the alias points at now; None if the candidate was refused."""
    verdict: dict[str, Any] | None


def promote(config: PromoteConfig) -> Outcome:
    """Runs the gate, publishes the bundle and moves the alias.

    The alias moves only if it still points at the version that the candidate was compared with.

    Raises:
        BundleError: the bundle is missing, incomplete or not evaluated.
        ConfigError: W&B's settings are not valid.
        RegistryError: the version or alias does not exist; AliasConflict if somebody else moved the alias
            meanwhile.
    """
    registry = Registry(config.registry)
    # A rollback does not check W&B's settings: nothing optional may stop it in an emergency.
    if config.rollback:
        version = registry.rollback(config.alias)
        tracking.mirror(registry, version, [config.alias], config.wandb_project)
        return Outcome("rolled back", version, None)
    tracking.check()
    if config.version is not None:
        version = registry.resolve(config.version)
        folder = registry.fetch(version)
        verdict, pointed_at = judge(config, folder, registry)
        if verdict["decision"] == "promoted":
            registry.set_alias(version, config.alias, expect=pointed_at)
            tracking.mirror(registry, version, [config.alias], config.wandb_project)
        return Outcome(verdict["decision"], version, verdict)
    with workspace.existing(config.bundle, change=True) as folder:
        bundle.verify(folder)
        verdict, pointed_at = judge(config, folder, registry)
        document = {**model_card.read_metrics(folder), "verdict": verdict}
        report.write(document, folder / "report.html", title=f"Clickbait detector: {verdict['decision']}")
        model_card.write(folder, document, verdict=verdict)
        if config.publish_only:
            version = registry.publish(folder)
            tracking.mirror(registry, version, [], config.wandb_project)
            return Outcome("published", version, verdict)
        if verdict["decision"] == "refused":
            return Outcome("refused", None, verdict)
        version = registry.publish(folder)
    registry.set_alias(version, config.alias, expect=pointed_at)
    tracking.mirror(registry, version, [config.alias], config.wandb_project)
    return Outcome("promoted", version, verdict)


def judge(config: PromoteConfig, folder: Path, registry: Registry) -> tuple[dict[str, Any], str | None]:
    """The verdict on the bundle in `folder`, and the version that the alias to move points at now.

    The version is None if the alias does not exist yet.

    Raises:
        BundleError: the bundle was not evaluated, or the champion is incomplete.
        DataError: the dataset is missing, incomplete, or not the one that the candidate was trained on.
        RegistryError: there is no alias named `champion`.
    """
    bounds = load(GateConfig, config.gate_file)
    document = model_card.read_metrics(folder)
    alias_to_move = registry.alias(config.alias)
    pointed_at = alias_to_move.version if alias_to_move else None
    alias = registry.alias(config.champion) if config.champion else alias_to_move
    if alias is None:
        if config.champion:
            raise RegistryError(
                f'{registry.uri}: there is no alias "{config.champion}" to compare with: promote a first '
                f"version to it"
            )
        return gate.decide(document, None, bounds), pointed_at
    dataset = open_dataset(config.dataset)
    candidate = Scorer(folder, verified=True)
    if candidate.manifest.dataset != dataset.fingerprint:
        raise DataError(
            f"the candidate was trained on {candidate.manifest.dataset}, not {dataset.fingerprint}: give its "
            f"--dataset"
        )
    rivals = Rivals(registry, alias, candidate, dataset)
    champion = rivals.champion()
    best = rivals.best(document.get("test_split"))
    return gate.decide(document, champion, bounds, best=best, fastest=rivals.fastest()), pointed_at


class Rivals:
    """Compares the candidate with every version that an alias names or has named.

    All are scored on the candidate's test split. Each version is loaded and scored once.
    """

    def __init__(self, registry: Registry, alias: Alias, candidate: Scorer, dataset: Dataset) -> None:
        table = dataset.table("test", ["headline", "label"])
        self._texts: list[str] = table["headline"].to_pylist()
        self._labels = table["label"].to_numpy().astype(np.int64)
        self._registry = registry
        self._alias = alias
        self._manifests = self._read_manifests()
        self._candidate = candidate
        self._verdicts = self._judged(candidate)
        self._scorers: dict[str, Scorer] = {}
        self._compared: dict[str, gate.Comparison] = {}
        self._ratios: dict[str, float] = {}

    def champion(self) -> gate.Champion:
        """The version that the alias points at.

        Raises:
            BundleError: it is incomplete.
        """
        version = self._alias.version
        return gate.Champion(
            compared=self._compare(version),
            synthetic=self._scorer(version).manifest.synthetic,
            latency_ratio=self._latency_ratio(version),
            dataset=self._other_dataset(version),
        )

    def best(self, split: Any) -> gate.Best | None:
        """The most accurate version on the candidate's test split; None if no manifest holds an accuracy.

        `split` is `test_split` of the candidate's metrics document. By the accuracies in the manifests, one
        version is the best of those evaluated on this split, and one the best of those evaluated on other
        splits. Both are scored now on this split, and the better one is returned.
        """
        same_split: dict[str, float] = {}
        other_split: dict[str, float] = {}
        for version, manifest in self._manifests.items():
            accuracy = manifest.metrics.get("accuracy")
            version_split = (manifest.verdict or {}).get("test_split")
            is_same = manifest.dataset == self._candidate.manifest.dataset or (
                version_split is not None and version_split == split
            )
            if accuracy is not None:
                (same_split if is_same else other_split)[version] = accuracy
        count = len(same_split) + len(other_split)
        bests = []
        for accuracies in (same_split, other_split):
            for version in sorted(
                accuracies, key=lambda name: (-accuracies[name], name not in self._scorers)
            ):
                try:
                    compared = self._compare(version)
                except (BundleError, StorageError) as error:
                    log.warning("%s is one of the best versions, but cannot be loaded: %s", version, error)
                    if accuracies is other_split:
                        continue  # its accuracy was measured on other headlines
                    bests.append(gate.Best(version, accuracies[version], count, None))
                else:
                    dataset = self._other_dataset(version)
                    bests.append(gate.Best(version, compared.accuracy, count, compared, dataset))
                break
        return max(bests, key=lambda best: best.accuracy, default=None)

    def fastest(self) -> gate.Fastest | None:
        """The fastest version; None if no stored verdict holds a latency.

        The stored verdicts decide which version is the fastest. Its latency is then measured now, beside the
        candidate's. A version that cannot be loaded is skipped.
        """
        latencies = {}
        for version, manifest in self._manifests.items():
            for check in (manifest.verdict or {}).get("checks", []):
                if check["name"] == "latency_ms" and check["value"] is not None:
                    latencies[version] = check["value"]
        for version in sorted(latencies, key=lambda name: (latencies[name], name not in self._scorers)):
            try:
                return gate.Fastest(version, self._latency_ratio(version), len(latencies))
            except (BundleError, StorageError) as error:
                log.warning("%s is the fastest version, but cannot be loaded: %s", version, error)
        return None

    def _read_manifests(self) -> dict[str, Manifest]:
        """The manifest of every version that exists and is complete."""
        manifests = {}
        for version in self._alias.named():
            try:
                manifests[version] = self._registry.manifest(version)
            except (BundleError, RegistryError) as error:
                log.warning("%s is left out of the comparison: %s", version, error)
        return manifests

    def _scorer(self, version: str) -> Scorer:
        if version not in self._scorers:
            self._scorers[version] = Scorer.of(self._registry, version)
        return self._scorers[version]

    def _other_dataset(self, version: str) -> str | None:
        dataset = self._scorer(version).manifest.dataset
        return None if dataset == self._candidate.manifest.dataset else dataset

    def _judged(self, scorer: Scorer) -> metrics.Verdicts:
        return scorer.score(self._texts) >= scorer.manifest.threshold

    def _compare(self, version: str) -> gate.Comparison:
        if version not in self._compared:
            verdicts = self._judged(self._scorer(version))
            pair = metrics.discordant(self._labels, verdicts, self._verdicts)
            self._compared[version] = gate.Comparison(
                version, len(self._texts), float(np.mean(verdicts == self._labels)), pair
            )
        return self._compared[version]

    def _latency_ratio(self, version: str) -> float:
        if version not in self._ratios:
            self._ratios[version] = gate.latency_ratio(
                self._candidate, self._scorer(version), self._texts[:LATENCY_HEADLINES]
            )
        return self._ratios[version]


def main(config: PromoteConfig) -> None:
    """Promotes and prints the verdict.

    Raises:
        Refused: the gate refused the candidate.
    """
    outcome = promote(config)
    if outcome.verdict is not None:
        print(gate.table(outcome.verdict))
    if outcome.decision == "refused":
        raise Refused(f"{config.alias} stays where it is; the checks marked FAIL say why")
    alias = "" if outcome.decision == "published" else f", {config.alias} points at it"
    print(f"{outcome.decision}: {outcome.version}{alias}")


if __name__ == "__main__":
    cli.run(PromoteConfig, main, __doc__)
