"""`ray_jobs.score` without Ray: every row of every format once, wherever it is cut; columns kept; what an
output is of.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clickbait.errors import DataError
from clickbait.inference.scorer import Scorer
from clickbait.registry import bundle
from clickbait.scoring import output
from clickbait.scoring.config import ScoreConfig
from clickbait.scoring.rows import Reader
from clickbait.scoring.source import Source, plan
from ray_jobs.score import score
from tests.tiny import tiny_bundle

HEADLINES = [
    "You won believe one",
    'The council "approves", again',
    "A report\nof two lines",
    "Ünder the minister",
    "",
    "seven",
    "  ",
    "x" * 600,
]
ROWS = [{"id": str(at), "headline": HEADLINES[at % len(HEADLINES)], "note": f"n{at}"} for at in range(50)]
GOOD = [row for row in ROWS if row["headline"].strip() and len(row["headline"]) < 600]


def configured(folder: Path, source: Path, **settings: Any) -> ScoreConfig:
    return ScoreConfig(
        source=str(source), output=str(folder / "scores"), bundle=str(folder / "bundle"), **settings
    )


def csv_bytes(delimiter: str, rows: list[dict[str, str]]) -> bytes:
    import csv

    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode()


def parquet_bytes(table: pa.Table, group: int = 1000) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=group)
    return sink.getvalue()


def json_bytes(rows: list[dict[str, str]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


FORMATS: dict[str, Callable[[list[dict[str, str]]], bytes]] = {
    "h.csv": lambda rows: csv_bytes(",", rows),
    "h.tsv": lambda rows: csv_bytes("\t", rows),
    "h.csv.gz": lambda rows: gzip.compress(csv_bytes(",", rows)),
    "h.jsonl": json_bytes,
    "h.ndjson.gz": lambda rows: gzip.compress(json_bytes(rows)),
    "h.parquet": lambda rows: parquet_bytes(pa.Table.from_pylist(rows), 7),
    "whole.parquet": lambda rows: parquet_bytes(pa.Table.from_pylist(rows)),
}


def scored(config: ScoreConfig, reverse: bool = False) -> tuple[dict[str, Any], Source]:
    """All that the job does but Ray: one reader and one scorer, the parts in order or from the last."""
    folder = Path(str(config.bundle))
    scorer = Scorer(tiny_bundle(folder) if not folder.exists() else folder)
    source = plan(config)
    head = output.identify(config, source, scorer.manifest)
    assert output.begin(config.output, head) is None
    names = output.names(head, source.parts)
    pairs = list(zip(names, source.parts, strict=True))[:: -1 if reverse else 1]
    with contextlib.closing(Reader(source.schema, config.headline_column)) as reader:
        done = {
            name: output.write_part(config.output, name, part, reader, scorer, config) for name, part in pairs
        }
    assert done.keys() == output.done(config.output, names).keys()
    return output.seal(config.output, head, [done[name] for name in names]), source


def table(config: ScoreConfig, folder: str = output.SCORES) -> pa.Table:
    return pa.concat_tables(
        pq.read_table(path) for path in sorted(Path(config.output, folder).glob("*.parquet"))
    )


def tree(folder: str) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in Path(folder).rglob("*")
        if path.is_file() and path.name != ".lock"
    }


@pytest.mark.parametrize("part_rows", [1, 3, 7, 1000])
@pytest.mark.parametrize("name", FORMATS)
def test_every_row_comes_out_once_with_its_columns_wherever_it_is_cut(
    name: str, part_rows: int, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(FORMATS[name](ROWS))
    config = configured(tmp_path, tmp_path / name, part_rows=part_rows)
    manifest, source = scored(config)
    assert len(source.parts) > 1 or part_rows == 1000 or name.endswith(".gz")
    found = table(config)
    assert found.select(["id", "headline", "note"]).to_pylist() == GOOD
    scorer = Scorer(tmp_path / "bundle")
    assert found["score"].to_pylist() == pytest.approx(
        scorer.score([row["headline"] for row in GOOD]).tolist(), abs=1e-6
    )
    assert found["label"].to_pylist() == [scorer.label(score) for score in found["score"].to_pylist()]
    assert set(found["model"].to_pylist()) == {"draft"}
    assert [str(field.type) for field in found.schema][-3:] == ["float", "string", "string"]
    counts = manifest["counts"]
    assert (counts["in"], counts["scored"], counts["quarantined"]) == (
        len(ROWS),
        len(GOOD),
        len(ROWS) - len(GOOD),
    )
    assert counts["reasons"] == {"empty": 12, "too_long": 6}
    assert table(config, output.QUARANTINE).num_rows == counts["quarantined"]


def test_a_quarantined_row_is_kept_with_its_line_its_reason_and_its_bytes(tmp_path: Path) -> None:
    bad = {4: b"x,\xff\xfe", 5: b"one,too,many", 6: b"y,  ", 9: b'z,"never closed'}
    lines = [
        b"id,headline",
        b"0,the market",
        b"",
        *(bad[at] for at in (4, 5, 6)),
        b"1,the budget",
        b"2,a word",
        bad[9],
    ]
    (tmp_path / "h.csv").write_bytes(b"\n".join(lines))
    config = configured(tmp_path, tmp_path / "h.csv", part_rows=2)
    scored(config)
    rows = table(config, output.QUARANTINE).to_pylist()
    assert {row["row"]: row["raw"] for row in rows} == bad
    assert [row["reason"] for row in rows] == ["undecodable", "malformed_row", "empty", "malformed_row"]
    assert table(config)["id"].to_pylist() == ["0", "1", "2"]


@pytest.mark.parametrize("part_rows", [1, 3, 50, 1000])
def test_a_quote_that_nothing_closes_costs_its_own_line_wherever_it_is_cut(
    part_rows: int, tmp_path: Path
) -> None:
    good = [f"{at},the market {at}" for at in range(100)]
    broken = {12: '5,"Nobody saw this', 40: '"6,Nobody', 101: '7,"The end'}
    lines = ["id,headline", *good]
    for number, line in broken.items():
        lines.insert(number - 1, line)
    lines[70:70] = ['x,"two', 'lines"', 'y,The screen is 50"', ""]
    (tmp_path / "h.csv").write_text("\n".join(lines))
    config = configured(tmp_path, tmp_path / "h.csv", part_rows=part_rows)
    counts = scored(config)[0]["counts"]
    quarantined = {row["row"]: row["raw"].decode() for row in table(config, output.QUARANTINE).to_pylist()}
    assert {lines[number - 1] for number in quarantined} == set(broken.values()) == set(quarantined.values())
    assert table(config)["id"].to_pylist() == [*map(str, range(67)), "x", "y", *map(str, range(67, 100))]
    assert (counts["in"], counts["scored"], counts["reasons"]) == (105, 102, {"malformed_row": 3})


@pytest.mark.parametrize("name", ["h.csv", "h.jsonl", "h.txt"])
def test_lines_that_end_in_a_carriage_return_alone_are_told(tmp_path: Path, name: str) -> None:
    data = FORMATS[name](GOOD[:3]) if name in FORMATS else b"the market\na word\n"
    (tmp_path / name).write_bytes(data.replace(b"\n", b"\r"))
    with pytest.raises(DataError, match=rf"{name}: its lines end in \\r alone"):
        plan(configured(tmp_path, tmp_path / name))


def test_bad_text_in_parquet_is_kept_and_the_other_columns_too(tmp_path: Path) -> None:
    text = _unchecked([b"the market", b"\xff", None])
    (tmp_path / "h.parquet").write_bytes(
        parquet_bytes(pa.table({"headline": text, "day": pa.array([1, 2, 3], pa.date32())}))
    )
    config = configured(tmp_path, tmp_path / "h.parquet")
    scored(config)
    rows = table(config, output.QUARANTINE).to_pylist()
    assert [(row["row"], row["reason"]) for row in rows] == [(2, "undecodable"), (3, "empty")]
    assert json.loads(rows[0]["raw"]) == {"headline": "\\xff", "day": "1970-01-03"}
    assert table(config).schema.field("day").type == pa.date32()


def _unchecked(values: list[bytes | None]) -> pa.Array:
    """A string array that is not UTF-8, as careless writers make it."""
    binary = pa.array(values, pa.binary())
    return pa.StringArray.from_buffers(
        len(binary), binary.buffers()[1], binary.buffers()[2], binary.buffers()[0]
    )


@pytest.mark.parametrize(
    "kind", [pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view()], ids=str
)
def test_text_of_every_type_of_arrow_is_scored_and_kept(kind: pa.DataType, tmp_path: Path) -> None:
    text = pa.array([b"the market", b"\xff", None, b"a word", b"  ", b"a budget"], pa.binary()).cast(
        pa.binary_view()
    )
    text = (
        text.view(kind)
        if kind == pa.string_view()
        else text.cast(kind)
        if kind != pa.large_string()
        else _large(text)
    )
    tags = pa.array([["x"], [], None, ["y", "z"], ["x"], []], pa.list_(pa.string_view()))
    (tmp_path / "h.parquet").write_bytes(
        parquet_bytes(pa.table({"headline": text, "tags": tags, "n": range(6)}))
    )
    config = configured(tmp_path, tmp_path / "h.parquet")
    counts = scored(config)[0]["counts"]
    assert counts["reasons"] == {"empty": 2, "undecodable": 1}
    kept = table(config)
    assert kept["n"].to_pylist() == [0, 3, 5]
    assert kept["tags"].to_pylist() == [["x"], ["y", "z"], []]
    assert kept["headline"].cast(pa.large_binary()).to_pylist() == [b"the market", b"a word", b"a budget"]


def _large(text: pa.Array) -> pa.Array:
    binary = text.cast(pa.large_binary())
    return pa.LargeStringArray.from_buffers(
        len(binary), binary.buffers()[1], binary.buffers()[2], binary.buffers()[0]
    )


def test_json_keeps_keys_that_come_late_and_values_of_any_type(tmp_path: Path) -> None:
    values = [
        {"headline": "the market", "n": 1},
        {"n": 2.5, "headline": "a word", "tags": ["x"]},
        {"headline": 7},
        {"headline": "\ud800"},
    ]
    values += [{"headline": "seven", "tags": "plain", "flag": True}]
    lake = tmp_path / "lake"
    lake.mkdir()
    (lake / "a.jsonl").write_bytes(b"\n\n".join(json.dumps(value).encode() for value in values))
    (lake / "b.jsonl").write_text('{"headline": "two", "later": null}\nno json\n{"other": 1}')
    config = configured(tmp_path, lake, part_rows=2)
    scored(config)
    rows = [
        {key: value for key, value in row.items() if value is not None}
        for row in table(config).drop(["score", "label", "model"]).to_pylist()
    ]
    assert rows == [
        {"headline": "the market", "n": 1.0},
        {"headline": "a word", "n": 2.5, "tags": '["x"]'},
        {"headline": "seven", "tags": "plain", "flag": True},
        {"headline": "two"},
    ]
    bad = table(config, output.QUARANTINE).to_pylist()
    assert [(row["file"], row["row"], row["reason"]) for row in bad] == [
        ("a.jsonl", 5, "not_text"),
        ("a.jsonl", 7, "undecodable"),
        ("b.jsonl", 2, "malformed_row"),
        ("b.jsonl", 3, "malformed_row"),
    ]


def test_text_is_a_headline_a_line(tmp_path: Path) -> None:
    (tmp_path / "h.txt").write_bytes(b"\xef\xbb\xbfthe market\r\n\r\na word")
    config = configured(tmp_path, tmp_path / "h.txt", headline_column="title")
    scored(config)
    assert table(config)["title"].to_pylist() == ["the market", "a word"]
    assert [row["row"] for row in table(config, output.QUARANTINE).to_pylist()] == [2]


def test_the_order_of_the_work_changes_no_byte(tmp_path: Path) -> None:
    """A part of a large row group is read from the middle by one actor, and after its neighbour by
    another.
    """
    (tmp_path / "h.parquet").write_bytes(FORMATS["whole.parquet"](ROWS))
    one, other = (
        configured(tmp_path, tmp_path / "h.parquet", part_rows=4).model_copy(
            update={"output": str(tmp_path / name)}
        )
        for name in "ab"
    )
    scored(one)
    scored(other, reverse=True)
    assert tree(one.output) == tree(other.output)


def test_the_model_sees_the_same_batches_whatever_the_row_groups(tmp_path: Path) -> None:
    """Else int8 scores would differ in their last digits."""
    rows = pa.Table.from_pylist(ROWS * 200)
    found = []
    for group in (999, 5000):
        (tmp_path / f"{group}.parquet").write_bytes(parquet_bytes(rows, group))
        source = plan(configured(tmp_path, tmp_path / f"{group}.parquet", part_rows=6000))
        with contextlib.closing(Reader(source.schema, "headline")) as reader:
            found.append(
                [
                    (block.numbers[0], block.table.num_rows)
                    for part in source.parts
                    for block in reader.blocks(part)
                ]
            )
    assert found[0] == found[1] == [(1, 4096), (4097, 1904), (6001, 4000)]


def no_ray(*_: Any) -> None:
    pytest.fail("Ray was started")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"max_characters": 100}, r"other settings \(max_characters 512; now 100\)"),
        ({"part_rows": 5}, "other settings"),
        ({"prefix": "x_"}, "other settings"),
        ({"source": "other.csv"}, "another source"),
        ({"bundle": "other"}, "another model"),
    ],
)
def test_an_output_is_not_mixed_with_another(
    change: dict[str, Any], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ray_jobs.scoring.connect", no_ray)
    Path("h.csv").write_bytes(FORMATS["h.csv"](ROWS))
    Path("other.csv").write_bytes(FORMATS["h.csv"](ROWS[1:]))
    tiny_bundle(Path("other"), threshold=0.7)
    config = configured(tmp_path, tmp_path / "h.csv", part_rows=9)
    manifest, _ = scored(config)
    before = tree(config.output)
    assert score(config) == manifest, "whole: returned at once"
    with pytest.raises(
        DataError, match=f"holds scores of {told}.*: give another --output, or delete that folder$"
    ):
        score(
            config.model_copy(
                update={**change, **({"bundle": str(tmp_path / "other")} if "bundle" in change else {})}
            )
        )
    assert tree(config.output) == before


def test_metrics_added_to_a_draft_do_not_make_it_another_model(tmp_path: Path) -> None:
    folder = tiny_bundle(tmp_path / "bundle")
    before = output.fingerprint(bundle.read_manifest(folder))
    (folder / "report.html").write_text("a report")
    assert output.fingerprint(bundle.amend(folder, metrics={"accuracy": 0.5})) == before


def test_parts_are_named_by_what_is_in_them(tmp_path: Path) -> None:
    """Appending to one file of many leaves the names of the others' parts, less their number."""

    def named() -> list[str]:
        config = configured(tmp_path, tmp_path / "lake", part_rows=10)
        source = plan(config)
        return [
            name[len("part-00000-") :]
            for name in output.names(output.identify(config, source, manifest), source.parts)
        ]

    manifest = bundle.read_manifest(tiny_bundle(tmp_path / "bundle"))
    (tmp_path / "lake").mkdir()
    for name in ("a.csv", "b.csv"):
        (tmp_path / "lake" / name).write_bytes(
            csv_bytes(",", [{"headline": f"{name} {at}"} for at in range(20)])
        )
    before = named()
    with (tmp_path / "lake" / "b.csv").open("a") as file:
        file.write("one more\n")
    after = named()
    assert len(set(before)) == len(before) == 6
    assert [name in after for name in before] == [True] * 3 + [False] * 3


