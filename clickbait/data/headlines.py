"""Headlines as Arrow tables: raw rows in, cleaned and judged rows out, then one partition's duplicates and
splits.

    raw rows ─ validate ─▶ judged rows ─ shuffle by partition ─▶ settle ─▶ train / validation / test,
    quarantine, duplicates

Pure functions: no file, no Ray. Every row that goes in comes out once, kept, in quarantine with a reason, or
counted as a duplicate. Nothing depends on the number of workers, and only the choice among near-copies on the
order of the files.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from clickbait import text
from clickbait.config import CLICKBAIT_VALUES, NEWS_VALUES, PreprocessConfig
from clickbait.errors import DataError
from clickbait.text import LABELS

SPLITS = ("train", "validation", "test")
# A column of whose name 1 means clickbait: `is_clickbait`, `clickbait?`; not `non_clickbait`, `label` or
# `class`.
_SAYS_CLICKBAIT = re.compile(r"^(?!.*(?<![a-z])(is)?(no|non|not)[^a-z]*clickbait).*clickbait", re.DOTALL)

EMPTY = "empty"
NOT_TEXT = "not_text"
TOO_LONG = "too_long"
UNKNOWN_LABEL = "unknown_label"
UNDECODABLE = "undecodable"
CONFLICTING_LABELS = "conflicting_labels"
MALFORMED_ROW = "malformed_row"
REASONS = (EMPTY, NOT_TEXT, TOO_LONG, UNKNOWN_LABEL, UNDECODABLE, CONFLICTING_LABELS, MALFORMED_ROW)

# Not a row: it closes a file. Its `row` says how many were read, so that a row lost on the way shows; its
# headline, why reading ended early: raised in a task, an error would come out wrapped in Ray's own
# tracebacks.
END = "end"

# What a reader yields (`clickbait.data.sources`). Bytes, so that one undecodable headline costs one row.
# `row` counts from 1.
RAW = pa.schema(
    [("row", pa.int64()), ("headline", pa.binary()), ("label", pa.string()), ("reason", pa.string())]
)

# What travels through the shuffle. Where a reason is given the headline is the raw one and there is no key
# and no class.
JUDGED = pa.schema(
    [
        ("partition", pa.int32()),
        ("file", pa.int32()),
        ("row", pa.int64()),
        ("key", pa.binary()),
        ("headline", pa.binary()),
        ("label", pa.string()),
        ("class", pa.int8()),
        ("reason", pa.string()),
    ]
)
KEPT = pa.schema([("headline", pa.string()), ("label", pa.int8()), ("key", pa.binary())])
QUARANTINE = pa.schema(
    [
        ("source", pa.string()),
        ("row", pa.int64()),
        ("headline", pa.binary()),
        ("label", pa.string()),
        ("reason", pa.string()),
    ]
)


def classes(config: PreprocessConfig) -> dict[str, int]:
    """From what the label column says, without case, to the class.

    Raises:
        DataError: one value stands for both.
    """
    news, clickbait = (
        {_folded(value) for value in config.news_values},
        {_folded(value) for value in config.clickbait_values},
    )
    if both := sorted(news & clickbait):
        raise DataError(
            f'the label value "{both[0]}" is among news_values and clickbait_values: take it out of one'
        )
    return dict.fromkeys(news, LABELS.index("news")) | dict.fromkeys(clickbait, LABELS.index("clickbait"))


def named(names: Sequence[str], config: PreprocessConfig, source: str) -> bool:
    """Whether labels are read by their names, where the source names its numbers (`ClassLabel` of Hugging
    Face; number 0 is `names[0]`). They are read by the numbers only where the user gave numbers and no name
    is known.

    Raises:
        DataError: the names do not say which label is which, or the user's numbers say the opposite.
    """
    known = classes(config)
    by_name, by_number = (
        [known.get(_folded(name)) for name in names],
        [known.get(str(number)) for number in range(len(names))],
    )
    given = not _is_default(config)
    listed = ", ".join(f"{number} is {name}" for number, name in enumerate(names))
    where = f'{source}: the column "{config.label_column}" names its labels ({listed})'
    if set(range(len(LABELS))) <= set(by_name):
        if given and any(number not in (None, name) for number, name in zip(by_number, by_name, strict=True)):
            raise DataError(
                f"{where}, and clickbait_values and news_values say the opposite: give the names in them, or "
                f"leave them out"
            )
        return True
    if given and not any(cls is not None for cls in by_name) and set(range(len(LABELS))) <= set(by_number):
        return False
    raise DataError(f"{where}: say which is which with --clickbait-values and --news-values")


def check_numbers(labels: Iterable[str | None], config: PreprocessConfig) -> None:
    """Refuses numbers and truth values as labels where nothing says what they mean: an encoder that goes by
    the alphabet makes clickbait 0. A column that is called clickbait, or values that the user gave, say it.

    Raises:
        DataError: the user has to say it.
    """
    if not _is_default(config) or _SAYS_CLICKBAIT.search(config.label_column.casefold()):
        return
    numbers = {_folded(value) for value in (*CLICKBAIT_VALUES, *NEWS_VALUES)} - set(LABELS)
    if label := next((label for label in labels if label is not None and _folded(label) in numbers), None):
        raise DataError(
            f'{config.source}: the column "{config.label_column}" says {label.strip()}, and nothing says '
            f"what that means: add "
            f"--clickbait-values 1 --news-values 0 where 1 is clickbait, or the other way round"
        )


def _is_default(config: PreprocessConfig) -> bool:
    return config.clickbait_values == CLICKBAIT_VALUES and config.news_values == NEWS_VALUES


def _folded(label: str) -> str:
    return label.strip().casefold()


def validate(raw: pa.Table, file: int, config: PreprocessConfig) -> pa.Table:
    """RAW rows of the file number `file` as JUDGED rows: cleaned, classed and keyed, or with the first reason
    that they fail by.

    Raises:
        DataError: labels whose meaning nothing says.
    """
    known = classes(config)
    check_numbers(raw["label"].to_pylist(), config)
    rows = [
        _judge(known, config, *row)
        for row in zip(*(raw[name].to_pylist() for name in RAW.names), strict=True)
    ]
    partition, key, headline, label, cls, reason = zip(*rows, strict=True) if rows else [()] * 6
    columns = (partition, [file] * len(rows), raw["row"].to_pylist(), key, headline, label, cls, reason)
    return pa.table(
        [pa.array(column, field.type) for column, field in zip(columns, JUDGED, strict=True)], schema=JUDGED
    )


def end(file: int, rows: int, error: str | None, config: PreprocessConfig) -> pa.Table:
    """The row that closes a file of which `rows` were read, all of them if there was no `error`."""
    headline = None if error is None else error.encode("utf-8", "replace")
    row = {
        "partition": file % config.partitions,
        "file": file,
        "row": rows,
        "headline": headline,
        "reason": END,
    }
    return pa.Table.from_pylist([row], schema=JUDGED)


def _judge(
    known: dict[str, int],
    config: PreprocessConfig,
    row: int,
    raw: bytes | None,
    label: str | None,
    reason: str | None,
) -> tuple[int, bytes | None, bytes | None, str | None, int | None, str | None]:
    """One row's partition, key, headline, label, class and reason."""
    # a bad row needs no company: spread them, or all the empty ones would meet in one partition
    spread = row % config.partitions
    if reason is None and raw is None:
        reason = EMPTY
    if reason is not None or raw is None:
        return spread, None, raw, label, None, reason
    try:
        headline = raw.decode()  # strict: refuses lone surrogates too
    except UnicodeDecodeError:
        return spread, None, raw, label, None, UNDECODABLE
    if len(headline) > text.raw_bound(config.max_characters):
        return spread, None, raw, label, None, TOO_LONG
    headline = text.clean(headline)
    if not headline:
        return spread, None, raw, label, None, EMPTY
    if len(headline) > config.max_characters:
        return spread, None, raw, label, None, TOO_LONG
    cls = known.get(_folded(label or ""))
    if cls is None:
        return spread, None, raw, label, None, UNKNOWN_LABEL
    key = text.key(headline)
    return int.from_bytes(key[:8], "big") % config.partitions, key, headline.encode(), label, cls, None


