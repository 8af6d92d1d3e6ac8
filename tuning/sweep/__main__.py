"""Search hyperparameters: every trial is a `ray_jobs.train` run under Ray Tune.

    python -m tuning.sweep --config configs/sweep.yaml --trials 16

After a kill, the same command resumes the sweep; finished trials are not trained again. Writes to
<output>/<name>:

    best.yaml      the best trial: python -m ray_jobs.train --config <output>/<name>/best.yaml
    report.html    plots of the trials
    trials.json    the same data as JSON
    trials/        the training runs; wandb sync <output>/<name>/trials/wandb/offline-run-* uploads them
    tune/          Ray Tune's state
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import signal
import sys
import uuid
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import ray
import yaml
from ray import tune
from ray.tune.search import BasicVariantGenerator
from ray.tune.search.optuna import OptunaSearch

from clickbait import cli, storage
from clickbait.config import TrainConfig
from clickbait.data.dataset import Dataset, open_dataset
from clickbait.errors import DataError
from clickbait.pretrained import locate
from clickbait.training import tracking
from clickbait.training.runs import Run
from ray_jobs.ray_storage import run_storage
from ray_jobs.session import connect
from ray_jobs.train import check_resources
from tuning.sweep import report, space, trial
from tuning.sweep.config import SweepConfig
from tuning.sweep.progress import Progress
from tuning.sweep.results import collect

# CPUs of a trial that trains on separate workers. With more, the waiting drivers would hold every CPU.
DRIVER_CPUS = 0.1
# Keys that do not change a trial's result: paths, output on the terminal, saving and retries.
IGNORED = frozenset(
    f"train.{name}"
    for name in ("dataset", "output", "name", "progress", "profile", "wandb_project", "max_failures")
)
SAVE_S = "3"  # seconds between two saves of Tune's state: a killed driver loses at most this much


def sweep(config: SweepConfig) -> dict[str, Any]:
    """Runs or resumes the sweep and returns the document of trials.json; at once if the sweep is finished.

    Raises:
        DataError: the dataset is missing or incomplete, another sweep has this name, the trials need more
            than the cluster has, or no trial finished.
        ModelError: a base model is not available, or the dataset was made with another tokenizer.
        RunInUse: another process runs this sweep.
    """
    tracking.check()
    dataset = open_dataset(config.train.dataset)
    home = Run(storage.join(config.output, config.name))
    model = locate.pin(config.train.model, (home.read_json("run.json") or {}).get("train.model"))
    config = config.model_copy(
        update={"train": config.train.model_copy(update={"dataset": dataset.uri, "model": model})}
    )
    for model in space.extremes(config.space["model"]) if "model" in config.space else [config.train.model]:
        locate.locate(model)
        dataset.check_model(model)
    described = description(config, dataset.fingerprint)
    if home.read_json("run.json") is not None:
        home.claim(described, defaults(), IGNORED)  # refuses another sweep
    done = home.read_json("trials.json")
    if done is not None:
        return done
    with home.hold():  # two drivers of one sweep would overwrite each other's Tune state
        # The sweep may have finished while this process waited for the lease.
        return home.read_json("trials.json") or _search(config, dataset, home, described)


def _search(config: SweepConfig, dataset: Dataset, home: Run, described: dict[str, Any]) -> dict[str, Any]:
    """Runs or resumes the trials, and writes the results."""
    connect()
    concurrent = places(config)
    # Claimed after the check above, so that a sweep that needs too much can be corrected under the same name.
    home.claim(described, defaults(), IGNORED)
    with _stoppable(), warnings.catch_warnings():
        # The warning suggests reusing actors, but each trial has to end its run.
        warnings.filterwarnings("ignore", "Consider boosting PBT performance")
        results = tuner(config, home.uri, concurrent).fit()
    document = collect(config, dataset, results)
    finished = [entry for entry in document["trials"] if entry["status"] == "finished"]
    if not finished:
        errors = [entry["error"] for entry in document["trials"] if entry["error"]]
        if len(errors) == len(document["trials"]):
            raise DataError(
                f"{home.uri}: all {len(errors)} trials failed, the first with: "
                f"{errors[0] if errors else 'no message'}"
            )
        raise DataError(
            f"{home.uri}: no trial finished: raise time_budget_s, or lower train.epochs, under another --name"
        )
    best = next(entry for entry in finished if entry["name"] == document["best"])
    home.storage.write("best.yaml", best_yaml(config, best).encode())
    home.storage.write("report.html", report.render(document).encode(errors="replace"))
    home.write_json("trials.json", document)  # last: it marks the sweep as finished
    return document


def description(config: SweepConfig, fingerprint: str) -> dict[str, Any]:
    """The sweep's settings as a flat dict. Resuming requires the same ones, and an error names the key."""
    flat: dict[str, Any] = {"dataset": fingerprint}
    for key, value in config.model_dump(mode="json", exclude={"output", "name"}).items():
        flat |= (
            {f"{key}.{name}": part for name, part in value.items()}
            if isinstance(value, dict)
            else {key: value}
        )
    return {key: value for key, value in flat.items() if key not in IGNORED}