def test_what_the_job_wrote_below_its_source_is_no_source(tmp_path: Path) -> None:
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake" / "h.csv").write_bytes(FORMATS["h.csv"](ROWS))
    config = configured(tmp_path, tmp_path / "lake").model_copy(
        update={"output": str(tmp_path / "lake" / "scores")}
    )
    scored(config)
    assert [name for name, _ in plan(config).files] == ["h.csv"]


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("h.csv", b"title,id\na,1\n", r'h.csv: no column "headline" \(columns: title, id\)'),
        ("h.csv", b"headlines,id\na,1\n", 'no column "headline"; did you mean "headlines"'),
        ("h.csv", b"headline,label\na,1\n", 'has a column "label" already: .*--prefix'),
        ("h.csv", b"headline,headline\na,1\n", "two columns of one name"),
        ("h.csv", b"headline\n", "no rows in it"),
        ("h.csv", b"", "h.csv: the file is empty"),
        ("h.csv", "headline\na\n".encode("utf-16"), "UTF-16"),
        (
            "h.csv.gz",
            gzip.compress(base64.b85encode(bytes(range(256)) * 99))[:-20],
            "cannot be read to its end",
        ),
        ("h.jsonl", b"[1]\n", "no JSON object"),
        ("h.parquet", b"PAR1 not PAR1", "h.parquet: cannot be read to its end"),
        (
            "h.parquet",
            parquet_bytes(pa.table({"headline": [1]})),
            'the column "headline" holds int64, not text',
        ),
        ("h.parquet", parquet_bytes(pa.table({"headline": pa.array([], pa.string())})), "no rows in it"),
        ("h.xlsx", b"x", "no file of a known kind"),
    ],
)
def test_a_source_that_does_not_fit_is_one_line(
    name: str, data: bytes, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray_jobs.scoring.connect", no_ray)
    (tmp_path / name).write_bytes(data)
    tiny_bundle(tmp_path / "bundle")
    with pytest.raises(DataError, match=told) as error:
        score(configured(tmp_path, tmp_path / name))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "scores").exists()


