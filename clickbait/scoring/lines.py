"""The rows that `ray_jobs.score` reads from text: csv, tsv, JSON lines and one headline per line.

    with open_lines(uri, name, offset, number, count) as source:
        for row in delimited(source, ","): ...

Every column is kept, each row knows its line, and a broken row costs one row. `clickbait.data.lines` reads
the lines.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from clickbait.data.headlines import MALFORMED_ROW, NOT_TEXT, UNDECODABLE
from clickbait.data.lines import Lines, Mark, Records

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
    end: Mark


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
