"""Evaluate a bundle, in the form that is served: test split, slices, invariances, transfer set, latency; JSON and one HTML page.

    python -m ray_jobs.evaluate --config configs/evaluate.yaml --transfer ../shared/data/peterldowns/headlines.csv

The results go into the bundle: metrics.json, report.html, and the card.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np

from clickbait import card, cli, drafts, gate, metrics, report
from clickbait.config import EvaluateConfig
from clickbait.dataset import Dataset, open_dataset
from clickbait.errors import DataError
from clickbait.labelled import read_labelled
from clickbait.scorer import Scorer
from ray_jobs.scoring import score_texts

LATENCY_HEADLINES = 200
BATCH = 16


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
    """All that is measured of a bundle: the metrics document's test, slices, flips, transfer, latency and worst."""
    table = dataset.table("test", ["headline", "label"])
    texts: list[str] = table["headline"].to_pylist()
    labels = table["label"].to_numpy().astype(np.int64)
    transfer = transfer_set(config, dataset) if config.transfer else None

    # One pass over everything, so that the workers start once.
    parts = {"test": texts, **{name: [change(text) for text in texts] for name, change in metrics.PERTURBATIONS.items()}}
    if transfer:
        parts["transfer"] = transfer[0]
    everything = [text for part in parts.values() for text in part]
    flat = score_texts(config.bundle, everything, num_workers=config.num_workers, threads=config.threads)
    ends = np.cumsum([len(part) for part in parts.values()])[:-1]
    scores = dict(zip(parts, np.split(flat, ends), strict=True))

    threshold = scorer.manifest.threshold
    found: dict[str, Any] = {
        "threshold": threshold,
        "test": _split(labels, scores["test"], threshold),
        "slices": metrics.slices(texts, labels, scores["test"], threshold),
        "flips": {name: metrics.flip_rate(scores["test"], scores[name], threshold) for name in metrics.PERTURBATIONS},
        "transfer": None,
        "latency": _speed(scorer, texts, config.threads),
        "worst": metrics.worst(texts, labels, scores["test"], config.worst, threshold),
    }
    if transfer:
        found["transfer"] = {**_split(transfer[1], scores["transfer"], threshold), "source": str(config.transfer).rsplit("/", 1)[-1]}
    return found


def transfer_set(config: EvaluateConfig, dataset: Dataset) -> tuple[list[str], np.ndarray]:
    """The transfer headlines and labels, without those that stand in the training split."""
    assert config.transfer is not None
    table = read_labelled(config.transfer, config.headline_column, config.label_column)
    trained = set(dataset.table("train", ["key"])["key"].to_pylist())
    kept = [index for index, key in enumerate(table["key"].to_pylist()) if key not in trained]
    if not kept:
        raise DataError(f"{config.transfer}: no headline is left that was not trained on: give headlines of other sources")
    table = table.take(kept)
    return table["headline"].to_pylist(), table["label"].to_numpy().astype(np.int64)


def _split(labels: np.ndarray, scores: np.ndarray, threshold: float) -> dict[str, Any]:
    return {**metrics.classification(labels, scores, threshold), "curves": metrics.curves(labels, scores)}


def _speed(scorer: Scorer, texts: list[str], threads: int) -> dict[str, float]:
    """Milliseconds of one headline, and headlines a second in batches of 16, in this process."""
    sample = [texts[row] for row in np.linspace(0, len(texts) - 1, LATENCY_HEADLINES, dtype=np.int64)]
    gate.latency(scorer, sample[:10])  # warm
    single = gate.latency(scorer, sample)
    batches = []
    for at in range(0, len(sample) - BATCH + 1, BATCH):
        start = time.perf_counter()
        scorer.score(sample[at : at + BATCH])
        batches.append(BATCH / (time.perf_counter() - start))
    return {
        "single_p50_ms": statistics.median(single),
        "single_p95_ms": float(np.percentile(single, 95)),
        "batch16_per_second": statistics.median(batches),
        "threads": threads,
    }


def main(config: EvaluateConfig) -> None:
    """Evaluate and print the figures that the gate reads."""
    document = evaluate(config)
    if document["synthetic"]:
        print("synthetic headlines: the figures say that the pipeline works, and nothing of real headlines")
    for name in card.SUMMARY:
        print(f"{name:>12}: {document['test'][name]:.4f}")
    for name, share in document["flips"].items():
        print(f"{'flip ' + name:>16}: {share:.2%}")
    if document["transfer"]:
        print(f"{'transfer auc':>12}: {document['transfer']['auc']:.4f}")
    print(f"report: {config.bundle}/report.html")


if __name__ == "__main__":
    cli.run(EvaluateConfig, main, __doc__)
