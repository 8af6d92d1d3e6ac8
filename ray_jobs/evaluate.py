"""Evaluate a bundle, in the form that is served: test split, slices, invariances, behaviour, transfer set, latency; JSON and one HTML page.

    python -m ray_jobs.evaluate --config configs/evaluate.yaml --transfer ../shared/data/peterldowns/headlines.csv

The results go into the bundle: metrics.json, report.html, and the card.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from clickbait import behaviour, card, cli, drafts, evaluation, report
from clickbait.config import EvaluateConfig
from clickbait.dataset import Dataset, open_dataset
from clickbait.errors import DataError
from clickbait.scorer import Scorer
from ray_jobs.scoring import score_texts


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Measures the bundle, writes metrics.json, report.html and the card into it, and returns the metrics document.

    Raises:
        BundleError: no whole bundle there.
        DataError: no whole dataset there, or not the bundle's; a transfer set that cannot be read.
    """
    dataset = open_dataset(config.dataset)
    with drafts.existing(config.bundle, change=True) as folder:
        scorer = Scorer(folder, threads=config.threads)
        if scorer.manifest.dataset != dataset.fingerprint:
            raise DataError(
                f"{config.bundle} was trained on {scorer.manifest.dataset}: give the dataset of that name, not {dataset.fingerprint}"
            )
        document = {**card.read_metrics(folder), **measure(config, scorer, dataset)}
        document.pop("verdict", None)  # a verdict on older measurements
        report.write(document, folder / "report.html", title=f"Clickbait detector on {dataset.fingerprint}")
        summary = {name: document["test"][name] for name in card.SUMMARY}
        card.write(folder, document, metrics=summary, verdict=None)
    return document


def measure(config: EvaluateConfig, scorer: Scorer, dataset: Dataset) -> dict[str, Any]:
    """All that is measured of a bundle: `evaluation.measure` over the cluster, and the latency in this process."""
    cases = behaviour.load(config.behaviour_file)
    transfer = None
    if config.transfer:
        transfer = evaluation.transfer_split(config.transfer, dataset, config.headline_column, config.label_column)
    test = evaluation.test_split(dataset)

    def score(texts: list[str]) -> np.ndarray:
        return score_texts(config.bundle, texts, num_workers=config.num_workers, threads=config.threads)

    threshold = scorer.manifest.threshold
    found = evaluation.measure(score, test, transfer=transfer, cases=cases, threshold=threshold, worst=config.worst)
    if found["transfer"]:
        found["transfer"]["source"] = str(config.transfer).rsplit("/", 1)[-1]
    return {**found, "test_split": evaluation.test_identity(dataset), "latency": evaluation.speed(scorer.score, test.texts, config.threads)}


def main(config: EvaluateConfig) -> None:
    """Evaluate and print the figures that the gate reads."""
    document = evaluate(config)
    if document["synthetic"]:
        print("synthetic headlines: the figures say that the pipeline works, and nothing of real headlines")
    for name in card.SUMMARY:
        print(f"{name:>12}: {document['test'][name]:.4f}")
    for name, share in document["flips"].items():
        print(f"{'flip ' + name:>16}: {share:.2%}")
    print(f"{'behaviour':>12}: {document['behaviour']['passed']} of {document['behaviour']['cases']} cases hold")
    if document["transfer"]:
        print(f"{'transfer auc':>12}: {document['transfer']['auc']:.4f}")
    print(f"report: {config.bundle}/report.html")


if __name__ == "__main__":
    cli.run(EvaluateConfig, main, __doc__)
