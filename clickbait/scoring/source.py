"""What `ray_jobs.score` scores: files cut into parts that can each be read, scored and written alone.

    source = plan(config)       # source.files, source.schema, source.parts

Parquet is cut by rows, and a row's number counts from 1. csv, tsv, jsonl and txt are cut at ends of lines,
and a row's number is its line's, a csv's header being line 1. What is gzipped cannot be entered in the middle
and is one part. The plan reads every file, to name it by what is in it and to see what columns there are:
seconds a gigabyte, where scoring takes minutes. No Ray.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clickbait import storage
from clickbait.config import did_you_mean
from clickbait.data.lines import Lines, Mark, check_packed, explained, is_zipped, open_lines, opened, suffix
from clickbait.data.sources import Ticker, check_name
from clickbait.errors import DataError, NotFound
from clickbait.scoring.config import ScoreConfig
from clickbait.scoring.lines import DELIMITERS, KINDS, OBJECTS, PARQUET, TEXT, delimited, is_unicode
from clickbait.scoring.rows import Part

log = logging.getLogger("score")
SCANNERS = 8  # files looked at at a time: object stores answer slowly and in parallel
TICK_LINES = 10_000
SHOWN = 100  # characters of a column's name in an error

Kinds = dict[str, set[str]]  # a key of JSON objects to the names of its values' types


@dataclass(frozen=True)
class Source:
    """All that is to be scored."""

    files: list[tuple[str, str]]
    """Name below the source and SHA-256 of each."""
    schema: pa.Schema
    """The columns that all files have."""
    parts: list[Part]
    """Every row, in order."""


def plan(config: ScoreConfig) -> Source:
    """The source's files, columns and parts, in an order that does not depend on the machine.

    Raises:
        DataError: nothing there, nothing in it, a file that cannot be read, no such column, or files that do
            not fit each other.
    """
    try:
        found = storage.expand(config.source)
    except NotFound as error:
        raise DataError(f"source: {error}") from None
    uris = [uri for uri in found if suffix(uri) in KINDS and not uri.startswith(f"{config.output}/")]
    if not uris:
        raise DataError(
            f"source: {config.source}: no file of a known kind ({', '.join(KINDS)}; text also with .gz)"
        )
    for uri in uris:
        check_name(uri)
    base = PurePosixPath(uris[0]).parent
    while any(base not in PurePosixPath(uri).parents for uri in uris):
        base = base.parent
    names = [PurePosixPath(uri).relative_to(base).as_posix() for uri in uris]
    with ThreadPoolExecutor(SCANNERS) as pool:
        scans = list(pool.map(lambda uri, name: _scan(uri, name, config), uris, names))
    schema = _common(scans, names)
    _check(schema, names[0], config)
    parts = [
        part if scan.kinds is None else replace(part, columns=tuple(schema.names))
        for scan in scans
        for part in scan.parts
    ]
    if not parts:
        raise DataError(f"source: {config.source}: no rows in it: give a file with headlines")
    return Source([(name, scan.sha256) for name, scan in zip(names, scans, strict=True)], schema, parts)


def _common(scans: Sequence[_Scan], names: Sequence[str]) -> pa.Schema:
    """The first file's columns, where all others have them too, in whatever order; of JSON, the keys of
    all.
    """
    if all(scan.kinds is not None for scan in scans):
        together: Kinds = {}
        for scan in scans:
            for key, kinds in (scan.kinds or {}).items():
                together.setdefault(key, set()).update(kinds)
        return _typed(together)
    first, *others = ([f"{field.name} {field.type}" for field in scan.schema] for scan in scans)
    for name, columns in zip(names[1:], others, strict=True):
        if sorted(columns) != sorted(first):
            raise DataError(
                f"{name}: its columns ({_shown(columns)}) are not those of {names[0]} ({_shown(first)}): "
                f"score them apart"
            )
    return scans[0].schema


def _check(schema: pa.Schema, name: str, config: ScoreConfig) -> None:
    wanted, known = config.headline_column, schema.names
    if wanted not in known:
        near = did_you_mean(wanted, known)
        near = "" if near.startswith("; known") else near
        raise DataError(
            f'{name}: no column "{wanted}"{near} (columns: {_shown(known)}): name one with --headline-column'
        )
    if len(set(known)) < len(known):
        raise DataError(f"{name}: two columns of one name (columns: {_shown(known)}): rename one")
    if taken := [column for column in config.columns if column in known]:
        raise DataError(
            f'{name}: has a column "{taken[0]}" already: give the new ones another name, such as --prefix '
            f"clickbait_"
        )
    found = schema.field(wanted).type
    found = found.value_type if pa.types.is_dictionary(found) else found
    if found not in (
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.binary(),
        pa.large_binary(),
        pa.binary_view(),
    ):
        raise DataError(
            f'{name}: the column "{wanted}" holds {found}, not text: name another with --headline-column'
        )


def _shown(columns: Sequence[str]) -> str:
    return ", ".join(column[:SHOWN].encode("utf-8", "replace").decode() for column in columns)


@dataclass(frozen=True)
class _Scan:
    """One file."""

    sha256: str
    schema: pa.Schema
    parts: list[Part]
    kinds: Kinds | None = None
    """Of JSON: the keys."""


def _scan(uri: str, name: str, config: ScoreConfig) -> _Scan:
    sha256, size, quotes, marks = _bytes(uri, name, config.part_rows)
    if not size:
        raise DataError(f"{name}: the file is empty: take it away, or write it again")
    if suffix(uri) == PARQUET:
        with explained(name), opened(uri) as file:
            parquet = pq.ParquetFile(file)
            check_packed(parquet.metadata, name)
            schema, rows = parquet.schema_arrow.remove_metadata(), parquet.metadata.num_rows
        cuts = range(0, rows, config.part_rows)
        return _Scan(
            sha256,
            schema,
            [
                Part(uri, name, sha256, tuple(schema.names), at + 1, min(config.part_rows, rows - at), 0)
                for at in cuts
            ],
        )
    kinds = None
    with open_lines(uri, name) as source:
        if suffix(uri) in OBJECTS:
            kinds = _json_kinds(source, name)
            schema = _typed(kinds)
        else:
            schema = _text_schema(source, uri, name, config.headline_column)
        begin = (source.offset, source.number) if suffix(uri) in DELIMITERS else (0, 0)
        if is_zipped(uri):
            marks = [begin]
        elif suffix(uri) in DELIMITERS and quotes:
            marks = [begin, *_row_ends(source, DELIMITERS[suffix(uri)], len(schema), config.part_rows)]
        else:
            marks = [begin, *(mark for mark in marks if mark > begin)]
    if not is_zipped(uri):
        marks = [
            mark for mark in marks if mark[0] < size
        ]  # a header alone, or a cut at the very end: nothing to read
    after = [*(mark[1] for mark in marks[1:]), None]
    return _Scan(
        sha256,
        schema,
        [_part(uri, name, sha256, schema, *pair) for pair in zip(marks, after, strict=False)],
        kinds,
    )


def _part(uri: str, name: str, sha256: str, schema: pa.Schema, begin: Mark, last: int | None) -> Part:
    offset, before = begin
    return Part(
        uri, name, sha256, tuple(schema.names), before + 1, None if last is None else last - before, offset
    )


def _bytes(uri: str, name: str, part_rows: int) -> tuple[str, int, bool, list[Mark]]:
    """The file's SHA-256, its size, whether a quote is in it, and the end of each `part_rows`-th line."""
    digest, size, number, quotes, tick = hashlib.sha256(), 0, 0, False, Ticker(log.info)
    marks: list[Mark] = []
    text = suffix(uri) != PARQUET and not is_zipped(uri)
    with explained(name), opened(uri) as file:
        while chunk := file.read(storage.BUFFER):
            digest.update(chunk)
            if text:
                quotes = quotes or b'"' in chunk
                ends = np.flatnonzero(np.frombuffer(chunk, np.uint8) == ord("\n"))
                first = part_rows * (len(marks) + 1) - number - 1
                for place in range(first, len(ends), part_rows):
                    marks.append((size + int(ends[place]) + 1, number + place + 1))
                number += len(ends)
            size += len(chunk)
            tick(f"{name}: {size / 1e6:,.0f} MB read")
    return digest.hexdigest(), size, quotes, marks


