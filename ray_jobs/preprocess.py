"""Headlines in, a dataset out: clean, validate, drop duplicates, split by hash, tokenize; Ray Data,
streaming.

    python -m ray_jobs.preprocess --config configs/preprocess.yaml --source headlines.csv

The dataset's folder is named by its content (`clickbait.data.dataset`): the same input and settings return at
once the second time.
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
    """Writes the dataset, unless it is there, and returns its URI.

    Raises:
        DataError: a source that cannot be read, too few headlines of a label, or too many rows in quarantine.
        ModelError: no tokenizer for `config.model`.
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
        log.info("%s is there already", uri)
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
    kept = {tokenizer.FILE: dataset.put(uri, tokenizer.FILE, tokens)}
    found = dataset.count(_partitions(uri, pieces, config))
    if not dataset.enough(found["counts"], config):
        # Parts are cut without knowing of each other: of very few headlines a split may get none. In one part
        # each gets some.
        found = dataset.count(_partitions(uri, pieces, config.model_copy(update={"partitions": 1})))
    dataset.seal(uri, {**head, **found, "files": kept | found["files"]})


def _partitions(uri: str, pieces: list[str], config: PreprocessConfig) -> list[dict[str, Any]]:
    """Streams the pieces through one hash shuffle; each partition writes its own parts and returns its
    counts, in order.
    """
    import ray.data  # 2 s, and not needed where the dataset is there
    from ray.data import TaskPoolStrategy

    items = [{"file": file, "piece": piece} for file, piece in enumerate(pieces)]
    names = [sources.name(piece) for piece in pieces]
    readers, writers = (
        TaskPoolStrategy(size=min(config.num_workers, most)) for most in (len(pieces), config.partitions)
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
    """Preprocess, and print the counts."""
    print(dataset.open_dataset(preprocess(config)).summary())


if __name__ == "__main__":
    cli.run(PreprocessConfig, main, __doc__)
