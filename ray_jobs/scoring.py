"""Score many headlines with a bundle over the cluster: a Ray Data actor a core, each with its own scorer. Evaluation and `score` use it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from clickbait import drafts
from clickbait.scorer import Scorer
from ray_jobs.session import connect

BATCH = 512  # headlines a call: a second of work


class BundleScorer:
    """A Ray Data actor: Arrow batches with a `text` column in, the same with `score` out."""

    def __init__(self, bundle: str, threads: int) -> None:
        with drafts.existing(bundle) as folder:
            self.scorer = Scorer(folder, threads=threads)

    def __call__(self, batch: pa.Table) -> pa.Table:
        return batch.append_column("score", pa.array(self.scorer.score(batch["text"].to_pylist()), pa.float32()))


def score_texts(bundle: str, texts: Sequence[str], *, num_workers: int, threads: int) -> np.ndarray:
    """P(clickbait) float32 (n,) of each text in order; equal texts are computed once. `num_workers` 0 scores in this process."""
    unique = list(dict.fromkeys(texts))
    place = {text: index for index, text in enumerate(unique)}
    if num_workers == 0:
        with drafts.existing(bundle) as folder:
            scores = Scorer(Path(folder), threads=threads).score(unique)
    else:
        scores = _score_on_ray(bundle, unique, num_workers, threads)
    return scores[[place[text] for text in texts]]


def _score_on_ray(bundle: str, texts: list[str], num_workers: int, threads: int) -> np.ndarray:
    import ray.data

    connect()
    table = pa.table({"row": np.arange(len(texts)), "text": pa.array(texts, pa.string())})
    blocks = [table.slice(at, BATCH) for at in range(0, len(texts), BATCH)]
    done: Any = ray.data.from_arrow(blocks).map_batches(
        BundleScorer,
        fn_constructor_kwargs={"bundle": bundle, "threads": threads},
        batch_format="pyarrow",
        batch_size=None,  # a block a call: nothing is copied to make batches
        num_cpus=threads,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=num_workers),
    )
    scores = np.zeros(len(texts), dtype=np.float32)
    for batch in done.iter_batches(batch_size=None, batch_format="pyarrow"):
        scores[batch["row"].to_numpy()] = batch["score"].to_numpy()
    return scores
