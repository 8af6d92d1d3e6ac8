"""Rows of raw headlines from csv, tsv, JSON lines and Parquet: headline, label, reason where broken.

Headlines stay bytes until they are judged (`clickbait.data.headlines.validate`), so that a headline that
cannot be decoded costs one row. `name` is what an error calls the file. `clickbait.data.lines` reads the
lines.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from clickbait.config import did_you_mean
from clickbait.data.headlines import MALFORMED_ROW, NOT_TEXT, RAW
from clickbait.data.lines import Line, Records, check_packed
from clickbait.errors import DataError

BLOCK_ROWS = 20_000
BLOCK_BYTES = 16 << 20
LABEL_CHARACTERS = 100  # of a label that are kept: enough to recognise what went wrong

Row = tuple[bytes | None, str | None, str | None]  # headline, label, reason


def blocks(rows: Iterable[Row]) -> Iterator[pa.Table]:
    """Rows, numbered from 1, as RAW tables of at most BLOCK_ROWS rows and some BLOCK_BYTES bytes."""
    block: list[Row] = []
    size = done = 0
    for row in rows:
        block.append(row)
        size += len(row[0] or b"")
        if len(block) == BLOCK_ROWS or size >= BLOCK_BYTES:
            yield _block(block, done)
            done += len(block)
            block, size = [], 0
    if block:
        yield _block(block, done)


def _block(rows: list[Row], before: int) -> pa.Table:
    headlines, labels, reasons = zip(*rows, strict=True)
    numbers = range(before + 1, before + 1 + len(rows))
    return pa.table(
        [pa.array(c, f.type) for c, f in zip((numbers, headlines, labels, reasons), RAW, strict=True)],
        schema=RAW,
    )


def delimited(source: Iterable[Line], delimiter: str, headline: str, label: str, name: str) -> Iterator[Row]:
    """Rows of a csv or tsv file. Undecodable bytes pass as lone surrogates and come out as the bytes they
    were.
    """
    records = Records(iter(source), lambda line: line.data.decode("utf-8", "surrogateescape"), delimiter)
    header = next((fields for _, fields in records if fields is None or fields), [])
    if header is None:
        kind = "tab" if delimiter == "\t" else "comma"
        raise DataError(f"{name}: the header cannot be read: is it {kind}-separated, with its quotes closed?")
    records.width = len(header)
    at, label_at = _column(header, headline, name), _column(header, label, name)
    for taken, fields in records:
        if fields is None:
            yield b"".join(line.data for line in taken).rstrip(b"\r\n"), None, MALFORMED_ROW
        elif fields:  # an empty line is no row
            yield fields[at].encode("utf-8", "surrogateescape"), _label(fields[label_at]), None


def _column(columns: Iterable[str], wanted: str, name: str) -> int:
    known = list(columns)
    if wanted not in known:
        shown = [column.encode("utf-8", "replace").decode()[:LABEL_CHARACTERS] for column in known]
        near = did_you_mean(wanted, shown)
        listed = "" if near.startswith("; known") else f" (columns: {', '.join(shown)})"
        raise DataError(f'{name}: no column "{wanted}"{near.replace("; known", "; columns")}{listed}')
    if known.count(wanted) > 1:
        raise DataError(f'{name}: the column "{wanted}" stands twice: rename one, or take it out')
    return known.index(wanted)


def json_lines(source: Iterable[Line]) -> Iterator[Any]:
    """One value a line; what is not JSON comes out as the bytes it was. Blank lines are no rows."""
    for line in source:
        if data := line.data.strip():
            try:
                yield json.loads(data.decode("utf-8", "surrogateescape"))
            except (ValueError, RecursionError):
                yield data


def objects(values: Iterable[Any], headline: str, label: str, name: str) -> Iterator[Row]:
    """Rows of JSON objects. A column that none of the first BLOCK_ROWS objects has is no column; later, its
    lack breaks the row.
    """
    waiting: list[Any] | None = []
    for value in values:
        if waiting is None:
            yield _object(value, headline, label)
            continue
        waiting.append(value)
        if len(waiting) == BLOCK_ROWS or (isinstance(value, dict) and {headline, label} <= value.keys()):
            _check_keys(waiting, headline, label, name)
            yield from (_object(value, headline, label) for value in waiting)
            waiting = None
    if waiting:
        _check_keys(waiting, headline, label, name)
        yield from (_object(value, headline, label) for value in waiting)


def _check_keys(values: list[Any], headline: str, label: str, name: str) -> None:
    found = dict.fromkeys(key for value in values if isinstance(value, dict) for key in value)
    if not found:
        raise DataError(f"{name}: no JSON object in it: write one object a line")
    for wanted in (headline, label):
        _column(found, wanted, name)


def _object(value: Any, headline: str, label: str) -> Row:
    if isinstance(value, bytes):
        return value, None, MALFORMED_ROW
    if not isinstance(value, dict) or headline not in value or label not in value:
        return json.dumps(value, default=str).encode(), None, MALFORMED_ROW
    return _row(value[headline], value[label])


def _row(headline: Any, label: Any) -> Row:
    """A headline and a label of any type. Text that has no UTF-8 form becomes bytes that are not UTF-8."""
    if headline is None or isinstance(headline, bytes):
        return headline, _label(label), None
    if not isinstance(headline, str):
        return json.dumps(headline, default=str).encode(), _label(label), NOT_TEXT
    try:
        return headline.encode("utf-8", "surrogateescape"), _label(label), None
    except UnicodeEncodeError:
        return headline.encode("utf-8", "surrogatepass"), _label(label), None


def _label(value: Any) -> str | None:
    if value is None:
        return None
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return text[:LABEL_CHARACTERS].encode("utf-8", "replace").decode()


Named = Callable[[Sequence[str]], bool]
"""Given the names of a column's numbers: whether labels are read by their names."""


def by_names(names: Sequence[str] | None, named: Named) -> Callable[[Any], Any]:
    """From a label's number to its name, where the source has `names` and `named` says so; else as it is."""
    if names is None or not named(names):
        return lambda label: label

    def name(label: Any) -> Any:
        return names[label] if isinstance(label, int) and 0 <= label < len(names) else label

    return name


def parquet(file: BinaryIO, headline: str, label: str, name: str, named: Named) -> Iterator[Row]:
    """Rows of a Parquet file, of whatever types its columns are. Hugging Face's `ClassLabel` names are read
    from its metadata.
    """
    try:
        opened = pq.ParquetFile(file)
        check_packed(opened.metadata, name)
        for wanted in (headline, label):
            _column(opened.schema_arrow.names, wanted, name)
        call = by_names(_class_names(opened.schema_arrow.metadata, label), named)
        for batch in opened.iter_batches(BLOCK_ROWS, columns=[headline, label]):
            yield from (
                _row(text, call(value))
                for text, value in zip(_values(batch[headline]), _values(batch[label]), strict=True)
            )
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{name}: not a whole Parquet file ({' '.join(str(error).split())}): write or fetch it again"
        ) from None


def _class_names(metadata: dict[bytes, bytes] | None, column: str) -> list[str] | None:
    """The names of the column's numbers, as the library datasets writes them: {"info": {"features": {column:
    {"names": [...]}}}}.
    """
    try:
        names = json.loads((metadata or {})[b"huggingface"])["info"]["features"][column]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def _values(column: pa.Array) -> list[Any]:
    """The column's values; text as bytes, for Parquet does not say that it is UTF-8."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if column.type in (pa.string(), pa.large_string(), pa.string_view()):
        column = column.cast(pa.large_binary())
    values: list[Any] = column.to_pylist()
    return values
