"""A set of labelled headlines that fits in memory, for measuring: the same readers and the same checks as preprocessing, without Ray."""

from __future__ import annotations

import pyarrow as pa

from clickbait import headlines, sources
from clickbait.config import PreprocessConfig
from clickbait.errors import DataError


def read_labelled(source: str, headline_column: str = "headline", label_column: str = "clickbait") -> pa.Table:
    """Columns headline (string), label (int8: 1 is clickbait), key (binary), in the source's order; bad rows and near-copies left out.

    Raises:
        DataError: the source cannot be read, lacks a column, or has no good row.
    """
    config = PreprocessConfig(source=source, headline_column=headline_column, label_column=label_column)
    seen: set[bytes] = set()
    rows = []
    for number, piece in enumerate(sources.pieces(config)):
        for raw in sources.read(piece, config):
            for row in headlines.validate(raw, number, config).to_pylist():
                if row["reason"] is None and row["key"] not in seen:
                    seen.add(row["key"])
                    rows.append({"headline": row["headline"].decode(), "label": row["class"], "key": row["key"]})
    if not rows:
        raise DataError(f"{source}: no row has a headline and a known label")
    return pa.Table.from_pylist(rows, schema=headlines.KEPT)
