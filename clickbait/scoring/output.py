"""What `ray_jobs.score` writes, part by part, so that a run that was killed goes on where it was.

    <output>/plan.json                 source, model and settings: another of them is refused
    <output>/scores/part-<n>-<id>.parquet       the source's columns, and score, label, model
    <output>/quarantine/part-<n>-<id>.parquet   rows that cannot be scored: file, row, reason, raw
    <output>/done/part-<n>-<id>.json   a part's counts and its files' SHA-256; written last: the part is whole
    <output>/manifest.json, _SUCCESS   the counts of all; written when every part is done

`<id>` follows from the part's rows, the model and the settings alone. No Ray.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clickbait import storage
from clickbait.data.headlines import EMPTY, TOO_LONG
from clickbait.errors import DataError, PreconditionFailed
from clickbait.inference.scorer import DRAFT, Scorer
from clickbait.registry import bundle
from clickbait.registry.bundle import Manifest
from clickbait.scoring.config import ScoreConfig
from clickbait.scoring.rows import Block, Part, Reader
from clickbait.scoring.source import Source
from clickbait.storage.sealed_folder import SealedFolder, json_bytes, sha256
from clickbait.text import clean, raw_bound

SCHEMA = 2  # raise it when the same input gives other bytes
PLAN, SCORES, QUARANTINE, DONE = "plan.json", "scores", "quarantine", "done"
BATCH = (
    1024  # headlines a call of the model: 512 to 4096 are equally fast, and a call's activations stay small
)
BUFFERED = 16 << 20  # bytes of finished rows that wait for their row group, a part
READERS = 16  # of the small files of parts that are done
QUARANTINED = pa.schema(
    [("file", pa.string()), ("row", pa.int64()), ("reason", pa.string()), ("raw", pa.binary())]
)
_SETTINGS = ("headline_column", "prefix", "max_characters", "part_rows", "threads")


def identify(config: ScoreConfig, source: Source, manifest: Manifest) -> dict[str, Any]:
    """All that the bytes of the output follow from."""
    return {
        "schema": SCHEMA,
        "source": [list(file) for file in source.files],
        "columns": [[field.name, str(field.type)] for field in source.schema],
        "model": {"version": manifest.version or DRAFT, "sha256": fingerprint(manifest)},
        "settings": {name: getattr(config, name) for name in _SETTINGS} | {"batch": BATCH},
    }


def fingerprint(manifest: Manifest) -> str:
    """What of a bundle its scores follow from. The rest of a draft, its metrics and its card, may change
    meanwhile.
    """
    used = manifest.model_dump(
        mode="json",
        include={"version", "labels", "max_tokens", "threshold", "temperature", "default_runtime"},
    )
    files = [manifest.files[name].sha256 for name in manifest.needed(manifest.default_runtime)]
    return _digest([used, files])


def names(head: dict[str, Any], parts: Sequence[Part]) -> list[str]:
    """A name for each part, from its place and from all that its bytes follow from."""
    rest = {key: value for key, value in head.items() if key != "source"}
    ids = (
        _digest([rest, part.file, part.sha256, part.columns, part.first, part.count, part.offset])
        for part in parts
    )
    return [f"part-{at:05d}-{name[:12]}" for at, name in enumerate(ids)]


def begin(uri: str, head: dict[str, Any]) -> dict[str, Any] | None:
    """Takes the folder for `head`; the manifest where all is done already.

    Raises:
        DataError: the folder holds the scores of something else.
    """
    store = storage.open_storage(uri)
    try:
        store.write(PLAN, json_bytes(head), expect="")
    except PreconditionFailed:
        there = json.loads(store.read(PLAN))
    else:
        return None
    if other := [key for key in head if there.get(key) != head[key]]:
        raise DataError(
            f"{uri}: holds scores of {_difference(other[0], there, head)}: give another --output, or delete "
            f"that folder"
        )
    return _sealed(uri).find_manifest()


def _sealed(uri: str) -> SealedFolder:
    return SealedFolder(uri, "set of scores", "python -m ray_jobs.score")


def _difference(key: str, there: dict[str, Any], head: dict[str, Any]) -> str:
    if key == "model":
        return f"another model ({there[key]['version']}; now {head[key]['version']})"
    if key == "settings":
        name = next(name for name in head[key] if there[key].get(name) != head[key][name])
        return f"other settings ({name} {there[key].get(name)!r}; now {head[key][name]!r})"
    return "another source" if key in ("source", "columns") else "another version of this program"


def done(uri: str, wanted: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Those of the parts `wanted` that are whole, by name: their summaries."""
    store = storage.open_storage(uri)
    there = {key.removeprefix(f"{DONE}/").removesuffix(".json") for key in store.list(DONE)}
    found = [name for name in wanted if name in there]
    with ThreadPoolExecutor(READERS) as pool:
        return dict(
            zip(
                found,
                pool.map(lambda name: json.loads(store.read(f"{DONE}/{name}.json")), found),
                strict=True,
            )
        )


