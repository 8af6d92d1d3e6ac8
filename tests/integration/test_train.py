"""Training: resumes to the same weights, sums over workers exactly, survives a killed worker and a killed
driver.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from clickbait.config import TrainConfig
from clickbait.data.dataset import open_dataset
from clickbait.errors import DataError, ModelError, RunInUse, StorageError, TrainingDiverged
from clickbait.evaluation import metrics
from clickbait.models import load
from clickbait.training.batches import Headlines
from clickbait.training.export import torch_margins
from clickbait.training.loop import Loop, Place, fit, learning_rate
from clickbait.training.runs import SELECTED_BY, Run
from ray_jobs.train import train
from tests.conftest import ROOT, Cluster
from tests.wandb_file import read_run


def settings(tmp_path: Path, encoder: Path, dataset: str, **changes: Any) -> TrainConfig:
    """A recipe of seconds, in process."""
    base: dict[str, Any] = {
        "output": str(tmp_path / "runs"),
        "model": str(encoder),
        "dataset": dataset,
        "num_workers": 0,
    }
    base |= {"epochs": 2, "lr": 5e-4, "precision": "fp32", "threads": 1, "progress": False}
    return TrainConfig(**(base | changes))


def run_in_process(config: TrainConfig, **fit_arguments: Any) -> Run:
    """The loop as it is, without Ray."""
    fit(config, open_dataset(config.dataset), Place(), lambda metrics, checkpoint: None, **fit_arguments)
    return Run(f"{config.output}/{config.name}")


def weights(run: Run) -> dict[str, torch.Tensor]:
    """The newest checkpoint's."""
    return load_file(Path(run.checkpoint_uri(run.complete()[-1])) / "model.safetensors")


def assert_same(
    left: dict[str, torch.Tensor], right: dict[str, torch.Tensor], tolerance: float = 0.0
) -> None:
    assert left.keys() == right.keys()
    for name, value in left.items():
        torch.testing.assert_close(value, right[name], rtol=tolerance, atol=tolerance)


class Stop(Exception):
    """What the interrupting bar raises."""


class StoppingBar:
    """A progress bar that ends the process's work at a step, as a kill would: no code of the loop runs after
    it.
    """

    def __init__(self, at: int) -> None:
        self.left = at

    def update(self, n: int = 1) -> None:
        self.left -= n
        if self.left <= 0:
            raise Stop

    def close(self) -> None: ...


@pytest.mark.parametrize("at", [3, 17, 25], ids=["before a checkpoint", "in an epoch", "in the second epoch"])
def test_interrupted_anywhere_it_ends_with_the_same_weights(
    tmp_path: Path, tiny_encoder: Path, small_dataset: str, at: int
) -> None:
    whole = run_in_process(settings(tmp_path, tiny_encoder, small_dataset, name="whole"))
    config = settings(tmp_path, tiny_encoder, small_dataset, name="broken", checkpoint_steps=7, progress=True)
    with pytest.raises(Stop):
        run_in_process(config, make_bar=lambda total, desc: StoppingBar(at))
    broken = Run(f"{config.output}/{config.name}")
    assert broken.read_json("done.json") is None
    resumed = run_in_process(config.model_copy(update={"progress": False}))
    assert_same(weights(whole), weights(resumed))
    left, right = (json.loads(run.storage.read("done.json"))["history"] for run in (whole, resumed))
    for old, new in zip(left, right, strict=True):
        for key in ("step", "train_loss", "val_log_loss", "val_auc", "lr"):
            assert old[key] == pytest.approx(new[key], rel=1e-6)


def test_a_torn_checkpoint_is_passed_over(tmp_path: Path, tiny_encoder: Path, small_dataset: str) -> None:
    config = settings(tmp_path, tiny_encoder, small_dataset, epochs=1)
    run = run_in_process(config)
    before = weights(run)
    torn = tmp_path / "runs" / config.name / "checkpoints" / "step-99999999"
    torn.mkdir()
    (torn / "model.safetensors").write_bytes(b"half")
    run.storage.delete("done.json")
    assert_same(before, weights(run_in_process(config)))


