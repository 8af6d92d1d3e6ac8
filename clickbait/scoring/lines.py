"""The text formats of `ray_jobs.score`: csv, tsv, JSON lines and a headline a line, each plain or gzipped, as
rows that know their line.

    with lines(uri, name, offset, number, count) as source:
        for row in delimited(source, ","): ...

The csv reader is `clickbait.data.formats.Records`, and JSON is one value a line: a broken row costs one row.
Here every column is kept, and reading may begin at any end of a row.
"""

from __future__ import annotations

import contextlib
import io
import json
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from clickbait import storage
from clickbait.data.formats import MAX_LINE, Records, Unzipped, check_beginning
from clickbait.data.headlines import MALFORMED_ROW, NOT_TEXT, UNDECODABLE
from clickbait.data.sources import opened
from clickbait.errors import DataError

PARQUET, TEXT = ".parquet", ".txt"
DELIMITERS = {".csv": ",", ".tsv": "\t"}
OBJECTS = (".jsonl", ".ndjson", ".json")
KINDS = (*DELIMITERS, *OBJECTS, TEXT, PARQUET)


Mark = tuple[int, int]  # a place in a file: bytes and lines before it


class Row(NamedTuple):
    """A row of text: its values in the file's order, or a reason."""

    number: int
    values: Sequence[Any] | None
    reason: str | None
    raw: bytes
    end: Mark


def is_zipped(uri: str) -> bool:
    """Whether the file's name says that it is gzipped."""
    return uri.lower().endswith(".gz")


@contextlib.contextmanager
def explained(name: str) -> Iterator[None]:
    """What a file that is not whole raises, as a DataError that names it."""
    try:
        yield
    except (pa.ArrowException, EOFError, OSError, zlib.error) as error:
        told = " ".join(str(error).split())[:200]
        raise DataError(f"{name}: cannot be read to its end ({told}): write or fetch it again") from None


class Line(NamedTuple):
    """A line of a file."""

    data: bytes
    number: int
    """From 1."""
    end: int
    """Bytes of the file, unzipped, up to its end."""
    cut: bool
    """It is longer than MAX_LINE, and `data` is its beginning."""


class Lines:
    """`count` lines of a file (None: all that are left), counted, from `offset` on."""

    def __init__(
        self, stream: io.BufferedReader, name: str, offset: int = 0, number: int = 0, count: int | None = None
    ) -> None:
        self.offset = offset  # bytes before the next line
        self.number = number  # of the last line
        self._stream = stream
        self.name = name
        self._last = None if count is None else number + count

    def __iter__(self) -> Iterator[Line]:
        while self.number != self._last:
            start = self.offset
            with explained(self.name):
                data = rest = self._stream.readline(MAX_LINE)
                self.offset += len(data)
                while len(rest) == MAX_LINE and not rest.endswith(b"\n"):
                    rest = self._stream.readline(MAX_LINE)
                    self.offset += len(rest)
            if not data:
                return
            self.number += 1
            cut = self.offset - start > len(data)
            if self.number == 1:
                data = check_beginning(data, self.name)
            yield Line(data, self.number, self.offset, cut)


@contextlib.contextmanager
def lines(uri: str, name: str, offset: int = 0, number: int = 0, count: int | None = None) -> Iterator[Lines]:
    """The lines of a file of text after `offset` bytes of it, unzipped, and `number` lines."""
    with opened(uri) as file:
        stream: Any = Unzipped(file, name) if is_zipped(uri) else file
        with explained(name):
            stream.seek(offset)
        with io.BufferedReader(
            stream, storage.BUFFER
        ) as buffered:  # a reader of a bucket has no fast readline of its own
            yield Lines(buffered, name, offset, number, count)


def delimited(source: Lines, delimiter: str, width: int | None = None) -> Iterator[Row]:
    """Rows of a csv or tsv file; `width` None takes rows of any. Beyond the row at hand it reads only where
    that row is broken.

    Raises:
        DataError: from the file.
    """
    for taken, fields in Records(
        iter(source), lambda line: line.data.decode("utf-8", "replace"), delimiter, width
    ):
        number, end, raw = (
            taken[0].number,
            (taken[-1].end, taken[-1].number),
            b"".join(line.data for line in taken),
        )
        if fields is None or any(line.cut for line in taken):
            yield Row(number, None, MALFORMED_ROW, raw, end)
        elif fields:  # an empty line is no row
            reason = None if raw.isascii() or _is_utf8(raw) else UNDECODABLE
            yield Row(number, fields if reason is None else None, reason, raw, end)


def objects(source: Lines, columns: Sequence[str], headline: str) -> Iterator[Row]:
    """Rows of one JSON object a line. Blank lines are no rows."""
    for line, number, offset, _ in source:
        if not (stripped := line.strip()):
            continue
        end = (offset, number)
        try:
            value = json.loads(stripped.decode())
        except UnicodeDecodeError:
            yield Row(number, None, UNDECODABLE, line, end)
            continue
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict) or headline not in value:
            yield Row(number, None, MALFORMED_ROW, line, end)
        elif not isinstance(value[headline], str | None):
            yield Row(number, None, NOT_TEXT, line, end)
        elif b"\\u" in line and not is_unicode(value):
            yield Row(number, None, UNDECODABLE, line, end)
        else:
            yield Row(number, [value.get(column) for column in columns], None, line, end)


def texts(source: Lines) -> Iterator[Row]:
    """A headline a line."""
    for line, number, offset, _ in source:
        try:
            yield Row(number, [line.rstrip(b"\r\n").decode()], None, line, (offset, number))
        except UnicodeDecodeError:
            yield Row(number, None, UNDECODABLE, line, (offset, number))


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def is_unicode(value: Any) -> bool:
    """Whether all text in a JSON value has a UTF-8 form: `"\\ud800"` has none."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError):
        return False
    return True
