"""The lines of a file and the rows of a csv or tsv file, for preprocess and for score.

    with open_lines(uri, name) as lines:            # plain or gzipped, local or gs://
        for taken, fields in Records(iter(lines), decode, ","): ...

Every read is bounded: a line, a row of csv, and what a compressed file may hold. A line knows its number and
where it ends, so that reading may begin at the end of any row.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Generic, NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from clickbait import storage
from clickbait.errors import DataError, NotFound

# Bytes of a line that are read: no headline is so long, and a file without line ends must not fill memory.
MAX_LINE = 1 << 20
# Bytes of a row of csv: a longer one is no row, but a quote that is not closed where it should be.
MAX_RECORD = 16 << 20
# A compressed file may hold MAX_RATIO times its own size, once it is past FREE_BYTES. Headlines shrink to a
# third or a tenth; a gzip of blanks holds a thousand times its size, and a Parquet file that repeats one
# value a million times.
MAX_RATIO, FREE_BYTES = 200, 8 << 20
SWALLOWED_LINES, SWALLOWED_SHARE = 5, 0.9  # see `Records`

Mark = tuple[int, int]  # a place in a file: bytes and lines before it
L = TypeVar("L")


def suffix(uri: str) -> str:
    """The end of the file's name that says its format, without `.gz`: `.csv`."""
    base = uri.lower().rsplit("/", 1)[-1].removesuffix(".gz")
    return "." + base.rpartition(".")[2] if "." in base else ""


def opened(uri: str) -> BinaryIO:
    """Opens the file as it is stored, not unzipped.

    Raises:
        DataError: the file is not there.
    """
    folder, _, key = uri.rpartition("/")
    try:
        return storage.open_storage(folder or "/").open(key)
    except NotFound as error:
        raise DataError(f"source: {error}") from None


def is_zipped(uri: str) -> bool:
    """Whether the file's name says that it is gzipped."""
    return uri.lower().endswith(".gz")


@contextlib.contextmanager
def explained(name: str) -> Iterator[None]:
    """Turns the errors of a damaged file into a DataError that names the file."""
    try:
        yield
    except (pa.ArrowException, EOFError, OSError, zlib.error) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{name}: cannot be read to its end ({reason}): write or fetch it again") from None


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
        readline = self._stream.readline
        with explained(self.name):  # once, not for each line: that costs as much as reading it
            while self.number != self._last:
                start = self.offset
                data = rest = readline(MAX_LINE)
                self.offset += len(data)
                while len(rest) == MAX_LINE and not rest.endswith(b"\n"):
                    rest = readline(MAX_LINE)
                    self.offset += len(rest)
                if not data:
                    return
                self.number += 1
                if self.number == 1:
                    data, read = check_beginning(data, self.name), len(data)
                else:
                    read = len(data)
                yield Line(data, self.number, self.offset, self.offset - start > read)

    def check_not_empty(self) -> None:
        """Refuses an empty file; no line is lost by it.

        Raises:
            DataError: the file is empty.
        """
        with explained(self.name):
            if not self._stream.peek(1):
                raise DataError(f"{self.name}: the file is empty")


@contextlib.contextmanager
def open_lines(
    uri: str, name: str, offset: int = 0, number: int = 0, count: int | None = None
) -> Iterator[Lines]:
    """The lines of the file `uri` after `offset` bytes of it, unzipped, and `number` lines."""
    with opened(uri) as file, read_lines(file, name, offset, number, count, zipped=is_zipped(uri)) as lines:
        yield lines


@contextlib.contextmanager
def read_lines(
    file: BinaryIO,
    name: str,
    offset: int = 0,
    number: int = 0,
    count: int | None = None,
    *,
    zipped: bool = False,
) -> Iterator[Lines]:
    """The lines of an open file, as `open_lines` gives them."""
    stream: Any = Unzipped(file, name) if zipped else file
    if offset:
        with explained(name):
            stream.seek(offset)
    # Buffered again: a reader of a bucket has no fast readline of its own.
    with io.BufferedReader(stream, storage.BUFFER) as buffered:
        yield Lines(buffered, name, offset, number, count)


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