def test_a_checkpoint_with_a_changed_byte_is_passed_over(
    tmp_path: Path, tiny_encoder: Path, small_dataset: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = settings(tmp_path, tiny_encoder, small_dataset, epochs=2, keep_checkpoints=2)
    run = run_in_process(config)
    before = weights(run)
    damaged = Path(run.checkpoint_uri(run.complete()[-1])) / "optimizer.safetensors"
    data = bytearray(damaged.read_bytes())
    data[-1] ^= 1
    damaged.write_bytes(bytes(data))
    run.storage.delete("done.json")
    assert_same(before, weights(run_in_process(config)))
    assert "optimizer.safetensors has changed since it was written" in caplog.text
    assert "going on from the checkpoint before it" in caplog.text


def test_all_ranks_resume_where_rank_0_says(
    tmp_path: Path, tiny_encoder: Path, small_dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second rank's storage shows a checkpoint fewer, as after a mount that is slow to show what was
    written.

    The faked broadcast keeps what the real one does: rank 0's object replaces the others'.
    """
    config = settings(tmp_path, tiny_encoder, small_dataset, epochs=2, keep_checkpoints=2)
    run = run_in_process(config)
    told: list[Any] = []

    def broadcast(objects: list[Any], src: int, device: Any) -> None:
        if not told:
            told.append(objects[0])
        objects[0] = told[0]

    monkeypatch.setattr("clickbait.training.loop.dist.broadcast_object_list", broadcast)
    monkeypatch.setattr("clickbait.training.loop.DistributedDataParallel", lambda model, **_: model)
    first = Loop(config, open_dataset(small_dataset), Place(rank=0, world=2), run)
    slow = Run(run.uri)
    monkeypatch.setattr(slow, "complete", lambda: run.complete()[:-1])
    second = Loop(config, open_dataset(small_dataset), Place(rank=1, world=2), slow)
    assert first.state == second.state == run.state(run.complete()[-1])
    assert_same(first.model.state_dict(), second.model.state_dict())


def poisoned(encoder: Path, folder: Path) -> Path:
    """The encoder with a weight that is no number: its loss is none from the first step on."""
    from safetensors.torch import save_file

    folder.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_bytes((encoder / name).read_bytes())
    tensors = load_file(encoder / "model.safetensors")
    tensors["classifier.bias"][0] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


DIVERGED = (
    r"the training loss is nan at step \d+, epoch 1: the training has diverged. Lower lr \(0\.0005 here, try "
    r"5e-05\)"
)


@pytest.mark.parametrize(
    "changes",
    [{}, {"max_steps": 3}, {"checkpoint_steps": 5}],
    ids=["after some steps", "short", "at a checkpoint"],
)
def test_a_loss_that_is_no_number_ends_the_training(
    tmp_path: Path, tiny_encoder: Path, small_dataset: str, changes: dict[str, Any]
) -> None:
    config = settings(tmp_path, poisoned(tiny_encoder, tmp_path / "poisoned"), small_dataset, **changes)
    with pytest.raises(TrainingDiverged, match=DIVERGED) as told:
        train(config)
    assert "\n" not in str(told.value)
    assert Run(f"{config.output}/{config.name}").complete() == [], "a model that cannot learn was kept"


def test_a_validation_loss_that_is_no_number_ends_the_training(
    tmp_path: Path, tiny_encoder: Path, small_dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(tmp_path, poisoned(tiny_encoder, tmp_path / "poisoned"), small_dataset, max_steps=1)
    monkeypatch.setattr(
        "clickbait.training.loop.headline_losses", lambda config, logits, *_: torch.nan_to_num(logits).sum(-1)
    )
    with pytest.raises(TrainingDiverged, match="the validation loss is nan at step 1"):
        run_in_process(config)


def test_our_error_in_a_worker_comes_out_as_itself_and_is_not_tried_again(
    ray_cluster: Cluster, tmp_path: Path, tiny_encoder: Path, small_dataset: str
) -> None:
    from ray.util.state import list_actors

    def started() -> int:
        return len(list_actors(filters=[("class_name", "=", "RayTrainWorker")], limit=10_000))

    before = started()
    config = settings(
        tmp_path,
        poisoned(tiny_encoder, tmp_path / "poisoned"),
        small_dataset,
        num_workers=1,
        cpus_per_worker=0.5,
    )
    with pytest.raises(TrainingDiverged, match=DIVERGED):
        train(config)
    assert started() == before + 1
    with Run(f"{config.output}/{config.name}").hold():  # at once: the worker gave it back
        pass


def test_ray_tries_again_what_may_pass() -> None:
    """Of a worker's errors: a storage that does not answer, a lost connection. Not what the same command
    would end in again.
    """
    import ray.train

    from ray_jobs.trainer import NoRetry

    for passes in ({0: StorageError("away")}, {0: RuntimeError("out of memory")}, {}):
        NoRetry().after_exception(worker_exceptions=passes)
    lost = RuntimeError("rank 0 closed the connection")
    with pytest.raises(ray.train.ControllerError) as told:
        NoRetry().after_exception(worker_exceptions={1: lost, 0: TrainingDiverged("lower lr")})
    assert isinstance(told.value.controller_failure, TrainingDiverged)


def test_a_second_driver_is_refused_in_one_line(
    tmp_path: Path, tiny_encoder: Path, small_dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clickbait.storage.lease.BEAT_S", 0.1)
    config = settings(tmp_path, tiny_encoder, small_dataset, num_workers=1)
    with (
        Run(f"{config.output}/{config.name}").hold(),
        pytest.raises(RunInUse, match=rf"process {os.getpid()} on .* holds this run"),
    ):
        train(config)


def test_killed_between_a_checkpoint_and_the_note_of_the_best(
    tmp_path: Path, tiny_encoder: Path, small_dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(tmp_path, tiny_encoder, small_dataset, epochs=1)

    def die(run: Run, key: str, document: dict[str, Any]) -> None:
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(Run, "write_json", die)
        with pytest.raises(Stop):
            run_in_process(config)
    run = run_in_process(config)
    assert run.best() == run.complete()[-1]
    assert run.read_json("done.json")


def test_it_learns_and_keeps_the_best(tmp_path: Path, tiny_encoder: Path, small_dataset: str) -> None:
    run = run_in_process(settings(tmp_path, tiny_encoder, small_dataset, epochs=6, keep_checkpoints=1))
    history = json.loads(run.storage.read("done.json"))["history"]
    assert history[-1]["val_auc"] > 0.9
    losses = [entry[SELECTED_BY] for entry in history]
    best = json.loads(run.storage.read("best.json"))
    assert best[SELECTED_BY] == min(losses)
    assert best["checkpoint"] == f"step-{int(history[losses.index(min(losses))]['step']):08d}"
    assert set(run.complete()) == {best["checkpoint"], f"step-{int(history[-1]['step']):08d}"}


def test_early_stopping(tmp_path: Path, tiny_encoder: Path, small_dataset: str) -> None:
    # A learning rate that destroys the model: the log loss has no reason to fall.
    run = run_in_process(
        settings(tmp_path, tiny_encoder, small_dataset, epochs=12, lr=0.5, schedule="constant", patience=1)
    )
    history = json.loads(run.storage.read("done.json"))["history"]
    assert len(history) < 12
    losses = [entry[SELECTED_BY] for entry in history]
    assert losses.index(min(losses)) == len(losses) - 2


def test_accumulation_changes_the_memory_and_not_the_step(
    tmp_path: Path, tiny_encoder: Path, small_dataset: str
) -> None:
    dataset = open_dataset(small_dataset)
    found = []
    for parts in (1, 4):
        config = settings(tmp_path, tiny_encoder, small_dataset, name=f"parts-{parts}", accumulation=parts)
        loop = Loop(config, dataset, Place(), Run(f"{config.output}/{config.name}"))
        loop.model.eval()  # dropout would differ
        loss = loop.step(np.arange(30), step=5)
        found.append((loss, {name: value.detach().clone() for name, value in loop.model.named_parameters()}))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-5, atol=1e-6)
    assert_same(found[0][1], found[1][1], tolerance=2e-5)


def test_learning_rate_rises_and_falls() -> None:
    config = TrainConfig(lr=1.0, warmup_fraction=0.1)
    rates = [learning_rate(config, step, 100) for step in range(100)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0.0 < rates[-1] < 0.02
    cosine = TrainConfig(lr=1.0, warmup_fraction=0.0, schedule="cosine")
    assert learning_rate(cosine, 50, 100) == pytest.approx(0.5)


def test_the_profiler_writes_a_trace(tmp_path: Path, tiny_encoder: Path, small_dataset: str) -> None:
    run = run_in_process(settings(tmp_path, tiny_encoder, small_dataset, max_steps=9, profile=True))
    trace = json.loads(run.storage.read("profile/trace.json"))
    assert any("AdamW" in str(event.get("name")) for event in trace["traceEvents"])
    assert b"addmm" in run.storage.read("profile/summary.txt")


def test_another_recipe_under_the_same_name_is_refused(
    tmp_path: Path, tiny_encoder: Path, small_dataset: str
) -> None:
    train(settings(tmp_path, tiny_encoder, small_dataset, max_steps=1))
    with pytest.raises(DataError, match=r"another max_steps \(1 there, 2 here\).*--name"):
        train(settings(tmp_path, tiny_encoder, small_dataset, max_steps=2))


@pytest.mark.parametrize(
    "changes", [{}, {"layers": 1}, {"hidden": 16}], ids=["whole", "fewer layers", "narrower"]
)
def test_a_model_with_another_tokenizer_is_told_before_any_worker_starts(
    tmp_path: Path, tiny_encoder: Path, small_dataset: str, changes: dict[str, Any]
) -> None:
    encoder = tmp_path / "other"
    shutil.copytree(tiny_encoder, encoder)
    tokenizer = json.loads((encoder / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"][
        "vocab"
    ]  # two words change places: as many tokens, and each of the two means the other
    vocabulary["you"], vocabulary["the"] = vocabulary["the"], vocabulary["you"]
    (encoder / "tokenizer.json").write_text(json.dumps(tokenizer))
    config = settings(tmp_path, encoder, small_dataset, num_workers=2, **changes)
    with pytest.raises(
        ModelError, match=rf"was cut by the tokenizer of .* preprocess again with --model {encoder}"
    ):
        train(config)
    with pytest.raises(ModelError, match="preprocess again"):
        run_in_process(config)


def test_a_model_that_is_not_to_be_had_is_told_before_any_worker_starts(
    tmp_path: Path, tiny_encoder: Path, small_dataset: str
) -> None:
    with pytest.raises(ModelError, match="no such folder"):
        train(settings(tmp_path, tiny_encoder, small_dataset, num_workers=2, model="./nowhere"))
    with pytest.raises(ModelError, match="is not cached, and the hub cannot be reached"):
        train(settings(tmp_path, tiny_encoder, small_dataset, num_workers=2, model="nobody/nothing"))
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "config.json").write_bytes((tiny_encoder / "config.json").read_bytes())
    (pickled / "tokenizer.json").write_bytes((tiny_encoder / "tokenizer.json").read_bytes())
    torch.save({}, pickled / "pytorch_model.bin")
    with pytest.raises(ModelError, match="a pickle"):
        train(settings(tmp_path, pickled, small_dataset))
    torch.save({}, pickled / "model.safetensors")
    with pytest.raises(ModelError, match="a pickle"):
        train(settings(tmp_path, pickled, small_dataset))
    assert not (tmp_path / "runs" / "clickbait" / "checkpoints").exists()


def test_an_offline_wandb_run_holds_config_and_curves(
    tmp_path: Path, tiny_encoder: Path, small_dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    config = settings(tmp_path, tiny_encoder, small_dataset, epochs=3)
    run_in_process(config)
    records = read_run(tmp_path / "runs")
    assert records["config"]["lr"] == config.lr
    assert records["config"]["dataset_fingerprint"] == open_dataset(small_dataset).fingerprint
    assert records["group"] == open_dataset(small_dataset).fingerprint
    logged = [row for row in records["history"] if "val_log_loss" in row]
    assert [row["epoch"] for row in logged] == [1, 2, 3]
    assert records["summary"][f"best_{SELECTED_BY}"] == pytest.approx(min(row[SELECTED_BY] for row in logged))


def exact_validation(run: Run, dataset: str) -> dict[str, Any]:
    """The validation metrics of the newest checkpoint, computed in one process from its file."""
    model = load.load_checkpoint(Path(run.checkpoint_uri(run.complete()[-1])))
    rows = Headlines(open_dataset(dataset).table("validation"))
    return metrics.classification(rows.labels, metrics.probabilities(torch_margins(model, rows), 1.0), 0.5)


def test_a_killed_worker_is_replaced_and_the_run_goes_on(
    ray_cluster: Cluster, tmp_path: Path, tiny_encoder: Path, small_dataset: str
) -> None:
    """Two DDP workers; one is killed with SIGKILL after the third checkpoint. The run ends whole, and its
    figures are exact.
    """
    from concurrent.futures import ThreadPoolExecutor

    config = settings(
        tmp_path, tiny_encoder, small_dataset, num_workers=2, epochs=20, cpus_per_worker=0.5, max_failures=2
    )
    run = Run(f"{config.output}/{config.name}")
    with ThreadPoolExecutor(1) as pool:
        training = pool.submit(train, config)
        wait_for(
            lambda: training.done() or (len(run.complete()) and run.state(run.complete()[-1]).epoch >= 3)
        )
        assert not training.done(), training.exception() or "it ended before it could be killed"
        victim = train_workers()[0]
        os.kill(victim, signal.SIGKILL)
        killed_at = run.state(run.complete()[-1]).step
        training.result(timeout=300)
    done = json.loads(run.storage.read("done.json"))
    assert [entry["epoch"] for entry in done["history"]] == list(range(1, 21)), (
        "an epoch was lost or done twice"
    )
    assert 0 < killed_at < done["step"]
    expected = exact_validation(run, small_dataset)
    for name in ("log_loss", "accuracy", "auc", "ece"):
        assert done["history"][-1][f"val_{name}"] == pytest.approx(expected[name], abs=1e-6)


def test_a_killed_driver_goes_on_where_it_was(
    ray_cluster: Cluster, tmp_path: Path, tiny_encoder: Path, small_dataset: str
) -> None:
    """The driver is killed with SIGKILL in mid-run; the same command ends with the weights of a run that
    nobody killed.
    """
    config = settings(tmp_path, tiny_encoder, small_dataset, num_workers=1, epochs=20, cpus_per_worker=0.5)
    whole = run_in_process(config.model_copy(update={"num_workers": 0, "name": "whole"}))
    run = Run(f"{config.output}/{config.name}")
    flags = [
        "num_workers",
        "epochs",
        "cpus_per_worker",
        "lr",
        "precision",
        "threads",
        "output",
        "model",
        "dataset",
    ]
    command = [sys.executable, "-m", "ray_jobs.train", "--no-progress"]
    command += [
        word for flag in flags for word in (f"--{flag.replace('_', '-')}", str(getattr(config, flag)))
    ]
    with (tmp_path / "driver.log").open("w") as log:
        driver = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        try:
            wait_for(
                lambda: (
                    driver.poll() is not None
                    or (len(run.complete()) and run.state(run.complete()[-1]).epoch >= 3)
                )
            )
            assert driver.poll() is None, (tmp_path / "driver.log").read_text()
        finally:
            driver.kill()
            driver.wait()
    wait_for(lambda: not train_workers())  # Ray ends them with their driver
    assert run.read_json("done.json") is None
    reached = run.state(run.complete()[-1]).epoch
    assert 3 <= reached < 20
    train(config)
    assert_same(weights(whole), weights(run), tolerance=1e-5)


def train_workers() -> list[int]:
    """Process ids of this cluster's living Ray Train workers."""
    from ray.util.state import list_actors

    actors = list_actors(filters=[("state", "=", "ALIVE"), ("class_name", "=", "RayTrainWorker")])
    return [int(actor.pid) for actor in actors if actor.pid]


def wait_for(condition: Any, seconds: float = 240.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.2)
