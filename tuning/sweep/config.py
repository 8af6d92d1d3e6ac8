"""The configuration of `tuning.sweep`: `configs/sweep.yaml`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import tyro
from pydantic import Field, model_validator

from clickbait.config import Config, TrainConfig, Uri
from tuning.sweep import space as spaces

Objective = Literal["log_loss", "flip_rate", "latency_ms"]


class SchedulerConfig(Config):
    """How trials that promise little are ended before their last epoch."""

    kind: Literal["asha", "hyperband", "pbt", "none"] = "asha"
    """`asha`: successive halving without waiting (Li et al. 2020); `hyperband`: with rounds that wait for
    each other (Li et al. 2018); `pbt`: the worst go on from the best ones' checkpoints with other values
    (Jaderberg et al. 2017); `none`: every trial ends."""
    grace_epochs: int = Field(1, ge=1)
    """asha: epochs that every trial has."""
    reduction_factor: int = Field(3, ge=2, le=16)
    """asha, hyperband: one in so many trials goes on at each rung."""
    perturb_epochs: int = Field(2, ge=1)
    """pbt: epochs between two comparisons."""
    quantile: float = Field(0.25, gt=0.0, le=0.5)
    """pbt: the share of trials that is replaced, and the share that it is replaced by."""


class SweepConfig(Config):
    """A search space in, trials, a report and the best configuration out: `tuning.sweep`."""

    train: TrainConfig = TrainConfig(model="scratch:ngrams", epochs=9, lr=3e-3, batch_size=64, num_workers=0)
    """What every trial trains with but for what is searched. `num_workers` 0 trains in the trial's own
    process, 1 and more under a TorchTrainer of its own, which takes half a minute to start. `output` and
    `name` are the sweep's; best.yaml keeps `output`."""
    space: Annotated[dict[str, spaces.Domain], tyro.conf.Suppress] = Field(
        {"lr": spaces.LogUniform(type="log_uniform", low=1e-4, high=1e-2)}
    )
    """What is searched (`tuning.sweep.space`): through the YAML file only."""
    trials: int = Field(8, ge=1, le=10_000)
    """How many configurations are tried."""
    max_concurrent: int | None = Field(None, ge=1)
    """Trials at a time; None: as many as the cluster's CPUs and GPUs take."""
    scheduler: SchedulerConfig = SchedulerConfig()
    """What ends a trial early."""
    searcher: Literal["optuna", "random"] = "optuna"
    """`optuna`: its TPE sampler; with asha or hyperband that is the idea of BOHB (Falkner et al. 2018). pbt
    draws at random.
    """
    seed: int = Field(0, ge=0, lt=2**31)
    """Seeds the searcher; `train.seed` seeds the trainings."""
    objectives: tuple[Objective, ...] = ("log_loss",)
    """What is made small: calibrated validation log loss, largest flip rate, milliseconds of a headline.
    Several: a Pareto front, and best.yaml is the one of it that is best by the first."""
    flip_headlines: int = Field(500, ge=1, le=1_000_000)
    """Validation headlines that flip_rate is measured on, at most."""
    max_failures: int = Field(1, ge=0, le=100)
    """Times a failed trial is started again."""
    time_budget_s: float | None = Field(None, gt=0.0)
    """Seconds after which no trial goes on."""
    output: Uri = "artifacts/sweeps"
    """Where sweeps are kept. The same output and name go on with a sweep that was cut off."""
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
            if stuck := next((name for name in self.space if name not in spaces.MUTABLE), None):
                raise ValueError(
                    f"space.{stuck}: pbt cannot change it in mid-training; it can: "
                    f"{', '.join(sorted(spaces.MUTABLE))}"
                )
        return self
