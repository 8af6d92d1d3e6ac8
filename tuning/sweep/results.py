"""A sweep's results: builds trials.json from Ray Tune's results and the histories of the training runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from clickbait import storage
from clickbait.data.dataset import Dataset
from clickbait.training.runs import SELECTED_BY, Run
from tuning.sweep import trial
from tuning.sweep.config import SweepConfig


def collect(config: SweepConfig, dataset: Dataset, results: Any) -> dict[str, Any]:
    """The document of trials.json.

    Keys: name, dataset, synthetic, objectives, scheduler, searcher, epochs, space, best (a trial's name, or
    None) and trials, in the order in which they started. A trial's keys: name, runs (the names of its
    training runs; several under pbt), config (the values of the searched settings), metrics (log_loss and
    the other objectives; None: not measured), status (finished, stopped early, failed), epochs, seconds,
    pareto, error, history (epoch and log_loss of each epoch).
    """
    trials = [_entry(config, result) for result in results]
    trials.sort(key=lambda entry: (entry["started"] is None, entry["started"]))
    for entry in trials:
        del entry["started"]
    finished = [entry for entry in trials if entry["status"] == "finished"]
    on_front = front([[entry["metrics"][name] for name in config.objectives] for entry in finished])
    for entry, is_on in zip(finished, on_front, strict=True):
        entry["pareto"] = is_on
    best = min(
        finished, key=lambda entry: [entry["metrics"][name] for name in config.objectives], default=None
    )
    return {
        "name": config.name,
        "dataset": dataset.fingerprint,
        "synthetic": dataset.synthetic,
        "objectives": list(config.objectives),
        "scheduler": config.scheduler.kind,
        "searcher": "random" if config.scheduler.kind == "pbt" else config.searcher,
        "epochs": config.train.epochs,
        "space": {name: domain.model_dump(mode="json") for name, domain in config.space.items()},
        "best": best and best["name"],
        "trials": trials,
    }


def _entry(config: SweepConfig, result: Any) -> dict[str, Any]:
    """The entry of one trial.

    Tune has no metrics of a trial that failed or was stopped before its first report.
    """
    name = PurePosixPath(str(result.path)).name
    reported: Mapping[str, Any] = result.metrics or {}
    runs = trial.generations(trial.folder(config), name)
    history = _history(config, runs)
    finished = "finished" if reported.get("final") else "stopped early"
    status = "failed" if result.error is not None else finished
    # Under pbt only the last run counts: the earlier runs ended in a model that was given up.
    last = _history(config, runs[-1:])
    return {
        "name": name,
        "runs": runs,
        "config": _values(config, runs[-1]),
        "metrics": {
            "log_loss": min((entry["log_loss"] for entry in last), default=None),
            **{key: reported.get(key) for key in config.objectives if key != "log_loss"},
        },
        "status": status,
        "epochs": int(max((entry["epoch"] for entry in history), default=0)),
        "seconds": reported.get("time_total_s"),
        # a failed trial may have no time
        "started": reported["timestamp"] - reported["time_total_s"] if "time_total_s" in reported else None,
        "pareto": False,
        "error": None if result.error is None else first_line(result.error),
        "history": history,
    }


def _values(config: SweepConfig, name: str) -> dict[str, Any]:
    """A run's values of the searched settings.

    They are read from run.json, which exists from the start. Tune knows them only after the first report.
    """
    document = Run(storage.join(trial.folder(config), name)).read_json("run.json")
    return {} if document is None else {key: document["config"][key] for key in config.space}


def _history(config: SweepConfig, runs: Sequence[str]) -> list[dict[str, float]]:
    """The number and the log loss of each epoch of the runs, in order."""
    history = []
    for name in runs:
        run = Run(storage.join(trial.folder(config), name))
        checkpoints = run.complete()
        entries = run.state(checkpoints[-1]).history if checkpoints else []
        history += [{"epoch": entry["epoch"], "log_loss": entry[SELECTED_BY]} for entry in entries]
    return history


def front(points: Sequence[Sequence[float]]) -> list[bool]:
    """Whether each point is on the Pareto front, where lower values are better."""

    def dominates(point: Sequence[float], other: Sequence[float]) -> bool:
        return all(a <= b for a, b in zip(point, other, strict=True)) and list(point) != list(other)

    return [not any(dominates(point, other) for point in points) for other in points]


def first_line(error: BaseException) -> str:
    """The last line of an error of Ray. The lines before it are the worker's traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
