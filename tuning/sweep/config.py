"""The settings of `tuning.sweep` (`configs/sweep.yaml`)."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import tyro
from pydantic import Field, model_validator

from clickbait.config import Config, TrainConfig, Uri
from tuning.sweep import space as spaces

Objective = Literal["log_loss", "flip_rate", "latency_ms"]


class SchedulerConfig(Config):
    """How unpromising trials are stopped before their last epoch."""

    kind: Literal["asha", "hyperband", "pbt", "none"] = "asha"
    """`asha`: asynchronous successive halving (Li et al. 2020); `hyperband`: synchronous rounds (Li et al.
    2018); `pbt`: the worst trials continue from the best trials' checkpoints with other values (Jaderberg et
    al. 2017); `none`: every trial runs to its last epoch."""
    grace_epochs: int = Field(1, ge=1)
    """asha: epochs before a trial may be stopped."""
    reduction_factor: int = Field(3, ge=2, le=16)
    """asha, hyperband: one in this many trials continues at each rung."""
    perturb_epochs: int = Field(2, ge=1)
    """pbt: epochs between two comparisons."""
    quantile: float = Field(0.25, gt=0.0, le=0.5)
    """pbt: the share of the worst trials that is replaced, and of the best trials that replaces it."""


class SweepConfig(Config):
    """The settings of `tuning.sweep`: the search space and how it is searched."""

    train: TrainConfig = TrainConfig(model="scratch:ngrams", epochs=9, lr=3e-3, batch_size=64, num_workers=0)
    """The training settings of every trial, except those that are searched. `num_workers` 0 trains in the
    trial's process, 1 or more under its own TorchTrainer, which takes half a minute to start. The sweep sets
    `output` and `name`; best.yaml keeps `output`."""
    space: Annotated[dict[str, spaces.Domain], tyro.conf.Suppress] = Field(
        {"lr": spaces.LogUniform(type="log_uniform", low=1e-4, high=1e-2)}
    )
    """The search space (`tuning.sweep.space`); it can be set in the YAML file only."""
    trials: int = Field(8, ge=1, le=10_000)
    """The number of configurations to try."""
    max_concurrent: int | None = Field(None, ge=1)
    """Trials that run at the same time; None: as many as the cluster's CPUs and GPUs allow."""
    scheduler: SchedulerConfig = SchedulerConfig()
    """What stops a trial early."""
    searcher: Literal["optuna", "random"] = "optuna"
    """`optuna`: the TPE sampler; with asha or hyperband this is the idea of BOHB (Falkner et al. 2018). pbt
    always draws at random.
    """
    seed: int = Field(0, ge=0, lt=2**31)
    """Seed of the searcher; `train.seed` is the seed of the trainings."""
    objectives: tuple[Objective, ...] = ("log_loss",)
    """What to minimise: calibrated validation log loss, largest flip rate, milliseconds per headline. Several
    objectives give a Pareto front, and best.yaml is the trial on it that is best by the first objective."""
    flip_headlines: int = Field(500, ge=1, le=1_000_000)
    """The largest number of validation headlines that flip_rate is measured on."""
    max_failures: int = Field(1, ge=0, le=100)
    """How often a failed trial is restarted."""
    time_budget_s: float | None = Field(None, gt=0.0)
    """Seconds after which all trials stop."""
    output: Uri = "artifacts/sweeps"
    """Folder of the sweeps. The same output and name resume an interrupted sweep."""
    name: str = Field("sweep", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    """The sweep's name, and the W&B group of its trials."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not self.objectives or len(set(self.objectives)) < len(self.objectives):
            raise ValueError("objectives: name one or more, each once")
        spaces.check(self.space, self.train)
        if self.scheduler.kind == "asha" and self.scheduler.grace_epochs > self.train.epochs:
            raise ValueError(
                f"scheduler.grace_epochs: {self.scheduler.grace_epochs} is more than train.epochs, "
                f"{self.train.epochs}"
            )
        if self.scheduler.kind == "pbt":
            if self.trials < 2:
                raise ValueError("trials: population based training compares trials: 2 or more")
            if fixed := next((name for name in self.space if name not in spaces.MUTABLE), None):
                raise ValueError(
                    f"space.{fixed}: pbt cannot change it in mid-training; it can change: "
                    f"{', '.join(sorted(spaces.MUTABLE))}"
                )
        return self
