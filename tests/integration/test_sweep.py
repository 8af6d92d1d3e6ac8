"""Sweeps on a real cluster: bad trials are stopped early, what is written is of use, a killed driver's sweep
goes on.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ray.tune.result import TRIAL_INFO
from safetensors.torch import load_file

from clickbait import cli
from clickbait.config import TrainConfig
from clickbait.errors import DataError
from clickbait.training.runs import SELECTED_BY, Run
from tests.conftest import ROOT, Cluster
from tests.wandb_file import read_run
from tuning.sweep.__main__ import main, sweep
from tuning.sweep.config import SchedulerConfig, SweepConfig
from tuning.sweep.space import Choice
from tuning.sweep.trial import Trial


def settings(tmp_path: Path, dataset: str, **changes: Any) -> SweepConfig:
    """Trials of seconds, in their actors' own processes; one learning rate that learns and one that
    cannot.
    """
    train = TrainConfig(
        dataset=dataset,
        model="scratch:ngrams",
        hidden=16,
        buckets=64,
        epochs=3,
        num_workers=0,
        precision="fp32",
    )
    base: dict[str, Any] = {
        "train": train,
        "space": {"lr": Choice(type="choice", values=(3e-2, 1e-7))},
        "output": str(tmp_path),
    }
    base |= {"trials": 4, "searcher": "random", "seed": 10, "scheduler": SchedulerConfig(reduction_factor=2)}
    return SweepConfig(**(base | changes))


def wandb_runs(folder: Path, scratch: Path) -> dict[str, dict[str, Any]]:
    """Every offline run below `folder`/wandb by its name in the config."""
    found = {}
    for number, run in enumerate(sorted((folder / "wandb").glob("offline-run-*"))):
        alone = scratch / str(number) / "wandb"
        alone.mkdir(parents=True)
        (alone / run.name).symlink_to(run)
        read = read_run(alone.parent)
        found[read["config"]["name"]] = read
    return found


def test_a_sweep_stops_what_is_bad_and_writes_what_it_found(
    ray_cluster: Cluster,
    tmp_path: Path,
    small_dataset: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    config = settings(
        tmp_path, small_dataset, objectives=("log_loss", "flip_rate", "latency_ms"), max_concurrent=1
    )
    assert main(config) is None
    home = tmp_path / config.name
    document = json.loads((home / "trials.json").read_text(encoding="utf-8"))
    trials = document["trials"]
    assert len(trials) == config.trials

    status = {trial["name"]: trial["status"] for trial in trials}
    assert set(status.values()) == {"finished", "stopped early"}
    for trial in trials:
        assert (trial["epochs"] == 3) == (trial["status"] == "finished")
        assert len(trial["history"]) == trial["epochs"]
        assert trial["metrics"]["log_loss"] == min(entry["log_loss"] for entry in trial["history"])
        assert (
            (trial["metrics"]["flip_rate"] is None)
            == (trial["metrics"]["latency_ms"] is None)
            == (trial["status"] != "finished")
        )
    best = next(trial for trial in trials if trial["name"] == document["best"])
    assert best["pareto"]
    assert best["config"]["lr"] == 3e-2
    assert 0.0 <= best["metrics"]["flip_rate"] <= 1.0

    again = cli.parse(TrainConfig, ["--config", str(home / "best.yaml")])
    assert again == config.train.model_copy(update={"lr": 3e-2, "name": "sweep-best"})

    told = wandb_runs(home / "trials", tmp_path / "read")
    assert told.keys() == status.keys(), "a W&B run each, in the one folder that the documented command sends"
    for trial in trials:
        run = told[trial["name"]]
        assert run["group"] == config.name
        assert run["config"]["lr"] == trial["config"]["lr"]
        logged = [row[SELECTED_BY] for row in run["history"] if SELECTED_BY in row]
        assert logged == pytest.approx([entry["log_loss"] for entry in trial["history"]])
        assert run["summary"].get(f"best_{SELECTED_BY}") or trial["status"] != "finished"
    assert (home / "report.html").read_text(encoding="utf-8").count("<svg") >= 4
    said = capsys.readouterr().out
    assert "stopped early after epoch" in said
    assert f"wandb sync {home}/trials/wandb/offline-run-*" in said

    before = sorted(path.stat().st_mtime_ns for path in home.rglob("*"))
    assert sweep(config) == document  # done: nothing is trained
    assert sorted(path.stat().st_mtime_ns for path in home.rglob("*")) == before
    with pytest.raises(DataError, match=r"another space\.lr.*--name"):
        sweep(config.model_copy(update={"space": {"lr": Choice(type="choice", values=(1e-3, 1e-7))}}))


def one(name: str, lr: float) -> dict[str, Any]:
    """What Tune gives an actor: a trial's values, and who it is."""
    return {"lr": lr, TRIAL_INFO: SimpleNamespace(trial_id=name, trial_name=name)}


def train_to_the_end(actor: Trial) -> dict[str, Any]:
    told = actor.train()
    while not told["done"]:
        told = actor.train()
    return told


