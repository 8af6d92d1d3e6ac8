"""Every kind of model goes the same way: trained, exported, evaluated, judged, published, served. And one
teaches another.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from clickbait.config import EvaluateConfig, ExportConfig, PromoteConfig, TrainConfig
from clickbait.data import soft_labels as softlabels
from clickbait.data.dataset import open_dataset
from clickbait.errors import DataError
from clickbait.inference.scorer import Scorer
from clickbait.models import load as modeling
from clickbait.training.batches import Headlines
from clickbait.training.export import torch_margins
from clickbait.training.runs import Run
from ray_jobs.evaluate import evaluate
from ray_jobs.export import export
from ray_jobs.promote import promote
from ray_jobs.train import train
from serve.core.service import Service
from serve.http.api import create_app
from serve.settings import load
from tests.conftest import Cluster
from tests.integration.test_jobs import GATE
from tests.tiny import tiny_bundle
from tuning.distil import DistilConfig, distil, soft_labels

KINDS: dict[str, dict[str, Any]] = {
    "ngrams": {"model": "scratch:ngrams", "hidden": 32, "buckets": 4096, "lr": 5e-3},
    "transformer": {"model": "scratch:transformer", "hidden": 32, "layers": 1, "lr": 2e-3},
    "cut down": {"layers": 1, "buckets": 4096, "lr": 2e-3},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_goes_from_training_to_an_answer(
    kind: str, ray_cluster: Cluster, tmp_path: Path, tiny_encoder: Path, small_dataset: str
) -> None:
    config = TrainConfig(
        **({"model": str(tiny_encoder), "epochs": 4, "augment": 0.3, "label_smoothing": 0.05} | KINDS[kind]),
        dataset=small_dataset,
        output=str(tmp_path / "runs"),
        num_workers=0,
        progress=False,
    )
    bundle = str(tmp_path / "bundle")
    export(ExportConfig(run=train(config), dataset=small_dataset, output=bundle))
    found = evaluate(EvaluateConfig(bundle=bundle, dataset=small_dataset, num_workers=0))
    assert found["test"]["accuracy"] > 0.8
    assert found["flips"]["lower"] == 0.0, "the tokenizer folds the case"
    assert found["export"]["int8"]["agreement"] > 0.97
    assert found["behaviour"]["cases"] >= 100
    (tmp_path / "gate.yaml").write_text(GATE)
    registry = str(tmp_path / "registry")
    outcome = promote(
        PromoteConfig(
            bundle=bundle, dataset=small_dataset, registry=registry, gate_file=str(tmp_path / "gate.yaml")
        )
    )
    assert outcome.decision == "promoted"
    settings = load(registry=registry, model="production")
    service = Service(settings)
    service.load()
    with TestClient(create_app(service, settings)) as client:
        answer = client.post("/classify", json={"text": "17 Things You Will Never Believe"}).json()
    assert answer["model"] == "v1"
    assert answer["score"] == pytest.approx(
        float(Scorer(Path(bundle)).score(["17 Things You Will Never Believe"])[0]), abs=1e-5
    )


@pytest.fixture(scope="module")
def taught(
    ray_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory, small_dataset: str
) -> DistilConfig:
    """A student of a tiny teacher, trained over Ray Data and the training job."""
    folder = tmp_path_factory.mktemp("distil")
    (folder / "more.csv").write_text("title\nA headline that nobody labelled\nAnother one of them\n\n")
    teacher = tiny_bundle(folder / "teacher")
    config = DistilConfig(
        teachers=(str(teacher),),
        crossed=1,
        cut=1,
        generated=50,
        seed=7,
        unlabelled=str(folder / "more.csv"),
        headline_column="title",
        output=str(folder / "soft"),
        scorers=1,
        train=TrainConfig(
            model="scratch:ngrams", hidden=16, buckets=1024, lr=1e-2, epochs=6, dataset=small_dataset, output=str(folder / "runs"),
            num_workers=0, progress=False,
        ),
    )  # fmt: skip
    distil(config)
    return config


def test_a_student_learns_what_its_teacher_says(taught: DistilConfig, small_dataset: str) -> None:
    dataset = open_dataset(small_dataset)
    soft = softlabels.open_soft(soft_labels(taught, dataset), dataset).table(
        ["headline", "label", "margin", "origin"]
    )
    with_label = soft.filter(soft["origin"].to_numpy() == "train")
    assert with_label["headline"].to_pylist() == dataset.table("train", ["headline"])["headline"].to_pylist()
    origins = soft["origin"].to_pylist()
    assert set(origins) == {"train", "crossed", "cut", "generated", "unlabelled"}
    assert origins.count("unlabelled") == 2
    assert {
        label for label, origin in zip(soft["label"].to_pylist(), origins, strict=True) if origin != "train"
    } == {-1}
    scores = Scorer(Path(taught.teachers[0])).score(soft["headline"].to_pylist())
    np.testing.assert_allclose(1 / (1 + np.exp(-soft["margin"].to_numpy())), scores, atol=1e-4)
    run = Run(f"{taught.train.output}/{taught.train.name}")
    rows = Headlines(
        softlabels.open_soft(soft_labels(taught, dataset), dataset).table(["input_ids", "label", "margin"])
    )
    with run.fetch(str(run.best())) as checkpoint:
        margins = torch_margins(modeling.load_checkpoint(checkpoint), rows)
    assert np.corrcoef(margins, rows.margins)[0, 1] > 0.6


def test_no_held_out_headline_is_taught(taught: DistilConfig, small_dataset: str) -> None:
    from clickbait.text import key

    dataset = open_dataset(small_dataset)
    soft = softlabels.open_soft(soft_labels(taught, dataset), dataset)
    held_out = {
        name for split in ("validation", "test") for name in dataset.table(split, ["key"])["key"].to_pylist()
    }
    keys = [key(text) for text in soft.table(["headline"])["headline"].to_pylist()]
    assert not held_out & set(keys)
    assert len(set(keys)) == len(keys)


def test_soft_labels_are_computed_once(
    taught: DistilConfig, small_dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def again(*given: Any, **others: Any) -> Any:
        raise AssertionError("scored again")

    monkeypatch.setattr("tuning.distil.score_texts", again)
    run = distil(taught)
    assert json.loads((Path(run) / "run.json").read_text())["config"]["soft_labels"] in soft_labels(
        taught, open_dataset(small_dataset)
    )
    with pytest.raises(AssertionError, match="scored again"):
        soft_labels(taught.model_copy(update={"crossed": 0}), open_dataset(small_dataset))


def test_a_teacher_of_other_labels_is_one_clear_line(taught: DistilConfig, tmp_path: Path) -> None:
    other = tiny_bundle(tmp_path / "other", labels=("ham", "spam"))
    with pytest.raises(
        DataError,
        match=r"the teacher's labels are ham and spam, the dataset's news and clickbait: give a teacher",
    ) as caught:
        distil(taught.model_copy(update={"teachers": (str(other),)}))
    assert "\n" not in str(caught.value)
