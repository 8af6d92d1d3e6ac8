"""One trial of a sweep, as it runs in a Ray Tune actor: train, report every epoch, measure, report the end.

A trial is a normal training run (`<sweep>/trials/trial-<id>`): it resumes after a kill and logs to W&B.
Tune's checkpoint holds only the URI of the run's newest checkpoint. Under population based training, a trial
that continues from another trial's checkpoint becomes a new run (`trial-<id>-g1`, `-g2`, ...), which starts
with a copy of that checkpoint.
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

POLL_S = 0.5  # how often to check whether the workers have reported
CLEANUP_S = 30.0  # how long a W&B run may take to end
POINTER = "pointer.json"


def folder(config: SweepConfig) -> str:
    """The folder of the sweep's training runs. Their W&B runs are in `wandb` below it."""
    return storage.join(config.output, config.name, "trials")


def train_config(config: SweepConfig, values: Mapping[str, Any], name: str) -> TrainConfig:
    """The training settings of a trial."""
    overrides: dict[str, Any] = {"output": folder(config), "name": name, "progress": False}
    # The default is all cores, but trials share the machine.
    overrides["threads"] = config.train.threads or max(int(config.train.cpus_per_worker), 1)
    if config.scheduler.kind == "pbt":  # another trial may start from any of the checkpoints later
        overrides["keep_checkpoints"] = min(config.train.epochs, 100)
    return TrainConfig.model_validate({**config.train.model_dump(), **values, **overrides})