def test_an_actor_trains_a_second_trial_as_a_new_one_would(
    tmp_path: Path, small_dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first is stopped after an epoch: its run ends there, and what follows in the process is not what it
    left.
    """
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("RAY_CHDIR_TO_TRIAL_DIR", "0")
    config = settings(tmp_path, small_dataset)

    class Actor(Trial):
        sweep = config

    used, new = Actor(one("stopped", 1e-3)), Actor(one("alone", 3e-2))
    assert not used.train()["done"]
    assert used.reset(one("second", 3e-2), storage=used._storage)
    stopped, alone, second = (
        Run(str(tmp_path / config.name / "trials" / f"trial-{name}"))
        for name in ("stopped", "alone", "second")
    )
    ends = [train_to_the_end(actor) for actor in (used, new)]
    assert ends[0]["log_loss"] == ends[1]["log_loss"]
    for actor in (used, new):
        actor.stop()
    assert stopped.read_json("done.json") is None
    assert len(stopped.state(stopped.complete()[-1]).history) == 1
    weights = [
        load_file(Path(run.checkpoint_uri(str(run.best()))) / "model.safetensors") for run in (alone, second)
    ]
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=0.0, atol=0.0)
    told = wandb_runs(tmp_path / config.name / "trials", tmp_path / "read")
    assert {name: max(row.get("epoch", 0) for row in run["history"]) for name, run in told.items()} == {
        "trial-stopped": 1,
        "trial-alone": 3,
        "trial-second": 3,
    }


def test_a_torch_trainer_tells_of_every_epoch_and_a_failed_one_ends_no_other(
    ray_cluster: Cluster, tmp_path: Path, small_dataset: str
) -> None:
    train = settings(tmp_path, small_dataset).train
    config = settings(
        tmp_path,
        small_dataset,
        train=train.model_copy(
            update={"num_workers": 1, "epochs": 2, "cpus_per_worker": 0.5, "max_failures": 0}
        ),
        space={
            "hidden": Choice(type="choice", values=(16, 24)),
            "layers": Choice(type="choice", values=(None, 1)),
        },  # n-grams have none
        trials=2,
        seed=0,
        max_failures=0,
        scheduler=SchedulerConfig(kind="none"),
    )
    document = sweep(config)
    for trial in document["trials"]:
        good = trial["config"]["layers"] is None
        assert trial["status"] == ("finished" if good else "failed")
        assert [entry["epoch"] for entry in trial["history"]] == ([1.0, 2.0] if good else [])
        assert good or "has no layers" in trial["error"]
    assert {trial["status"] for trial in document["trials"]} == {"finished", "failed"}


def test_more_than_the_cluster_has_is_refused_before_anything_starts(
    ray_cluster: Cluster, tmp_path: Path, small_dataset: str
) -> None:
    greedy = settings(tmp_path, small_dataset)
    with pytest.raises(DataError, match="need 64 CPU, the cluster has 4"):
        sweep(greedy.model_copy(update={"train": greedy.train.model_copy(update={"cpus_per_worker": 64.0})}))
    with pytest.raises(
        DataError,
        match="9 trials at a time need 9 CPU, the cluster has 4 CPU: lower --max-concurrent to 4",
    ):
        sweep(settings(tmp_path, small_dataset, max_concurrent=9, name="wide", trials=9))
    assert not list(tmp_path.glob("*/run.json"))  # neither holds its name


def wait_for(condition: Callable[[], object], driver: subprocess.Popen[bytes], log: Path) -> None:
    while not condition():
        assert driver.poll() is None, log.read_text()
        time.sleep(0.1)


def test_a_killed_driver_goes_on_and_trains_no_finished_trial_again(
    ray_cluster: Cluster, tmp_path: Path, small_dataset: str
) -> None:
    """The driver is killed with SIGKILL once a trial has finished; the same command ends the sweep."""
    config = settings(
        tmp_path, small_dataset, trials=2, max_concurrent=1, scheduler=SchedulerConfig(kind="none")
    )
    config = config.model_copy(update={"train": config.train.model_copy(update={"epochs": 6})})
    (tmp_path / "sweep.json").write_text(config.model_dump_json(), encoding="utf-8")
    command = [
        sys.executable,
        str(ROOT / "tests" / "faults" / "sweep_until_killed.py"),
        str(tmp_path / "sweep.json"),
    ]
    log, trials = tmp_path / "driver.log", tmp_path / config.name / "trials"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with log.open("w") as stream:
        driver = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=stream, stderr=stream)
        try:
            # A second trial is under way, whether Tune has saved the end of the first or not.
            wait_for(
                lambda: list(trials.glob("*/done.json")) and len(list(trials.glob("*/best.json"))) > 1,
                driver,
                log,
            )
        finally:
            driver.kill()
            driver.wait()
    assert not (tmp_path / config.name / "trials.json").exists()
    finished = {path.parent.name: path.stat().st_mtime_ns for path in trials.glob("*/done.json")}
    written = {
        path: path.stat().st_mtime_ns
        for name in finished
        for path in (trials / name).rglob("*")
        if path.is_file()
    }
    assert finished

    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    document = json.loads((tmp_path / config.name / "trials.json").read_text(encoding="utf-8"))
    assert [trial["status"] for trial in document["trials"]] == ["finished"] * 2
    assert finished.keys() <= {trial["name"] for trial in document["trials"]}
    assert {path: path.stat().st_mtime_ns for path in written} == written, (
        "a finished trial was trained again"
    )
    assert not any(f"{name}: epoch" in done.stdout for name in finished)
    for trial in document["trials"]:
        assert [entry["epoch"] for entry in trial["history"]] == [1, 2, 3, 4, 5, 6]
        assert Run(str(trials / trial["name"])).read_json("done.json")
