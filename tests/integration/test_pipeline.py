"""The pipeline in one process: its summary, its second run, what the gate does to it, and what a real
headline set gives.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clickbait.config import (
    EvaluateConfig,
    ExportConfig,
    PipelineConfig,
    PreprocessConfig,
    PromoteConfig,
    TrainConfig,
)
from clickbait.data.dataset import Dataset, open_dataset
from clickbait.errors import BundleError, ConfigError, DataError, PortInUse, Refused
from clickbait.evaluation import behaviour, metrics
from clickbait.inference.scorer import Scorer
from clickbait.registry import workspace
from clickbait.registry.registry import Registry
from clickbait.training import export as exporting
from clickbait.training.batches import Headlines
from clickbait.training.loop import Place, fit
from clickbait.training.runs import Run
from ray_jobs import pipeline as pipeline_job
from ray_jobs.evaluate import evaluate
from ray_jobs.export import export
from ray_jobs.pipeline import pipeline
from ray_jobs.preprocess import preprocess
from ray_jobs.promote import promote
from tests.conftest import Cluster, free_port
from tests.integration.test_jobs import GATE
from tests.unit.data.test_dataset import build

OWED = (
    "rows_in rows_kept rows_duplicate rows_quarantined accuracy auc flip_lower flip_punctuation ece "
    "int8_agreement"
)
OWED += " gate version answers seconds"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> PipelineConfig:
    """The demo's shape with a tiny encoder, trained in process."""
    folder = tmp_path_factory.mktemp("pipeline")
    (folder / "gate.yaml").write_text(GATE)
    return PipelineConfig(
        work=str(folder / "work"),
        port=free_port(),
        preprocess=PreprocessConfig(sample_size=600, partitions=2),
        train=TrainConfig(model=str(tiny_encoder), epochs=8, lr=2e-3, num_workers=0, progress=False),
        evaluate=EvaluateConfig(num_workers=0),
        promote=PromoteConfig(gate_file=str(folder / "gate.yaml")),
    )


@pytest.fixture(scope="module")
def summary(ray_cluster: Cluster, config: PipelineConfig) -> dict[str, Any]:
    """The first run."""
    return pipeline(config)


def test_the_summary_holds_what_is_owed(summary: dict[str, Any], config: PipelineConfig) -> None:
    assert json.loads((Path(config.work) / "summary.json").read_text()) == summary
    assert set(OWED.split()) <= summary.keys()
    assert (
        summary["rows_in"]
        == summary["rows_kept"] + summary["rows_duplicate"] + summary["rows_quarantined"]
        == 600
    )
    assert summary["gate"] == "promoted"
    assert summary["version"] == "v1"
    assert summary["synthetic"] is True
    assert set(summary["seconds"]) > {
        "preprocess",
        "train",
        "export",
        "evaluate",
        "gate and publish",
        "serve",
        "score over HTTP",
    }


def test_the_server_answered_with_the_published_model(
    summary: dict[str, Any], config: PipelineConfig
) -> None:
    scorer = Scorer(Registry(f"{config.work}/registry").fetch("production"))
    assert len(summary["answers"]) == 5
    for answer in summary["answers"]:
        assert answer["model"] == "v1"
        assert answer["score"] == pytest.approx(float(scorer.score([answer["text"]])[0]), abs=1e-5)
        assert answer["label"] == scorer.label(answer["score"])


def test_the_report_is_one_page_of_its_own(summary: dict[str, Any]) -> None:
    page = Path(summary["report"]).read_text()
    assert "Synthetic headlines" in page
    assert 'src="http' not in page
    assert 'href="http' not in page
    assert "Learning curves" in page


def test_the_behaviour_is_in_what_is_published_and_the_gate_read_it(
    summary: dict[str, Any], config: PipelineConfig
) -> None:
    folder = Registry(f"{config.work}/registry").fetch("production")
    document = json.loads((folder / "metrics.json").read_text())
    found = document["behaviour"]
    assert (
        found["cases"]
        == len(behaviour.load(config.evaluate.behaviour_file))
        == sum(kind["cases"] for kind in found["kinds"].values())
    )
    assert found["cases"] - found["passed"] == len(found["failed"])
    rates = {f"behaviour_{kind}": shares["rate"] for kind, shares in found["kinds"].items()}
    assert rates.items() <= {check["name"]: check["value"] for check in document["verdict"]["checks"]}.items()
    told = f"{found['passed']} of {found['cases']} cases"
    assert told in (folder / "report.html").read_text()
    assert told in (folder / "README.md").read_text()


