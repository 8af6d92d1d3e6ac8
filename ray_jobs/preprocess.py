"""Make a dataset from raw headlines with Ray Data.

    python -m ray_jobs.preprocess --config configs/preprocess.yaml --source headlines.csv

The steps are clean, validate, drop duplicates, split by hash, tokenize; the rows are streamed. The dataset's
folder is named by its content (`clickbait.data.dataset`), so a second run with the same input and settings
returns at once.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from clickbait import cli, storage
from clickbait.config import PreprocessConfig
from clickbait.data import dataset, headlines, sources
from clickbait.errors import DataError
from clickbait.pretrained import tokenizer
from ray_jobs.session import connect

log = logging.getLogger("preprocess")


def preprocess(config: PreprocessConfig) -> str:
    """Writes the dataset, unless it exists, and returns its URI.

    Raises:
        DataError: the source cannot be read, has too few headlines of a label, or too many rows went into
            quarantine.
        ModelError: `config.model` has no tokenizer.
    """
    headlines.classes(config)
    pieces = sources.pieces(config)
    sources.check(pieces, config)
    tokens = tokenizer.tokenizer_bytes(config.model)
    tokenizer.load(tokens, config.max_tokens)
    head = dataset.identify(config, pieces, tokens)
    uri = storage.join(config.output, head["fingerprint"])
    try:
        dataset.open_dataset(uri)
        log.info("%s exists already", uri)
    except DataError:
        with dataset.attempt(uri):
            _write(uri, head, pieces, tokens, config)
    whole = dataset.open_dataset(uri)
    whole.check_reader()
    whole.check_quarantine(config.max_quarantined)
    dataset.set_latest(config.output, head["fingerprint"])
    return uri


def _write(
    uri: str, head: dict[str, Any], pieces: list[str], tokens: bytes, config: PreprocessConfig
) -> None:
    connect()
    tokenizer_file = {tokenizer.FILE: dataset.sealed(uri).put(tokenizer.FILE, tokens)}
    summary = dataset.add_up(_partitions(uri, pieces, config))
    if not dataset.has_both_labels(summary["counts"], config):
        # Each partition is split on its own, so with very few headlines a split may stay empty. One partition
        # gives every split some.
        summary = dataset.add_up(_partitions(uri, pieces, config.model_copy(update={"partitions": 1})))
    dataset.seal(uri, {**head, **summary, "files": tokenizer_file | summary["files"]})


def _partitions(uri: str, pieces: list[str], config: PreprocessConfig) -> list[dict[str, Any]]:
    """Shuffles the rows by hash, writes each partition's part files, and returns their counts in order."""
    import ray.data  # takes 2 s, and is not needed if the dataset exists
    from ray.data import TaskPoolStrategy

    items = [{"file": file, "piece": piece} for file, piece in enumerate(pieces)]
    names = [sources.name(piece) for piece in pieces]
    readers, writers = (
        TaskPoolStrategy(size=min(config.num_workers, tasks)) for tasks in (len(pieces), config.partitions)
    )
    data = ray.data.from_items(items, override_num_blocks=min(len(items), 4 * config.num_workers))
    data = data.map_batches(
        sources.judged, batch_size=1, batch_format="pyarrow", fn_kwargs={"config": config}, compute=readers
    )
    groups = data.groupby("partition", num_partitions=config.partitions)
    settings = {"uri": uri, "names": names, "config": config}
    rows = groups.map_groups(
        dataset.write_partition, batch_format="pyarrow", fn_kwargs=settings, compute=writers
    ).take_all()
    return [json.loads(row["summary"]) for row in sorted(rows, key=lambda row: row["partition"])]


def main(config: PreprocessConfig) -> None:
    """Preprocesses and prints the counts."""
    print(dataset.open_dataset(preprocess(config)).summary())


if __name__ == "__main__":
    cli.run(PreprocessConfig, main, __doc__)
