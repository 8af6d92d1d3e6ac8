"""Score many headlines with a bundle over the cluster: Ray Data actors, a core and a scorer each.

`score_texts` scores texts in memory, for evaluation; `score_parts` the parts of a source, for
`ray_jobs.score`.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from clickbait.errors import ClickbaitError, DataError
from clickbait.inference import graph_cache
from clickbait.inference.scorer import Scorer
from clickbait.registry import workspace
from clickbait.registry.bundle import Manifest, verify
from clickbait.registry.registry import Registry
from clickbait.scoring import output
from clickbait.scoring.config import ScoreConfig
from clickbait.scoring.rows import Part, Reader
from ray_jobs.session import connect

BATCH = 512  # headlines a call: a second of work


class BundleScorer:
    """A Ray Data actor: Arrow batches with a `text` column in, the same with `score` out."""

    def __init__(self, bundle: str, threads: int) -> None:
        with workspace.existing(bundle) as folder:
            self.scorer = Scorer(folder, threads=threads, shared=graph_cache.folder())

    def __call__(self, batch: pa.Table) -> pa.Table:
        return batch.append_column(
            "score", pa.array(self.scorer.score(batch["text"].to_pylist()), pa.float32())
        )


def score_texts(bundle: str, texts: Sequence[str], *, num_workers: int, threads: int) -> np.ndarray:
    """P(clickbait) float32 (n,) of each text in order; equal texts are computed once. `num_workers` 0 scores
    in this process.
    """
    unique = list(dict.fromkeys(texts))
    place = {text: index for index, text in enumerate(unique)}
    if num_workers == 0:
        with workspace.existing(bundle) as folder:
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


def manifest(config: ScoreConfig) -> Manifest:
    """The manifest of the bundle or version that `config` names, once the bytes that scoring reads are
    checked.

    Raises:
        BundleError, RegistryError: it is not there, or not whole.
    """
    if config.bundle is not None:
        with workspace.existing(config.bundle) as folder:
            return verify(folder)
    registry = Registry(config.registry)
    version = registry.resolve(config.model)
    manifest = registry.manifest(version)
    registry.release(registry.fetch(version, manifest.default_runtime))
    return manifest


def load(config: ScoreConfig) -> Scorer:
    """The model that `config` names, loaded.

    Raises:
        BundleError, RegistryError: it is not there, or not whole.
    """
    if config.bundle is None:
        return Scorer.of(
            Registry(config.registry), config.model, threads=config.threads, shared=graph_cache.folder()
        )
    with workspace.existing(config.bundle) as folder:
        return Scorer(folder, threads=config.threads, shared=graph_cache.folder())


@dataclass(frozen=True)
class Written:
    """A part that is done."""

    name: str
    summary: dict[str, Any]
    """What `score_output.write_part` counted."""
    began: float
    ended: float
    """When its actor worked at it: seconds since the epoch."""


class PartScorer:
    """A Ray Data actor: a part as JSON in, what came of it as JSON out. What it scored, it writes itself."""

    def __init__(self, config: ScoreConfig, schema: pa.Schema, fingerprint: str) -> None:
        self._config = config
        self._reader = Reader(schema, config.headline_column)
        self._wrong: str | None = (
            None  # raised in an actor, an error would come out wrapped in Ray's own tracebacks
        )
        try:
            self._scorer = load(config)
            if output.fingerprint(self._scorer.manifest) != fingerprint:
                self._wrong = (
                    f"{config.bundle}: was replaced while it was at work: give the scores of the new one "
                    f"another --output"
                )
        except ClickbaitError as error:
            self._wrong = str(error)
        # what is loaded stays: Ray's and pandas' modules need not be looked through at each collection
        gc.freeze()

    def __call__(self, batch: pa.Table) -> pa.Table:
        return pa.table(
            {"told": [json.dumps(self._write(**json.loads(task))) for task in batch["task"].to_pylist()]}
        )

    def _write(self, name: str, part: dict[str, Any]) -> dict[str, Any]:
        if self._wrong is not None:
            return {"error": self._wrong}
        began = time.time()
        try:
            found = Part(**{**part, "columns": tuple(part["columns"])})
            summary = output.write_part(
                self._config.output, name, found, self._reader, self._scorer, self._config
            )
        except ClickbaitError as error:
            return {"error": str(error)}
        return asdict(Written(name, summary, began, time.time()))


def score_parts(
    parts: dict[str, Part], schema: pa.Schema, config: ScoreConfig, fingerprint: str
) -> Iterator[Written]:
    """Scores and writes each of the parts, by name, over the cluster, and tells of each as it is done.
    `fingerprint` is the model's.

    Raises:
        DataError: one could not be read or written.
    """
    import ray
    import ray.data

    connect()
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # the job tells of parts and rows
    context.print_on_execution_start = False
    cores = max(int(ray.cluster_resources().get("CPU", 1)) // config.threads, 1)
    workers = min(config.num_workers or cores, len(parts))
    tasks = [{"task": json.dumps({"name": name, "part": asdict(part)})} for name, part in parts.items()]
    done: Any = ray.data.from_items(tasks, override_num_blocks=len(tasks)).map_batches(
        PartScorer,
        fn_constructor_kwargs={"config": config, "schema": schema, "fingerprint": fingerprint},
        batch_format="pyarrow",
        batch_size=None,  # a part a call
        num_cpus=config.threads,
        # A second call waits inside each actor, so that none is idle between two parts; only one runs at a
        # time.
        compute=ray.data.ActorPoolStrategy(
            min_size=min(workers, cores), max_size=workers, max_concurrent_calls_per_actor=2
        ),
    )
    for row in done.iter_rows():
        told = json.loads(row["told"])
        if "error" in told:
            raise DataError(told["error"])
        yield Written(**told)