def test_the_bundle_is_exported_as_torch_computes_it(summary: dict[str, Any], config: PipelineConfig) -> None:
    document = json.loads((Path(config.work) / "bundle" / "metrics.json").read_text())
    assert document["export"]["fp32"]["agreement"] == 1.0
    assert document["export"]["fp32"]["max_difference"] < 1e-4
    assert document["export"]["int8"]["agreement"] >= 0.95


def test_ray_actors_score_as_the_process_does(
    ray_cluster: Cluster, summary: dict[str, Any], config: PipelineConfig
) -> None:
    from ray_jobs.scoring import score_texts

    texts = [f"Headline number {number} of a city council" for number in range(700)] + [
        "Headline number 3 of a city council"
    ]
    bundle = f"{config.work}/bundle"
    here, there = (score_texts(bundle, texts, num_workers=workers, threads=1) for workers in (0, 2))
    assert here[3] == here[-1]
    np.testing.assert_allclose(
        here, there, atol=0.05
    )  # int8 activations are scaled batch by batch: the last digits differ


def test_a_second_candidate_is_compared_with_the_champion(
    summary: dict[str, Any], config: PipelineConfig, tmp_path: Path
) -> None:
    registry = f"{config.work}/registry"
    base = config.promote.model_copy(
        update={
            "bundle": f"{config.work}/bundle",
            "dataset": f"{config.work}/datasets/latest",
            "registry": registry,
        }
    )
    # the same model is as fast as itself: half of its latency is too much to ask
    slow = tmp_path / "slow.yaml"
    slow.write_text(GATE.rstrip().removesuffix("}") + ", max_latency_ratio: 0.5}\n")
    refused = promote(base.model_copy(update={"gate_file": str(slow)}))
    assert refused.decision == "refused"
    assert [item["name"] for item in (refused.verdict or {})["checks"] if not item["passed"]] == [
        "latency_vs_champion"
    ]
    assert Registry(registry).versions() == ["v1"]

    loose = tmp_path / "loose.yaml"  # two processes' noise on a small machine is no part of this test
    loose.write_text(GATE.rstrip().removesuffix("}") + ", max_latency_ratio: 1000.0}\n")
    promoted = promote(base.model_copy(update={"gate_file": str(loose)}))
    assert (promoted.decision, promoted.version) == ("promoted", "v2")
    assert (promoted.verdict or {})["champion"] == "v1"
    assert Registry(registry).resolve("production") == "v2"

    back = promote(base.model_copy(update={"rollback": True}))
    assert (back.decision, back.version) == ("rolled back", "v1")
    again = promote(base.model_copy(update={"version": "v2", "gate_file": str(loose)}))
    assert (again.decision, Registry(registry).resolve("production")) == ("promoted", "v2")


