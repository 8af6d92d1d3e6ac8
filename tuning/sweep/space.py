"""A sweep's search space: which settings of a `TrainConfig` are searched, and their bounds.

    space:
      lr: {type: log_uniform, low: 1.0e-4, high: 1.0e-2}
      batch_size: {type: choice, values: [32, 64, 128]}
      hidden: {type: int, low: 32, high: 128, step: 32}
      dropout: {type: uniform, low: 0.0, high: 0.3}

A range includes both ends. The space is read from YAML and checked before anything starts.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from clickbait.config import Config, TrainConfig, did_you_mean, validate

FIXED = {
    "dataset": "all trials are compared on one",
    "output": "the sweep says where trials are kept",
    "name": "the sweep names its trials",
    "epochs": "it is the budget that the scheduler shares out",
    "max_steps": "it is the budget that the scheduler shares out",
    "num_workers": "it changes no figure",
    "use_gpu": "it changes no figure",
    "cpus_per_worker": "it changes no figure",
    "threads": "it changes no figure",
    "checkpoint_steps": "it changes no figure",
    "keep_checkpoints": "it changes no figure",
    "max_failures": "it changes no figure",
    "profile": "it changes no figure",
    "progress": "it changes no figure",
    "wandb_project": "it changes no figure",
}
"""Keys of TrainConfig that are the same for all trials, and why."""

# Settings that may change in mid-training: neither a weight's shape nor the steps of an epoch depend on them.
MUTABLE = frozenset(
    {
        "lr",
        "schedule",
        "warmup_fraction",
        "weight_decay",
        "clip_norm",
        "dropout",
        "label_smoothing",
        "augment",
    }
)
MUTABLE |= {"soft_weight", "soft_temperature"}
# Integer ranges up to this length are checked value by value; of longer ones, the two values at each end.
MANY = 4096


class _Range(Config):
    @model_validator(mode="after")
    def _ordered(self) -> Self:
        low, high = self.low, self.high  # type: ignore[attr-defined]  # each child has its own type of both
        if low >= high:
            raise ValueError(f"low must be below high, and {low:g} is not below {high:g}")
        return self


class Uniform(_Range):
    """A number from `low` to `high`, uniformly distributed."""

    type: Literal["uniform"]
    low: float
    high: float


class LogUniform(_Range):
    """A number from `low` to `high` whose logarithm is uniformly distributed."""

    type: Literal["log_uniform"]
    low: float = Field(gt=0.0)
    high: float


class Int(_Range):
    """A whole number from `low` to `high`."""

    type: Literal["int"]
    low: int
    high: int
    step: int = Field(1, ge=1)
    log: bool = False

    @model_validator(mode="after")
    def _log(self) -> Self:
        if self.log and (self.step != 1 or self.low < 1):
            raise ValueError("log: takes neither a step nor a low below 1")
        return self


class Choice(Config):
    """One of `values`."""

    type: Literal["choice"]
    values: tuple[bool | int | float | str | None, ...] = Field(min_length=1)


Domain = Annotated[Uniform | LogUniform | Int | Choice, Field(discriminator="type")]
Space = Mapping[str, Domain]


def check(space: Space, base: TrainConfig) -> None:
    """Checks that a trial can be trained with every value of the space.

    Raises:
        ValueError: a key is unknown or fixed, or `TrainConfig` refuses a bound. The message names the key.
    """
    if not space:
        raise ValueError(
            "space: nothing to search: name a key of train, for example lr: {type: log_uniform, low: 1.0e-4, "
            "high: 1.0e-2}"
        )
    known = [name for name in TrainConfig.model_fields if name not in FIXED]
    for name, domain in space.items():
        if name in FIXED:
            raise ValueError(f"space.{name}: cannot be searched, {FIXED[name]}: leave it out")
        if name not in known:
            raise ValueError(f"space.{name}: unknown key{did_you_mean(name, known)}")
        if name not in ("batch_size", "accumulation"):
            for value in extremes(domain):
                _check(base, {name: value})
    pair = {name: extremes(space[name]) for name in ("batch_size", "accumulation") if name in space}
    for values in itertools.product(*pair.values()):  # batch_size must be a multiple of accumulation
        _check(base, dict(zip(pair, values, strict=True)))


def _check(base: TrainConfig, values: dict[str, Any]) -> None:
    named = ", ".join(f"{name} {value}" for name, value in values.items())
    validate(TrainConfig, {**base.model_dump(), **values}, f"space ({named})")


def extremes(domain: Domain) -> list[Any]:
    """The values of a domain that `check` tries."""
    if isinstance(domain, Choice):
        return list(domain.values)
    if isinstance(domain, Int):
        every = range(domain.low, domain.high + 1, domain.step)
        return list(every) if len(every) <= MANY else [*every[:2], *every[-2:]]
    return [domain.low, domain.high]


def to_optuna(space: Space) -> dict[str, Any]:
    """The space as Optuna's distributions."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    distributions: dict[str, Any] = {}
    for name, domain in space.items():
        if isinstance(domain, Choice):
            distributions[name] = CategoricalDistribution(domain.values)
        elif isinstance(domain, Int):
            # Optuna warns if no step ends exactly at `high`.
            high = domain.high - (domain.high - domain.low) % domain.step
            distributions[name] = IntDistribution(domain.low, high, log=domain.log, step=domain.step)
        else:
            log = isinstance(domain, LogUniform)
            distributions[name] = FloatDistribution(domain.low, domain.high, log=log)
    return distributions


def to_tune(space: Space) -> dict[str, Any]:
    """The space in Ray Tune's form, for population based training, which draws the values itself."""
    from ray import tune

    domains: dict[str, Any] = {}
    for name, domain in space.items():
        if isinstance(domain, Choice | Int):
            domains[name] = tune.choice(values_of(domain))
        else:
            draw = tune.loguniform if isinstance(domain, LogUniform) else tune.uniform
            domains[name] = draw(domain.low, domain.high)
    return domains


def mutations(space: Space) -> dict[str, Any]:
    """`to_tune`, but with lists for choices and integers: Tune then steps to a neighbour in the list."""
    return {
        name: values_of(domain) if isinstance(domain := space[name], Choice | Int) else drawn
        for name, drawn in to_tune(space).items()
    }


def clamp(space: Space, values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with each number moved into its range: Tune's mutation multiplies without checking."""
    ranges = {name: domain for name, domain in space.items() if isinstance(domain, Uniform | LogUniform)}
    return {
        **values,
        **{name: min(max(values[name], domain.low), domain.high) for name, domain in ranges.items()},
    }


def values_of(domain: Choice | Int) -> list[Any]:
    """Every value, in order."""
    return (
        list(domain.values)
        if isinstance(domain, Choice)
        else list(range(domain.low, domain.high + 1, domain.step))
    )