def defaults() -> dict[str, Any]:
    """The default values in `description`, for a run.json that was written before a setting existed."""
    return {
        key: value
        for key, value in description(SweepConfig(), "").items()
        if key != "dataset" and not key.startswith("space.")
    }


def needs(config: SweepConfig) -> dict[str, float]:
    """The resources of one trial, including its workers."""
    train, workers = config.train, max(config.train.num_workers, 1)
    driver = DRIVER_CPUS if train.num_workers else 0.0
    return {
        "CPU": train.cpus_per_worker * workers + driver,
        **({"GPU": float(workers)} if train.use_gpu else {}),
    }


def places(config: SweepConfig) -> int:
    """How many trials run at the same time.

    Raises:
        DataError: one trial, or `max_concurrent` trials, need more than the cluster has.
    """
    check_resources(config.train.model_copy(update={"num_workers": max(config.train.num_workers, 1)}))
    available = ray.cluster_resources()
    fits = max(int(min(available.get(name, 0) / required for name, required in needs(config).items())), 1)
    if (
        config.max_concurrent is None
        or config.max_concurrent <= fits
        or os.environ.get("CLICKBAIT_AUTOSCALES") == "1"
    ):
        return min(config.max_concurrent or fits, config.trials)
    required = " and ".join(
        f"{config.max_concurrent * each:g} {name}" for name, each in needs(config).items()
    )
    has = " and ".join(f"{available.get(name, 0):g} {name}" for name in needs(config))
    raise DataError(
        f"{config.max_concurrent} trials at a time need {required}, the cluster has {has}: lower "
        f"--max-concurrent to {fits}"
    )


def tuner(config: SweepConfig, home: str, concurrent: int) -> tune.Tuner:
    """A new Tuner, or the restored one of an interrupted sweep.

    Raises:
        DataError: Tune's state exists but cannot be read.
    """
    # Turn off Ray Tune's tables, files, log and signal handler: `Progress`, the runs' histories and `main`
    # replace them.
    os.environ |= {
        "RAY_AIR_NEW_OUTPUT": "0",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
    }
    os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = "1"  # some objectives are known only at a trial's end
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", SAVE_S)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    state = storage.join(home, "tune")
    kept = run_storage(state)
    path, filesystem = kept["storage_path"], kept["storage_filesystem"]
    if tune.Tuner.can_restore(path, storage_filesystem=filesystem):
        try:
            return tune.Tuner.restore(
                path,
                trainable(config),
                resume_unfinished=True,
                resume_errored=True,
                storage_filesystem=filesystem,
            )
        except Exception as error:  # Tune's state holds pickles, and a damaged pickle can raise any error
            raise DataError(
                f"{state}: cannot be read ({' '.join(str(error).split())[:200]}): remove {home} and start "
                f"again"
            ) from None
    pbt = config.scheduler.kind == "pbt"
    random.seed(config.seed)  # Tune's schedulers use both generators
    np.random.seed(config.seed)
    return tune.Tuner(
        trainable(config),
        param_space=space.to_tune(config.space) if pbt else None,
        tune_config=tune.TuneConfig(
            num_samples=config.trials,
            max_concurrent_trials=None if pbt else concurrent,
            search_alg=BasicVariantGenerator(max_concurrent=concurrent, random_state=config.seed)
            if pbt
            else searcher(config),
            scheduler=scheduler(config),
            time_budget_s=config.time_budget_s,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
            # Starting an actor takes longer than a small trial. But a trial that may be paused, or that has
            # workers, has to end with its actor.
            reuse_actors=config.scheduler.kind in ("asha", "none") and not config.train.num_workers,
        ),
        run_config=tune.RunConfig(
            name="tune",
            **run_storage(home),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1),  # each holds only a URI
            failure_config=tune.FailureConfig(max_failures=config.max_failures),
            callbacks=[Progress(config.trials, config.train.epochs)],
            verbose=0,
        ),
    )


def trainable(config: SweepConfig) -> Any:
    """The trainable class and its resources."""

    class Trial(trial.Trial):
        sweep = config
        wandb_mode = os.environ.get("WANDB_MODE")
        driver = uuid.uuid4().hex

    workers = config.train.num_workers
    return tune.with_resources(
        Trial,
        {"cpu": DRIVER_CPUS} if workers else {name.lower(): count for name, count in needs(config).items()},
    )