def test_a_port_in_use_ends_it_before_anything_is_done(config: PipelineConfig, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(PortInUse, match="somebody listens there"):
            pipeline(
                config.model_copy(update={"port": taken.getsockname()[1], "work": str(tmp_path / "work")})
            )
    assert not (tmp_path / "work").exists()


def test_what_the_last_steps_read_is_looked_at_before_training(
    config: PipelineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "h.csv"
    source.write_text(
        "headline,clickbait\n" + "".join(f"Headline number {row},{row % 2}\n" for row in range(60))
    )
    dataset = build(PreprocessConfig(source=str(source), output=str(tmp_path / "datasets"), partitions=1))
    monkeypatch.setattr(pipeline_job.session, "connect", lambda: None)
    monkeypatch.setattr(pipeline_job.preprocess, "preprocess", lambda _: dataset)
    monkeypatch.setattr(pipeline_job.train, "train", lambda _: pytest.fail("trained"))
    config = config.model_copy(update={"port": 0, "work": str(tmp_path / "work")})
    with pytest.raises(DataError, match="nowhere"):
        pipeline(config.model_copy(update={"transfer": str(tmp_path / "nowhere.csv")}))
    with pytest.raises(ConfigError, match=r"cases\.yaml"):
        pipeline(config.model_copy(update={"evaluate": EvaluateConfig(behaviour_file="cases.yaml")}))
    with pytest.raises(ConfigError, match=r"bounds\.yaml"):
        pipeline(config.model_copy(update={"promote": PromoteConfig(gate_file="bounds.yaml")}))


def test_only_a_refusal_is_a_refusal(config: PipelineConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--promote.publish-only` moves no alias because nobody asked for it."""
    for decision in ("promoted", "published"):
        monkeypatch.setattr(pipeline_job, "pipeline", lambda _, decision=decision: {"gate": decision})
        pipeline_job.main(config)
    monkeypatch.setattr(pipeline_job, "pipeline", lambda _: {"gate": "refused", "failed_checks": ["ece"]})
    with pytest.raises(Refused, match="ece"):
        pipeline_job.main(config)


def test_the_table_tells_what_a_transfer_set_leaves_out_and_which_checks_failed() -> None:
    counts = dict.fromkeys(("rows_in", "rows_kept", "rows_duplicate", "rows_quarantined"), 1)
    figures = dict.fromkeys(
        ("accuracy", "auc", "transfer_auc", "ece", "flip_lower", "flip_punctuation", "int8_agreement")
    )
    rest = {"synthetic": False, "version": None, "answers": [], "seconds": {}, "report": "report.html"}
    verdict = {
        "gate": "refused",
        "failed_checks": ["accuracy_vs_best"],
        "transfer_left_out": {"unknown_label": 4100},
    }
    lines = pipeline_job.table({**counts, **figures, **rest, **verdict}).splitlines()
    assert "transfer set       4,100 rows left out: 4,100 unknown_label" in lines
    assert "gate               refused (accuracy_vs_best)" in lines


def test_a_changed_byte_stops_the_evaluation(
    summary: dict[str, Any], config: PipelineConfig, tmp_path: Path
) -> None:
    copy = str(tmp_path / "copy")
    with workspace.existing(f"{config.work}/bundle") as whole, workspace.new(copy) as folder:
        for file in whole.iterdir():
            if file.is_file():
                (folder / file.name).write_bytes(file.read_bytes())
    model = Path(copy) / "model.onnx"
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(data)
    with pytest.raises(BundleError, match=r"model.onnx: its SHA-256"):
        evaluate(EvaluateConfig(bundle=copy, dataset=f"{config.work}/datasets/latest", num_workers=0))


def test_real_headlines_minilm_learns_in_a_minute(
    ray_cluster: Cluster, data_dir: Path, tmp_path: Path
) -> None:
    """A quarter of an epoch of the real model on the real headlines, exported and measured, on both sets."""
    dataset = preprocess(
        PreprocessConfig(
            source=str(data_dir / "stop-clickbait" / "clickbait_data.csv"), output=str(tmp_path / "datasets")
        )
    )
    counts = open_dataset(dataset).manifest["counts"]
    assert (counts["in"], counts["kept"], counts["duplicates"]) == (32_000, 31_998, 2)

    config = TrainConfig(
        dataset=dataset,
        output=str(tmp_path / "runs"),
        num_workers=0,
        max_steps=100,
        warmup_fraction=0.1,
        progress=False,
    )
    fit(config, open_dataset(dataset), Place(), lambda metrics, checkpoint: None)
    run = f"{config.output}/{config.name}"
    assert Run(run).read_json("done.json")
    bundle = export(ExportConfig(run=run, dataset=dataset, output=str(tmp_path / "bundle")))
    transfer = str(data_dir / "peterldowns")
    found = evaluate(EvaluateConfig(bundle=bundle, dataset=dataset, transfer=transfer, num_workers=2))
    assert found["test"]["accuracy"] > 0.96
    assert found["transfer"]["auc"] > 0.97
    assert found["flips"]["lower"] < 0.01
    assert found["export"]["int8"]["agreement"] > 0.99


def test_torch_and_onnx_read_the_same_tokens(summary: dict[str, Any], config: PipelineConfig) -> None:
    """The dataset's tokens, cut by Ray Data, through torch; the text through the scorer's own tokenizer and
    ONNX.
    """
    from clickbait.models.load import load_checkpoint

    dataset = open_dataset(f"{config.work}/datasets/latest")
    table = dataset.table("test")
    folder = Path(config.work) / "bundle"
    scorer = Scorer(folder, runtime="fp32")
    expected = metrics.probabilities(
        exporting.torch_margins(load_checkpoint(folder), Headlines(table)), scorer.manifest.temperature
    )
    found = scorer.score(table["headline"].to_pylist())
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_new_setting_renames_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = Dataset("nowhere", {"fingerprint": "f00d"})
    before = pipeline_job.run_name(TrainConfig(lr=3e-4), dataset)
    described = pipeline_job.description

    def with_a_new_setting(config: TrainConfig, dataset: Dataset) -> dict[str, Any]:
        document = described(config, dataset)
        return {**document, "config": {**document["config"], "new": None}}

    monkeypatch.setattr(pipeline_job, "description", with_a_new_setting)
    assert pipeline_job.run_name(TrainConfig(lr=3e-4), dataset) == before
    assert pipeline_job.run_name(TrainConfig(lr=4e-4), dataset) != before
