"""What a sweep found: the document of trials.json, from Ray Tune's results and the training runs' own
histories.
"""

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
    """The document.

    Keys: name, dataset, synthetic, objectives, scheduler, searcher, epochs, space, best (a trial's name, or
    None) and trials, in the order in which they started: name, runs (names of its training runs: more than
    one under pbt), config (what was searched), metrics (log_loss and the other objectives; None: not
    measured), status (finished, stopped early, failed), epochs, seconds, pareto, error, history (epoch and
    log_loss of each).
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
    """A trial. What Tune says of it may be nothing at all, where it failed or was stopped before its first
    report.
    """
    name = PurePosixPath(str(result.path)).name
    told: Mapping[str, Any] = result.metrics or {}
    runs = trial.generations(trial.folder(config), name)
    history = _history(config, runs)
    status = "failed" if result.error is not None else "finished" if told.get("final") else "stopped early"
    # A trial under pbt has the figures of its last run: what went before led elsewhere.
    last = _history(config, runs[-1:])
    return {
        "name": name,
        "runs": runs,
        "config": _values(config, runs[-1]),
        "metrics": {
            "log_loss": min((entry["log_loss"] for entry in last), default=None),
            **{key: told.get(key) for key in config.objectives if key != "log_loss"},
        },
        "status": status,
        "epochs": int(max((entry["epoch"] for entry in history), default=0)),
        "seconds": told.get("time_total_s"),
        "started": told["timestamp"] - told["time_total_s"]
        if "time_total_s" in told
        else None,  # not in a failed one's
        "pareto": False,
        "error": None if result.error is None else first_line(result.error),
        "history": history,
    }


def _values(config: SweepConfig, name: str) -> dict[str, Any]:
    """What a run was given of what is searched: the run knows it from its start on, Tune only of a trial that
    reported.
    """
    found = Run(storage.join(trial.folder(config), name)).read_json("run.json")
    return {} if found is None else {key: found["config"][key] for key in config.space}


def _history(config: SweepConfig, runs: Sequence[str]) -> list[dict[str, float]]:
    """Epoch and log loss of each epoch of the runs, one after the other."""
    found = []
    for name in runs:
        run = Run(storage.join(trial.folder(config), name))
        whole = run.complete()
        entries = run.state(whole[-1]).history if whole else []
        found += [{"epoch": entry["epoch"], "log_loss": entry[SELECTED_BY]} for entry in entries]
    return found


def front(points: Sequence[Sequence[float]]) -> list[bool]:
    """For each point whether it is on the Pareto front: no other is at least as low in all and lower in
    one.
    """

    def beats(one: Sequence[float], other: Sequence[float]) -> bool:
        return all(a <= b for a, b in zip(one, other, strict=True)) and list(one) != list(other)

    return [not any(beats(one, other) for one in points) for other in points]


def first_line(error: BaseException) -> str:
    """What went wrong, out of an error of Ray's that carries the worker's traceback: the last line, which
    names it.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
