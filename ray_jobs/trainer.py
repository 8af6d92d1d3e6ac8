"""The TorchTrainer of `ray_jobs.train`, and what its workers run.

A `ClickbaitError` that a worker raises comes out of `fit` as itself, and Ray does not start the workers
again. The exception is a storage that does not answer: that may pass, so Ray tries again.

Ray Train's controller and the process that starts it import this module: what only a worker needs
(transformers, the loop) is imported there, and spares each of the two some seconds.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray.train
from ray.train import UserCallback
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util.metrics import Gauge
from tqdm import tqdm

from clickbait import storage, telemetry
from clickbait.config import TrainConfig
from clickbait.data.dataset import open_dataset
from clickbait.errors import ClickbaitError, StorageError
from ray_jobs.ray_storage import run_storage

log = logging.getLogger(
    "ray.train.clickbait"
)  # below Ray Train's own, which a worker's console and log file show
# Of the last epoch, to Prometheus as ray_clickbait_train_<name>{run}, from the machine of the first worker.
GAUGES = {
    "epoch": "Epochs done",
    "rows_per_second": "Headlines trained on a second, of all workers",
    "train_loss": "Mean loss",
    "val_log_loss": "Log loss on validation",
    "val_accuracy": "Accuracy on validation",
}


class NoRetry(UserCallback):  # type: ignore[misc]  # ray is untyped
    """Ends the training where starting the workers again would end in the same error: Ray's own policy tells
    no error from another.

    Ray Train calls it in its controller, and what it raises there is no worker's failure, so `max_failures`
    does not count.
    """

    def after_exception(self, *, worker_exceptions: dict[int, Exception], **_: Any) -> None:
        error = ours(worker_exceptions)
        if error is not None and not isinstance(error, StorageError):
            logging.getLogger("ray.train").setLevel(
                logging.ERROR
            )  # or the controller logs its own traceback as it ends
            raise ray.train.ControllerError(
                error
            )  # not `error`: Ray logs the traceback of what it does not expect


def ours(worker_exceptions: Mapping[int, Exception]) -> ClickbaitError | None:
    """The first of our own errors that a worker raised, by rank; what other ranks raise is what a rank that
    ends does to them.
    """
    in_order = (exception for _, exception in sorted(worker_exceptions.items()))
    return next((exception for exception in in_order if isinstance(exception, ClickbaitError)), None)


def fit(
    config: TrainConfig,
    *,
    group: str | None = None,
    driver: str | None = None,
    callbacks: Sequence[UserCallback] = (),
) -> None:
    """Trains under a TorchTrainer until the run is over.

    Args:
        config: what to train, and how.
        group: the W&B group.
        driver: the command that the workers belong to (`clickbait.storage.lease`).
        callbacks: told what the workers report.

    Raises:
        ClickbaitError: what a worker raised of ours.
        ray.train.TrainingFailedError: workers died or failed more than `max_failures` times.
    """
    try:
        trainer(config, group=group, driver=driver or uuid.uuid4().hex, callbacks=callbacks).fit()
    except ray.train.ControllerError as error:
        if isinstance(error.controller_failure, ClickbaitError):
            raise error.controller_failure from None
        raise
    except ray.train.WorkerGroupError as error:
        if (cause := ours(error.worker_failures)) is not None:
            raise cause from None
        raise


def trainer(
    config: TrainConfig, *, group: str | None, driver: str, callbacks: Sequence[UserCallback]
) -> TorchTrainer:
    """The TorchTrainer of a run."""
    # A worker waits at each report until the controller looks: at Ray's 2 s an epoch of a small model would
    # be mostly that.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    return TorchTrainer(
        _worker,
        train_loop_config={"config": config.model_dump(), "group": group, "driver": driver},
        torch_config=TorchConfig(backend="nccl" if config.use_gpu else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=config.num_workers,
            use_gpu=config.use_gpu,
            resources_per_worker={"CPU": config.cpus_per_worker, **({"GPU": 1} if config.use_gpu else {})},
        ),
        run_config=ray.train.RunConfig(
            # A name of its own each time: the loop resumes from the run's checkpoints, never from Ray Train's
            # snapshot.
            name=f"{config.name}-{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}",
            **run_storage(storage.join(config.output, "ray")),
            failure_config=ray.train.FailureConfig(max_failures=config.max_failures),
            callbacks=[NoRetry(), *callbacks],
        ),
    )


def _worker(values: dict[str, Any]) -> None:
    """What each Ray Train worker runs."""
    telemetry.off()
    from clickbait.training.loop import Place, fit

    config = TrainConfig.model_validate(values["config"])
    context = ray.train.get_context()
    place = Place(
        rank=context.get_world_rank(),
        world=context.get_world_size(),
        local_world=context.get_local_world_size(),
        device=str(ray.train.torch.get_device()) if config.use_gpu else "cpu",
    )

    shown = config.num_workers > 0 and place.rank == 0  # without workers there may be no Ray
    gauges = (
        {name: Gauge(f"clickbait_train_{name}", text, ("run",)) for name, text in GAUGES.items()}
        if shown
        else {}
    )

    def report(metrics: dict[str, float], checkpoint: str) -> None:
        """Ray Train is told of every epoch; its checkpoint is a pointer to ours."""
        for name, gauge in gauges.items():
            gauge.set(metrics[name], {"run": config.name})
        if place.rank == 0:
            figures = ", ".join(
                f"{name.removeprefix('val_')} {metrics[name]:.4f}"
                for name in ("val_log_loss", "val_accuracy", "val_auc")
            )
            log.info(
                "epoch %.0f of %d: validation %s; %.0f headlines/s",
                metrics["epoch"],
                config.epochs,
                figures,
                metrics["rows_per_second"],
            )
        with tempfile.TemporaryDirectory() as folder:
            pointer = None
            if place.rank == 0:
                (Path(folder) / "pointer.json").write_text(json.dumps({"uri": checkpoint}), encoding="utf-8")
                pointer = ray.train.Checkpoint.from_directory(folder)
            ray.train.report(metrics, checkpoint=pointer)

    make_bar = _bar if config.num_workers else tqdm
    try:
        fit(
            config,
            open_dataset(config.dataset),
            place,
            report,
            make_bar,
            group=values["group"],
            driver=values["driver"],
        )
    except (
        ClickbaitError
    ) as error:  # Ray logs the traceback of what a worker raises, three times: of ours the message says all
        raise error.with_traceback(None) from None


def _bar(total: int, desc: str) -> Any:
    """A progress bar that Ray carries to the driver's terminal."""
    from ray.experimental import tqdm_ray

    return tqdm_ray.tqdm(total=total, desc=desc)
