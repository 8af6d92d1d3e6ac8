"""The text formats of `ray_jobs.score`: csv, tsv, JSON lines and a headline a line, each plain or gzipped, as rows that know their line.

    with lines(uri, name, offset, number, count) as source:
        for row in delimited(source, ","): ...

Python's csv reader and one JSON value a line, as in `clickbait.formats`: a broken row costs one row. Here every column is kept, and
reading may begin at any end of a row.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from clickbait import storage
from clickbait.errors import DataError
from clickbait.formats import MAX_LINE
from clickbait.headlines import MALFORMED_ROW, NOT_TEXT, UNDECODABLE
from clickbait.sources import opened

PARQUET, TEXT = ".parquet", ".txt"
DELIMITERS = {".csv": ",", ".tsv": "\t"}
OBJECTS = (".jsonl", ".ndjson", ".json")
KINDS = (*DELIMITERS, *OBJECTS, TEXT, PARQUET)


class Row(NamedTuple):
    """A row of text: its values in the file's order, or a reason."""

    number: int
    values: Sequence[Any] | None
    reason: str | None
    raw: bytes


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


class Lines:
    """`count` lines of a file (None: all that are left), counted, from `offset` on."""

    def __init__(self, stream: io.BufferedReader, name: str, offset: int = 0, number: int = 0, count: int | None = None) -> None:
        self.offset = offset  # bytes before the next line
        self.number = number  # of the last line
        self.cut = False  # the last line was longer than MAX_LINE, and only its beginning was given
        self._stream = stream
        self._name = name
        self._last = None if count is None else number + count

    def __iter__(self) -> Iterator[bytes]:
        while self.number != self._last:
            with explained(self._name):
                line = rest = self._stream.readline(MAX_LINE)
                self.offset += len(line)
                while len(rest) == MAX_LINE and not rest.endswith(b"\n"):
                    rest = self._stream.readline(MAX_LINE)
                    self.offset += len(rest)
            if not line:
                return
            self.cut = rest is not line
            self.number += 1
            if self.number == 1:
                if line.startswith((b"\xff\xfe", b"\xfe\xff")):
                    raise DataError(f"{self._name}: the file is UTF-16: save it as UTF-8")
                line = line.removeprefix(b"\xef\xbb\xbf")
            yield line


@contextlib.contextmanager
def lines(uri: str, name: str, offset: int = 0, number: int = 0, count: int | None = None) -> Iterator[Lines]:
    """The lines of a file of text after `offset` bytes of it, unzipped, and `number` lines."""
    with opened(uri) as file:
        stream: Any = gzip.GzipFile(fileobj=file) if is_zipped(uri) else file
        with explained(name):
            stream.seek(offset)
        with io.BufferedReader(stream, storage.BUFFER) as buffered:  # a reader of a bucket has no fast readline of its own
            yield Lines(buffered, name, offset, number, count)


def delimited(source: Lines, delimiter: str, width: int | None = None) -> Iterator[Row]:
    """Rows of a csv or tsv file; `width` None takes the first as it is. Nothing is read beyond the row at hand.

    Raises:
        DataError: from the file.
    """
    consumed: list[bytes] = []  # the lines of the row at hand
    broken: list[str] = []  # and what is wrong with them

    def decoded() -> Iterator[str]:
        for line in source:
            consumed.append(line)
            if source.cut:
                broken.append(MALFORMED_ROW)
            if not line.isascii() and not _is_utf8(line):
                broken.append(UNDECODABLE)
            yield line.decode("utf-8", "replace")

    reader = csv.reader(decoded(), delimiter=delimiter, strict=True)
    while True:
        consumed.clear()
        broken.clear()
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error:
            row = None
        number = source.number - len(consumed) + 1
        if row is None or (width is not None and len(row) not in (0, width)):
            yield Row(number, None, MALFORMED_ROW, b"".join(consumed))
        elif row:  # an empty line is no row
            yield Row(number, None if broken else row, broken[0] if broken else None, b"".join(consumed))


def objects(source: Lines, columns: Sequence[str], headline: str) -> Iterator[Row]:
    """Rows of one JSON object a line. Blank lines are no rows."""
    for line in source:
        if not (stripped := line.strip()):
            continue
        try:
            value = json.loads(stripped.decode())
        except UnicodeDecodeError:
            yield Row(source.number, None, UNDECODABLE, line)
            continue
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict) or headline not in value:
            yield Row(source.number, None, MALFORMED_ROW, line)
        elif not isinstance(value[headline], str | None):
            yield Row(source.number, None, NOT_TEXT, line)
        elif b"\\u" in line and not is_unicode(value):
            yield Row(source.number, None, UNDECODABLE, line)
        else:
            yield Row(source.number, [value.get(column) for column in columns], None, line)


def texts(source: Lines) -> Iterator[Row]:
    """A headline a line."""
    for line in source:
        try:
            yield Row(source.number, [line.rstrip(b"\r\n").decode()], None, line)
        except UnicodeDecodeError:
            yield Row(source.number, None, UNDECODABLE, line)


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
