"""Compare models: one table and one HTML page of what `ray_jobs.evaluate` measures, the speed side by side,
and two shallow references.

    python -m tuning.compare --config configs/compare.yaml --transfer ../shared/data/peterldowns/headlines.csv

Every bundle, and two TF-IDF references trained here (`tuning.compare.references`), are measured by the same
code on the same headlines and judged by the same gate. Speeds are medians of rounds in which the models take
turns, so that a noisy machine troubles all alike. Writes compare.json, compare.md and index.html. It runs in
this process, without Ray.
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
HEADLINES = 2048  # a round of a model
# headlines a second: a slower model gets fewer, so that its round takes no longer than one of these
SLOW = 500.0


@dataclass(frozen=True)
class Contender:
    """What is compared: a way to score, and what is known of it."""

    name: str
    score: Score
    """On as many threads as speeds are told for."""
    threshold: float
    """A score at or above it is clickbait."""
    reference: bool
    size: int
    """Bytes of what is served."""
    parameters: int | None = None
    seconds: float | None = None
    """Training."""
    quick: Score | None = None
    """The same on all cores: for what is no timing."""
    export: dict[str, Any] = field(default_factory=dict)
    """The metrics document's `export`: the gate reads how far the served form agrees with torch."""


def compare(config: CompareConfig) -> list[dict[str, Any]]:
    """Measures everybody, writes the table and the page to `config.output`, returns the rows (`measure` says
    what is in them).

    Raises:
        BundleError: no whole bundle at one of the addresses.
        ConfigError: the gate's or the behavioural file does not fit.
        DataError: no whole dataset there, a bundle of another test split, a transfer set that cannot be read.
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
    """The bundle of `entry`, loaded, once its test split is found to be the one of `dataset`."""
    with workspace.existing(entry.bundle) as folder:
        scorer = Scorer(folder, threads=threads)
        quick = Scorer(folder, threads=cores.available(), verified=True)
        document = model_card.read_metrics(folder)
    manifest = scorer.manifest
    own = open_dataset(entry.dataset) if entry.dataset else dataset
    if manifest.dataset != own.fingerprint:
        raise DataError(
            f"{entry.name}: was trained on {manifest.dataset}, not on {own.fingerprint}: give its own "
            f"dataset in the entry"
        )
    if own.fingerprint != dataset.fingerprint and _keys(own) != _keys(dataset):
        raise DataError(
            f"{entry.name}: {own.uri} and {dataset.uri} have not the same test split: compare models of one "
            f"source's split"
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
    """A trained reference as a contender."""
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
    """A row a contender, in their order. What was not measured is None.

    Keys: name, reference, parameters, size_mb, accuracy, flips (kind to share), transfer_auc,
    transfer_accuracy, transfer_lower (accuracy in lower case), ece, behaviour ({"cases", "passed"}),
    per_second (batches of 16, text to score), latency_ms (median of one headline), seconds (training),
    beside_best (None for the most accurate, else {"best", "only_best_right", "only_this_right", "p_value"}:
    the test headlines that only one of the two judges right, and the exact two-sided McNemar test), verdict
    (`gate.decide`, against no champion) and failed (the names of its checks that did not pass).
    """
    rows: list[dict[str, Any]] = []
    speeds, verdicts = {}, {}
    for one in contenders:
        score = _Keeping(one.quick or one.score, len(test.texts))
        found = evaluation.measure(
            score, test, transfer=transfer, cases=cases, threshold=one.threshold, worst=0
        )
        verdicts[one.name] = score.kept >= one.threshold
        speeds[one.name] = latency = evaluation.speed(one.score, test.texts, threads)
        verdict = gate.decide({**found, "export": one.export, "latency": latency}, None, bounds)
        moved = found["transfer"] or {}
        rows.append(
            {
                "name": one.name,
                "reference": one.reference,
                "parameters": one.parameters,
                "size_mb": one.size / 1e6,
                "accuracy": found["test"]["accuracy"],
                "flips": found["flips"],
                "transfer_auc": moved.get("auc"),
                "transfer_accuracy": moved.get("accuracy"),
                "transfer_lower": moved.get("lower", {}).get("accuracy"),
                "ece": found["test"]["ece"],
                "behaviour": {name: found["behaviour"][name] for name in ("cases", "passed")},
                "latency_ms": latency["single_p50_ms"],
                "seconds": one.seconds,
                "verdict": verdict,
                "failed": [check["name"] for check in verdict["checks"] if not check["passed"]],
            }
        )
    expected = {name: speed["batch16_per_second"] for name, speed in speeds.items()}
    throughput = interleaved({one.name: one.score for one in contenders}, test.texts, expected)
    best = max(rows, key=lambda row: row["accuracy"])["name"]
    return [
        {
            **row,
            "per_second": throughput[row["name"]],
            "beside_best": _beside(best, row["name"], verdicts, test.labels),
        }
        for row in rows
    ]


class _Keeping:
    """A way to score that keeps the scores of the first headlines."""

    def __init__(self, score: Score, first: int) -> None:
        self._score = score
        self._first = first
        self.kept = np.empty(0)

    def __call__(self, texts: list[str]) -> np.ndarray:
        scores = np.asarray(self._score(texts))
        self.kept = scores[: self._first]
        return scores


def _beside(
    best: str, name: str, verdicts: dict[str, metrics.Verdicts], labels: np.ndarray
) -> dict[str, Any] | None:
    """A model beside the most accurate one, on the same test headlines; None for that one itself."""
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
    """Headlines a second of each way to score, in batches of 16: median of rounds in which all take turns;
    `expected` is a first guess.
    """
    batches = {}
    for name, score in scores.items():
        count = max(int(HEADLINES * min(expected[name] / SLOW, 1.0)) // BATCH, 1) * BATCH
        sample = [texts[row] for row in np.linspace(0, len(texts) - 1, count, dtype=np.int64)]
        batches[name] = [sample[at : at + BATCH] for at in range(0, count, BATCH)]
        score(batches[name][0])  # warm
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
    """Compare, and print the table and what each refused model failed by."""
    rows = compare(config)
    print(page.terminal(rows))
    for row in rows:
        if row["failed"]:
            print(f"{row['name']} refused: {', '.join(row['failed'])}")
    print(f"page: {config.output}/index.html")


if __name__ == "__main__":
    cli.run(CompareConfig, main, __doc__)
