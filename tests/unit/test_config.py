"""Configurations: YAML, then flags; what does not fit is one line that names the key; the shipped files are
valid.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from clickbait.cli import parse
from clickbait.config import (
    EvaluateConfig,
    ExportConfig,
    GateConfig,
    PipelineConfig,
    PreprocessConfig,
    PromoteConfig,
    TrainConfig,
    load,
)
from clickbait.errors import ConfigError

ROOT = Path(__file__).parents[2]
JOBS = {
    "preprocess": PreprocessConfig,
    "train": TrainConfig,
    "export": ExportConfig,
    "evaluate": EvaluateConfig,
    "promote": PromoteConfig,
    "gate": GateConfig,
    "demo": PipelineConfig,
}


@pytest.mark.parametrize("name", JOBS)
def test_shipped_files_are_valid(name: str) -> None:
    load(JOBS[name], str(ROOT / "configs" / f"{name}.yaml"))


def test_flags_win_over_yaml_and_yaml_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "train.yaml"
    file.write_text("epochs: 7\nlr: 0.01\n")
    config = parse(TrainConfig, ["--config", str(file), "--lr", "2e-5", "--max-steps", "9"])
    assert (config.epochs, config.lr, config.max_steps, config.batch_size) == (7, 2e-5, 9, 32)


def test_nested_flags(tmp_path: Path) -> None:
    assert parse(PipelineConfig, ["--train.epochs", "4"]).train.epochs == 4


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--epohs", "5"], 'did you mean "epochs"'),
        (["--epochs", "many"], "--epochs"),
        (["--epochs", "0"], "greater than or equal to 1"),
        (["--batch-size", "7", "--num-workers", "2"], "batch_size: must be a multiple"),
        (["stray"], '"stray" belongs to no flag'),
        (["--config"], "name a YAML file"),
        (["--config", "nowhere.yaml"], "nowhere.yaml: cannot be read"),
    ],
)
def test_a_command_line_that_does_not_fit_is_one_line(args: list[str], told: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse(TrainConfig, args)
    assert told.replace("_", "-") in str(error.value).replace("_", "-")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("epohs: 5", 'epohs: unknown key; did you mean "epochs"?'),
        ("epochs: [1]", "epochs: Input should be a valid integer"),
        ("- a list", "must be a mapping"),
        ("a: {", "not YAML"),
    ],
)
def test_yaml_that_does_not_fit_is_one_line(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "train.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        load(TrainConfig, str(file))
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_nested_key_is_named_with_its_path(tmp_path: Path) -> None:
    file = tmp_path / "demo.yaml"
    file.write_text("train: {epohs: 5}")
    with pytest.raises(ConfigError, match=r'train.epohs: unknown key; did you mean "train.epochs"'):
        load(PipelineConfig, str(file))


@pytest.mark.parametrize("job", ["train", "evaluate", "pipeline"])
def test_a_job_ends_a_typo_with_one_line_and_code_2(job: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"ray_jobs.{job}", "--epohs", "5"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert done.stderr.startswith("error: --epohs: unknown flag")


def test_importing_the_library_needs_neither_ray_nor_torch() -> None:
    code = """
import sys
import clickbait.config, clickbait.errors, clickbait.storage, clickbait.text
import clickbait.registry.bundle, clickbait.registry.registry, clickbait.inference.scorer
import serve.http.api, serve.core.batching, serve.core.service, serve.settings
heavy = {"ray", "torch", "transformers", "pyarrow", "sklearn", "wandb", "datasets"} & sys.modules.keys()
sys.exit(f"imported {sorted(heavy)}" if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr


def test_no_job_loads_torch_before_it_has_read_its_flags() -> None:
    """Ten seconds before a typo is told, and again in each process that only starts or watches a training."""
    code = """
import sys
import ray_jobs.evaluate, ray_jobs.export, ray_jobs.pipeline, ray_jobs.preprocess, ray_jobs.promote, ray_jobs.score, ray_jobs.train
import tuning.distil, tuning.sweep.__main__
heavy = {"torch", "transformers", "sklearn"} & sys.modules.keys()
import ray_jobs.trainer
heavy |= {"transformers", "sklearn"} & sys.modules.keys()
sys.exit(f"imported {sorted(heavy)}" if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr


def test_configs_are_there_in_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(TrainConfig, "configs/models/ngrams.yaml").model == "scratch:ngrams"
    with pytest.raises(ConfigError, match="cannot be read"):
        load(TrainConfig, "configs/nowhere.yaml")
    (tmp_path / "configs" / "models").mkdir(parents=True)
    (tmp_path / "configs" / "models" / "ngrams.yaml").write_text("epochs: 7\n")
    assert load(TrainConfig, "configs/models/ngrams.yaml").epochs == 7
