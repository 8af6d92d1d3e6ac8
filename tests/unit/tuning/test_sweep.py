"""The search space is checked before anything starts, drawn from within its bounds, and told to Optuna and to
Ray Tune alike.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from clickbait import cli
from clickbait.config import TrainConfig, load, validate
from clickbait.data.dataset import Dataset
from clickbait.errors import ConfigError, DataError, RunInUse
from clickbait.training.runs import Run, State
from tests.conftest import ROOT
from tuning.sweep import __main__ as sweep
from tuning.sweep import space, trial
from tuning.sweep.config import SweepConfig
from tuning.sweep.results import first_line, front


def config(**values: Any) -> SweepConfig:
    return validate(SweepConfig, values, "sweep.yaml")


LR = {"type": "log_uniform", "low": 1e-4, "high": 1e-2}
REFUSED = {
    'lrr: unknown key; did you mean "lr"': {"space": {"lrr": LR}},
    "space.dataset: cannot be searched": {"space": {"dataset": {"type": "choice", "values": ["a"]}}},
    "space.name: cannot be searched": {"space": {"name": {"type": "choice", "values": ["a"]}}},
    "space.epochs: cannot be searched": {"space": {"epochs": {"type": "int", "low": 1, "high": 3}}},
    "lr: Input should be less than or equal to 1": {"space": {"lr": {**LR, "high": 2.0}}},
    "low must be below high": {"space": {"lr": {**LR, "low": 0.5}}},
    "low: Input should be greater than 0": {"space": {"lr": {**LR, "low": 0.0}}},
    "schedule: Input should be 'linear', 'cosine' or 'constant'": {
        "space": {"schedule": {"type": "choice", "values": ["linear", "sine"]}}
    },
    "batch_size 48, accumulation 32": {
        "space": {
            "batch_size": {"type": "int", "low": 32, "high": 64, "step": 16},
            "accumulation": {"type": "choice", "values": [1, 32]},
        }
    },
    "must be a multiple": {
        "train": {"accumulation": 2},
        "space": {"batch_size": {"type": "int", "low": 8, "high": 16}},
    },
    "takes neither a step": {
        "space": {"hidden": {"type": "int", "low": 16, "high": 64, "step": 16, "log": True}}
    },
    "nothing to search": {"space": {}},
    "does not match any of the expected tags": {"space": {"lr": {**LR, "type": "normal"}}},
    "space.lr.log_uniform.lo": {"space": {"lr": {"type": "log_uniform", "lo": 1.0, "high": 2.0}}},
    "each once": {"objectives": ["log_loss", "log_loss"]},
    "more than train.epochs": {"scheduler": {"grace_epochs": 99}},
    "pbt cannot change it": {
        "scheduler": {"kind": "pbt"},
        "space": {"batch_size": {"type": "choice", "values": [8, 16]}},
    },
    "2 or more": {"scheduler": {"kind": "pbt"}, "trials": 1},
}


@pytest.mark.parametrize("told", REFUSED)
def test_what_no_trial_could_be_trained_with_is_refused_in_one_line(told: str) -> None:
    with pytest.raises(ConfigError) as raised:
        config(**REFUSED[told])
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_shipped_configuration_is_what_the_command_line_takes() -> None:
    shipped = load(SweepConfig, str(ROOT / "configs" / "sweep.yaml"))
    assert set(shipped.space) == {"lr", "warmup_fraction", "batch_size", "weight_decay"}
    path = str(ROOT / "configs" / "sweep.yaml")
    changed = cli.parse(
        SweepConfig, ["--config", path, "--trials", "3", "--train.lr", "1e-3", "--scheduler.kind", "none"]
    )
    assert (changed.trials, changed.train.lr, changed.scheduler.kind, changed.space) == (
        3,
        1e-3,
        "none",
        shipped.space,
    )


SPACE = {
    "lr": LR,
    "dropout": {"type": "uniform", "low": 0.0, "high": 0.3},
    "hidden": {"type": "int", "low": 32, "high": 100, "step": 32},
    "buckets": {"type": "int", "low": 16, "high": 1024, "log": True},
    "batch_size": {"type": "choice", "values": [8, 16]},
    "schedule": {"type": "choice", "values": ["linear", "cosine"]},
}


@pytest.mark.parametrize("searcher", ["optuna", "random"])
def test_every_draw_is_a_configuration_within_the_bounds(searcher: str) -> None:
    one = config(space=SPACE, searcher=searcher, seed=3)
    found = sweep.searcher(one)
    for number in range(40):
        values = found.suggest(str(number))
        assert values is not None
        drawn = TrainConfig.model_validate(values)
        assert 1e-4 <= drawn.lr <= 1e-2
        assert drawn.hidden in (32, 64, 96)
        assert 16 <= (drawn.buckets or 0) <= 1024
        assert drawn.batch_size in (8, 16)
        found.on_trial_complete(str(number), {"log_loss": drawn.lr, "training_iteration": 1})
    assert found.suggest("next") is not None


def test_the_seed_says_what_is_drawn() -> None:
    draws = [
        [sweep.searcher(config(space=SPACE, seed=seed)).suggest(name) for name in "abc"] for seed in (1, 1, 2)
    ]
    assert draws[0] == draws[1] != draws[2]


def test_a_trial_without_all_objectives_does_not_stop_the_search() -> None:
    found = sweep.searcher(config(space=SPACE, objectives=["log_loss", "flip_rate"]))
    for number in range(12):
        found.suggest(str(number))
        # the odd ones were stopped early
        figures = {"log_loss": 0.1} if number % 2 else {"log_loss": 0.1, "flip_rate": 0.2}
        found.on_trial_complete(str(number), {**figures, "training_iteration": 1})
    assert [one.state.name for one in found._ot_study.trials] == ["COMPLETE", "FAIL"] * 6
    assert found.suggest("next") is not None


def test_a_mutation_stays_within_its_bounds() -> None:
    domains = config(space={"lr": LR, "schedule": SPACE["schedule"]}).space
    assert space.clamp(domains, {"lr": 0.5, "schedule": "cosine"}) == {"lr": 1e-2, "schedule": "cosine"}
    assert space.clamp(domains, {"lr": 1e-9, "schedule": "linear"}) == {"lr": 1e-4, "schedule": "linear"}
    assert space.mutations(domains)["schedule"] == ["linear", "cosine"]


@pytest.mark.parametrize(
    ("kind", "workers", "reused"),
    [("asha", 0, True), ("none", 0, True), ("asha", 1, False), ("hyperband", 0, False)],
)
def test_an_actor_runs_trials_one_after_the_other_where_none_is_paused_or_has_workers(
    tmp_path: Path, kind: str, workers: int, reused: bool
) -> None:
    """A paused trial's run ends with its actor, and so does a trial's TorchTrainer."""
    chosen = config(scheduler={"kind": kind}, train={"num_workers": workers})
    assert sweep.tuner(chosen, str(tmp_path), 1)._local_tuner._tune_config.reuse_actors is reused


def test_the_front_holds_what_nothing_beats() -> None:
    points = [[1.0, 5.0], [2.0, 2.0], [3.0, 2.0], [5.0, 1.0], [2.0, 2.0], [6.0, 6.0]]
    assert front(points) == [True, True, False, True, True, False]
    assert front([]) == []
    assert front([[3.0], [1.0], [2.0]]) == [False, True, False]


def test_the_best_is_a_file_for_ray_jobs_train(tmp_path: Path) -> None:
    one = config(
        space=SPACE, train={"output": str(tmp_path / "runs"), "num_workers": 0, "patience": 2}, name="mine"
    )
    best = {
        "name": "trial-1",
        "config": {"lr": 0.002, "hidden": 64, "schedule": "cosine"},
        "metrics": {"log_loss": 0.1, "flip_rate": None},
    }
    (tmp_path / "best.yaml").write_text(sweep.best_yaml(one, best), encoding="utf-8")
    read = cli.parse(TrainConfig, ["--config", str(tmp_path / "best.yaml")])
    assert read == one.train.model_copy(
        update={"lr": 0.002, "hidden": 64, "schedule": "cosine", "name": "mine-best"}
    )


def test_another_sweep_is_named_by_its_difference() -> None:
    one, other = (sweep.description(config(space={"lr": {**LR, "high": high}}), "f") for high in (0.01, 0.02))
    assert [key for key in one if one[key] != other[key]] == ["space.lr"]
    moved = sweep.description(
        config(space={"lr": LR}, output="/elsewhere", name="x", train={"output": "/y"}), "f"
    )
    assert moved == sweep.description(config(space={"lr": LR}, train={}), "f")


def checkpointed(run: Run, step: int, epochs: int) -> None:
    """A run with one checkpoint of `epochs` epochs."""
    run.write_json("run.json", {})
    folder = Path(run.uri).parent / "files"
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_text(f"weights of {step}")
    history = [{"epoch": float(epoch + 1), "step": float(step)} for epoch in range(epochs)]
    run.save(folder, State(step=step, epoch=epochs, position=0, loss_sum=0.0, history=history))


def test_an_exploiting_trial_goes_on_from_a_copy_of_the_donors_checkpoint(tmp_path: Path) -> None:
    donor, own = Run(str(tmp_path / "trial-d")), TrainConfig(output=str(tmp_path), name="trial-a")
    checkpointed(donor, 7, 3)
    checkpointed(Run(str(tmp_path / "trial-a")), 5, 2)
    pointer = donor.checkpoint_uri("step-00000007")
    assert trial.generation(own, None).name == "trial-a"
    assert (
        trial.generation(own, Run(str(tmp_path / "trial-a")).checkpoint_uri("step-00000005")).name
        == "trial-a"
    )

    first = trial.generation(own, pointer)
    assert first.name == "trial-a-g1"
    run = Run(str(tmp_path / "trial-a-g1"))
    assert run.complete() == ["step-00000007"]
    assert run.storage.read("checkpoints/step-00000007/model.safetensors") == b"weights of 7"
    state = run.state("step-00000007")
    assert (state.epoch, [entry["epoch"] for entry in state.history]) == (
        3,
        [3.0],
    )  # its best must be a checkpoint of its own

    run.write_json("run.json", {})  # the loop's claim
    assert trial.generation(own, run.checkpoint_uri("step-00000009")).name == "trial-a-g1"
    checkpointed(donor, 9, 4)
    assert trial.generation(own, donor.checkpoint_uri("step-00000009")).name == "trial-a-g2"
    assert Run(str(tmp_path / "trial-a-g2")).complete() == ["step-00000009"]
    assert trial.generations(str(tmp_path), "trial-a") == [
        "trial-a",
        "trial-a-g1",
    ]  # until the loop claims the new one
    with pytest.raises(DataError, match="the checkpoint to continue from no longer exists"):
        trial.generation(own, donor.checkpoint_uri("step-00000001"))


def test_under_population_based_training_no_checkpoint_that_another_may_start_from_is_deleted() -> None:
    for kind, kept in (("pbt", 9), ("asha", 2)):
        one = config(space={"lr": LR}, scheduler={"kind": kind})
        assert trial.train_config(one, {"lr": 1e-3}, "trial-a").keep_checkpoints == kept


def test_an_error_is_told_by_the_line_that_names_it() -> None:
    assert (
        first_line(RuntimeError("Traceback:\n  file\nModelError: no such folder\n"))
        == "ModelError: no such folder"
    )
    assert first_line(RuntimeError()) == "RuntimeError"


def test_a_sweep_of_an_older_version_is_the_same_sweep(tmp_path: Path) -> None:
    """Its run.json lacks settings that came later, and has one that no longer says what a sweep is."""
    home = Run(str(tmp_path))
    document = sweep.description(config(), "f00d")
    del document["train.label_smoothing"], document["flip_headlines"], document["scheduler.quantile"]
    home.write_json("run.json", {**document, "train.wandb_project": "other"})
    home.claim(sweep.description(config(), "f00d"), sweep.defaults(), sweep.IGNORED)
    other = sweep.description(config(flip_headlines=9, space={"lr": {**LR, "high": 0.1}}), "f00d")
    with pytest.raises(
        DataError,
        match=r"another flip_headlines \(500 there, 9 here\), space\.lr\.high \(0\.01 there, 0\.1 here\): choose",
    ):
        home.claim(other, sweep.defaults(), sweep.IGNORED)


def test_a_second_driver_of_a_sweep_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clickbait.storage.lease.BEAT_S", 0.1)
    there = Dataset("nowhere", {"fingerprint": "f00d", "tokenizer": {"model": "any", "sha256": ""}})
    monkeypatch.setattr(sweep, "open_dataset", lambda _: there)
    with Run(str(tmp_path / "one")).hold(), pytest.raises(RunInUse, match="holds this run"):
        sweep.sweep(config(output=str(tmp_path), name="one"))
