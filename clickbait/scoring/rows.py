"""Reads the parts of a source of `ray_jobs.score`, block by block and every column of them;
`clickbait.scoring.source` cuts the parts.

    for block in Reader(schema, "headline").blocks(part): ...

No Ray.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from clickbait import storage
from clickbait.data.headlines import UNDECODABLE
from clickbait.data.lines import explained, open_lines, opened, suffix
from clickbait.errors import DataError
from clickbait.scoring.lines import DELIMITERS, PARQUET, TEXT, Row, delimited, objects, texts

# rows in memory at a time; counted from a part's first row, so that a part's blocks are always the same
BLOCK_ROWS = 4096


@dataclass(frozen=True)
class Part:
    """A run of rows of one file."""

    uri: str
    """The file."""
    file: str
    """The file's name below the source: what quarantine says."""
    sha256: str
    """Of the whole file."""
    columns: tuple[str, ...]
    """The file's columns in its own order."""
    first: int
    """Number of the first row (Parquet) or line (all else), from 1."""
    count: int | None
    """Rows or lines; None: to the file's end."""
    offset: int
    """Bytes before the first line; 0 for Parquet."""


@dataclass(frozen=True)
class Block:
    """Rows in memory: `table`, `texts`, `numbers` and `reasons` have as many each."""

    table: pa.Table
    """The source's columns; nulls where a row of text has a reason."""
    texts: Sequence[str | None]
    """The headlines; None where there is none."""
    numbers: Sequence[int]
    """Row or line numbers."""
    reasons: list[str | None]
    """Why a row cannot be read, or None."""
    raw: Callable[[int], bytes]
    """A place in the block to that row's own bytes, or for Parquet to its JSON."""


