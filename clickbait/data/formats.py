"""The formats that headlines come in: bytes in, rows out, each a headline, a label and, where it is broken, a
reason.

Headlines stay bytes until they are judged (`clickbait.data.headlines.validate`), so that what cannot be
decoded costs one row. `name` is what an error calls the file. `Records` and `check_beginning` are
`ray_jobs.score`'s too.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, BinaryIO, Generic, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from clickbait.config import did_you_mean
from clickbait.data.headlines import MALFORMED_ROW, NOT_TEXT, RAW
from clickbait.errors import DataError

BLOCK_ROWS = 20_000
BLOCK_BYTES = 16 << 20
# bytes of a line that are looked at: no headline is so long, and a file without line ends is not read into
# memory
MAX_LINE = 1 << 20
# bytes of a row of csv: more is not a row, but quotes that are not closed where they should be
MAX_RECORD = 16 << 20
# A compressed file may hold MAX_RATIO times its own size, once it is past FREE_BYTES. Headlines shrink to a
# third or a tenth; a gzip of blanks holds a thousand times its size, and a Parquet file that repeats one
# value a million times.
MAX_RATIO, FREE_BYTES = 200, 8 << 20
SWALLOWED_LINES, SWALLOWED_SHARE = 5, 0.9  # see `Records`
LABEL_CHARACTERS = 100  # of a label that are kept: enough to recognise what went wrong

Row = tuple[bytes | None, str | None, str | None]  # headline, label, reason
L = TypeVar("L")


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


class Unzipped(gzip.GzipFile):
    """A gzipped file, unpacked as it is read.

    Raises, when it is read:
        DataError: it holds more than MAX_RATIO times its own size.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._packed = _Counted(file)
        self._unpacked = 0
        self._called = name
        super().__init__(fileobj=self._packed)

    def read(self, size: int | None = -1) -> bytes:
        data: bytes = super().read(size)
        self._unpacked += len(data)
        if self._unpacked > max(FREE_BYTES, MAX_RATIO * self._packed.taken):
            raise _too_much(self._called)
        return data


class _Counted:
    """A file that counts the bytes read of it."""

    def __init__(self, file: BinaryIO) -> None:
        self.taken = 0
        self.seek = file.seek
        self._file = file

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.taken += len(data)
        return data


def check_packed(metadata: pq.FileMetaData, name: str) -> None:
    """Refuses a Parquet file whose pages, or whose rows, are more than MAX_RATIO times its bytes.

    Raises:
        DataError: they are.
    """
    groups = [metadata.row_group(at) for at in range(metadata.num_row_groups)]
    unpacked = sum(group.total_byte_size for group in groups)
    packed = sum(
        group.column(at).total_compressed_size for group in groups for at in range(group.num_columns)
    )
    if max(unpacked, metadata.num_rows) > max(FREE_BYTES, MAX_RATIO * packed):
        raise _too_much(name)


def _too_much(name: str) -> DataError:
    times = f"{MAX_RATIO} times its own size"
    return DataError(
        f"{name}: holds more than {times}, which headlines never do: if it is right, save it uncompressed"
    )


def lines(stream: io.BufferedReader, name: str) -> Iterator[bytes]:
    """Lines as bytes, without a byte order mark; of a line longer than MAX_LINE its beginning."""
    try:
        line = stream.readline(MAX_LINE)
        if not line:
            raise DataError(f"{name}: the file is empty")
        line = check_beginning(line, name)
        while line:
            yield line
            while line and not line.endswith(b"\n") and len(line) == MAX_LINE:
                line = stream.readline(MAX_LINE)
            line = stream.readline(MAX_LINE)
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{name}: cannot be read to its end ({error}): write or fetch it again") from None


def check_beginning(line: bytes, name: str) -> bytes:
    """A file's first line without the byte order mark.

    Raises:
        DataError: UTF-16, or a file whose lines end in a carriage return alone: all of it would be one line.
    """
    if line.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{name}: the file is UTF-16: save it as UTF-8")
    if b"\r" in line.rstrip(b"\r\n"):
        raise DataError(
            f"{name}: its lines end in \\r alone, as on an old Mac: write it again with \\n (tr '\\r' '\\n' "
            f"< old > new)"
        )
    return line.removeprefix(b"\xef\xbb\xbf")


