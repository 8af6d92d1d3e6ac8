"""Judge a bundle, and where the gate lets it through publish it as a version and move an alias to it.

    python -m ray_jobs.promote --config configs/promote.yaml --alias production
    python -m ray_jobs.promote --publish-only          # a version, no alias
    python -m ray_jobs.promote --version v3            # a version that is there already
    python -m ray_jobs.promote --rollback              # the alias back to its previous version

Exit code: 0 promoted, 1 refused by the gate; the others are in `clickbait.cli`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clickbait import bundle, card, cli, drafts, gate, metrics, report, tracking
from clickbait.config import GateConfig, PromoteConfig, load
from clickbait.dataset import Dataset, open_dataset
from clickbait.errors import DataError, Refused
from clickbait.registry import Registry
from clickbait.scorer import Scorer

LATENCY_HEADLINES = 100


@dataclass(frozen=True)
class Outcome:
    """What came of it."""

    decision: str
    """`promoted`, `refused`, `published` or `rolled back`."""
    version: str | None
    """The version that was published or that the alias points at now; None where the candidate was refused."""
    verdict: dict[str, Any] | None


def promote(config: PromoteConfig) -> Outcome:
    """Gate, publish, alias. The alias moves only if it still points at the champion that the candidate was compared with.

    Raises:
        BundleError: no whole, evaluated bundle there.
        RegistryError: no such version or alias; AliasConflict where somebody else moved the alias meanwhile.
    """
    registry = Registry(config.registry)
    if config.rollback:
        return Outcome("rolled back", registry.rollback(config.alias), None)
    if config.version is not None:
        version = registry.resolve(config.version)
        folder = registry.fetch(version)
        verdict, champion = judge(config, folder, registry)
        if verdict["decision"] == "promoted":
            registry.set_alias(version, config.alias, expect=champion)
        return Outcome(verdict["decision"], version, verdict)
    with drafts.existing(config.bundle, change=True) as folder:
        bundle.verify(folder)
        verdict, champion = judge(config, folder, registry)
        document = {**card.read_metrics(folder), "verdict": verdict}
        report.write(document, folder / "report.html", title=f"Clickbait detector: {verdict['decision']}")
        card.write(folder, document, verdict=verdict)
        if config.publish_only:
            version = registry.publish(folder)
            tracking.mirror(registry.fetch(version), version, [], config.wandb_project)
            return Outcome("published", version, verdict)
        if verdict["decision"] == "refused":
            return Outcome("refused", None, verdict)
        version = registry.publish(folder)
    registry.set_alias(version, config.alias, expect=champion)
    tracking.mirror(registry.fetch(version), version, [config.alias], config.wandb_project)
    return Outcome("promoted", version, verdict)


def judge(config: PromoteConfig, folder: Path, registry: Registry) -> tuple[dict[str, Any], str | None]:
    """The verdict on the bundle in `folder`, and the champion's version that it was compared with."""
    bounds = load(GateConfig, config.gate_file)
    document = card.read_metrics(folder)
    alias = registry.alias(config.alias)
    champion = None
    if alias is not None:
        dataset = open_dataset(config.dataset)
        candidate = Scorer(folder, verified=True)
        if candidate.manifest.dataset != dataset.fingerprint:
            raise DataError(f"the candidate was trained on {candidate.manifest.dataset}, not {dataset.fingerprint}: give its --dataset")
        champion = measure_champion(registry, alias.version, candidate, dataset)
    return gate.decide(document, champion, bounds), alias.version if alias else None


def measure_champion(registry: Registry, version: str, candidate: Scorer, dataset: Dataset) -> gate.Champion:
    """The champion on the candidate's test split, and the two latencies in turn."""
    scorer = Scorer(registry.fetch(version), verified=True)
    table = dataset.table("test", ["headline", "label"])
    texts: list[str] = table["headline"].to_pylist()
    found = metrics.classification(table["label"].to_numpy().astype(np.int64), scorer.score(texts), scorer.manifest.threshold)
    return gate.Champion(
        version=version,
        synthetic=scorer.manifest.synthetic,
        accuracy=found["accuracy"],
        latency_ratio=gate.latency_ratio(candidate, scorer, texts[:LATENCY_HEADLINES]),
    )


def main(config: PromoteConfig) -> None:
    """Promotes and prints the verdict.

    Raises:
        Refused: the gate let the candidate not through.
    """
    outcome = promote(config)
    if outcome.verdict is not None:
        print(gate.table(outcome.verdict))
    if outcome.decision == "refused":
        raise Refused(f"{config.alias} stays where it is; the checks marked FAIL say why")
    told = "" if outcome.decision == "published" else f", {config.alias} points at it"
    print(f"{outcome.decision}: {outcome.version}{told}")


if __name__ == "__main__":
    cli.run(PromoteConfig, main, __doc__)