def _row_ends(source: Lines, delimiter: str, width: int, part_rows: int) -> list[Mark]:
    """Where parts may begin in a file with quotes: the end of a line inside of quotes is not the end of a
    row, so all rows are read.
    """
    marks: list[Mark] = []
    begin, tick = source.number, Ticker(log.info)
    for row in delimited(source, delimiter, width):
        if row.end[1] - begin >= part_rows:
            begin = row.end[1]
            marks.append(row.end)
            tick(f"{source.name}: {begin:,} lines read")
    return marks


def _text_schema(source: Lines, uri: str, name: str, headline: str) -> pa.Schema:
    """The columns of a csv, tsv or txt file; nothing but the first row is read."""
    if suffix(uri) == TEXT:
        next(iter(source), None)  # raises where the file cannot be read as lines
        return pa.schema([(headline, pa.string())])
    header = next(delimited(source, DELIMITERS[suffix(uri)]), None)
    if header is None or header.values is None:
        told = "there is none" if header is None else header.reason
        raise DataError(
            f"{name}: the header cannot be read ({told}): write the columns' names in the first line, in "
            f"UTF-8"
        )
    return pa.schema([(column, pa.string()) for column in header.values])


def _json_kinds(source: Lines, name: str) -> Kinds:
    """Every key of every object."""
    found: Kinds = {}
    tick = Ticker(log.info)
    for line, number, *_ in source:
        if number % TICK_LINES == 0:
            tick(f"{name}: {number:,} lines read")
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(line)
            whole = isinstance(value, dict) and not (
                b"\\u" in line and not is_unicode(value)
            )  # else it goes to quarantine
            for key, each in value.items() if whole else ():
                fits = not isinstance(each, int) or -(2**63) <= each < 2**63
                found.setdefault(key, set()).add(type(each).__name__ if fits else "large int")
    if not found:
        raise DataError(f"{name}: no JSON object in it: write one object a line")
    return found


def _typed(kinds: Kinds) -> pa.Schema:
    """Each key with the narrowest type that holds all its values. A string holds any, what is no string as
    its JSON.
    """
    types = {
        ("bool",): pa.bool_(),
        ("int",): pa.int64(),
        ("float",): pa.float64(),
        ("float", "int"): pa.float64(),
    }
    return pa.schema(
        [(key, types.get(tuple(sorted(found - {"NoneType"})), pa.string())) for key, found in kinds.items()]
    )
