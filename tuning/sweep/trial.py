"""One trial of a sweep, as it runs in Ray Tune's actor: train, tell Tune of every epoch, measure, tell it of
the end.

A trial is a training run like any other (`<sweep>/trials/trial-<id>`): it resumes itself after a kill, and
logs to W&B itself. Tune's checkpoint is a pointer to the run's newest one. Under population based training a
trial that goes on from another's checkpoint is a run of its own, `trial-<id>-g1` and so on, that starts with
a copy of it.
"""

from __future__ import annotations

import json
import logging
import math
import os
import queue
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ray import tune
from ray.train import UserCallback
from ray.util.queue import Empty, Queue

from clickbait import storage
from clickbait.config import TrainConfig
from clickbait.data.dataset import Dataset, open_dataset
from clickbait.errors import DataError
from clickbait.training.runs import SELECTED_BY, Run
from tuning.sweep import objectives
from tuning.sweep.config import SweepConfig

POLL_S = 0.5  # between two looks for a report of the workers
CLEANUP_S = 30.0  # for a W&B run to end
POINTER = "pointer.json"


def folder(config: SweepConfig) -> str:
    """Where the sweep's training runs are; their W&B runs are in `wandb` below it."""
    return storage.join(config.output, config.name, "trials")


def train_config(config: SweepConfig, values: Mapping[str, Any], name: str) -> TrainConfig:
    """What a trial trains with."""
    own: dict[str, Any] = {"output": folder(config), "name": name, "progress": False}
    # Trials share the machine: the default of all its cores would be for one alone.
    own["threads"] = config.train.threads or max(int(config.train.cpus_per_worker), 1)
    if (
        config.scheduler.kind == "pbt"
    ):  # another trial may start from any of them, when this one is long past it
        own["keep_checkpoints"] = min(config.train.epochs, 100)
    return TrainConfig.model_validate({**config.train.model_dump(), **values, **own})


