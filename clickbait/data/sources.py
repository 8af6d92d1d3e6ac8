"""Where raw headlines come from: files (csv, tsv, jsonl, parquet, plain or .gz, local or gs://), a Hugging
Face dataset, the sample.

A source is a list of pieces, each a string: a file's URI, `hf:owner/name:split@revision`, or `sample:4000`. A
piece is read as a stream of Arrow tables of bounded size (`headlines.RAW`), so a file may be larger than
memory. What cannot be read as a row is a row with a reason; what cannot be read at all is a DataError.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from clickbait import sample, storage, telemetry, text
from clickbait.config import PreprocessConfig
from clickbait.data import formats, headlines
from clickbait.data.lines import is_zipped, opened, read_lines, suffix
from clickbait.errors import ClickbaitError, DataError, NotFound

log = logging.getLogger("sources")
SAMPLE, HUB = "sample", "hf:"
SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
SAMPLE_SEED = 0
TELL_S = 10.0
HASHERS = 8  # files hashed at a time: object stores answer slowly and in parallel


def pieces(config: PreprocessConfig) -> list[str]:
    """The source's pieces, in an order that does not depend on the machine.

    Raises:
        DataError: nothing there, or nothing of a kind that can be read.
    """
    if config.source == SAMPLE:
        return [f"{SAMPLE}:{config.sample_size}"]
    if config.source.startswith(HUB):
        return [_pin(config.source)]
    try:
        files = storage.expand(config.source)
    except NotFound as error:
        raise DataError(f"source: {error}") from None
    known = [file for file in files if suffix(file) in SUFFIXES]
    if not known:
        raise DataError(
            f"source: {config.source}: no file of a known kind ({', '.join(SUFFIXES)}, each plain or .gz)"
        )
    for file in known:
        check_name(file)
    return known


def check_name(uri: str) -> None:
    """Refuses a file whose name is not UTF-8: neither JSON nor Parquet can hold it.

    Raises:
        DataError: it is not.
    """
    if not text.is_unicode(uri):
        shown = uri.encode("utf-8", "backslashreplace").decode()
        raise DataError(f"source: {shown}: the file's name is not UTF-8: rename it")


class Ticker:
    """Tells of work that takes long: every TELL_S seconds."""

    def __init__(self, tell: Callable[[str], object]) -> None:
        self._tell = tell
        self._told = time.monotonic()

    def __call__(self, line: str) -> None:
        """Tells `line`, where some seconds have gone since the last one."""
        if time.monotonic() - self._told >= TELL_S:
            self._told = time.monotonic()
            self._tell(line)


def name(piece: str) -> str:
    """The piece without folder or host: what a quarantined row and the manifest say."""
    return piece if _is_virtual(piece) else piece.rstrip("/").rsplit("/", 1)[-1]


def check(found: Sequence[str], config: PreprocessConfig) -> None:
    """Reads the first rows of each piece, so that a wrong column is told before a cluster starts.

    Raises:
        DataError: an empty or unreadable file, a column that is not there, or labels whose meaning nothing
            says.
    """
    with ThreadPoolExecutor(HASHERS) as pool:
        for raw in pool.map(lambda piece: next(read(piece, config), None), found):
            if raw is not None:
                headlines.check_numbers(raw["label"].to_pylist(), config)


def digests(found: Sequence[str]) -> list[str]:
    """What each piece holds, as a SHA-256: of a file's bytes, of the hub's name and commit, of the generated
    headlines.
    """
    with ThreadPoolExecutor(HASHERS) as pool:
        return list(pool.map(_digest, found))


def read(piece: str, config: PreprocessConfig) -> Iterator[pa.Table]:
    """The rows of one piece as RAW tables.

    Raises:
        DataError: it is empty, cannot be read, or lacks a column.
    """
    columns = config.headline_column, config.label_column, name(piece)
    named = functools.partial(headlines.named, config=config, source=name(piece))
    if piece.startswith(f"{SAMPLE}:"):
        yield from formats.blocks((text.encode(), str(value), None) for text, value in _sample(piece))
        return
    if piece.startswith(HUB):
        yield from formats.blocks(formats.objects(_hub(piece, config.label_column, named), *columns))
        return
    kind = suffix(piece)
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(opened(piece))
        if kind == ".parquet":
            yield from formats.blocks(formats.parquet(file, *columns, named))
            return
        lines = stack.enter_context(read_lines(file, name(piece), zipped=is_zipped(piece)))
        lines.check_not_empty()
        if kind in (".csv", ".tsv"):
            yield from formats.blocks(formats.delimited(lines, "\t" if kind == ".tsv" else ",", *columns))
        else:
            yield from formats.blocks(formats.objects(formats.json_lines(lines), *columns))


def judged(batch: pa.Table, config: PreprocessConfig) -> Iterator[pa.Table]:
    """Reads and judges pieces (columns `file`, its number, and `piece`): JUDGED tables, each piece closed by
    its END row, which tells an error too."""
    for file, piece in zip(batch["file"].to_pylist(), batch["piece"].to_pylist(), strict=True):
        rows, told, tick = (
            0,
            None,
            Ticker(lambda line: print(line, flush=True)),
        )  # Ray shows what its workers print
        try:
            for raw in read(piece, config):
                rows += raw.num_rows
                tick(f"{name(piece)}: {rows:,} rows read")
                yield headlines.validate(raw, file, config)
        except ClickbaitError as error:
            told = str(error)
        yield headlines.end(file, rows, told, config)


def _is_virtual(piece: str) -> bool:
    return piece.startswith((f"{SAMPLE}:", HUB))


def _digest(piece: str) -> str:
    if piece.startswith(f"{SAMPLE}:"):
        return hashlib.sha256(json.dumps(_sample(piece)).encode()).hexdigest()
    if piece.startswith(HUB):
        return hashlib.sha256(piece.encode()).hexdigest()  # the commit is in it
    with opened(piece) as file:
        digest, size, tick = hashlib.sha256(), 0, Ticker(log.info)
        while chunk := file.read(storage.BUFFER):
            digest.update(chunk)
            size += len(chunk)
            tick(f"{name(piece)}: {size / 1e6:,.0f} MB read")
        return digest.hexdigest()


@functools.lru_cache(maxsize=1)  # hashed, checked and read
def _sample(piece: str) -> list[tuple[str, int]]:
    return sample.generate(int(piece.rpartition(":")[2]), SAMPLE_SEED)


def _pin(source: str) -> str:
    """`hf:owner/name[:split]` with the commit that the hub has now: what is hashed is what is read."""
    telemetry.off()
    import huggingface_hub

    dataset, _, split = source.removeprefix(HUB).partition(":")
    try:
        revision = huggingface_hub.HfApi().dataset_info(dataset, timeout=30).sha
    except Exception as error:  # the hub's client raises what its HTTP library raises
        raise DataError(
            f"source: {source}: no such dataset, or the Hugging Face hub cannot be reached "
            f"({type(error).__name__}): "
            "give hf:owner/name[:split], or download it and give its files"
        ) from None
    return f"{HUB}{dataset}:{split or 'train'}@{revision}"


def _hub(piece: str, label: str, named: formats.Named) -> Iterator[Any]:
    telemetry.off()
    import datasets

    dataset, _, rest = piece.removeprefix(HUB).partition(":")
    split, _, revision = rest.rpartition("@")
    try:
        stream = datasets.load_dataset(dataset, split=split, revision=revision, streaming=True)
        call = formats.by_names(getattr((stream.features or {}).get(label), "names", None), named)
        for row in stream:
            yield {**row, label: call(row[label])} if label in row else row
    except ClickbaitError:
        raise
    except Exception as error:
        raise DataError(
            f"source: {piece}: cannot be streamed from the Hugging Face hub: {' '.join(str(error).split())}"
        ) from None
