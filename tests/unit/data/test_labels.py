"""What a label means is read or asked for, never guessed; and what a set for measuring leaves out is counted
and told.
"""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clickbait.config import PreprocessConfig, TransferConfig
from clickbait.data import headlines, sources
from clickbait.data.labelled import read_labelled
from clickbait.errors import DataError

TEXTS = ["a", "b", "c"]


def class_label(names: list[str], column: str = "clickbait") -> bytes:
    """A Parquet file with the labels 0, 1, 0, and their names as the library datasets writes them."""
    features = {
        "headline": {"dtype": "string", "_type": "Value"},
        column: {"names": names, "_type": "ClassLabel"},
    }
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    sink = io.BytesIO()
    pq.write_table(
        pa.table({"headline": TEXTS, column: pa.array([0, 1, 0])}).replace_schema_metadata(metadata), sink
    )
    return sink.getvalue()


def classes(config: PreprocessConfig) -> list[int | None]:
    tables = [
        headlines.validate(raw, 0, config)
        for piece in sources.pieces(config)
        for raw in sources.read(piece, config)
    ]
    return [cls for table in tables for cls in table["class"].to_pylist()]


def configured(folder: Path, data: bytes, name: str = "h.parquet", **settings: Any) -> PreprocessConfig:
    (folder / name).write_bytes(data)
    return PreprocessConfig(source=str(folder / name), **settings)


NUMBERS = {"clickbait_values": ("1",), "news_values": ("0",)}
BOTH = {"clickbait_values": ("1", "clickbait"), "news_values": ("0", "news")}


@pytest.mark.parametrize(
    ("names", "settings", "expected"),
    [
        (["news", "clickbait"], {}, [0, 1, 0]),
        (["clickbait", "news"], {}, [1, 0, 1]),  # what an encoder that goes by the alphabet gives
        (["Clickbait", "News", "unsure"], {}, [1, 0, 1]),
        (["yes", "no"], {"clickbait_values": ("yes",), "news_values": ("no",)}, [1, 0, 1]),
        (["A", "B"], NUMBERS, [0, 1, 0]),  # the names say nothing, and the user said what the numbers are
        (["0", "1"], {}, [0, 1, 0]),
    ],
)
def test_the_names_of_the_labels_decide(
    tmp_path: Path, names: list[str], settings: Any, expected: list[int]
) -> None:
    assert classes(configured(tmp_path, class_label(names), **settings)) == expected


@pytest.mark.parametrize(
    ("names", "settings", "message"),
    [
        (
            ["clickbait", "news"],
            BOTH,
            r"\(0 is clickbait, 1 is news\), and clickbait_values and news_values say the opposite",
        ),
        (
            ["no", "yes"],
            {},
            r"h\.parquet: the column \"clickbait\" names its labels \(0 is no, 1 is yes\): say which is "
            r"which",
        ),
        (["other", "clickbait"], {}, "say which is which with --clickbait-values and --news-values"),
    ],
)
def test_names_that_do_not_say_it_are_asked_for(
    tmp_path: Path, names: list[str], settings: Any, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        classes(configured(tmp_path, class_label(names), **settings))


class Stream(list[dict[str, Any]]):
    """Keeps of a stream of the hub that it has rows and knows its features."""

    def __init__(self, rows: list[dict[str, Any]], features: dict[str, Any] | None) -> None:
        super().__init__(rows)
        self.features = features


@pytest.mark.parametrize(
    ("names", "expected"), [(["clickbait", "news"], [1, 0]), (["news", "clickbait"], [0, 1]), (None, [0, 1])]
)
def test_the_hub_s_names_decide_too(
    monkeypatch: pytest.MonkeyPatch, names: list[str] | None, expected: list[int]
) -> None:
    import datasets

    rows = [{"headline": "a", "clickbait": 0}, {"headline": "b", "clickbait": 1}]
    features = (
        None
        if names is None
        else {"clickbait": datasets.ClassLabel(names=names), "headline": datasets.Value("string")}
    )
    monkeypatch.setattr(sources, "_pin", lambda source: "hf:owner/name:train@c0ffee")
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: Stream(rows, features))
    assert classes(PreprocessConfig(source="hf:owner/name")) == expected


@pytest.mark.parametrize("column", ["label", "class", "target", "non_clickbait", "is_not_clickbait"])
@pytest.mark.parametrize("value", ["1", "0.0", "True"])
def test_numbers_in_a_column_that_does_not_say_what_they_mean_are_asked_for(
    tmp_path: Path, column: str, value: str
) -> None:
    config = configured(
        tmp_path, f"headline,{column}\na,news\nb,{value}\n".encode(), "h.csv", label_column=column
    )
    with pytest.raises(
        DataError,
        match=f'the column "{column}" says {value}, and nothing says what that means: add --clickbait-values 1',
    ):
        sources.check(sources.pieces(config), config)
    with pytest.raises(DataError, match="nothing says what that means"):  # beyond the first rows too
        classes(config)


@pytest.mark.parametrize(
    "column", ["clickbait", "is_clickbait", "Clickbait?", "isClickbait", "annotated-clickbait"]
)
def test_a_column_that_is_called_clickbait_says_what_its_numbers_mean(tmp_path: Path, column: str) -> None:
    config = configured(tmp_path, f"headline,{column}\na,1\nb,0\n".encode(), "h.csv", label_column=column)
    sources.check(sources.pieces(config), config)
    assert classes(config) == [1, 0]


def test_words_and_given_numbers_need_no_name(tmp_path: Path) -> None:
    assert classes(
        configured(tmp_path, b"headline,label\na,Clickbait\nb,news\n", "h.csv", label_column="label")
    ) == [1, 0]
    given = {"clickbait_values": ("0",), "news_values": ("1",)}
    assert classes(
        configured(tmp_path, b"headline,label\na,0\nb,1\n", "h.csv", label_column="label", **given)
    ) == [1, 0]


def test_what_a_transfer_set_leaves_out_is_counted_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [
        "Kept,1",
        "KEPT!,1",
        "Both ways,1",
        "both WAYS,0",
        "Both ways.,1",
        "Doubtful,maybe",
        "Other,unsure",
        "broken",
        "News,0",
    ]
    (tmp_path / "h.csv").write_text("\n".join(["headline,clickbait", *rows]))
    with caplog.at_level(logging.WARNING):
        found = read_labelled(TransferConfig(transfer=str(tmp_path / "h.csv")))
    assert found.table.select(["headline", "label"]).to_pylist() == [
        {"headline": "Kept", "label": 1},
        {"headline": "News", "label": 0},
    ]
    assert found.left_out == {"conflicting_labels": 3, "unknown_label": 2, "malformed_row": 1, "duplicate": 1}
    assert found.table.num_rows + sum(found.left_out.values()) == len(rows), "every row is accounted for"
    assert (
        "6 rows are left out: 3 conflicting_labels, 2 unknown_label, 1 malformed_row (its labels: 'maybe', "
        "'unsure')" in caplog.text
    )


def test_a_transfer_set_of_other_labels_says_which(tmp_path: Path) -> None:
    (tmp_path / "h.csv").write_text("headline,label\na,yes\nb,no\n")
    config = TransferConfig(transfer=str(tmp_path / "h.csv"), label_column="label")
    with pytest.raises(
        DataError,
        match=r"no row has a headline and a known label: 2 unknown_label \(its labels: 'yes', 'no'\)",
    ):
        read_labelled(config)
    told = config.model_copy(update={"clickbait_values": ("yes",), "news_values": ("no",)})
    assert read_labelled(told).table["label"].to_pylist() == [1, 0]