class Records(Generic[L]):
    """Rows of a csv or tsv file: each as its lines and its fields, None where it is no row. An empty line has
    no field.

    A quoted field may hold line ends, and a quote that nothing closes looks the same at first. So a row that
    ends in an error (no closing quote in 128 KiB or before the file's end, text behind a closing quote) costs
    its first line alone: reading goes on with the next line. So does a row of SWALLOWED_LINES lines or more,
    SWALLOWED_SHARE of which have the delimiters of a whole row: its quote was never closed, and the quote
    that seems to close it is another row's. No line is left out, and none is given twice.

    `lines`: the lines; `decode`: one of them as text. The csv reader is Python's. pyarrow's is faster, but
    drops the rest of a file without a word after a quote that nothing closes, and tokenizing costs far more.
    """

    def __init__(
        self, lines: Iterator[L], decode: Callable[[L], str], delimiter: str, width: int | None = None
    ) -> None:
        self.width = width
        """Fields of a row; None takes a row of any."""
        self._feed = _Feed(lines, decode)
        self._delimiter = delimiter
        self._reader = csv.reader(self._feed, delimiter=delimiter, strict=True)

    def __iter__(self) -> Iterator[tuple[list[L], list[str] | None]]:
        return self

    def __next__(self) -> tuple[list[L], list[str] | None]:
        feed = self._feed
        feed.taken, feed.characters = [], 0
        fields: list[str] | None
        try:
            fields = next(self._reader)
        except csv.Error:
            fields = None
        taken = feed.taken
        if len(taken) > 1 and (fields is None or self._swallowed(taken)):
            feed.again.extendleft(reversed(taken[1:]))
            return taken[:1], None
        if fields and len(fields) != self.width and self.width is not None:
            return taken, None
        return taken, fields

    def _swallowed(self, taken: list[L]) -> bool:
        if self.width is None or len(taken) < SWALLOWED_LINES:
            return False
        alone = sum(self._feed.decode(line).count(self._delimiter) == self.width - 1 for line in taken)
        return alone >= SWALLOWED_SHARE * len(taken)


class _Feed(Generic[L]):
    """What the csv reader reads. No generator: one is over for good once the last line was taken, and lines
    may be given back.
    """

    def __init__(self, lines: Iterator[L], decode: Callable[[L], str]) -> None:
        self.decode = decode
        self.again: deque[L] = deque()  # lines that were looked at, to be read again
        self.taken: list[L] = []  # the lines of the row at hand
        self.characters = 0  # of these
        self._lines = lines

    def __iter__(self) -> _Feed[L]:
        return self

    def __next__(self) -> str:
        if self.characters > MAX_RECORD:
            raise csv.Error
        line = self.again.popleft() if self.again else next(self._lines)
        self.taken.append(line)
        text = self.decode(line)
        self.characters += len(text)
        return text


def delimited(source: Iterator[bytes], delimiter: str, headline: str, label: str, name: str) -> Iterator[Row]:
    """Rows of a csv or tsv file. Undecodable bytes pass as lone surrogates and come out as the bytes they
    were.
    """
    records = Records(source, lambda line: line.decode("utf-8", "surrogateescape"), delimiter)
    header = next((fields for _, fields in records if fields is None or fields), [])
    if header is None:
        kind = "tab" if delimiter == "\t" else "comma"
        raise DataError(f"{name}: the header cannot be read: is it {kind}-separated, with its quotes closed?")
    records.width = len(header)
    at, label_at = _column(header, headline, name), _column(header, label, name)
    for taken, fields in records:
        if fields is None:
            yield b"".join(taken).rstrip(b"\r\n"), None, MALFORMED_ROW
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


def json_lines(source: Iterator[bytes]) -> Iterator[Any]:
    """One value a line; what is not JSON comes out as the bytes it was. Blank lines are no rows."""
    for line in source:
        if line := line.strip():
            try:
                yield json.loads(line.decode("utf-8", "surrogateescape"))
            except (ValueError, RecursionError):
                yield line


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