@dataclass(frozen=True)
class Settled:
    """One partition, every row accounted for."""

    splits: dict[str, pa.Table]
    """KEPT rows of each split, by key: an order that no file's order moves."""
    quarantine: pa.Table
    """QUARANTINE rows, by file and row."""
    duplicates: int
    """Rows whose headline and label stood earlier."""
    rows: int
    """Rows that came in."""
    read: int
    """Rows read of the files that are closed here; over all partitions the sum of `rows`."""
    errors: list[str]
    """Why files that are closed here could not be read to their end."""


def settle(judged: pa.Table, names: list[str], config: PreprocessConfig) -> Settled:
    """JUDGED rows of one whole partition as its splits, its quarantine and the number of its duplicates.

    Of rows with the same key and class the first by (file, row) is kept. A key with both classes goes to
    quarantine, every row. `names` are the files' names, by number.
    """
    judged = judged.sort_by([("file", "ascending"), ("row", "ascending")])
    partitions = judged["partition"].unique().to_pylist()
    assert len(partitions) == 1, partitions
    rows = judged.to_pylist()
    ends = [row for row in rows if row["reason"] == END]
    rows = [row for row in rows if row["reason"] != END]

    seen: dict[bytes, set[int]] = {}
    for row in rows:
        if row["reason"] is None:
            seen.setdefault(row["key"], set()).add(row["class"])
    kept: dict[bytes, dict[str, object]] = {}
    bad: list[dict[str, object]] = []
    duplicates = 0
    for row in rows:
        if row["reason"] is None and len(seen[row["key"]]) > 1:
            row["reason"] = CONFLICTING_LABELS
        if row["reason"] is not None:
            bad.append({**row, "source": names[row["file"]]})
        elif row["key"] in kept:
            duplicates += 1
        else:
            kept[row["key"]] = {
                "headline": row["headline"].decode(),
                "label": row["class"],
                "key": row["key"],
            }

    split_of: dict[bytes, str] = {}
    for cls in range(len(LABELS)):
        split_of.update(
            split([key for key, row in kept.items() if row["label"] == cls], partitions[0], config)
        )
    splits = {name: [kept[key] for key in sorted(kept) if split_of[key] == name] for name in SPLITS}
    assert len(rows) == len(kept) + len(bad) + duplicates
    assert sum(map(len, splits.values())) == len(kept)
    return Settled(
        {name: pa.Table.from_pylist(part, schema=KEPT) for name, part in splits.items()},
        pa.Table.from_pylist(bad, schema=QUARANTINE),
        duplicates,
        len(rows),
        sum(row["row"] for row in ends),
        [row["headline"].decode() for row in ends if row["headline"] is not None],
    )


def split(keys: list[bytes], partition: int, config: PreprocessConfig) -> Iterator[tuple[bytes, str]]:
    """Each key of one partition and one class with its split: ranked by a hash, then cut into test,
    validation and train.

    The cut rounds by an offset of the partition's own, spread evenly over [0, 1), so that over all partitions
    the shares come out right. A single partition rounds to the nearest, and gives each split a headline where
    there are three.
    """
    ranked = sorted(keys, key=lambda key: (_rank(key), key))
    offset = (partition + 0.5) / config.partitions
    test = int(len(ranked) * config.test_fraction + offset)
    held_out = int(len(ranked) * (config.test_fraction + config.validation_fraction) + offset)
    if config.partitions == 1 and len(ranked) >= len(SPLITS):
        test = min(max(test, 1), len(ranked) - 2)
        held_out = min(max(held_out, test + 1), len(ranked) - 1)
    for place, key in enumerate(ranked):
        yield key, "test" if place < test else "validation" if place < held_out else "train"


def _rank(key: bytes) -> int:
    """A second hash of the headline, independent of the one that names the partition."""
    return int.from_bytes(hashlib.blake2b(key, digest_size=8, person=b"split").digest(), "big")