def test_files_with_other_columns_are_not_scored_together(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("headline,id\na,1\n")
    (tmp_path / "b.csv").write_text("id,headline\n2,b\n")
    assert plan(configured(tmp_path, tmp_path)).schema.names == ["headline", "id"]
    (tmp_path / "c.csv").write_text("headline\na\n")
    with pytest.raises(DataError, match=r"c.csv: its columns \(headline string\) are not those of a.csv"):
        plan(configured(tmp_path, tmp_path))


def test_a_source_that_changes_under_the_job_is_told(tmp_path: Path) -> None:
    (tmp_path / "h.txt").write_text("the market\n" * 9)
    tiny_bundle(tmp_path / "bundle")
    config = configured(tmp_path, tmp_path / "h.txt", part_rows=5)
    source = plan(config)
    (tmp_path / "h.txt").write_text("the market\n" * 3)
    with pytest.raises(DataError, match="changed while it was read"):
        list(Reader(source.schema, "headline").blocks(source.parts[0]))


def test_a_prefix_must_leave_the_headline_alone() -> None:
    with pytest.raises(ValueError, match="prefix"):
        ScoreConfig(headline_column="label")
    assert ScoreConfig(headline_column="label", prefix="new_").columns == (
        "new_score",
        "new_label",
        "new_model",
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("the market", None),
        ("\u200b\u2060", "empty"),  # nothing is left of it once it is clean
        ("\t \x00", "empty"),
        ("e\u0301" * 400, None),  # 800 characters, 400 clean ones
        (f"{' ' * 600}seven", None),
        ("\u0958" * 300, "too_long"),  # grows when it is normalised
    ],
)
def test_a_headline_is_judged_as_the_model_reads_it(text: str, reason: str | None, tmp_path: Path) -> None:
    (tmp_path / "h.jsonl").write_text(json.dumps({"headline": text}))
    config = configured(tmp_path, tmp_path / "h.jsonl")
    counts = scored(config)[0]["counts"]
    assert counts["reasons"] == ({reason: 1} if reason else {})
