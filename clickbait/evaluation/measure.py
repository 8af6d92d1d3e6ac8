"""Measures anything that scores headlines: a bundle, or another model to compare with.

`ray_jobs.evaluate` and `tuning.compare` use it.
"""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from clickbait import cores
from clickbait.config import TransferConfig
from clickbait.data.dataset import Dataset
from clickbait.data.labelled import read_labelled
from clickbait.errors import BundleError, DataError
from clickbait.evaluation import behaviour, metrics
from clickbait.evaluation.perturbations import PERTURBATIONS

Score = Callable[[list[str]], np.ndarray]
"""A function from texts to P(clickbait), float (n,)."""

LATENCY_HEADLINES = 200
BATCH = 16
TRAINED_ON = "trained_on"  # reason to leave out a headline of the transfer set: it is in the training split


@dataclass(frozen=True)
class Split:
    """A set of labelled headlines."""

    texts: list[str]
    labels: np.ndarray
    """int64 (n,): 1 for clickbait, 0 for news."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Number of rows of the source that are not in the set, by reason."""


def test_split(dataset: Dataset) -> Split:
    """Reads the dataset's test split."""
    table = dataset.table("test", ["headline", "label"])
    return Split(table["headline"].to_pylist(), table["label"].to_numpy().astype(np.int64))


def test_identity(dataset: Dataset) -> dict[str, Any]:
    """The identity of the test split: its rows, and the SHA-256 of its sorted headline keys and labels.

    Datasets of the same source for different tokenizers have different fingerprints, but the same test split.
    """
    table = dataset.table("test", ["key", "label"])
    digest = hashlib.sha256()
    for key, label in sorted(zip(table["key"].to_pylist(), table["label"].to_pylist(), strict=True)):
        digest.update(key + bytes([label]))
    return {"rows": table.num_rows, "sha256": digest.hexdigest()}


def transfer_split(config: TransferConfig, dataset: Dataset) -> Split:
    """Reads the transfer set, without headlines that are in the training split.

    Raises:
        DataError: it cannot be read, or every headline in it was trained on.
    """
    assert config.transfer is not None
    labelled = read_labelled(config)
    table, left_out = labelled.table, dict(labelled.left_out)
    trained = set(dataset.table("train", ["key"])["key"].to_pylist())
    kept = [index for index, key in enumerate(table["key"].to_pylist()) if key not in trained]
    if not kept:
        raise DataError(
            f"{config.transfer}: every headline in it was trained on: give headlines of other sources"
        )
    if trained_rows := table.num_rows - len(kept):
        left_out[TRAINED_ON] = trained_rows
    table = table.take(kept)
    return Split(table["headline"].to_pylist(), table["label"].to_numpy().astype(np.int64), left_out)


def left_out(reasons: Mapping[str, int]) -> str:
    """Describes in words how many rows were left out, and why."""
    return f"{sum(reasons.values()):,} rows left out: " + ", ".join(
        f"{rows:,} {reason}" for reason, rows in reasons.items()
    )


def measure(
    score: Score,
    test: Split,
    *,
    transfer: Split | None,
    cases: Sequence[behaviour.Case],
    threshold: float,
    worst: int,
) -> dict[str, Any]:
    """Computes the metrics document's threshold, test, slices, flips, transfer, behaviour and worst.

    `score` is called once with all texts. The headlines of the test split come first.

    Raises:
        BundleError: a score is not a finite number.
    """
    parts = {
        "test": test.texts,
        **{name: [change(text) for text in test.texts] for name, change in PERTURBATIONS.items()},
    }
    parts["behaviour"] = behaviour.texts(cases)
    if transfer:
        parts["transfer"] = transfer.texts
        parts["transfer_lower"] = [text.lower() for text in transfer.texts]
    flat = np.asarray(score([text for part in parts.values() for text in part]))
    if not_finite := int(np.count_nonzero(~np.isfinite(flat))):
        raise BundleError(
            f"the model's score is not a number for {not_finite:,} of {len(flat):,} headlines: train it "
            f"again with a smaller lr"
        )
    ends = np.cumsum([len(part) for part in parts.values()])[:-1]
    scores = dict(zip(parts, np.split(flat, ends), strict=True))
    document: dict[str, Any] = {
        "threshold": threshold,
        "test": _split(test.labels, scores["test"], threshold),
        "slices": metrics.slices(test.texts, test.labels, scores["test"], threshold),
        "flips": {name: metrics.flip_rate(scores["test"], scores[name], threshold) for name in PERTURBATIONS},
        "transfer": None,
        "behaviour": behaviour.judge(cases, scores["behaviour"], threshold),
        "worst": metrics.worst(test.texts, test.labels, scores["test"], worst, threshold),
    }
    if transfer:
        lower = metrics.classification(transfer.labels, scores["transfer_lower"], threshold)
        document["transfer"] = {
            **_split(transfer.labels, scores["transfer"], threshold),
            "left_out": transfer.left_out,
            "lower": {name: lower[name] for name in ("accuracy", "auc")},
        }
    return document


def speed(score: Score, texts: list[str], threads: int) -> dict[str, Any]:
    """Measures the metrics document's latency in this process.

    Returns:
        The latency of a single headline in milliseconds, and headlines per second in batches of 16.
    """
    sample = [texts[row] for row in np.linspace(0, len(texts) - 1, LATENCY_HEADLINES, dtype=np.int64)]
    latency(score, sample[:10])  # warm
    single = latency(score, sample)
    batches = []
    for first in range(0, len(sample) - BATCH + 1, BATCH):
        start = time.perf_counter()
        score(sample[first : first + BATCH])
        batches.append(BATCH / (time.perf_counter() - start))
    return {
        "single_p50_ms": statistics.median(single),
        "single_p95_ms": float(np.percentile(single, 95)),
        "batch16_per_second": statistics.median(batches),
        "threads": cores.bounded(threads),
    }


def latency(score: Score, texts: Sequence[str]) -> list[float]:
    """Milliseconds to score each text, one at a time."""
    milliseconds = []
    for text in texts:
        start = time.perf_counter()
        score([text])
        milliseconds.append((time.perf_counter() - start) * 1e3)
    return milliseconds


def _split(labels: np.ndarray, scores: np.ndarray, threshold: float) -> dict[str, Any]:
    return {**metrics.classification(labels, scores, threshold), "curves": metrics.curves(labels, scores)}
