"""Bundles, registries and datasets that earlier commits wrote still load (tests/golden/README.md)."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest

from clickbait.config import PreprocessConfig
from clickbait.data import dataset, sources
from clickbait.data.dataset import open_dataset
from clickbait.inference.scorer import Scorer
from clickbait.registry import bundle
from clickbait.registry.registry import Registry
from clickbait.sample import generate
from tests.conftest import ROOT

GOLDEN = ROOT / "tests" / "golden"
COMMITS = sorted(path.name for path in GOLDEN.iterdir() if path.is_dir())
FINGERPRINTS = {"9c586d5": "b9ef0197c28740d5"}
TEXTS = ["you won't believe the secret trick", "council approves the budget"]
SCORES = {"9c586d5": [0.9994206, 0.0084673]}


@pytest.fixture(params=COMMITS)
def commit(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The commit's name; its files are copied to `tmp_path`, since readers make lock files."""
    shutil.copytree(GOLDEN / request.param, tmp_path, dirs_exist_ok=True)
    return str(request.param)


def test_a_bundle_is_verified_and_scores_as_it_did(commit: str, tmp_path: Path) -> None:
    bundle.verify(tmp_path / "bundle")
    assert Scorer(tmp_path / "bundle").score(TEXTS).tolist() == pytest.approx(SCORES[commit], abs=1e-5)


def test_a_registry_is_read_and_written(commit: str, tmp_path: Path) -> None:
    registry = Registry(str(tmp_path / "registry"))
    assert registry.resolve("production") == registry.resolve("latest") == "v1"
    assert bundle.read_manifest(registry.fetch("production")).version == "v1"
    version = registry.publish(tmp_path / "bundle")
    assert version == "v2"
    registry.set_alias(version, "production", expect="v1")
    assert registry.rollback("production") == "v1"


def test_a_dataset_is_read(commit: str, tmp_path: Path) -> None:
    data = open_dataset(str(tmp_path / "datasets" / "latest"))
    assert data.fingerprint == FINGERPRINTS[commit]
    counts = data.manifest["counts"]
    assert (counts["in"], counts["kept"], counts["quarantined"]) == (61, 60, 1)
    headlines = [text for split in counts["splits"] for text in data.table(split)["headline"].to_pylist()]
    assert sorted(headlines) == sorted(text for text, _ in generate(60, 3))


def test_the_same_source_has_the_same_fingerprint(
    commit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Path("headlines.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["headline", "clickbait"])
        writer.writerows(generate(60, 3))
        writer.writerow(["", "1"])
    config = PreprocessConfig(source="headlines.csv", partitions=1, max_tokens=32)
    tokenizer = (tmp_path / "bundle" / "tokenizer.json").read_bytes()
    head = dataset.identify(config, sources.pieces(config), tokenizer)
    assert head["fingerprint"] == FINGERPRINTS[commit]
