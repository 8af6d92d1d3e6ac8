"""What is measured of anything that scores headlines: a bundle, a peer, a reference. Logic of
`ray_jobs.evaluate` and `tuning.compare`.
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
"""Texts to P(clickbait), float (n,)."""

LATENCY_HEADLINES = 200
BATCH = 16
TRAINED_ON = "trained_on"  # why a headline of a transfer set is left out: it stands in the training split


@dataclass(frozen=True)
class Split:
    """A labelled set of headlines: texts, and labels int64 (n,)."""

    texts: list[str]
    labels: np.ndarray
    left_out: dict[str, int] = field(default_factory=dict)
    """Rows of the source that are not in it, by reason."""


def test_split(dataset: Dataset) -> Split:
    """The dataset's test split."""
    table = dataset.table("test", ["headline", "label"])
    return Split(table["headline"].to_pylist(), table["label"].to_numpy().astype(np.int64))


def test_identity(dataset: Dataset) -> dict[str, Any]:
    """What tells test splits apart: rows, and the SHA-256 of every headline's key with its label, in any
    order.

    Datasets of one source that are cut for different tokenizers have different fingerprints and one test
    split.
    """
    table = dataset.table("test", ["key", "label"])
    digest = hashlib.sha256()
    for key, label in sorted(zip(table["key"].to_pylist(), table["label"].to_pylist(), strict=True)):
        digest.update(key + bytes([label]))
    return {"rows": table.num_rows, "sha256": digest.hexdigest()}


def transfer_split(config: TransferConfig, dataset: Dataset) -> Split:
    """The headlines of other sources, without those that stand in the training split.

    Raises:
        DataError: it cannot be read, or nothing of it was not trained on.
    """
    assert config.transfer is not None
    labelled = read_labelled(config)
    table, left_out = labelled.table, dict(labelled.left_out)
    trained = set(dataset.table("train", ["key"])["key"].to_pylist())
    kept = [index for index, key in enumerate(table["key"].to_pylist()) if key not in trained]
    if not kept:
        raise DataError(
            f"{config.transfer}: no headline is left that was not trained on: give headlines of other sources"
        )
    if seen := table.num_rows - len(kept):
        left_out[TRAINED_ON] = seen
    table = table.take(kept)
    return Split(table["headline"].to_pylist(), table["label"].to_numpy().astype(np.int64), left_out)


def left_out(reasons: Mapping[str, int]) -> str:
    """The rows that a set leaves out, in words."""
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
    """The metrics document's threshold, test, slices, flips, transfer, behaviour and worst.

    `score` is called once, with everything, the test split's headlines first.

    Raises:
        BundleError: the model gives a headline no number as its score.
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
    if broken := int(np.count_nonzero(~np.isfinite(flat))):
        raise BundleError(
            f"the model scores {broken:,} of {len(flat):,} headlines as not a number: train it again with a "
            f"smaller lr"
        )
    ends = np.cumsum([len(part) for part in parts.values()])[:-1]
    scores = dict(zip(parts, np.split(flat, ends), strict=True))
    found: dict[str, Any] = {
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
        found["transfer"] = {
            **_split(transfer.labels, scores["transfer"], threshold),
            "left_out": transfer.left_out,
            "lower": {name: lower[name] for name in ("accuracy", "auc")},
        }
    return found


def speed(score: Score, texts: list[str], threads: int) -> dict[str, Any]:
    """The metrics document's latency: milliseconds of one headline, and headlines a second in batches of 16,
    in this process.
    """
    sample = [texts[row] for row in np.linspace(0, len(texts) - 1, LATENCY_HEADLINES, dtype=np.int64)]
    latency(score, sample[:10])  # warm
    single = latency(score, sample)
    batches = []
    for at in range(0, len(sample) - BATCH + 1, BATCH):
        start = time.perf_counter()
        score(sample[at : at + BATCH])
        batches.append(BATCH / (time.perf_counter() - start))
    return {
        "single_p50_ms": statistics.median(single),
        "single_p95_ms": float(np.percentile(single, 95)),
        "batch16_per_second": statistics.median(batches),
        "threads": cores.bounded(threads),
    }


def latency(score: Score, texts: Sequence[str]) -> list[float]:
    """Milliseconds of each text scored alone."""
    timed = []
    for text in texts:
        start = time.perf_counter()
        score([text])
        timed.append((time.perf_counter() - start) * 1e3)
    return timed


def _split(labels: np.ndarray, scores: np.ndarray, threshold: float) -> dict[str, Any]:
    return {**metrics.classification(labels, scores, threshold), "curves": metrics.curves(labels, scores)}
