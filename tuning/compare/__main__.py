"""Compare models in one table and one HTML page.

    python -m tuning.compare --config configs/compare.yaml --transfer ../shared/data/peterldowns/headlines.csv

Every bundle is measured as `ray_jobs.evaluate` does it, beside two TF-IDF references that are trained here
(`tuning.compare.references`). All are measured by the same code on the same headlines and judged by the same
gate. A speed is the median of several rounds. In each round all models take turns, so a noisy machine affects
them equally. Writes compare.json, compare.md and index.html. Runs in this process, without Ray.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from clickbait import cli, cores, storage
from clickbait.config import GateConfig, load
from clickbait.data.dataset import Dataset, open_dataset
from clickbait.errors import DataError
from clickbait.evaluation import behaviour, gate, metrics
from clickbait.evaluation import measure as evaluation
from clickbait.evaluation.measure import BATCH, Score, Split
from clickbait.inference.scorer import Scorer
from clickbait.registry import model_card, workspace
from tuning.compare import page, references
from tuning.compare.config import CompareConfig, Entry

ROUNDS = 5
HEADLINES = 2048  # per model and round
# Headlines per second. A slower model gets fewer headlines, so its round takes no longer.
SLOW = 500.0


@dataclass(frozen=True)
class Contender:
    """A model of the comparison: its scoring function and its properties."""

    name: str
    score: Score
    """Scores on as many threads as the speeds are measured with."""
    threshold: float
    """A score at or above it is clickbait."""
    reference: bool
    size: int
    """Bytes of the served model."""
    parameters: int | None = None
    seconds: float | None = None
    """Training time."""
    quick: Score | None = None
    """Scores on all cores, for measurements other than speed."""
    export: dict[str, Any] = field(default_factory=dict)
    """`export` of the metrics document, where the gate reads how far the served model agrees with torch."""


def compare(config: CompareConfig) -> list[dict[str, Any]]:
    """Measures every model, writes the table and the page, and returns the rows of `measure`.

    Raises:
        BundleError: a bundle is missing or incomplete.
        ConfigError: the gate's file or the file of behavioural cases is not valid.
        DataError: the dataset is missing or incomplete, a bundle has another test split, or the transfer set
            cannot be read.
    """
    bounds, cases = load(GateConfig, config.gate_file), behaviour.load(config.behaviour_file)
    dataset = open_dataset(config.dataset)
    contenders = [bundle(entry, dataset, config.threads) for entry in config.models]
    transfer = None
    if config.transfer:
        transfer = evaluation.transfer_split(config, dataset)
    if config.references:
        train, validation = _split(dataset, "train"), _split(dataset, "validation")
        contenders += [reference(references.train(train, validation, cased=cased)) for cased in (True, False)]
    test = evaluation.test_split(dataset)
    rows = measure(contenders, test, transfer, cases, bounds, config.threads)
    document = {
        "dataset": dataset.fingerprint,
        "synthetic": dataset.synthetic,
        "test_rows": len(test.texts),
        "transfer": config.transfer and config.transfer.rsplit("/", 1)[-1],
        "transfer_rows": len(transfer.texts) if transfer else 0,
        "transfer_left_out": transfer.left_out if transfer else {},
        "threads": cores.bounded(config.threads),
        "models": rows,
    }
    store = storage.open_storage(config.output)
    store.write("compare.json", json.dumps(document, indent=2).encode() + b"\n")
    store.write("compare.md", page.markdown(rows).encode(errors="replace"))
    store.write("index.html", page.render(document).encode(errors="replace"))
    return rows


def bundle(entry: Entry, dataset: Dataset, threads: int) -> Contender:
    """Loads the bundle of `entry`. Raises DataError if its test split is not that of `dataset`."""
    with workspace.existing(entry.bundle) as folder:
        scorer = Scorer(folder, threads=threads)
        quick = Scorer(folder, threads=cores.available(), verified=True)
        document = model_card.read_metrics(folder)
    manifest = scorer.manifest
    trained_on = open_dataset(entry.dataset) if entry.dataset else dataset
    if manifest.dataset != trained_on.fingerprint:
        raise DataError(
            f"{entry.name}: was trained on {manifest.dataset}, not on {trained_on.fingerprint}: give its own "
            f"dataset in the entry"
        )
    if trained_on.fingerprint != dataset.fingerprint and _keys(trained_on) != _keys(dataset):
        raise DataError(
            f"{entry.name}: {trained_on.uri} and {dataset.uri} have different test splits: compare models "
            f"whose datasets come from the same source"
        )
    seconds = sum(epoch["seconds"] for epoch in document["history"]) if document.get("history") else None
    return Contender(
        name=entry.name,
        score=scorer.score,
        quick=quick.score,
        threshold=manifest.threshold,
        reference=False,
        size=manifest.files[manifest.runtimes[scorer.runtime]].size,
        parameters=document.get("model", {}).get("parameters"),
        seconds=seconds if entry.seconds is None else entry.seconds,
        export=document.get("export", {}),
    )


def reference(trained: references.Reference) -> Contender:
    """The contender of a trained reference."""
    return Contender(
        name=trained.name,
        score=trained.score,
        threshold=trained.threshold,
        reference=True,
        size=trained.size,
        parameters=trained.parameters,
        seconds=trained.seconds,
    )


def measure(
    contenders: Sequence[Contender],
    test: Split,
    transfer: Split | None,
    cases: Sequence[behaviour.Case],
    bounds: GateConfig,
    threads: int = 1,
) -> list[dict[str, Any]]:
    """One row per contender, in their order. None means not measured.

    Keys: name, reference, parameters, size_mb, accuracy, flips (kind to share), transfer_auc,
    transfer_accuracy, transfer_lower (accuracy in lower case), ece, behaviour ({"cases", "passed"}),
    per_second (batches of 16, text to score), latency_ms (median of one headline), seconds (training),
    beside_best (None for the most accurate model, else {"best", "only_best_right", "only_this_right",
    "p_value"}: how many test headlines only one of the two models gets right, and the exact two-sided McNemar
    test), verdict (`gate.decide` without a champion) and failed (the names of the checks that did not pass).
    """
    rows: list[dict[str, Any]] = []
    speeds, verdicts = {}, {}
    for contender in contenders:
        score = _RecordingScore(contender.quick or contender.score, len(test.texts))
        metrics_document = evaluation.measure(
            score, test, transfer=transfer, cases=cases, threshold=contender.threshold, worst=0
        )
        verdicts[contender.name] = score.recorded >= contender.threshold
        speeds[contender.name] = latency = evaluation.speed(contender.score, test.texts, threads)
        verdict = gate.decide(
            {**metrics_document, "export": contender.export, "latency": latency}, None, bounds
        )
        on_transfer = metrics_document["transfer"] or {}
        rows.append(
            {
                "name": contender.name,
                "reference": contender.reference,
                "parameters": contender.parameters,
                "size_mb": contender.size / 1e6,
                "accuracy": metrics_document["test"]["accuracy"],
                "flips": metrics_document["flips"],
                "transfer_auc": on_transfer.get("auc"),
                "transfer_accuracy": on_transfer.get("accuracy"),
                "transfer_lower": on_transfer.get("lower", {}).get("accuracy"),
                "ece": metrics_document["test"]["ece"],
                "behaviour": {name: metrics_document["behaviour"][name] for name in ("cases", "passed")},
                "latency_ms": latency["single_p50_ms"],
                "seconds": contender.seconds,
                "verdict": verdict,
                "failed": [check["name"] for check in verdict["checks"] if not check["passed"]],
            }
        )
    expected = {name: speed["batch16_per_second"] for name, speed in speeds.items()}
    scores = {contender.name: contender.score for contender in contenders}
    throughput = interleaved(scores, test.texts, expected)
    best = max(rows, key=lambda row: row["accuracy"])["name"]
    return [
        {
            **row,
            "per_second": throughput[row["name"]],
            "beside_best": _beside(best, row["name"], verdicts, test.labels),
        }
        for row in rows
    ]


class _RecordingScore:
    """A scoring function that records the scores of the first `count` headlines."""

    def __init__(self, score: Score, count: int) -> None:
        self._score = score
        self._count = count
        self.recorded = np.empty(0)

    def __call__(self, texts: list[str]) -> np.ndarray:
        scores = np.asarray(self._score(texts))
        self.recorded = scores[: self._count]
        return scores


def _beside(
    best: str, name: str, verdicts: dict[str, metrics.Verdicts], labels: np.ndarray
) -> dict[str, Any] | None:
    """A model compared with the most accurate one on the same test headlines; None for that one."""
    if name == best:
        return None
    pair = metrics.discordant(labels, verdicts[best], verdicts[name])
    return {
        "best": best,
        "only_best_right": pair.only_first,
        "only_this_right": pair.only_second,
        "p_value": pair.p_differ(),
    }


def interleaved(
    scores: dict[str, Score], texts: Sequence[str], expected: dict[str, float]
) -> dict[str, float]:
    """Headlines per second of each model in batches of 16: the median of rounds in which all take turns.

    `expected` holds a first estimate of each speed.
    """
    batches = {}
    for name, score in scores.items():
        count = max(int(HEADLINES * min(expected[name] / SLOW, 1.0)) // BATCH, 1) * BATCH
        sample = [texts[row] for row in np.linspace(0, len(texts) - 1, count, dtype=np.int64)]
        batches[name] = [sample[at : at + BATCH] for at in range(0, count, BATCH)]
        score(batches[name][0])  # warm up
    timed: dict[str, list[float]] = {name: [] for name in scores}
    for _ in range(ROUNDS):
        for name, score in scores.items():
            start = time.perf_counter()
            for part in batches[name]:
                score(part)
            timed[name].append(BATCH * len(batches[name]) / (time.perf_counter() - start))
    return {name: statistics.median(rates) for name, rates in timed.items()}


def _split(dataset: Dataset, name: str) -> Split:
    table = dataset.table(name, ["headline", "label"])
    return Split(table["headline"].to_pylist(), table["label"].to_numpy().astype(np.int64))


def _keys(dataset: Dataset) -> set[bytes]:
    return set(dataset.table("test", ["key"])["key"].to_pylist())


def main(config: CompareConfig) -> None:
    """Compares, and prints the table and the checks that each refused model failed."""
    rows = compare(config)
    print(page.terminal(rows))
    for row in rows:
        if row["failed"]:
            print(f"{row['name']} refused: {', '.join(row['failed'])}")
    print(f"page: {config.output}/index.html")


if __name__ == "__main__":
    cli.run(CompareConfig, main, __doc__)