class Trial(tune.Trainable):  # type: ignore[misc]  # ray is untyped
    """Trains in a separate thread, which waits at the end of each epoch until Tune asks for the next one.

    It is a class trainable because Tune waits for its `cleanup`, so a stopped trial ends its W&B run too. One
    actor may run several trials in turn (`reset_config`), so torch is loaded once.
    """

    sweep: SweepConfig
    """Set by a subclass (`tuning.sweep.__main__.trainable`), like the next two."""
    wandb_mode: str | None = None
    """The driver's WANDB_MODE. An actor would otherwise use that of its node."""
    driver: str | None = None
    """The id of the sweep's command. A restarted actor with this id takes the run's lease over at once
    (`clickbait.storage.lease`).
    """

    def setup(self, config: dict[str, Any]) -> None:
        for name in ("ray.train._internal.storage", "ray.tune"):
            logging.getLogger(name).setLevel(logging.WARNING)
        if self.wandb_mode is not None:
            os.environ["WANDB_MODE"] = self.wandb_mode
        self._prepare(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._end()  # without a timeout: a process can have one W&B run at a time
        self._prepare(new_config)
        return True

    def _prepare(self, config: dict[str, Any]) -> None:
        self._values = {name: config[name] for name in self.sweep.space}
        self._pointer: str | None = None
        self._reports: queue.Queue[dict[str, Any] | BaseException] = queue.Queue()
        self._next = threading.Semaphore(0)
        self._stopping = False
        # A daemon thread does not keep a process alive that should end.
        self._thread = threading.Thread(target=self._work, daemon=True)

    def step(self) -> dict[str, Any]:
        """Trains one epoch, or ends the trial, and returns the report."""
        if self._thread.ident is None:
            self._thread.start()
        else:
            self._next.release()
        report = self._reports.get()
        if isinstance(report, BaseException):
            raise report
        return report

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        (Path(checkpoint_dir) / POINTER).write_text(json.dumps({"uri": self._pointer}), encoding="utf-8")

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        self._pointer = json.loads((Path(checkpoint_dir) / POINTER).read_text(encoding="utf-8"))["uri"]

    def cleanup(self) -> None:
        self._end(CLEANUP_S)
        # W&B's service is a child process. Ray would kill it before W&B's exit handler runs.
        if "wandb" in sys.modules:
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
            self._reports.put(error)

    def _train(self) -> None:
        base = train_config(self.sweep, self._values, f"trial-{self.trial_id}")
        config = generation(base, self._pointer)
        run = Run(storage.join(config.output, config.name))
        names = run.complete()
        self._best = min(
            (entry[SELECTED_BY] for entry in (run.state(names[-1]).history if names else [])),
            default=math.inf,
        )
        dataset = open_dataset(config.dataset)
        # The run may be finished already, if the driver was killed before Tune saved that.
        if run.read_json("done.json") is None:
            self._fit(config, run, dataset)
        # These objectives are measured once, on the best checkpoint, after the last epoch. The scheduler uses
        # the log loss, an export takes as long as an epoch of a small model, and the flips of a half-trained
        # model do not predict those of the trained one. So a trial that was stopped early has no such figures
        # and is never on the Pareto front.
        figures = objectives.measure(run.uri, dataset, self.sweep.objectives, self.sweep.flip_headlines)
        done = run.read_json("done.json")
        assert done is not None, "fit returned before the run was finished"
        self._reports.put({**self._result(run, done["history"][-1]), **figures, "final": True, "done": True})

    def _fit(self, config: TrainConfig, run: Run, dataset: Dataset) -> None:
        if config.num_workers:
            for metrics in _on_workers(config, self.sweep.name, self.driver):
                self._epoch(config, run, metrics)
            return
        # Importing torch takes 10 s, so an actor whose trial trains on workers does not import it.
        from clickbait.training.loop import Place, fit

        place = Place(device="cuda" if config.use_gpu else "cpu")
        fit(
            config,
            dataset,
            place,
            lambda metrics, _: self._epoch(config, run, metrics),
            group=self.sweep.name,
            driver=self.driver,
        )

    def _epoch(self, config: TrainConfig, run: Run, metrics: Mapping[str, float]) -> None:
        """Passes an epoch's report to `step`, and waits until Tune asks for the next epoch.

        The last epoch is reported with the trial's end: a scheduler may stop a trial at any report, and
        stopping after the last epoch saves nothing.
        """
        if metrics["epoch"] >= config.epochs or (config.max_steps and metrics["step"] >= config.max_steps):
            return
        self._reports.put(self._result(run, metrics))
        self._next.acquire()
        if self._stopping:
            raise _Stopped

    def _result(self, run: Run, metrics: Mapping[str, float]) -> dict[str, Any]:
        # `log_loss` is the lowest so far, because a run is exported from its best checkpoint. `current` is
        # this epoch's.
        self._best = min(self._best, metrics[SELECTED_BY])
        self._pointer = run.checkpoint_uri(f"step-{int(metrics['step']):08d}")
        return {
            "epoch": int(metrics["epoch"]),
            "log_loss": self._best,
            "current": metrics[SELECTED_BY],
            "final": False,
        }


class _Stopped(BaseException):
    """Tune stopped this trial. It is not an Exception, so no handler mistakes it for a failure."""


class Forward(UserCallback):  # type: ignore[misc]
    """Puts the workers' reports into a queue.

    Ray's TuneReportCallback works only in a function trainable, and gives Tune no checkpoint. HyperBand and
    population based training need one.
    """

    def __init__(self, reports: Queue) -> None:
        self.reports = reports

    def after_report(self, *, metrics: list[dict[str, Any]], **_: Any) -> None:
        self.reports.put(metrics[0])


def _on_workers(config: TrainConfig, group: str, driver: str | None) -> Iterator[dict[str, float]]:
    """Trains under a TorchTrainer and yields the reports of rank 0."""
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
    if raised:  # prefer the worker's error: Ray's message truncates it
        raise next(iter(getattr(raised[0], "worker_failures", {}).values()), raised[0])


def generations(output: str, name: str) -> list[str]:
    """The names of a trial's runs, oldest first. Only population based training makes more than one."""
    names = [name]
    while Run(storage.join(output, successor := f"{name}-g{len(names)}")).read_json("run.json") is not None:
        names.append(successor)
    return names


def generation(config: TrainConfig, pointer: str | None) -> TrainConfig:
    """The settings of the trial's newest run.

    If `pointer` is a checkpoint of another trial, this is a new run that starts with a copy of it.
    """
    names = generations(config.output, config.name)
    current = config.model_copy(update={"name": names[-1]})
    if pointer is None or pointer.startswith(storage.join(current.output, current.name) + "/"):
        return current
    new = config.model_copy(update={"name": f"{config.name}-g{len(names)}"})
    adopt(pointer, Run(storage.join(new.output, new.name)))
    return new


def adopt(pointer: str, run: Run) -> None:
    """Copies the checkpoint at the URI `pointer` into `run`.

    Raises:
        DataError: the checkpoint no longer exists.
    """
    uri, name = pointer.rsplit("/checkpoints/", 1)
    donor = Run(uri)
    if name not in donor.complete():
        raise DataError(
            f"{pointer}: the checkpoint to continue from no longer exists: remove the sweep's folder and "
            f"start again"
        )
    state = donor.state(name)
    with donor.fetch(name) as files:
        # Keep only the last epoch's history: the best checkpoint of a run must be in the run, and the
        # checkpoints of the other epochs stay with the donor.
        run.save(files, state.model_copy(update={"history": state.history[-1:]}))
