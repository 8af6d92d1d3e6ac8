"""A set of labelled headlines that fits in memory, for measuring: the same readers and the same checks as
preprocessing, without Ray.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from clickbait.config import PreprocessConfig, TransferConfig
from clickbait.data import headlines, sources
from clickbait.data.headlines import CONFLICTING_LABELS, UNKNOWN_LABEL
from clickbait.errors import DataError

log = logging.getLogger("labelled")
SHOWN = 5  # labels that are listed where they are not known
DUPLICATE = "duplicate"


@dataclass(frozen=True)
class Labelled:
    """A set of labelled headlines, and what was left out of it."""

    table: pa.Table
    """In the source's order: headline (string), label (int8: 1 is clickbait), key (binary)."""
    left_out: dict[str, int]
    """Rows of the source that are not in the table, by reason: `headlines.REASONS` and `duplicate`."""


def read_labelled(columns: TransferConfig) -> Labelled:
    """The headlines of `columns.transfer`. Every row of the source is in the table or counted in `left_out`.

    Near-copies are left out, and so are bad rows and headlines with both labels; a log line tells of the bad
    ones too.

    Raises:
        DataError: the source cannot be read, lacks a column, has labels of unknown meaning, or has no good
            row.
    """
    source = str(columns.transfer)
    given = columns.model_dump(include={"headline_column", "label_column", "clickbait_values", "news_values"})
    config = PreprocessConfig(source=source, **given)
    rows: dict[bytes, dict[str, Any]] = {}
    copies: Counter[bytes] = Counter()
    conflicting: set[bytes] = set()
    reasons: Counter[str] = Counter()
    unknown: Counter[str] = Counter()
    for number, piece in enumerate(sources.pieces(config)):
        for raw in sources.read(piece, config):
            for row in headlines.validate(raw, number, config).to_pylist():
                if row["reason"] is not None:
                    reasons[row["reason"]] += 1
                    if row["reason"] == UNKNOWN_LABEL:
                        unknown[repr(row["label"])] += 1
                    continue
                key = row["key"]
                kept = rows.setdefault(
                    key, {"headline": row["headline"].decode(), "label": row["class"], "key": key}
                )
                copies[key] += 1
                if kept["label"] != row["class"]:
                    conflicting.add(key)
    for key in conflicting:
        del rows[key]
        reasons[CONFLICTING_LABELS] += copies[key]
    told = ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common())
    if unknown:
        told += f" (its labels: {', '.join(label for label, _ in unknown.most_common(SHOWN))})"
    if not rows:
        raise DataError(f"{source}: no row has a headline and a known label: {told or 'there are no rows'}")
    if reasons:
        log.warning("%s: %d rows are left out: %s", source, reasons.total(), told)
    left_out = dict(reasons.most_common())
    if duplicates := sum(copies[key] - 1 for key in rows):
        left_out[DUPLICATE] = duplicates
    return Labelled(pa.Table.from_pylist(list(rows.values()), schema=headlines.KEPT), left_out)
