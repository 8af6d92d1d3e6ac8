"""Reading, judging and settling headlines: every row comes out once, whatever is wrong with it."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clickbait import text
from clickbait.config import PreprocessConfig
from clickbait.data import formats, headlines, sources
from clickbait.data import lines as line_reader
from clickbait.data.headlines import SPLITS
from clickbait.errors import DataError

ROWS = [
    ("Ten ways to fold a map", "1"),
    ('Mayor says "no", again', "0"),
    ("Größe zählt nicht", "0"),
    ("Two lines\nof text", "1"),
]


def read(path: Path, **settings: Any) -> list[tuple[bytes | None, str | None, str | None]]:
    """(headline, label, reason) of every row that the reader gives for `path`, a file or a folder."""
    config = PreprocessConfig(source=str(path), **settings)
    tables = [table for piece in sources.pieces(config) for table in sources.read(piece, config)]
    return [(row["headline"], row["label"], row["reason"]) for table in tables for row in table.to_pylist()]


def judge(rows: list[tuple[bytes | None, str | None, str | None]], **settings: Any) -> list[dict[str, Any]]:
    table = pa.Table.from_pylist(
        [
            {"row": at, "headline": headline, "label": label, "reason": reason}
            for at, (headline, label, reason) in enumerate(rows, 1)
        ],
        schema=headlines.RAW,
    )
    judged: list[dict[str, Any]] = headlines.validate(table, 0, PreprocessConfig(**settings)).to_pylist()
    return judged


def reasons(path: Path) -> list[str | None]:
    return [row["reason"] for row in judge(read(path))]


def delimited(delimiter: str) -> bytes:
    sink = io.StringIO()
    csv.writer(sink, delimiter=delimiter).writerows(
        [("id", "headline", "clickbait"), *(("x", *row) for row in ROWS)]
    )
    return sink.getvalue().encode()


def as_json() -> bytes:
    return b"".join(
        json.dumps({"id": "x", "headline": headline, "clickbait": int(label)}).encode() + b"\n"
        for headline, label in ROWS
    )


def parquet(**columns: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def twice(name: str) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table([["a"], ["b"], [1]], names=[name, name, "clickbait"]), sink)
    return sink.getvalue()


WRITERS: dict[str, Callable[[], bytes]] = {
    "h.csv": lambda: delimited(","),
    "bom.csv": lambda: b"\xef\xbb\xbf" + delimited(","),
    "h.tsv": lambda: delimited("\t"),
    "h.jsonl": as_json,
    "h.parquet": lambda: parquet(
        id=["x"] * len(ROWS), headline=[row[0] for row in ROWS], clickbait=[row[1] for row in ROWS]
    ),
    "h.csv.gz": lambda: gzip.compress(delimited(",")),
    "h.tsv.gz": lambda: gzip.compress(delimited("\t")),
    "h.jsonl.gz": lambda: gzip.compress(as_json()),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(WRITERS[name]())
    assert read(tmp_path / name) == [(headline.encode(), label, None) for headline, label in ROWS]


def test_a_folder_is_read_in_order_of_names_and_other_kinds_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text("headline,clickbait\nsecond,1\n")
    (tmp_path / "a.jsonl").write_text('{"headline": "first", "clickbait": true}\n')
    (tmp_path / "LICENSE").write_text("MIT")
    assert [row[:2] for row in read(tmp_path)] == [(b"first", "True"), (b"second", "1")]


def test_an_undecodable_byte_costs_one_row(tmp_path: Path) -> None:
    (tmp_path / "h.csv").write_bytes(b"headline,clickbait\ngood,1\nb\xff\xfed,0\nalso good,0\n")
    assert read(tmp_path / "h.csv")[1][0] == b"b\xff\xfed"  # as it was, for whoever looks into quarantine
    assert reasons(tmp_path / "h.csv") == [None, "undecodable", None]


def test_rows_with_other_columns_are_malformed_and_blank_lines_are_no_rows(tmp_path: Path) -> None:
    (tmp_path / "h.csv").write_bytes(
        b'headline,clickbait\r\ngood,1\r\na,b,c\r\n\r\nalone\r\n"x"y,1\r\ngood too,0\r\n'
    )
    rows = read(tmp_path / "h.csv")
    assert [row[2] for row in rows] == [None, "malformed_row", "malformed_row", "malformed_row", None]
    assert [row[0] for row in rows] == [b"good", b"a,b,c", b"alone", b'"x"y,1', b"good too"]


def test_a_quote_that_nothing_closes_costs_its_own_line(tmp_path: Path) -> None:
    good = [b"headline %d,1" % at for at in range(20_000)]  # more than the csv reader takes for a field
    lines = [
        b"headline,clickbait",
        b"before,1",
        b'"open,1',
        *good,
        b'say "no",0',
        b'"open to the end,0',
        b"after,1",
    ]
    (tmp_path / "h.csv").write_bytes(b"\n".join(lines))
    rows = read(tmp_path / "h.csv")
    assert [row[0] for row in rows] == [
        b"before",
        lines[2],
        *(b"headline %d" % at for at in range(20_000)),
        b'say "no"',
        lines[-2],
        b"after",
    ]
    assert [at for at, row in enumerate(rows) if row[2]] == [1, len(rows) - 2]


def test_a_quote_that_another_row_seems_to_close_costs_its_own_line(tmp_path: Path) -> None:
    rows = ["news of the day,0"] * 20
    (tmp_path / "h.csv").write_text(
        "\n".join(["headline,clickbait", '"Nobody saw this coming,1', *rows, 'The screen is 50",1', "last,0"])
    )
    assert [row[2] for row in read(tmp_path / "h.csv")] == ["malformed_row"] + [None] * 22


def test_a_field_of_many_lines_is_one_field(tmp_path: Path) -> None:
    body = "\n".join(["A paragraph, a comma.", "", "Another one", *["and, so, on"] * 30, 'with a ""quote""'])
    (tmp_path / "h.csv").write_text(
        f'body,headline,clickbait\n"{body}","Two lines\nof text",1\nshort,Good,0\n'
    )
    assert read(tmp_path / "h.csv") == [(b"Two lines\nof text", "1", None), (b"Good", "0", None)]


LINES = st.lists(
    st.text(alphabet='ab",\n', max_size=12).map(lambda line: line.replace("\n", "") + "\n"), max_size=30
)


@settings(deadline=None)
@given(LINES, st.sampled_from([None, 1, 2]))
def test_every_line_belongs_to_one_row_whatever_the_quotes(lines: list[str], width: int | None) -> None:
    looked_at = 0

    def decode(line: str) -> str:
        nonlocal looked_at
        looked_at += 1
        return line

    records = list(line_reader.Records(iter(lines), decode, ",", width))
    assert [line for taken, _ in records for line in taken] == lines
    assert all(fields is None or width is None or len(fields) in (0, width) for _, fields in records)
    assert looked_at <= 4 * len(
        lines
    )  # once more where a quote opens, once to count delimiters: never a square


@pytest.mark.parametrize("name", ["h.csv", "h.jsonl"])
def test_lines_that_end_in_a_carriage_return_alone_are_told(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(WRITERS[name]().replace(b"\r", b"").replace(b"\n", b"\r"))
    with pytest.raises(DataError, match=rf"{name}: its lines end in \\r alone"):
        read(tmp_path / name)


def test_a_line_without_end_is_not_read_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_reader, "MAX_LINE", 100)
    (tmp_path / "h.jsonl").write_bytes(
        b'{"headline": "' + b"x" * 1000 + b'", "clickbait": 1}\n{"headline": "good", "clickbait": 1}\n'
    )
    rows = read(tmp_path / "h.jsonl")
    assert [row[2] for row in rows] == ["malformed_row", None]
    assert len(rows[0][0] or b"") == 100


def test_blocks_are_bounded_and_rows_are_numbered_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "BLOCK_ROWS", 10)
    monkeypatch.setattr(formats, "BLOCK_BYTES", 50)
    tables = list(formats.blocks((b"x" * size, "1", None) for size in [1] * 25 + [30] * 5))
    assert [table.num_rows for table in tables] == [10, 10, 7, 2, 1]
    assert [row for table in tables for row in table["row"].to_pylist()] == list(range(1, 31))


def test_what_json_can_hold(tmp_path: Path) -> None:
    values = [
        '{"headline": "good", "clickbait": true}',
        "{broken",
        "[1, 2]",
        '{"headline": "no label"}',
        '{"headline": 7, "clickbait": 1}',
        '{"headline": null, "clickbait": 1}',
        '{"headline": "\\ud800 lone", "clickbait": 1}',
        '{"headline": "good", "clickbait": 1.0}',
        '{"headline": "good", "clickbait": "News "}',
        '{"headline": "good", "clickbait": null}',
    ]
    lines = [value.encode() for value in values] + [b'{"headline": "b\xffd", "clickbait": 0}', b"  "]
    (tmp_path / "h.jsonl").write_bytes(b"\n".join(lines))
    judged = judge(read(tmp_path / "h.jsonl"))
    assert [row["reason"] for row in judged] == [
        *[None, "malformed_row", "malformed_row", "malformed_row", "not_text", "empty", "undecodable"],
        *[None, None, "unknown_label", "undecodable"],
    ]
    assert [row["class"] for row in judged if row["reason"] is None] == [1, 1, 0]
    assert judged[-1]["headline"] == b"b\xffd"


@pytest.mark.parametrize(
    "labels",
    [
        pa.array([True, False]),
        pa.array([1, 0]),
        pa.array([1.0, 0.0]),
        pa.array(["Clickbait", "NEWS"]),
        pa.array([b"1", b"0"]),
    ],
)
def test_labels_of_any_type_in_parquet(tmp_path: Path, labels: pa.Array) -> None:
    (tmp_path / "h.parquet").write_bytes(
        parquet(headline=pa.array(["a", "b"]).dictionary_encode(), clickbait=labels)
    )
    assert [row["class"] for row in judge(read(tmp_path / "h.parquet"))] == [1, 0]


@pytest.mark.parametrize("kind", [pa.large_binary(), pa.string_view(), pa.binary_view()], ids=str)
def test_text_of_every_type_of_arrow_is_read(tmp_path: Path, kind: pa.DataType) -> None:
    text = pa.array([b"good", b"\xff", None], pa.binary()).cast(pa.binary_view())
    text = text.view(kind) if kind == pa.string_view() else text.cast(kind)
    (tmp_path / "h.parquet").write_bytes(
        parquet(headline=text, clickbait=pa.array(["1", "0", "1"]).cast(pa.string_view()))
    )
    assert [(row["reason"], row["class"]) for row in judge(read(tmp_path / "h.parquet"))] == [
        (None, 1),
        ("undecodable", None),
        ("empty", None),
    ]


def test_parquet_text_that_is_not_utf8_or_not_text(tmp_path: Path) -> None:
    broken = pa.StringArray.from_buffers(2, *pa.array([b"good", b"\xff\xfe"], pa.binary()).buffers()[1:])
    (tmp_path / "a.parquet").write_bytes(parquet(headline=broken, clickbait=[1, 0]))
    (tmp_path / "b.parquet").write_bytes(parquet(headline=[1, 2], clickbait=[1, 0]))
    assert reasons(tmp_path) == [None, "undecodable", "not_text", "not_text"]


HEADER = b"headline,clickbait\n"
UNREADABLE: dict[str, tuple[str, bytes, str]] = {
    "empty": ("h.csv", b"", "the file is empty"),
    "empty_gz": ("h.jsonl.gz", gzip.compress(b""), "the file is empty"),
    "utf16": ("h.csv", "headline,clickbait\n".encode("utf-16"), "save it as UTF-8"),
    "column": ("h.csv", b"headlin,clickbait\na,1\n", 'no column "headline"; did you mean "headlin"?'),
    "open_header": ("h.csv", b'headline,"clickbait\na,1\n', "the header cannot be read"),
    "column_twice": ("h.csv", b"headline,clickbait,headline\na,1,b\n", 'the column "headline" stands twice'),
    "parquet_column_twice": ("h.parquet", twice("headline"), 'the column "headline" stands twice'),
    "far_column": ("h.csv", b"text,target\na,1\n", 'no column "headline"; columns: text, target'),
    "json_column": ("h.jsonl", b'{"title": "a", "clickbait": 1}\n', "columns: title, clickbait"),
    "parquet_column": ("h.parquet", parquet(headline=["a"], y=[1]), 'no column "clickbait"'),
    "json_array": ("h.json", b'[\n{"headline": "a", "clickbait": 1},\n]', "write one object a line"),
    "not_gzip": ("h.csv.gz", HEADER, "cannot be read to its end"),
    "cut_gzip": (
        "h.csv.gz",
        gzip.compress(HEADER + random.Random(0).randbytes(9999))[:-99],
        "cannot be read to its end",
    ),
    "cut_parquet": ("h.parquet", parquet(headline=["a"], clickbait=[1])[:-9], "not a whole Parquet file"),
    "kind": ("h.xlsx", b"PK", "no file of a known kind"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_cannot_be_read_is_one_line_that_names_the_file(tmp_path: Path, case: str) -> None:
    name, data, message = UNREADABLE[case]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError) as caught:
        read(tmp_path / name)
    assert message in str(caught.value)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_of_other_kinds(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nope\.csv"):
        read(tmp_path / "nope.csv")
    (tmp_path / "LICENSE").touch()
    with pytest.raises(DataError, match="no file of a known kind"):
        read(tmp_path)


class Stream(list[dict[str, Any]]):
    features = None


class FakeHub:
    """Keeps of the hub that a dataset's name has a commit, and that a stream of a commit is a stream of
    dicts.
    """

    def __init__(self, rows: list[dict[str, Any]] | Exception) -> None:
        self.rows = rows
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def dataset_info(self, name: str, **_: Any) -> Any:
        if isinstance(self.rows, Exception):
            raise self.rows
        return type("Info", (), {"sha": "c0ffee"})()

    def load_dataset(self, name: str, **settings: Any) -> Stream:
        self.asked.append((name, settings))
        assert isinstance(self.rows, list)
        return Stream(self.rows)


def test_a_hugging_face_dataset_is_streamed_at_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    import huggingface_hub

    hub = FakeHub([{"headline": "a", "clickbait": 1}, {"headline": "b", "clickbait": 0}])
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    monkeypatch.setattr(datasets, "load_dataset", hub.load_dataset)
    config = PreprocessConfig(source="hf:owner/name:test")
    (piece,) = sources.pieces(config)
    assert [row for table in sources.read(piece, config) for row in table["headline"].to_pylist()] == [
        b"a",
        b"b",
    ]
    assert hub.asked == [("owner/name", {"split": "test", "revision": "c0ffee", "streaming": True})]
    assert piece == "hf:owner/name:test@c0ffee"  # so another commit is another fingerprint


def test_a_hugging_face_dataset_without_the_hub_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: FakeHub(ConnectionError("down")))
    with pytest.raises(
        DataError, match=r"hf:owner/name: no such dataset, or the Hugging Face hub cannot be reached"
    ):
        sources.pieces(PreprocessConfig(source="hf:owner/name"))


def test_each_reason() -> None:
    cases = [
        (b"A headline", "1", None, None),
        (None, "1", None, "empty"),
        (b" \t\x00\x07 ", "1", None, "empty"),
        (b"x" * 17, "1", None, "too_long"),
        (b"  x" + b" " * 40 + b"y", "1", None, None),  # counted after cleaning
        (b"A headline", "maybe", None, "unknown_label"),
        (b"A headline", None, None, "unknown_label"),
        ("\ud800".encode("utf-8", "surrogatepass"), "1", None, "undecodable"),
        (b"a,b,c", None, "malformed_row", "malformed_row"),
    ]
    judged = judge([case[:3] for case in cases], max_characters=16)
    assert [row["reason"] for row in judged] == [case[3] for case in cases]
    assert all((row["key"] is None) == (row["reason"] is not None) for row in judged)


def test_a_label_that_means_both_is_refused() -> None:
    with pytest.raises(DataError, match='"yes"'):
        headlines.classes(PreprocessConfig(news_values=("Yes",), clickbait_values=("yes",)))


def settle_all(
    rows: list[tuple[str, int]], config: PreprocessConfig, order: list[int] | None = None
) -> list[headlines.Settled]:
    """Judges the rows as one file, shuffles them, and settles each partition, as the job does."""
    judged = judge(
        [(headline.encode(), str(label), None) for headline, label in rows], partitions=config.partitions
    )
    ending = headlines.end(0, len(rows), None, config).to_pylist()
    mixed = [judged[at] for at in order or range(len(judged))] + ending
    partitions = sorted({row["partition"] for row in mixed})
    return [
        headlines.settle(
            pa.Table.from_pylist([row for row in mixed if row["partition"] == at], schema=headlines.JUDGED),
            ["a.csv"],
            config,
        )
        for at in partitions
    ]


def where(settled: list[headlines.Settled]) -> dict[str, str]:
    return {
        row["headline"]: name
        for part in settled
        for name, table in part.splits.items()
        for row in table.to_pylist()
    }


WORDS = st.text(alphabet="abc !?", max_size=4)


@settings(deadline=None)  # a busy machine is no failure
@given(
    st.lists(st.tuples(WORDS, st.integers(0, 2)), max_size=60),
    st.integers(1, 4),
    st.randoms(use_true_random=False),
)
def test_every_row_is_kept_quarantined_or_a_duplicate(
    rows: list[tuple[str, int]], partitions: int, chance: random.Random
) -> None:
    config = PreprocessConfig(partitions=partitions)
    order = list(range(len(rows)))
    chance.shuffle(order)
    settled = settle_all(rows, config, order)
    kept = sum(table.num_rows for part in settled for table in part.splits.values())
    quarantined = [row for part in settled for row in part.quarantine.to_pylist()]
    assert kept + len(quarantined) + sum(part.duplicates for part in settled) == len(rows)
    assert sum(part.rows for part in settled) == sum(part.read for part in settled) == len(rows)
    assert where(settled) == where(settle_all(rows, config))  # the order in which rows arrive moves nothing
    # What quarantine holds besides broken rows are all the rows of headlines that were called both.
    good = [(headline, label) for headline, label in rows if label < 2 and text.clean(headline)]
    called: dict[bytes, set[int]] = {}
    for headline, label in good:
        called.setdefault(text.key(headline), set()).add(label)
    both = [headline for headline, _ in good if len(called[text.key(headline)]) > 1]
    assert sum(row["reason"] == "conflicting_labels" for row in quarantined) == len(both)
    assert len({text.key(headline) for headline in where(settled)}) == kept


def test_of_near_copies_the_first_is_kept() -> None:
    (settled,) = settle_all(
        [("You won't believe THIS", 1), ("you won\u2019t believe this!", 1), ("Other", 0)],
        PreprocessConfig(partitions=1),
        [2, 1, 0],
    )
    assert set(where([settled])) == {"You won't believe THIS", "Other"}
    assert settled.duplicates == 1


def test_a_quarantined_row_says_where_it_stood() -> None:
    (settled,) = settle_all([("Same", 1), ("Fine", 1), ("SAME!", 0)], PreprocessConfig(partitions=1))
    assert settled.quarantine.to_pylist() == [
        {"source": "a.csv", "row": 1, "headline": b"Same", "label": "1", "reason": "conflicting_labels"},
        {"source": "a.csv", "row": 3, "headline": b"SAME!", "label": "0", "reason": "conflicting_labels"},
    ]


def test_splits_have_their_shares_in_each_label_and_follow_the_headline_alone() -> None:
    rows = [(f"headline number {at}", at % 5 == 0) for at in range(4000)]
    config = PreprocessConfig(test_fraction=0.2, validation_fraction=0.1)
    found = where(settle_all([(headline, int(label)) for headline, label in rows], config))
    for label, total in ((1, 800), (0, 3200)):
        counts = [
            sum(found[headline] == name for headline, called in rows if called == label) for name in SPLITS
        ]
        assert counts == pytest.approx([0.7 * total, 0.1 * total, 0.2 * total], abs=2)
    assert found == where(settle_all([(headline, int(label)) for headline, label in reversed(rows)], config))


@pytest.mark.parametrize("rows", [3, 4, 10, 1000])
def test_one_partition_rounds_to_the_nearest_and_leaves_no_split_empty(rows: int) -> None:
    keys = [text.key(f"headline {at}") for at in range(rows)]
    names = [name for _, name in headlines.split(keys, 0, PreprocessConfig(partitions=1))]
    wanted = max(1, round(rows * 0.1))
    assert [names.count(name) for name in SPLITS] == [rows - 2 * wanted, wanted, wanted]


def test_real_headlines_hold_two_near_copies(data_dir: Path) -> None:
    config = PreprocessConfig(source=str(data_dir / "stop-clickbait" / "clickbait_data.csv"))
    rows = [
        row
        for table in sources.judged(pa.table({"file": [0], "piece": sources.pieces(config)}), config)
        for row in table.to_pylist()
    ]
    assert rows.pop()["row"] == len(rows) == 32_000
    assert all(row["reason"] is None for row in rows)
    assert len({row["key"] for row in rows}) == 31_998
