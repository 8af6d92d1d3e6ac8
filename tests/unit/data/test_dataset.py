"""The dataset on disk: whole or not there, every byte checked, and named by all that its bytes follow
from.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from clickbait import storage
from clickbait.config import DEFAULT_MODEL, PreprocessConfig
from clickbait.data import dataset, sources, token_ids
from clickbait.data.dataset import open_dataset
from clickbait.errors import DataError, ModelError
from clickbait.pretrained import tokenizer
from ray_jobs import preprocess as job

TOKENS = tokenizer.tokenizer_bytes(DEFAULT_MODEL)


def source(folder: Path, rows: int = 60) -> Path:
    path = folder / "h.csv"
    path.write_text(
        "headline,clickbait\n"
        + "".join(f"Headline number {at},{at % 2}\n" for at in range(rows))
        + "bad row\n"
    )
    return path


def build(config: PreprocessConfig) -> str:
    """What the job does, in this process: read, shuffle by partition, write, seal."""
    pieces = sources.pieces(config)
    head = dataset.identify(config, pieces, TOKENS)
    uri = storage.join(config.output, head["fingerprint"])
    kept = {tokenizer.FILE: dataset.sealed(uri).put(tokenizer.FILE, TOKENS)}
    items = pa.table({"file": range(len(pieces)), "piece": pieces})
    judged = pa.concat_tables(sources.judged(items, config))
    summaries = []
    for partition in judged["partition"].unique().to_pylist():
        table = judged.filter(pa.compute.equal(judged["partition"], partition))
        summaries += dataset.write_partition(table, uri, ["h.csv"], config)["summary"].to_pylist()
    found = dataset.add_up(json.loads(summary) for summary in summaries)
    dataset.seal(uri, {**head, **found, "files": kept | found["files"]})
    dataset.set_latest(config.output, head["fingerprint"])
    return uri


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return build(PreprocessConfig(source=str(source(tmp_path)), output=str(tmp_path / "out"), partitions=2))


def test_what_was_written_is_read(uri: str, tmp_path: Path) -> None:
    found = open_dataset(uri)
    counts = found.manifest["counts"]
    assert (counts["in"], counts["kept"], counts["quarantined"], counts["duplicates"]) == (61, 60, 1, 0)
    tables = {name: found.table(name) for name in counts["splits"]}
    for name, table in tables.items():
        assert table.schema == dataset.PART
        assert table.num_rows == counts["splits"][name]["rows"]
        assert [len(ids) for ids in table["input_ids"].to_pylist()] == table["length"].to_pylist()
    assert sorted(text for table in tables.values() for text in table["headline"].to_pylist()) == sorted(
        f"Headline number {at}" for at in range(60)
    )
    assert found.table("quarantine").to_pylist() == [
        {"source": "h.csv", "row": 61, "headline": b"bad row", "label": None, "reason": "malformed_row"}
    ]
    assert sum(found.manifest["token_length_histogram"].values()) == 60
    assert found.table("train", ["label", "key"]).column_names == ["label", "key"]
    assert found.tokenizer == TOKENS
    assert (found.fingerprint, found.synthetic, found.max_tokens) == (uri[-16:], False, 64)
    assert (
        str(tmp_path) not in (Path(uri) / "manifest.json").read_text()
    )  # nor any other path of this machine


def test_latest_is_the_dataset_that_was_written_last(uri: str, tmp_path: Path) -> None:
    latest = str(tmp_path / "out" / "latest")
    assert open_dataset(latest).uri == uri
    other = build(PreprocessConfig(source=str(source(tmp_path, 80)), output=str(tmp_path / "out")))
    assert open_dataset(latest).uri == other != uri


def test_a_split_without_rows_is_an_empty_table_of_the_same_columns(uri: str) -> None:
    found = open_dataset(uri)
    for key in [key for key in found.manifest["files"] if key.startswith("quarantine/")]:
        del found.manifest["files"][key]
    assert found.table("quarantine").num_rows == 0
    assert found.table("quarantine", ["row"]).column_names == ["row"]


@pytest.mark.parametrize("lost", ["_SUCCESS", "manifest.json", ""])
def test_what_is_not_whole_is_no_dataset(uri: str, tmp_path: Path, lost: str) -> None:
    if lost:
        (Path(uri) / lost).unlink()
    with pytest.raises(DataError, match=r"no whole dataset there: run python -m ray_jobs\.preprocess"):
        open_dataset(uri if lost else str(tmp_path / "nowhere" / "latest"))


@pytest.mark.parametrize(
    "key", ["train/part-00000.parquet", "quarantine/part-00001.parquet", "tokenizer.json", "manifest.json"]
)
def test_a_changed_byte_is_found_before_anything_is_parsed(
    uri: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(uri) / key
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    monkeypatch.setattr(dataset.pq, "read_table", lambda *_, **__: pytest.fail("parsed"))
    with pytest.raises(DataError, match="SHA-256"):
        read_all(uri, key)


def read_all(uri: str, key: str) -> Any:
    found = open_dataset(uri)
    return found.tokenizer if key == "tokenizer.json" else found.table(key.split("/")[0])


def test_a_missing_part_is_one_line(uri: str) -> None:
    (Path(uri) / "train" / "part-00000.parquet").unlink()
    with pytest.raises(DataError, match=r"part-00000\.parquet: missing: delete the folder"):
        open_dataset(uri).table("train")


def test_another_schema_is_refused(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "SCHEMA", dataset.SCHEMA + 1)
    with pytest.raises(DataError, match="has schema 1, this version reads 2"):
        open_dataset(uri)


def test_the_seal_takes_away_what_an_attempt_left(uri: str) -> None:
    stale = Path(uri) / "train" / "part-00077.parquet"
    stale.write_bytes(b"left by a run that died")
    manifest = open_dataset(uri).manifest
    dataset.seal(uri, manifest)
    assert not stale.exists()
    assert open_dataset(uri).manifest == manifest


def test_the_same_rows_give_the_same_bytes_however_they_are_chunked() -> None:
    rows = range(50_000)  # of fewer, pages are cut alike whatever the chunks
    table = pa.table(
        {"headline": [f"headline {at} " * 5 for at in rows], "input_ids": [[at, at + 1] for at in rows]}
    )
    chunked = pa.concat_tables([table.slice(start, 700) for start in range(0, len(rows), 700)])
    assert chunked["headline"].num_chunks > 1
    assert dataset.parquet_bytes(chunked) == dataset.parquet_bytes(table)


def fingerprint(path: Path, tokens: bytes = TOKENS, **settings: Any) -> str:
    config = PreprocessConfig(source=str(path), **settings)
    return str(dataset.identify(config, sources.pieces(config), tokens)["fingerprint"])


def test_a_setting_that_is_added_later_renames_no_dataset() -> None:
    class Later(PreprocessConfig):
        new: int = 3
        """What the code did before it could be set."""

    before = dataset.identify(PreprocessConfig(), [], TOKENS)
    assert dataset.identify(Later(), [], TOKENS)["fingerprint"] == before["fingerprint"]
    assert dataset.identify(Later(new=4), [], TOKENS)["fingerprint"] != before["fingerprint"]
    assert set(before["config"]) == dataset.ALWAYS_IN_FINGERPRINT


CHANGES: list[dict[str, Any]] = [
    {"headline_column": "h"},
    {"label_column": "l"},
    {"clickbait_values": ("yes",)},
    {"news_values": ("no",)},
    {"max_characters": 100},
    {"max_tokens": 32},
    {"validation_fraction": 0.2},
    {"test_fraction": 0.2},
    {"partitions": 3},
    {"tokens": TOKENS + b" "},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_what_changes_a_byte_changes_the_name(tmp_path: Path, change: dict[str, Any]) -> None:
    path = source(tmp_path)
    assert fingerprint(path, **change) != fingerprint(path)


def test_a_byte_of_the_source_changes_the_name_and_its_folder_or_the_workers_do_not(tmp_path: Path) -> None:
    before = fingerprint(source(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    assert fingerprint(source(tmp_path / "elsewhere"), num_workers=7, output=str(tmp_path)) == before
    assert fingerprint(source(tmp_path, 61)) != before


def test_every_setting_is_known_to_change_bytes_or_not_to() -> None:
    """A new key in PreprocessConfig must go into one of the two lists."""
    assert {next(iter(change)) for change in CHANGES} - {"tokens"} | dataset.NOT_IN_FINGERPRINT == set(
        PreprocessConfig.model_fields
    )


def test_the_samples_size_changes_the_name() -> None:
    names = set()
    for size in (100, 200):
        config = PreprocessConfig(sample_size=size)
        head = dataset.identify(config, sources.pieces(config), TOKENS)
        assert head["synthetic"]
        assert "synthetic" in head["notice"]
        names.add(head["fingerprint"])
    assert len(names) == 2


def test_a_row_lost_between_reading_and_writing_is_a_bug() -> None:
    summary = {
        "in": 9,
        "read": 10,
        "errors": [],
        "duplicates": 0,
        "reasons": {"empty": 9},
        "splits": {},
        "lengths": {},
        "files": {},
    }
    with pytest.raises(AssertionError, match="lost"):
        dataset.add_up([summary])


def test_a_part_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    config = PreprocessConfig(source=str(source(tmp_path)), output=str(tmp_path / "out"), partitions=2)
    uri = storage.join(config.output, dataset.identify(config, sources.pieces(config), TOKENS)["fingerprint"])
    Path(uri).mkdir(parents=True)
    (Path(uri) / "train").write_text("a file where a folder should be")
    with pytest.raises(DataError, match=r"train.*\(and 1 more\)$"):
        build(config)


def test_too_few_headlines_of_a_label_is_one_line_with_the_reasons() -> None:
    def counts(news: int, rows: int = 100) -> dict[str, Any]:
        splits = {
            name: {"rows": 10, "clickbait": 10, "news": news} for name in ("train", "validation", "test")
        }
        return {"in": rows, "splits": splits, "reasons": {"unknown_label": 70, "empty": 0}, "duplicates": 0}

    config = PreprocessConfig(source="h.csv")
    assert dataset.has_both_labels(counts(1), config)
    with pytest.raises(
        DataError, match=r"h\.csv: 0 headlines of label news left of 100 rows \(70 unknown_label\)"
    ):
        dataset.has_both_labels(counts(0), config)
    with pytest.raises(DataError, match=r"h\.csv: no rows in it"):
        dataset.has_both_labels(counts(0, rows=0), config)


def test_ids_are_cut_at_max_tokens_and_never_padded() -> None:
    cutter = tokenizer.load(TOKENS, 8)
    ids, lengths = token_ids.encode(cutter, ["one", "one two", "word " * 50])
    assert lengths.to_pylist() == [3, 4, 8] == [len(row) for row in ids.to_pylist()]
    assert {(row[0], row[-1]) for row in ids.to_pylist()} == {(101, 102)}  # [CLS] and [SEP] stay
    empty, none = token_ids.encode(cutter, [])
    assert len(empty) == len(none) == 0


def test_more_headlines_than_a_batch_keep_their_order() -> None:
    texts = [f"headline {at}" for at in range(2 * token_ids.BATCH + 1)]
    cutter = tokenizer.load(TOKENS, 16)
    assert token_ids.encode(cutter, texts)[0].to_pylist() == [cutter.encode(text).ids for text in texts]


def test_a_tokenizer_out_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(TOKENS)
    assert tokenizer.tokenizer_bytes(str(tmp_path)) == TOKENS


def test_a_tokenizer_that_is_not_to_be_had_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    def unreachable(*_: Any, **__: Any) -> None:
        raise ConnectionError("down")

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", unreachable)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    cases = {
        str(tmp_path): "no tokenizer.json in it",
        "./nowhere": "no such folder",
        "package:no_such_package": "no such package is installed",
        "owner/name": "is not cached, and the hub cannot be reached",
    }
    for model, message in cases.items():
        with pytest.raises(ModelError, match=message) as caught:
            tokenizer.tokenizer_bytes(model)
        assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match=r"not a tokenizer\.json"):
        tokenizer.load(b"\x80", 8)


def interrupted(
    config: PreprocessConfig, meanwhile: Callable[[str], object], monkeypatch: pytest.MonkeyPatch
) -> str:
    """The folder of a job that wrote a part, then failed. `meanwhile` is what another job did in that folder
    before it failed.
    """
    folder = ""

    def partitions(uri: str, *_: Any) -> list[dict[str, Any]]:
        nonlocal folder
        folder = uri
        dataset.sealed(uri).put("train/part-00000.parquet", b"of both jobs: they write the same bytes")
        meanwhile(uri)
        raise DataError("h.csv: cannot be read to its end")

    monkeypatch.setattr(job, "connect", lambda: None)
    monkeypatch.setattr(job, "_partitions", partitions)
    with pytest.raises(DataError, match="cannot be read to its end"):
        job.preprocess(config)
    return folder


def test_a_job_that_fails_deletes_what_it_wrote_and_nothing_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = PreprocessConfig(source=str(source(tmp_path)), output=str(tmp_path / "out"))
    store = storage.open_storage(interrupted(config, lambda _: None, monkeypatch))
    assert store.list() == []
    with contextlib.ExitStack() as other:
        interrupted(config, lambda uri: other.enter_context(dataset.attempt(uri)), monkeypatch)
        assert "train/part-00000.parquet" in store.list()
        assert build(config) == store.uri  # the other job's end
    whole = open_dataset(store.uri)
    assert whole.table("train").num_rows
    assert set(store.list()) == {*whole.manifest["files"], "manifest.json", "_SUCCESS"}


def test_a_job_that_fails_leaves_a_dataset_that_another_job_sealed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = PreprocessConfig(source=str(source(tmp_path)), output=str(tmp_path / "out"))
    uri = interrupted(config, lambda _: build(config), monkeypatch)
    assert open_dataset(uri).table("train").num_rows


def test_a_part_that_went_away_before_the_end_is_no_part_of_a_dataset(tmp_path: Path, uri: str) -> None:
    manifest = open_dataset(uri).manifest
    gone = next(key for key in manifest["files"] if key.startswith("train/"))
    store = storage.open_storage(uri)
    store.delete("_SUCCESS")
    store.delete(gone)
    with pytest.raises(DataError, match="deleted while the dataset was written: run the same command again"):
        dataset.seal(uri, manifest)
    assert not dataset.sealed(uri).is_whole()


def test_sealing_twice_never_takes_the_dataset_away(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = open_dataset(uri).manifest
    storage.open_storage(uri).write("test/part-00099.parquet", b"left by a job that died")

    def delete(self: storage.LocalStorage, key: str) -> None:
        assert key == "test/part-00099.parquet"

    monkeypatch.setattr(storage.LocalStorage, "delete", delete)
    dataset.seal(uri, manifest)
    assert open_dataset(uri).manifest == manifest


def test_a_source_that_mostly_fails_moves_latest_only_where_that_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "h.csv"
    path.write_text(
        "headline,clickbait\n"
        + "".join(f"Headline number {at},{at % 2}\nHeadline {at}\n" for at in range(30))
    )
    config = PreprocessConfig(source=str(path), output=str(tmp_path / "out"))
    uri = build(config)
    (tmp_path / "out" / "latest.json").unlink()
    with pytest.raises(DataError) as caught:
        job.preprocess(config)
    assert "h.csv: 30 of 60 rows are in quarantine (30 malformed_row; the first is row 2 of h.csv)" in str(
        caught.value
    )
    assert "accept it with --max-quarantined 0.5" in str(caught.value)
    assert not (tmp_path / "out" / "latest.json").exists()
    assert open_dataset(uri).table("quarantine").num_rows == 30  # there to look at
    assert job.preprocess(config.model_copy(update={"max_quarantined": 0.5})) == uri
    assert open_dataset(str(tmp_path / "out" / "latest")).uri == uri


def test_broken_rows_that_an_earlier_version_read_are_read_again(tmp_path: Path) -> None:
    config = PreprocessConfig(source=str(source(tmp_path)), output=str(tmp_path / "out"))
    uri = build(config)
    manifest = open_dataset(uri).manifest
    assert job.preprocess(config) == uri
    del manifest["reader"]  # as version 1 wrote it
    storage.open_storage(uri).delete("_SUCCESS")
    dataset.seal(uri, manifest)
    with pytest.raises(
        DataError, match=r"an earlier version wrote it, .* delete that folder and run the same command again"
    ):
        job.preprocess(config)