def write_part(
    uri: str, name: str, part: Part, reader: Reader, scorer: Scorer, config: ScoreConfig
) -> dict[str, Any]:
    """Reads, scores and writes one part; its summary.

    Raises:
        DataError, StorageError: it cannot be read or written; it is not called done then.
    """
    read, clickbait = 0, 0
    reasons: Counter[str] = Counter()
    store = storage.open_storage(uri)
    with tempfile.TemporaryDirectory(prefix="score-") as folder:
        scores = _Writer(
            Path(folder) / SCORES, scored_schema(reader.schema, config), dictionary=list(config.columns[1:])
        )
        quarantine = _Writer(Path(folder) / QUARANTINE, QUARANTINED, dictionary=["file", "reason"])
        for block in reader.blocks(part):
            found = judge(block, config.max_characters)
            good = [place for place, reason in enumerate(found) if reason is None]
            if len(good) < len(found):
                quarantine.add(_quarantined(block, found, part))
                reasons.update(reason for reason in found if reason is not None)
            table = scored(block, good, scorer, scores.schema)
            clickbait += pc.sum(pc.equal(table[config.columns[1]], scorer.manifest.labels[1])).as_py() or 0
            scores.add(table)
            read += len(found)
        assert read == scores.rows + sum(reasons.values()), part
        files = {
            key: writer.close()
            for key, writer in ((QUARANTINE, quarantine), (SCORES, scores))
            if writer.rows or writer is scores
        }
        for key in files:
            store.upload(Path(folder) / key, f"{key}/{name}.parquet")
    summary = {
        "in": read,
        "scored": scores.rows,
        "clickbait": clickbait,
        "reasons": dict(sorted(reasons.items())),
    }
    summary["files"] = {f"{key}/{name}.parquet": told for key, told in files.items()}
    store.write(f"{DONE}/{name}.json", json_bytes(summary))
    return summary


def judge(block: Block, max_characters: int) -> list[str | None]:
    """Of each row why it cannot be scored, or None."""
    return [
        reason or _judged(text, max_characters)
        for text, reason in zip(block.texts, block.reasons, strict=True)
    ]


def _judged(text: str | None, most: int) -> str | None:
    if text is None:
        return EMPTY
    if len(text) > raw_bound(most):
        return TOO_LONG
    if not (
        text.isascii() and text.isprintable()
    ):  # most are, and there is nothing to clean in them but blanks
        text = clean(text)
    elif len(text) > most:
        text = " ".join(text.split())
    return TOO_LONG if len(text) > most else None if text and not text.isspace() else EMPTY


def scored_schema(schema: pa.Schema, config: ScoreConfig) -> pa.Schema:
    """The source's columns and the new ones."""
    return pa.schema([*schema, *map(pa.field, config.columns, (pa.float32(), pa.string(), pa.string()))])


