"""A dataset on disk: a sealed folder (`clickbait.storage.sealed_folder`) that is named by its content.

    <output>/<fingerprint>/{train,validation,test}/part-00000.parquet   headline, label, key (sorted by it),
                                                                        input_ids, length
                           quarantine/part-00000.parquet                source, row, headline, label, reason
                           tokenizer.json  manifest.json  _SUCCESS
    <output>/latest.json                                                {"fingerprint": ...}: <output>/latest

Nothing in it depends on time, host, path or the number of workers: two runs with the same fingerprint
write the same bytes. So a run that died half-way, or two runs at once, do no harm. Each job that writes has a
file of its own in `attempts/`. A job that fails deletes what was written, but only where no other job writes
and the folder is not whole.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from clickbait import sample, storage
from clickbait.config import PreprocessConfig
from clickbait.data import headlines, sources, token_ids
from clickbait.data.headlines import MALFORMED_ROW, REASONS, SPLITS
from clickbait.errors import ClickbaitError, DataError, NotFound, StorageError
from clickbait.pretrained import tokenizer
from clickbait.storage.sealed_folder import SealedFolder, sha256
from clickbait.text import LABELS

SCHEMA = 1  # raise it when the same input gives other bytes
READER = 2  # version of the csv and tsv reader: the first one lost the rows after a quote that nothing closes
LATEST = "latest"
ATTEMPTS = "attempts"
ROW_GROUP = 20_000
# Settings that are no part of the fingerprint: they change no byte, or the fingerprint holds what they name.
NOT_IN_FINGERPRINT = {"source", "sample_size", "output", "model", "num_workers", "max_quarantined"}
# Settings of the first version: always part of the fingerprint. A later setting is part of it only
# where its value is not the default, so that an existing dataset keeps its name. The default must be what the
# code did before.
ALWAYS_IN_FINGERPRINT = {
    "headline_column",
    "label_column",
    "clickbait_values",
    "news_values",
    "max_characters",
    "max_tokens",
    "partitions",
    "validation_fraction",
    "test_fraction",
}

PART = pa.schema([*headlines.KEPT, ("input_ids", pa.list_(pa.int32())), ("length", pa.int16())])


@dataclass(frozen=True)
class Dataset:
    """A whole dataset; `open_dataset` gives it."""

    uri: str
    manifest: dict[str, Any]

    @property
    def fingerprint(self) -> str:
        """Its name: 16 hexadecimal digits."""
        return str(self.manifest["fingerprint"])

    @property
    def synthetic(self) -> bool:
        """Whether its headlines were generated."""
        return bool(self.manifest["synthetic"])

    @property
    def max_tokens(self) -> int:
        """Headlines were cut at this number of tokens."""
        return int(self.manifest["max_tokens"])

    @property
    def tokenizer(self) -> bytes:
        """The `tokenizer.json` that cut the headlines; DataError where its SHA-256 is not the manifest's."""
        return self._read(tokenizer.FILE)

    def check_model(self, model: str) -> None:
        """Refuses a base model whose tokenizer is not the one that cut the headlines.

        Raises:
            ModelError: it is another tokenizer; the message names both models and what to do.
        """
        cut_by = self.manifest["tokenizer"]
        tokenizer.check_model(model, self.uri, cut_by["model"], cut_by["sha256"])

    def table(self, split: str, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of `train`, `validation`, `test` or `quarantine`, parts in order.

        Raises:
            DataError: a part is missing or its SHA-256 is not the manifest's; no byte of it was parsed.
        """
        assert split in (*SPLITS, "quarantine"), split
        schema = headlines.QUARANTINE if split == "quarantine" else PART
        keys = sorted(key for key in self.manifest["files"] if key.startswith(f"{split}/"))
        names = list(columns) if columns is not None else schema.names
        empty = pa.table({name: pa.array([], schema.field(name).type) for name in names})
        return pa.concat_tables(
            [
                empty,
                *(pq.read_table(io.BytesIO(self._read(key)), columns=names).select(names) for key in keys),
            ]
        )

    def check_reader(self) -> None:
        """Refuses a dataset in which an earlier version of the csv reader may have lost rows.

        Raises:
            DataError: it has malformed rows, and that version read them.
        """
        if self.manifest.get("reader") != READER and self.manifest["counts"]["reasons"].get(MALFORMED_ROW):
            raise DataError(
                f"{self.uri}: an earlier version wrote it, which lost the rows after a quote that nothing "
                f"closes: delete that folder and run the same command again"
            )

    def check_quarantine(self, most: float) -> None:
        """Refuses a dataset with too many rows in quarantine.

        Raises:
            DataError: more than the share `most` of its rows is in quarantine.
        """
        counts = self.manifest["counts"]
        share = counts["quarantined"] / max(counts["in"], 1)
        if share <= most:
            return
        reasons = sorted((-rows, reason) for reason, rows in counts["reasons"].items() if rows)
        listed = ", ".join(f"{-rows:,} {reason}" for rows, reason in reasons)
        rows = (
            self.table("quarantine", ["source", "row", "reason"])
            .sort_by([("source", "ascending"), ("row", "ascending")])
            .to_pylist()
        )
        first = next(row for row in rows if row["reason"] == reasons[0][1])
        raise DataError(
            f"{self.manifest['source']}: {counts['quarantined']:,} of {counts['in']:,} rows are in "
            f"quarantine ({listed}; the first is row {first['row']} of {first['source']}), "
            f"more than max_quarantined: {most:g}. "
            f"Look at {self.uri}/quarantine and fix the source, or accept it with --max-quarantined "
            f"{math.ceil(share * 100) / 100:g}"
        )

    def summary(self) -> str:
        """The counts as a small table, with a notice where the headlines are synthetic."""
        counts = self.manifest["counts"]
        lines = [self.manifest["notice"]] if self.synthetic else []
        lines += [f"{name:>12} {counts[name]:>12,}" for name in ("in", "kept", "quarantined", "duplicates")]
        lines += [f"{'':>12} {rows:>12,} {reason}" for reason, rows in counts["reasons"].items() if rows]
        for name, rows in counts["splits"].items():
            lines.append(
                f"{name:>12} {rows['rows']:>12,} ({rows['clickbait']:,} clickbait, {rows['news']:,} news)"
            )
        return "\n".join([*lines, f"dataset: {self.uri}"])

    def _read(self, key: str) -> bytes:
        return sealed(self.uri).read(key, self.manifest)


def sealed(uri: str) -> SealedFolder:
    """The folder of a dataset, whole or in the making."""
    return SealedFolder(uri, "dataset", "python -m ray_jobs.preprocess")


def open_dataset(uri: str) -> Dataset:
    """The dataset in the folder `uri`, or the newest one for `<output>/latest`.

    Raises:
        DataError: no whole dataset there.
    """
    uri = storage.absolute(uri)
    output, _, name = uri.rpartition("/")
    if name == LATEST:
        uri = storage.join(output, _latest(output))
    manifest = sealed(uri).manifest()
    if manifest["schema"] != SCHEMA:
        raise DataError(
            f"{uri}: has schema {manifest['schema']}, this version reads {SCHEMA}: "
            f"run python -m ray_jobs.preprocess again"
        )
    return Dataset(uri, manifest)


def _latest(output: str) -> str:
    """The fingerprint that `latest.json` names; `latest` itself where there is no such file."""
    try:
        data = storage.open_storage(output).read(f"{LATEST}.json")
    except NotFound:
        return LATEST
    try:
        return str(json.loads(data)["fingerprint"])
    except (KeyError, TypeError, ValueError):
        raise DataError(
            f"{output}/{LATEST}.json: not written by preprocess: run python -m ray_jobs.preprocess again"
        ) from None


def identify(config: PreprocessConfig, pieces: Sequence[str], tokens: bytes) -> dict[str, Any]:
    """All that a dataset's bytes depend on: the head of its manifest, with the fingerprint.

    The names of the source's files are part of the fingerprint, without their folders: a quarantined row
    names its file.
    """
    files = [
        [sources.name(piece), digest] for piece, digest in zip(pieces, sources.digests(pieces), strict=True)
    ]
    folder = Path(config.model).expanduser()
    head: dict[str, Any] = {
        "schema": SCHEMA,
        "synthetic": config.source == sources.SAMPLE,
        "source": config.source
        if config.source.startswith(sources.HUB)
        else sources.name(storage.absolute(config.source)),
        "config": _settings(config),
        "tokenizer": {
            "model": folder.resolve().name if folder.is_dir() else config.model,
            "sha256": sha256(tokens),
        },
        "max_tokens": config.max_tokens,
    }
    if head["synthetic"]:
        head["notice"] = sample.SYNTHETIC_NOTICE
    fingerprint = sha256(json.dumps([head, files], sort_keys=True).encode())[:16]
    return {"fingerprint": fingerprint, **head, "reader": READER}


def _settings(config: PreprocessConfig) -> dict[str, Any]:
    """The settings that change a dataset's bytes."""
    settings, defaults = (
        one.model_dump(mode="json", exclude=NOT_IN_FINGERPRINT) for one in (config, type(config)())
    )
    return {
        name: value
        for name, value in settings.items()
        if name in ALWAYS_IN_FINGERPRINT or value != defaults[name]
    }


def write_partition(judged: pa.Table, uri: str, names: list[str], config: PreprocessConfig) -> pa.Table:
    """Settles, tokenizes and writes one whole partition; returns its counts, as one row of JSON.

    An error that a user can fix is in that row too: raised in a task, it would come out wrapped in Ray's own
    tracebacks.
    """
    # One task, one core: `num_workers` says how many tasks there are.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    partition = judged["partition"][0].as_py()
    try:
        summary = _write(partition, judged, uri, names, config)
    except ClickbaitError as error:
        summary = {"errors": [str(error)]}
    return pa.table({"partition": [partition], "summary": [json.dumps(summary)]})


def _write(
    partition: int, judged: pa.Table, uri: str, names: list[str], config: PreprocessConfig
) -> dict[str, Any]:
    settled = headlines.settle(judged, names, config)
    folder = sealed(uri)
    files: dict[str, dict[str, Any]] = {}

    def write(split: str, table: pa.Table) -> None:
        if table.num_rows:
            key = f"{split}/part-{partition:05d}.parquet"
            files[key] = folder.put(key, parquet_bytes(table), table.num_rows)

    lengths: Counter[int] = Counter()
    splits = {}
    cutter = tokenizer.load(storage.open_storage(uri).read(tokenizer.FILE), config.max_tokens)
    for name, table in settled.splits.items():
        ids, length = token_ids.encode(cutter, table["headline"].to_pylist())
        lengths.update(length.to_pylist())
        write(name, pa.table([*table.columns, ids, length], schema=PART))
        clickbait = table["label"].to_pylist().count(LABELS.index("clickbait"))
        splits[name] = {"rows": table.num_rows, "clickbait": clickbait, "news": table.num_rows - clickbait}
    write("quarantine", settled.quarantine)
    return {
        "in": settled.rows,
        "read": settled.read,
        "errors": settled.errors,
        "duplicates": settled.duplicates,
        "reasons": Counter(settled.quarantine["reason"].to_pylist()),
        "splits": splits,
        "lengths": lengths,
        "files": files,
    }


def parquet_bytes(table: pa.Table) -> bytes:
    """The table as Parquet with every setting fixed: the same rows give the same bytes."""
    sink = io.BytesIO()
    pq.write_table(
        table.combine_chunks(),
        sink,
        row_group_size=ROW_GROUP,
        version="2.6",
        compression="zstd",
        compression_level=3,
        use_dictionary=False,
    )
    return sink.getvalue()


def add_up(summaries: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Adds up the partitions' summaries: the manifest's counts, label balance, histogram and files.

    Raises:
        DataError: a piece of the source could not be read to its end, or a part could not be written.
    """
    summaries = list(summaries)
    if errors := [error for summary in summaries for error in summary["errors"]]:
        raise DataError(errors[0] + (f" (and {len(errors) - 1} more)" if errors[1:] else ""))
    reasons: Counter[str] = Counter()
    lengths: Counter[int] = Counter()
    splits = {name: Counter({"rows": 0, "clickbait": 0, "news": 0}) for name in SPLITS}
    files: dict[str, Any] = {}
    for summary in summaries:
        reasons.update(summary["reasons"])
        lengths.update({int(length): rows for length, rows in summary["lengths"].items()})
        files.update(summary["files"])
        for name, rows in summary["splits"].items():
            splits[name].update(rows)
    counts = {
        "in": sum(summary["read"] for summary in summaries),
        "kept": sum(rows["rows"] for rows in splits.values()),
        "quarantined": sum(reasons.values()),
        "duplicates": sum(summary["duplicates"] for summary in summaries),
        "reasons": {reason: reasons[reason] for reason in REASONS},
        "splits": {name: dict(rows) for name, rows in splits.items()},
    }
    assert counts["in"] == sum(summary["in"] for summary in summaries), (
        "rows were lost between reading and writing"
    )
    assert counts["in"] == counts["kept"] + counts["quarantined"] + counts["duplicates"], counts
    return {
        "counts": counts,
        "label_balance": {
            name: round(rows["clickbait"] / max(rows["rows"], 1), 6) for name, rows in splits.items()
        },
        "token_length_histogram": {str(length): lengths[length] for length in sorted(lengths)},
        "files": dict(sorted(files.items())),
    }


def has_both_labels(counts: dict[str, Any], config: PreprocessConfig) -> bool:
    """Whether each split has headlines of both labels.

    Raises:
        DataError: no way of splitting can give each split both.
    """
    if not counts["in"]:
        raise DataError(f"{config.source}: no rows in it: give a file with headlines below its header")
    total = {label: sum(rows[label] for rows in counts["splits"].values()) for label in LABELS}
    if scarce := [label for label in LABELS if total[label] < len(SPLITS)]:
        gone = [
            f"{rows} {reason}"
            for reason, rows in (*counts["reasons"].items(), ("duplicates", counts["duplicates"]))
            if rows
        ]
        raise DataError(
            f"{config.source}: {total[scarce[0]]} headlines of label {scarce[0]} left of {counts['in']} rows "
            f"({', '.join(gone) or 'all kept'}); 3 are needed: check label_column, clickbait_values and "
            f"news_values"
        )
    return all(rows[label] for rows in counts["splits"].values() for label in LABELS)


@contextlib.contextmanager
def attempt(uri: str) -> Iterator[None]:
    """One job's work on the dataset `uri`, until it is sealed.

    Where the job fails, what was written is deleted. A whole dataset is never deleted, and nothing is deleted
    while another job writes in the same folder.
    """
    store, attempt_key = storage.open_storage(uri), f"{ATTEMPTS}/{uuid.uuid4().hex}"
    store.write(attempt_key, b"")
    try:
        yield
    except BaseException:
        with contextlib.suppress(StorageError):  # the user needs the first error, not this one
            written = store.list()
            store.delete(attempt_key)
            if not store.list(ATTEMPTS) and not sealed(uri).is_whole():
                for key in written:
                    store.delete(key)
        raise


def seal(uri: str, manifest: dict[str, Any]) -> None:
    """Makes the dataset whole; files that its manifest does not name are deleted first.

    Raises:
        DataError: a part is not there: another job that failed deleted it.
    """
    if lost := sorted(set(manifest["files"]).difference(storage.open_storage(uri).list())):
        raise DataError(
            f"{storage.join(uri, lost[0])}: deleted while the dataset was written: run the same command again"
        )
    folder = sealed(uri)
    folder.delete_others(manifest["files"])
    folder.seal(manifest)


def set_latest(output: str, fingerprint: str) -> None:
    """Makes `<output>/latest` stand for this dataset."""
    storage.open_storage(output).write(
        f"{LATEST}.json", json.dumps({"fingerprint": fingerprint}).encode() + b"\n"
    )