class Searcher(OptunaSearch):  # type: ignore[misc]
    """Ray's OptunaSearch, but a trial without all objectives counts as failed.

    Optuna then ignores the trial. Otherwise it would wait for the missing objectives forever.
    """

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        if isinstance(self.metric, list) and not all(name in (result or {}) for name in self.metric):
            result, error = None, True
        super().on_trial_complete(trial_id, result, error)


def searcher(config: SweepConfig) -> Searcher:
    """TPE (Bergstra et al. 2011) or random draws.

    With one metric, the searcher also learns from the epochs of a trial; with several, only from its end.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if config.searcher == "random":
        sampler: optuna.samplers.BaseSampler = optuna.samplers.RandomSampler(seed=config.seed)
    # As in BOHB, the number of random draws before TPE starts is the number of dimensions plus one. Optuna's
    # default of ten would use up a small sweep.
    else:
        sampler = optuna.samplers.TPESampler(seed=config.seed, n_startup_trials=len(config.space) + 1)
    alone = config.objectives == ("log_loss",)
    metric: Any = "log_loss" if alone else list(config.objectives)
    return Searcher(
        space.to_optuna(config.space), metric, "min" if alone else ["min"] * len(metric), sampler=sampler
    )


def scheduler(config: SweepConfig) -> Any:
    """The scheduler. It always uses the log loss: the other objectives are known only at a trial's end."""
    from ray.tune import schedulers

    chosen = config.scheduler
    common = {"time_attr": "epoch", "metric": "log_loss", "mode": "min"}
    if chosen.kind == "asha":
        grace, factor = chosen.grace_epochs, chosen.reduction_factor
        return schedulers.ASHAScheduler(
            **common, max_t=config.train.epochs, grace_period=grace, reduction_factor=factor
        )
    if chosen.kind == "hyperband":
        return schedulers.HyperBandScheduler(
            **common, max_t=config.train.epochs, reduction_factor=chosen.reduction_factor
        )
    if chosen.kind == "pbt":
        searched = config.space
        return schedulers.PopulationBasedTraining(
            **{**common, "metric": "current"},  # `log_loss`, the lowest so far, may come from the donor
            perturbation_interval=chosen.perturb_epochs,
            hyperparam_mutations=space.mutations(searched),
            quantile_fraction=chosen.quantile,
            custom_explore_fn=lambda values: space.clamp(searched, values),
            log_config=False,
        )
    return schedulers.FIFOScheduler()


def best_yaml(config: SweepConfig, best: dict[str, Any]) -> str:
    """The best trial's settings as YAML for `ray_jobs.train`."""
    values = TrainConfig.model_validate(
        {**config.train.model_dump(), **best["config"], "name": f"{config.name}-best"}
    ).model_dump(mode="json")
    figures = ", ".join(f"{name} {value:.5g}" for name, value in best["metrics"].items() if value is not None)
    comment = f"# {best['name']} of the sweep {config.name}: {figures} on validation.\n"
    if config.scheduler.kind == "pbt":
        comment += "# Population based training changed values during training: these are the last ones.\n"
    return comment + yaml.safe_dump(
        TrainConfig.model_validate(values).model_dump(mode="json"), sort_keys=False
    )


def _trial_name(trial: Any) -> str:
    return f"trial-{trial.trial_id}"


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """Treats SIGTERM like Ctrl-C. Use it after Ray has started, because Ray sets its own handler.

    Tune's state is on the disk by then, and the trials end with this process.
    """

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def main(config: SweepConfig) -> int | None:
    """Runs the sweep, and prints the best trial and where the report is."""
    home = storage.join(config.output, config.name)
    try:
        document = sweep(config)
    except KeyboardInterrupt:
        print(f"stopped; the same command resumes the sweep in {home}", file=sys.stderr)
        return 130
    counts = [entry["status"] for entry in document["trials"]]
    print(", ".join(f"{counts.count(status)} {status}" for status in ("finished", "stopped early", "failed")))
    best = next(entry for entry in document["trials"] if entry["name"] == document["best"])
    print(f"best: {best['name']}, {json.dumps(best['config'])}, {json.dumps(best['metrics'])}")
    print(f"report: {storage.join(home, 'report.html')}")
    print(f"train it again: python -m ray_jobs.train --config {storage.join(home, 'best.yaml')}")
    print(f"W&B: wandb sync {trial.folder(config)}/wandb/offline-run-*")
    return None


if __name__ == "__main__":
    cli.run(SweepConfig, main, __doc__)
