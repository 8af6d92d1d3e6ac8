"""Sources that never end, or that nobody means: preprocess and score refuse them in one line, before anything
else.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clickbait.config import PreprocessConfig
from clickbait.data import lines, sources
from clickbait.errors import ClickbaitError, DataError, StorageError
from clickbait.scoring.config import ScoreConfig
from clickbait.scoring.rows import Reader
from clickbait.scoring.source import plan


def preprocessed(source: Path | str) -> int:
    config = PreprocessConfig(source=str(source))
    pieces = sources.pieces(config)
    sources.digests(pieces)
    return sum(raw.num_rows for piece in pieces for raw in sources.read(piece, config))


def scored(source: Path | str) -> int:
    planned = plan(ScoreConfig(source=str(source)))
    with contextlib.closing(Reader(planned.schema, "headline")) as reader:
        return sum(block.table.num_rows for part in planned.parts for block in reader.blocks(part))


BOTH = pytest.mark.parametrize("read", [preprocessed, scored])
Read = Callable[[Path | str], int]


def fifo(path: Path) -> None:
    os.mkfifo(path)


def zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


@BOTH
@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize(("make", "what"), [(fifo, "a FIFO"), (zeros, "a device")])
def test_only_regular_files_are_read(
    tmp_path: Path, read: Read, make: Callable[[Path], None], what: str, inside: bool
) -> None:
    make(tmp_path / "h.csv")
    with pytest.raises(StorageError, match=f"h.csv: is {what}, not a regular file"):
        read(tmp_path if inside else tmp_path / "h.csv")


@BOTH
@pytest.mark.parametrize("name", ["h.csv.gz", "h.jsonl.gz"])
def test_a_gzip_that_unpacks_to_far_more_than_headlines_do_is_refused(
    tmp_path: Path, read: Read, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "FREE_BYTES", 100_000)
    good = (
        "headline,clickbait\nthe market,0\n"
        if "csv" in name
        else '{"headline": "the market", "clickbait": 0}\n'
    )
    (tmp_path / name).write_bytes(gzip.compress(good.encode() + b" " * (10 << 20)))
    with pytest.raises(DataError, match=f"{name}: holds more than 200 times its own size"):
        read(tmp_path / name)
    (tmp_path / name).write_bytes(gzip.compress(good.encode() + b"\n" * 10_000))
    assert read(tmp_path / name) == 1


@BOTH
@pytest.mark.parametrize("headline", ["the market", "x" * 3_000_000], ids=["rows", "bytes"])
def test_a_parquet_file_that_unpacks_to_far_more_than_headlines_do_is_refused(
    tmp_path: Path, read: Read, headline: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "FREE_BYTES", 100_000)
    rows = 300_000 if len(headline) < 100 else 1
    table = pa.table(
        {"headline": pa.repeat(pa.scalar(headline), rows), "clickbait": pa.repeat(pa.scalar(1), rows)}
    )
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", max_rows_per_page=rows)
    (tmp_path / "h.parquet").write_bytes(sink.getvalue())
    with pytest.raises(DataError, match=r"h\.parquet: holds more than 200 times its own size"):
        read(tmp_path / "h.parquet")


@BOTH
def test_a_file_name_that_is_not_utf8_is_told(tmp_path: Path, read: Read) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/h\xff.csv")
    with open(path, "w") as file:
        file.write("headline,clickbait\nthe market,0\n")
    with pytest.raises(
        ClickbaitError, match=r"h\\udcff\.csv: the file's name is not UTF-8: rename it"
    ) as caught:
        read(tmp_path)
    str(caught.value).encode()


def test_a_long_wait_is_told_of_and_a_short_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    ticker = sources.Ticker(told.append)
    ticker("at once")
    monkeypatch.setattr(sources, "TELL_S", 0.0)
    ticker("later")
    assert told == ["later"]
