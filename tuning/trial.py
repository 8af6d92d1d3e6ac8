"""One trial of a sweep, as it runs in Ray Tune's actor: train, tell Tune of every epoch, measure, tell it of the end.

A trial is a training run like any other (`<sweep>/trials/trial-<id>`): it resumes itself after a kill, and logs to W&B itself. Tune's
checkpoint is a pointer to the run's newest one. Under population based training a trial that goes on from another's checkpoint is a
run of its own, `trial-<id>-g1` and so on, that starts with a copy of it.
"""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from ray import tune
from ray.train import UserCallback
from ray.util.queue import Empty, Queue

from clickbait import storage
from clickbait.checkpoints import SELECTED_BY, STATE, Run
from clickbait.config import TrainConfig
from clickbait.dataset import open_dataset
from clickbait.training import Place, fit
from ray_jobs.train import trainer
from tuning import objectives
from tuning.sweep_config import SweepConfig

POLL_S = 0.5  # between two looks for a report of the workers
POINTER = "pointer.json"


def folder(config: SweepConfig) -> str:
    """Where the sweep's training runs are; their W&B runs are in `wandb` below it."""
    return storage.join(config.output, config.name, "trials")


def train_config(config: SweepConfig, values: Mapping[str, Any], name: str) -> TrainConfig:
    """What a trial trains with."""
    own: dict[str, Any] = {"output": folder(config), "name": name, "progress": False}
    # Trials share the machine: the default of all its cores would be for one alone.
    own["threads"] = config.train.threads or max(int(config.train.cpus_per_worker), 1)
    return TrainConfig.model_validate({**config.train.model_dump(), **values, **own})


def run(config: SweepConfig, values: Mapping[str, Any]) -> None:
    """Trains a trial with these values of what is searched; called in Tune's actor."""
    base = train_config(config, values, f"trial-{tune.get_context().get_trial_id()}")
    checkpoint = tune.get_checkpoint()
    chosen = generation(base, None if checkpoint is None else _pointed(checkpoint))
    own = Run(storage.join(chosen.output, chosen.name))
    teller = Teller(chosen, own)
    if chosen.num_workers:
        for metrics in _on_workers(chosen, config.name):
            teller.tell(metrics)
    else:
        place = Place(device=torch.device("cuda" if chosen.use_gpu else "cpu"))
        fit(chosen, open_dataset(chosen.dataset), place, lambda metrics, _: teller.tell(metrics), group=config.name)
    # Once, of the best checkpoint, and after the last epoch only: the scheduler goes by the log loss, an export takes as long as an
    # epoch of a small model, and how a half-trained model flips says nothing of the one that it would become. A trial that was
    # stopped early has none of these figures, and is on no Pareto front.
    figures = objectives.measure(own.uri, open_dataset(chosen.dataset), config.objectives, config.flip_headlines)
    teller.end(figures)


class Teller:
    """Tells Tune of the epochs.

    The last one's report waits for the end: a scheduler may stop a trial at any report, and at the last epoch there is nothing left
    to save, only the run's end and the figures to lose.
    """

    def __init__(self, config: TrainConfig, own: Run) -> None:
        self.config, self.own = config, own
        names = own.complete()
        history = own.state(names[-1]).history if names else []
        self.best = min((entry[SELECTED_BY] for entry in history), default=float("inf"))

    def tell(self, metrics: Mapping[str, float]) -> None:
        """An epoch."""
        self.best = min(self.best, metrics[SELECTED_BY])
        last = metrics["epoch"] >= self.config.epochs or (self.config.max_steps and metrics["step"] >= self.config.max_steps)
        if not last:
            self._report(metrics, {})

    def end(self, figures: Mapping[str, float]) -> None:
        """The run is over."""
        done = self.own.read_json("done.json") or {}
        self._report(done["history"][-1], {**figures, "final": True})

    def _report(self, metrics: Mapping[str, float], more: Mapping[str, Any]) -> None:
        # log_loss is the lowest so far, since the best checkpoint is what a run is exported from; `current` is this epoch's.
        told = {"epoch": int(metrics["epoch"]), "log_loss": self.best, "current": metrics[SELECTED_BY], "final": False, **more}
        with tempfile.TemporaryDirectory() as name:
            uri = self.own.checkpoint_uri(f"step-{int(metrics['step']):08d}")
            (Path(name) / POINTER).write_text(json.dumps({"uri": uri}), encoding="utf-8")
            tune.report(told, checkpoint=tune.Checkpoint.from_directory(name))


class Forward(UserCallback):
    """Puts what the workers report into a queue. Ray's TuneReportCallback hands metrics to Tune without a checkpoint, which HyperBand
    and population based training cannot do without."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        self.queue.put(metrics[0])


def _on_workers(config: TrainConfig, group: str) -> Iterator[dict[str, float]]:
    """Trains under a TorchTrainer and yields what rank 0 reports."""
    queue = Queue(actor_options={"num_cpus": 0})
    raised: list[BaseException] = []

    def work() -> None:
        try:
            trainer(config, group=group, callbacks=[Forward(queue)]).fit()
        except BaseException as error:
            raised.append(error)

    # A daemon: Tune ends a trial by an exit from its report, and this thread must not hold the process then.
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    while thread.is_alive() or not queue.empty():
        try:
            yield queue.get(timeout=POLL_S)
        except Empty:
            continue
    if raised:
        raise raised[0]


def generations(output: str, name: str) -> list[str]:
    """The names of the runs that a trial consists of, oldest first: one, but for population based training."""
    names = [name]
    while Run(storage.join(output, successor := f"{name}-g{len(names)}")).read_json("run.json") is not None:
        names.append(successor)
    return names


def generation(config: TrainConfig, pointer: str | None) -> TrainConfig:
    """The trial's newest run; a new one that starts with a copy of the checkpoint at `pointer` where that is another trial's."""
    names = generations(config.output, config.name)
    current = config.model_copy(update={"name": names[-1]})
    if pointer is None or pointer.startswith(storage.join(current.output, current.name) + "/"):
        return current
    new = config.model_copy(update={"name": f"{config.name}-g{len(names)}"})
    adopt(pointer, Run(storage.join(new.output, new.name)))
    return new


def adopt(pointer: str, own: Run) -> None:
    """Copies the checkpoint at the URI `pointer` into the run."""
    uri, name = pointer.rsplit("/checkpoints/", 1)
    donor = Run(uri)
    if name not in donor.complete():
        name = donor.complete()[-1]  # the donor went on and pruned it: its newest is no worse a start
    state = donor.state(name)
    with donor.fetch(name) as files:
        (files / STATE).unlink()
        # Of the epochs only the last: the others' checkpoints stay with the donor, and the best of a run must be one of its own.
        own.save(files, state.model_copy(update={"history": state.history[-1:]}))


def _pointed(checkpoint: Any) -> str:
    with checkpoint.as_directory() as name:
        return str(json.loads((Path(name) / POINTER).read_text(encoding="utf-8"))["uri"])
