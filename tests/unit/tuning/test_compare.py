"""The comparison: one code measures everybody on one test split, all take turns in the timing, and hostile
names stay text.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clickbait.cli import parse
from clickbait.config import PreprocessConfig, validate
from clickbait.errors import BundleError, ClickbaitError, ConfigError, DataError
from clickbait.registry import model_card
from tests.conftest import ROOT
from tests.tiny import BAIT, NEUTRAL, NEWS, tiny_bundle
from tests.unit.data.test_dataset import build
from tests.unit.reports.test_report import Page
from tuning.compare import __main__ as compare
from tuning.compare import page as compare_page
from tuning.compare import references
from tuning.compare.config import CompareConfig

HOSTILE = '<script>alert(1)</script> | $\\frac{ & "q" {{ 7 }} font-family: '
FILES = {
    "behaviour_file": str(ROOT / "configs" / "behaviour.yaml"),
    "gate_file": str(ROOT / "configs" / "gate.yaml"),
}


def headlines(path: Path, rows: int, seed: int) -> Path:
    """A file of headlines in the words that the tiny bundle knows."""
    rng = np.random.default_rng(seed)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["headline", "clickbait"])
        for at in range(rows):
            words = [
                *rng.choice(NEUTRAL, 3),
                *rng.choice(BAIT if at % 2 else NEWS, 2),
                f"case{at + 1000 * seed}",
            ]
            writer.writerow([" ".join(rng.permutation(words)), at % 2])
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compare")


@pytest.fixture(scope="module")
def datasets(folder: Path) -> dict[str, str]:
    """One source: as it is, with headlines cut earlier (another fingerprint, the same splits), and with a
    larger test split.
    """
    source = str(headlines(folder / "h.csv", 300, 0))
    changes: dict[str, dict[str, Any]] = {
        "own": {},
        "cut": {"max_tokens": 32},
        "split": {"test_fraction": 0.2},
    }
    return {
        name: build(PreprocessConfig(source=source, output=str(folder / "datasets"), partitions=2, **change))
        for name, change in changes.items()
    }


@pytest.fixture(scope="module")
def bundles(folder: Path, datasets: dict[str, str]) -> dict[str, str]:
    """A tiny bundle trained on each dataset, the first with a metrics document."""
    found = {name: tiny_bundle(folder / name, dataset=uri[-16:]) for name, uri in datasets.items()}
    document = {
        "model": {"parameters": 112},
        "history": [{"seconds": 1.5}, {"seconds": 2.0}],
        "export": {"int8": {"agreement": 0.5}},
    }
    (found["own"] / "metrics.json").write_text(json.dumps(document))
    model_card.bundle.amend(found["own"])
    return {name: str(path) for name, path in found.items()}


def configured(datasets: dict[str, str], models: list[dict[str, Any]], **changes: Any) -> CompareConfig:
    return validate(CompareConfig, {"dataset": datasets["own"], "models": models, **FILES, **changes}, "test")


@pytest.fixture(scope="module")
def compared(
    folder: Path, datasets: dict[str, str], bundles: dict[str, str]
) -> tuple[list[dict[str, Any]], Path]:
    models = [
        {"name": HOSTILE, "bundle": bundles["own"]},
        {"name": "cut", "bundle": bundles["cut"], "dataset": datasets["cut"], "seconds": 60},
    ]
    output = folder / "out"
    transfer = str(headlines(folder / "other <b>.csv", 40, 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, "HEADLINES", 64)
        rows = compare.compare(configured(datasets, models, transfer=transfer, output=str(output)))
    return rows, output


def test_every_model_has_a_row_of_the_same_figures(compared: tuple[list[dict[str, Any]], Path]) -> None:
    rows, output = compared
    assert [row["name"] for row in rows] == [HOSTILE, "cut", *references.NAMES]
    assert [row["reference"] for row in rows] == [False, False, True, True]
    one, other, cased, lower = rows
    assert all(row.keys() == one.keys() for row in rows)
    same = ("accuracy", "flips", "transfer_auc", "transfer_lower", "ece", "behaviour", "size_mb")
    assert [one[name] for name in same] == [
        other[name] for name in same
    ]  # the same weights on the same headlines
    best = max(rows, key=lambda row: row["accuracy"])
    assert best["beside_best"] is None
    for row in rows:
        if row is not best:
            pair = row["beside_best"]
            assert pair["best"] == best["name"]
            lost = pair["only_best_right"] - pair["only_this_right"]
            assert lost / 30 == pytest.approx(best["accuracy"] - row["accuracy"])
            assert 0.0 < pair["p_value"] <= 1.0
    assert (one["parameters"], one["seconds"]) == (112, 3.5)
    assert (other["parameters"], other["seconds"]) == (None, 60)
    assert one["size_mb"] == (output.parent / "own" / "model.onnx").stat().st_size / 1e6
    assert "int8_agreement" in one["failed"]  # of its own metrics document
    assert "int8_agreement" not in other["failed"]
    for row in rows:
        assert row["accuracy"] > 0.9
        assert row["per_second"] > 0
        assert row["latency_ms"] > 0
        assert (row["verdict"]["decision"] == "refused") == bool(row["failed"])
    assert cased["parameters"] > 0
    assert lower["flips"]["lower"] == 0.0


def test_what_is_written_says_the_same(compared: tuple[list[dict[str, Any]], Path]) -> None:
    rows, output = compared
    assert sorted(path.name for path in output.iterdir() if not path.name.startswith(".")) == [
        "compare.json",
        "compare.md",
        "index.html",
    ]
    document = json.loads((output / "compare.json").read_text())
    assert document["models"] == rows
    assert document["transfer"] == "other <b>.csv"
    lines = (output / "compare.md").read_text().splitlines()
    assert len(lines) == 2 + len(rows)
    assert {line.count(" | ") for line in lines} == {len(compare_page.COLUMNS)}  # no name ends a cell
    assert "<script" not in "".join(lines)
    page = Page((output / "index.html").read_text())
    for row in rows:
        assert all(cell in page.text for cell in compare_page.cells(row))
    terminal = compare_page.terminal(rows)
    assert len(terminal.splitlines()) == len(compare_page.COLUMNS)
    assert len({len(line) for line in terminal.splitlines()}) == 1


def test_hostile_names_stay_text_and_the_page_asks_for_nothing(
    compared: tuple[list[dict[str, Any]], Path],
) -> None:
    html = (compared[1] / "index.html").read_text()
    page = Page(html)
    assert "<script" not in html
    assert page.text.count(HOSTILE) == 3  # the table and both plots, to the letter
    assert page.open == []
    assert "LABEL" not in html
    assert html.count("<svg") == 2
    assert all(address.startswith("#") for address in page.addresses)
    assert len(page.ids) == len(set(page.ids))
    assert not set(page.tags) & {"script", "link", "img", "iframe", "object", "embed", "base", "form", "b<"}
    assert "default-src 'none'" in html


def test_without_a_transfer_set_there_is_one_plot(compared: tuple[list[dict[str, Any]], Path]) -> None:
    rows = [{**row, "transfer_auc": None, "transfer_lower": None} for row in compared[0]]
    document = {
        "dataset": "0",
        "synthetic": True,
        "test_rows": 1,
        "transfer": None,
        "threads": 1,
        "models": rows,
    }
    html = compare_page.render(document)
    assert html.count("<svg") == 1
    assert "Synthetic headlines." in html


def test_the_frontier_is_what_nothing_beats() -> None:
    points = [(1.0, 0.9), (2.0, 0.8), (2.0, 0.7), (3.0, 0.8), (4.0, 0.1), (0.5, 0.9)]
    for more in (True, False):
        found = compare_page.frontier(points, more=more)
        for x, y in points:
            beaten = any((a >= x if more else a <= x) and b >= y and (a, b) != (x, y) for a, b in points)
            assert ((x, y) in found) == (not beaten)
    assert compare_page.frontier([], more=True) == []


def test_models_take_turns_and_a_slow_one_gets_fewer_headlines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "HEADLINES", 64)
    calls: list[str] = []

    def scorer(name: str) -> compare.Score:
        def score(texts: list[str]) -> np.ndarray:
            assert len(texts) == 16
            calls.append(name)
            return np.zeros(16)

        return score

    found = compare.interleaved(
        {name: scorer(name) for name in "abc"}, ["x"] * 10, {"a": 9000.0, "b": 250.0, "c": 0.1}
    )
    assert set(found) == set("abc")
    assert "".join(calls) == "abc" + compare.ROUNDS * "aaaabbc"  # a warm-up each, then rounds


@pytest.mark.parametrize(
    ("models", "changes", "error", "told"),
    [
        ([{"name": "x", "bundle": "nowhere/bundle"}], {}, BundleError, "no bundle there"),
        (
            [{"name": "x", "bundle": "own"}, {"name": "x", "bundle": "cut"}],
            {},
            ConfigError,
            'two are named "x"',
        ),
        ([{"name": references.CASED, "bundle": "own"}], {}, ConfigError, "two are named"),
        ([{"name": "a\nb", "bundle": "own"}], {}, ConfigError, "models.0.name"),
        ([{"name": "x", "bundle": "own", "sedonds": 1}], {}, ConfigError, "models.0.sedonds: unknown key"),
        (
            [{"name": "x", "bundle": "own"}],
            {"treads": 1},
            ConfigError,
            'treads: unknown key; did you mean "threads"?',
        ),
        ([], {"references": False}, ConfigError, "nothing to compare"),
        ([{"name": "x", "bundle": "cut"}], {}, DataError, "give its own dataset"),
        ([{"name": "x", "bundle": "split", "dataset": "split"}], {}, DataError, "have different test splits"),
        ([{"name": "x", "bundle": "own"}], {"gate_file": "nowhere.yaml"}, ConfigError, "cannot be read"),
    ],
)
def test_bad_input_is_told_in_one_line(
    models: list[dict[str, Any]],
    changes: dict[str, Any],
    error: type[ClickbaitError],
    told: str,
    datasets: dict[str, str],
    bundles: dict[str, str],
    tmp_path: Path,
) -> None:
    entries = [{**entry, "bundle": bundles.get(entry["bundle"], entry["bundle"])} for entry in models]
    entries = [
        {**entry, "dataset": datasets[entry["dataset"]]} if "dataset" in entry else entry for entry in entries
    ]
    with pytest.raises(error) as caught:
        compare.compare(configured(datasets, entries, output=str(tmp_path / "out"), **changes))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_the_projects_own_configuration_parses_and_flags_win() -> None:
    config = parse(
        CompareConfig,
        ["--config", str(ROOT / "configs" / "compare.yaml"), "--models.0.name", "ours", "--no-references"],
    )
    assert [entry.name for entry in config.models] == ["ours"]
    assert not config.references