def scored(block: Block, good: Sequence[int], scorer: Scorer, schema: pa.Schema) -> pa.Table:
    """The rows at the places `good` with their scores, BATCH computed at a time: an int8 score depends a
    little on its neighbours.
    """
    every = len(good) == block.table.num_rows
    table = block.table if every else _rows(block.table, good)
    texts: list[Any] = list(block.texts) if every else [block.texts[place] for place in good]
    scores = np.concatenate(
        [
            np.empty(0, np.float32),
            *(scorer.score(texts[at : at + BATCH]) for at in range(0, len(texts), BATCH)),
        ]
    )
    news, clickbait = scorer.manifest.labels
    labels = pc.if_else(pa.array(scores.astype(np.float64) >= scorer.manifest.threshold), clickbait, news)
    columns = [*table.columns, pa.array(scores), labels, pa.repeat(pa.scalar(scorer.version), len(texts))]
    return pa.table(columns, schema=schema)


def _rows(table: pa.Table, places: Sequence[int]) -> pa.Table:
    """The rows at `places`, which ascend, as slices: Arrow's `take` knows no string_view, nor a list of
    them.
    """
    ends = [at for at in range(1, len(places)) if places[at] != places[at - 1] + 1]
    runs = zip([0, *ends], [*ends, len(places)], strict=True)
    return pa.concat_tables(
        [table.slice(0, 0), *(table.slice(places[begin], end - begin) for begin, end in runs if end > begin)]
    )


def _quarantined(block: Block, reasons: Sequence[str | None], part: Part) -> pa.Table:
    rows = [
        (part.file, block.numbers[at], reason, block.raw(at))
        for at, reason in enumerate(reasons)
        if reason is not None
    ]
    return pa.table(
        [
            pa.array(column, field.type)
            for column, field in zip(zip(*rows, strict=True), QUARANTINED, strict=True)
        ],
        schema=QUARANTINED,
    )


class _Writer:
    """A Parquet file on this machine's disk: every setting fixed, so that the same rows give the same
    bytes.
    """

    def __init__(self, path: Path, schema: pa.Schema, dictionary: list[str]) -> None:
        self.schema = schema
        self.rows = 0
        self._path = path
        self._waiting: list[pa.Table] = []
        self._file = pq.ParquetWriter(
            path,
            schema,
            version="2.6",
            compression="zstd",
            compression_level=3,
            use_dictionary=dictionary,
            store_schema=True,
        )

    def add(self, table: pa.Table) -> None:
        self._waiting.append(table)
        self.rows += table.num_rows
        if sum(each.nbytes for each in self._waiting) >= BUFFERED:
            self._flush()

    def close(self) -> dict[str, Any]:
        """Writes the rest; what the manifest says of the file."""
        self._flush()
        self._file.close()
        return {"rows": self.rows, "sha256": bundle.sha256(self._path), "size": self._path.stat().st_size}

    def _flush(self) -> None:
        if self._waiting:
            self._file.write_table(pa.concat_tables(self._waiting))
            self._waiting = []


def seal(uri: str, head: dict[str, Any], summaries: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Makes the output whole once every part is: deletes what no part named, writes the manifest, then
    `_SUCCESS`.
    """
    reasons: Counter[str] = Counter()
    counts = Counter({"in": 0, "scored": 0, "clickbait": 0})
    files: dict[str, Any] = {}
    for summary in summaries:
        counts.update({name: summary[name] for name in counts})
        reasons.update(summary["reasons"])
        files |= summary["files"]
    quarantined = sum(reasons.values())
    assert counts["in"] == counts["scored"] + quarantined, counts
    counted = {**counts, "quarantined": quarantined, "reasons": dict(sorted(reasons.items()))}
    manifest = {**head, "counts": counted, "files": dict(sorted(files.items()))}
    folder = _sealed(uri)
    folder.delete_others(files, (SCORES, QUARANTINE))  # of a folder whose plan was deleted
    folder.seal(manifest)
    return manifest


def _digest(value: Any) -> str:
    return sha256(json.dumps(value, sort_keys=True).encode())