class Reader:
    """Reads parts. It keeps its place in the last Parquet file: the parts of one large row group, taken in
    order, decode it once.
    """

    def __init__(self, schema: pa.Schema, headline: str) -> None:
        self.schema = schema
        self._headline = headline
        self._file: _ParquetRows | None = None

    def blocks(self, part: Part) -> Iterator[Block]:
        """The rows of `part`, BLOCK_ROWS at a time.

        Raises:
            DataError: the file cannot be read, or is not what it was when the parts were planned.
        """
        if suffix(part.uri) == PARQUET:
            yield from self._parquet(part)
        else:
            yield from self._text(part)

    def close(self) -> None:
        """Closes the file that is open."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _parquet(self, part: Part) -> Iterator[Block]:
        if self._file is None or self._file.uri != part.uri:
            self.close()
            self._file = _ParquetRows(part.uri, part.file)
        assert part.count is not None
        for at in range(0, part.count, BLOCK_ROWS):
            table = self._file.read(part.first - 1 + at, min(BLOCK_ROWS, part.count - at))
            if set(table.schema.names) != set(self.schema.names):
                raise _changed(part)
            table = table.select(self.schema.names)
            found = _strings(table[self._headline])
            reasons = [UNDECODABLE if isinstance(text, bytes) else None for text in found]
            first = part.first + at
            yield Block(
                table, found, range(first, first + table.num_rows), reasons, functools.partial(_json, table)
            )

    def _text(self, part: Part) -> Iterator[Block]:
        what = suffix(part.uri)
        with open_lines(part.uri, part.file, part.offset, part.first - 1, part.count) as source:
            if what in DELIMITERS:
                rows = delimited(source, DELIMITERS[what], len(part.columns))
            else:
                rows = texts(source) if what == TEXT else objects(source, part.columns, self._headline)
            waiting: list[Row] = []
            for row in rows:
                waiting.append(row)
                if len(waiting) == BLOCK_ROWS:
                    yield self._block(waiting, part.columns)
                    waiting = []
            if waiting:
                yield self._block(waiting, part.columns)
            if part.count is not None and source.number != part.first - 1 + part.count:
                raise _changed(part)

    def _block(self, rows: list[Row], columns: Sequence[str]) -> Block:
        nothing = [None] * len(columns)
        by_name = dict(zip(columns, zip(*(row.values or nothing for row in rows), strict=True), strict=True))
        table = pa.table(
            [_array(by_name[field.name], field.type) for field in self.schema], schema=self.schema
        )
        numbers, reasons = [row.number for row in rows], [row.reason for row in rows]
        return Block(
            table, by_name[self._headline], numbers, reasons, lambda place: rows[place].raw.rstrip(b"\r\n")
        )


class _ParquetRows:
    """A Parquet file by row numbers, fast where they are asked for in order."""

    def __init__(self, uri: str, name: str) -> None:
        self.uri = uri
        self._name = name
        with explained(name):
            self._bytes = opened(uri)
            self._file = pq.ParquetFile(self._bytes, buffer_size=storage.BUFFER)
            sizes = [self._file.metadata.row_group(at).num_rows for at in range(self._file.num_row_groups)]
        self._starts = [sum(sizes[:at]) for at in range(len(sizes) + 1)]
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._rest = pa.table({})  # decoded, not yet given
        self._at = -1  # row number, from 0, of its first row

    def close(self) -> None:
        self._file.close(force=True)
        self._bytes.close()

    def read(self, first: int, count: int) -> pa.Table:
        """The rows from `first` (from 0) on."""
        if first + count > self._starts[-1]:
            raise DataError(f"{self._name}: changed while it was read; run the same command again")
        group = next(at for at, end in enumerate(self._starts[1:]) if first < end)
        with explained(self._name):
            if not 0 <= self._at <= first or self._starts[group] > self._at:
                # Rows are given in turn to several readers: what lies between is decoded only within a row
                # group.
                groups = range(group, self._file.num_row_groups)
                self._batches = self._file.iter_batches(
                    BLOCK_ROWS, groups, use_threads=False
                )  # one actor, one core
                self._at, self._rest = self._starts[group], pa.table({})
            got: list[pa.Table] = []
            missing = count
            while missing:
                if not self._rest.num_rows:
                    self._rest = pa.Table.from_batches([next(self._batches)])
                skip = min(max(first - self._at, 0), self._rest.num_rows)
                piece = self._rest.slice(skip, missing)
                self._at += skip + piece.num_rows
                self._rest = self._rest.slice(skip + piece.num_rows)
                missing -= piece.num_rows
                got += [piece] if piece.num_rows else []
        return pa.concat_tables(got).combine_chunks().replace_schema_metadata(None)


def _changed(part: Part) -> DataError:
    return DataError(f"{part.file}: changed while it was read; run the same command again")


def _array(values: Sequence[Any], type_: pa.DataType) -> pa.Array:
    """The values as a column; in one of strings, what is none as its JSON."""
    if pa.types.is_string(type_):
        values = [v if v is None or isinstance(v, str) else json.dumps(v, ensure_ascii=False) for v in values]
    elif pa.types.is_float64(type_):
        values = [v if v is None else float(v) for v in values]
    return pa.array(values, type_)


def _strings(column: pa.ChunkedArray) -> list[Any]:
    """Text as str, None where there is none, and as bytes where it is not UTF-8: neither Parquet nor Arrow
    promise that it is.
    """
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    with contextlib.suppress(UnicodeDecodeError):
        if column.type in (pa.string(), pa.large_string(), pa.string_view()):
            return list(column.to_pylist())
    found: list[Any] = column.cast(pa.large_binary()).to_pylist()
    for place, value in enumerate(found):
        with contextlib.suppress(UnicodeDecodeError):
            found[place] = value if value is None else value.decode()
    return found


def _json(table: pa.Table, place: int) -> bytes:
    """One row, for quarantine: what is not UTF-8 is shown with backslashes, what JSON does not know as Python
    prints it.
    """
    row = {}
    for name in table.column_names:
        cell = table[name].slice(place, 1)
        try:
            row[name] = cell.to_pylist()[0]
        except UnicodeDecodeError:
            row[name] = cell.cast(pa.large_binary()).to_pylist()[0]
    shown = json.dumps(
        row,
        ensure_ascii=False,
        default=lambda v: v.decode("utf-8", "backslashreplace") if isinstance(v, bytes) else str(v),
    )
    return shown.encode("utf-8", "backslashreplace")
