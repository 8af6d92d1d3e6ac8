"""One small, seeded run on a CPU for each recipe of configs/models: its loss curve stays what it was.

The tolerance is 2%: another CPU sums in another order. `best` needs 440 MB of weights that are not
here, and trains as `minilm` does. Of the recipes that a teacher supervises, the run is the student's on labels.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from clickbait.config import PreprocessConfig, TrainConfig, read_yaml
from clickbait.data.dataset import open_dataset
from clickbait.training.loop import Place, fit
from clickbait.training.runs import Run
from tests.conftest import ROOT
from tests.unit.data.test_dataset import build

FILE = ROOT / "tests" / "golden" / "losses.json"
TOLERANCE = 0.02
EPOCHS = {"minilm": 2, "student": 2, "ngrams": 4, "ngrams-taught": 4, "transformer": 3}
"""An encoder of MiniLM's size takes 0.3 s a step."""
HEADLINES = 160
BUCKETS = 4096
"""Of hashed n-grams, in the recipes that have any: a table of 2**18 takes seconds to save."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URI of a dataset of synthetic headlines, cut by MiniLM's tokenizer."""
    folder = tmp_path_factory.mktemp("golden")
    return build(PreprocessConfig(sample_size=HEADLINES, output=str(folder), partitions=1))


def curve(recipe: str, dataset: str, folder: Path) -> list[dict[str, float]]:
    """Training loss and validation log loss, epoch by epoch."""
    document = read_yaml(str(ROOT / "configs" / "models" / f"{recipe}.yaml"), "")
    document = {
        **document.get("train", document),
        "dataset": dataset,
        "output": str(folder),
        "num_workers": 0,
        "epochs": EPOCHS[recipe],
        "precision": "fp32",
        "threads": 1,
        "progress": False,
    }
    if document.get("model") == "scratch:ngrams":
        document["buckets"] = BUCKETS
    config = TrainConfig.model_validate(document)
    fit(config, open_dataset(dataset), Place(), lambda metrics, checkpoint: None)
    done = Run(f"{config.output}/{config.name}").read_json("done.json")
    assert done is not None
    return [{name: epoch[name] for name in ("train_loss", "val_log_loss")} for epoch in done["history"]]


def test_every_recipe_has_a_curve() -> None:
    recipes = {path.stem for path in (ROOT / "configs" / "models").glob("*.yaml")}
    assert recipes - {"best"} == set(EPOCHS)


@pytest.mark.parametrize("recipe", sorted(EPOCHS))
def test_the_loss_curve_is_the_golden_one(recipe: str, dataset: str, tmp_path: Path) -> None:
    losses = curve(recipe, dataset, tmp_path)
    golden = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    if os.environ.get("CLICKBAIT_WRITE_GOLDEN") == "1":
        FILE.write_text(json.dumps({**golden, recipe: losses}, indent=1, sort_keys=True) + "\n", "utf-8")
        pytest.fail("the golden curve was written: run the test again without CLICKBAIT_WRITE_GOLDEN")
    assert len(losses) == len(golden[recipe])
    for now, then in zip(losses, golden[recipe], strict=True):
        assert now == pytest.approx(then, rel=TOLERANCE)