class Trial(tune.Trainable):  # type: ignore[misc]  # ray is untyped
    """Trains in a thread of its own, which waits at the end of each epoch until Tune asks for the next.

    A class and not a function: Tune waits for its `cleanup`, so that a trial that is stopped ends its W&B run
    too. An actor may run one trial after the other (`reset_config`), and loads torch once.
    """

    sweep: SweepConfig
    """Set by a child (`tuning.sweep.trainable`), as is the next."""
    wandb_mode: str | None = None
    """The driver's WANDB_MODE: an actor has the environment of its node."""
    driver: str | None = None
    """The sweep's command: an actor that Tune starts again for a trial takes its lease over at once
    (`clickbait.storage.lease`).
    """

    def setup(self, config: dict[str, Any]) -> None:
        for name in ("ray.train._internal.storage", "ray.tune"):
            logging.getLogger(name).setLevel(logging.WARNING)
        if self.wandb_mode is not None:
            os.environ["WANDB_MODE"] = self.wandb_mode
        self._prepare(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._end()  # for as long as it takes: a process has one W&B run at a time
        self._prepare(new_config)
        return True

    def _prepare(self, config: dict[str, Any]) -> None:
        self._values = {name: config[name] for name in self.sweep.space}
        self._pointer: str | None = None
        self._told: queue.Queue[dict[str, Any] | BaseException] = queue.Queue()
        self._next = threading.Semaphore(0)
        self._stopping = False
        # A daemon, as the one that waits for workers: neither must hold a process that is to end.
        self._thread = threading.Thread(target=self._work, daemon=True)

    def step(self) -> dict[str, Any]:
        """An epoch, or the trial's end."""
        if self._thread.ident is None:
            self._thread.start()
        else:
            self._next.release()
        told = self._told.get()
        if isinstance(told, BaseException):
            raise told
        return told

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        (Path(checkpoint_dir) / POINTER).write_text(json.dumps({"uri": self._pointer}), encoding="utf-8")

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        self._pointer = json.loads((Path(checkpoint_dir) / POINTER).read_text(encoding="utf-8"))["uri"]

    def cleanup(self) -> None:
        self._end(CLEANUP_S)
        if (
            "wandb" in sys.modules
        ):  # its service is a child process, which Ray ends before Python's own exit would
            sys.modules["wandb"].teardown()

    def _end(self, timeout: float | None = None) -> None:
        self._stopping = True
        self._next.release()
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def _work(self) -> None:
        try:
            self._train()
        except _Stopped:
            pass
        except BaseException as error:
            self._told.put(error)

    def _train(self) -> None:
        base = train_config(self.sweep, self._values, f"trial-{self.trial_id}")
        config = generation(base, self._pointer)
        own = Run(storage.join(config.output, config.name))
        names = own.complete()
        self._best = min(
            (entry[SELECTED_BY] for entry in (own.state(names[-1]).history if names else [])),
            default=math.inf,
        )
        dataset = open_dataset(config.dataset)
        if (
            own.read_json("done.json") is None
        ):  # else it is trained, and the driver was killed before Tune had saved that
            self._fit(config, own, dataset)
        # Once, of the best checkpoint, and after the last epoch only: the scheduler goes by the log loss, an
        # export takes as long as an epoch of a small model, and how a half-trained model flips says nothing
        # of the one that it would become. A trial that was stopped early has none of these figures, and is on
        # no Pareto front.
        figures = objectives.measure(own.uri, dataset, self.sweep.objectives, self.sweep.flip_headlines)
        done = own.read_json("done.json")
        assert done is not None, "fit returned, and the run is not over"
        self._told.put({**self._result(own, done["history"][-1]), **figures, "final": True, "done": True})

    def _fit(self, config: TrainConfig, own: Run, dataset: Dataset) -> None:
        if config.num_workers:
            for metrics in _on_workers(config, self.sweep.name, self.driver):
                self._epoch(config, own, metrics)
            return
        # Importing torch takes 10 s, so an actor whose trial trains on workers does not import it.
        from clickbait.training.loop import Place, fit

        place = Place(device="cuda" if config.use_gpu else "cpu")
        fit(
            config,
            dataset,
            place,
            lambda metrics, _: self._epoch(config, own, metrics),
            group=self.sweep.name,
            driver=self.driver,
        )

    def _epoch(self, config: TrainConfig, own: Run, metrics: Mapping[str, float]) -> None:
        """Hands an epoch to `step`, and waits to be asked for the next.

        The last one is told with the trial's end: a scheduler may stop a trial at any report, and there is
        nothing left to save then.
        """
        if metrics["epoch"] >= config.epochs or (config.max_steps and metrics["step"] >= config.max_steps):
            return
        self._told.put(self._result(own, metrics))
        self._next.acquire()
        if self._stopping:
            raise _Stopped

    def _result(self, own: Run, metrics: Mapping[str, float]) -> dict[str, Any]:
        # log_loss is the lowest so far, since the best checkpoint is what a run is exported from; `current`
        # is this epoch's.
        self._best = min(self._best, metrics[SELECTED_BY])
        self._pointer = own.checkpoint_uri(f"step-{int(metrics['step']):08d}")
        return {
            "epoch": int(metrics["epoch"]),
            "log_loss": self._best,
            "current": metrics[SELECTED_BY],
            "final": False,
        }


class _Stopped(BaseException):
    """Tune wants no more of this trial. Not an Exception: nothing on the way out is to take it for a
    failure.
    """


class Forward(UserCallback):  # type: ignore[misc]
    """Puts what the workers report into a queue. Ray's TuneReportCallback asks for a function trainable, and
    hands Tune no checkpoint, which HyperBand and population based training cannot do without."""

    def __init__(self, reports: Queue) -> None:
        self.reports = reports

    def after_report(self, *, metrics: list[dict[str, Any]], **_: Any) -> None:
        self.reports.put(metrics[0])


def _on_workers(config: TrainConfig, group: str, driver: str | None) -> Iterator[dict[str, float]]:
    """Trains under a TorchTrainer and yields what rank 0 reports."""
    from ray_jobs.trainer import fit

    reports = Queue(actor_options={"num_cpus": 0})
    raised: list[BaseException] = []

    def work() -> None:
        try:
            fit(config, group=group, driver=driver, callbacks=[Forward(reports)])
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    while thread.is_alive() or not reports.empty():
        try:
            yield reports.get(timeout=POLL_S)
        except Empty:
            continue
    if raised:  # by the worker's own error where there is one: Ray's message cuts it short
        raise next(iter(getattr(raised[0], "worker_failures", {}).values()), raised[0])


def generations(output: str, name: str) -> list[str]:
    """The names of the runs that a trial consists of, oldest first: one, but for population based
    training.
    """
    names = [name]
    while Run(storage.join(output, successor := f"{name}-g{len(names)}")).read_json("run.json") is not None:
        names.append(successor)
    return names


def generation(config: TrainConfig, pointer: str | None) -> TrainConfig:
    """The trial's newest run; a new one that starts with a copy of the checkpoint at `pointer` where that is
    another trial's.
    """
    names = generations(config.output, config.name)
    current = config.model_copy(update={"name": names[-1]})
    if pointer is None or pointer.startswith(storage.join(current.output, current.name) + "/"):
        return current
    new = config.model_copy(update={"name": f"{config.name}-g{len(names)}"})
    adopt(pointer, Run(storage.join(new.output, new.name)))
    return new


def adopt(pointer: str, own: Run) -> None:
    """Copies the checkpoint at the URI `pointer` into the run.

    Raises:
        DataError: it is not there any more.
    """
    uri, name = pointer.rsplit("/checkpoints/", 1)
    donor = Run(uri)
    if name not in donor.complete():
        raise DataError(
            f"{pointer}: the checkpoint to go on from is gone: remove the sweep's folder and start again"
        )
    state = donor.state(name)
    with donor.fetch(name) as files:
        # Of the epochs only the last: the others' checkpoints stay with the donor, and the best of a run must
        # be one of its own.
        own.save(files, state.model_copy(update={"history": state.history[-1:]}))
