"""The TorchTrainer of `ray_jobs.train`, and the function that its workers run.

`fit` raises a worker's `ClickbaitError` unchanged, and Ray does not restart the workers. The exception is a
`StorageError`: the storage may recover, so Ray tries again.

Ray Train's controller and the process that starts it both import this module. What only a worker needs
(transformers, the training loop) is imported in the worker, which saves each of the two some seconds.
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

# A child of Ray Train's logger, which writes to the worker's console and log file.
log = logging.getLogger("ray.train.clickbait")
# Figures of the last epoch. The first worker exports them to Prometheus as ray_clickbait_train_<name>{run}.
GAUGES = {
    "epoch": "Epochs done",
    "rows_per_second": "Headlines trained per second, all workers together",
    "train_loss": "Mean loss",
    "val_log_loss": "Log loss on validation",
    "val_accuracy": "Accuracy on validation",
}


class NoRetry(UserCallback):  # type: ignore[misc]  # ray is untyped
    """Ends the training when restarted workers would fail with the same error.

    Ray's policy treats all errors alike. Ray Train calls this callback in its controller. An error raised
    there does not count as a worker's failure, so `max_failures` does not apply.
    """

    def after_exception(self, *, worker_exceptions: dict[int, Exception], **_: Any) -> None:
        error = first_clickbait_error(worker_exceptions)
        if error is not None and not isinstance(error, StorageError):
            # Otherwise the controller logs a traceback of itself when it ends.
            logging.getLogger("ray.train").setLevel(logging.ERROR)
            # Ray logs the traceback of any other type of error.
            raise ray.train.ControllerError(error)


def first_clickbait_error(worker_exceptions: Mapping[int, Exception]) -> ClickbaitError | None:
    """The ClickbaitError of the lowest rank. Other ranks fail only because that one ended."""
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
        config: the run.
        group: the W&B group.
        driver: the id of the command that the workers belong to (`clickbait.storage.lease`).
        callbacks: called with the workers' reports.

    Raises:
        ClickbaitError: a worker raised it.
        ray.train.TrainingFailedError: workers died or failed more than `max_failures` times.
    """
    try:
        trainer(config, group=group, driver=driver or uuid.uuid4().hex, callbacks=callbacks).fit()
    except ray.train.ControllerError as error:
        if isinstance(error.controller_failure, ClickbaitError):
            raise error.controller_failure from None
        raise
    except ray.train.WorkerGroupError as error:
        if (cause := first_clickbait_error(error.worker_failures)) is not None:
            raise cause from None
        raise


def trainer(
    config: TrainConfig, *, group: str | None, driver: str, callbacks: Sequence[UserCallback]
) -> TorchTrainer:
    """The TorchTrainer of a run."""
    # A worker waits at each report until the controller polls. With Ray's default of 2 s, a small model would
    # spend most of an epoch waiting.
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
            # The name is unique: the loop resumes from the run's checkpoints, not from Ray Train's snapshot.
            name=f"{config.name}-{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}",
            **run_storage(storage.join(config.output, "ray")),
            failure_config=ray.train.FailureConfig(max_failures=config.max_failures),
            callbacks=[NoRetry(), *callbacks],
        ),
    )


def _worker(values: dict[str, Any]) -> None:
    """Trains in one Ray Train worker."""
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

    exports = config.num_workers > 0 and place.rank == 0  # without workers there may be no Ray
    gauges = (
        {name: Gauge(f"clickbait_train_{name}", text, ("run",)) for name, text in GAUGES.items()}
        if exports
        else {}
    )

    def report(metrics: dict[str, float], checkpoint: str) -> None:
        """Reports an epoch to Ray Train. Ray's checkpoint holds only the URI of ours."""
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
    except ClickbaitError as error:
        # Ray logs a worker's traceback three times. The message of a ClickbaitError says enough without it.
        raise error.with_traceback(None) from None


def _bar(total: int, desc: str) -> Any:
    """A progress bar that Ray shows in the driver's terminal."""
    from ray.experimental import tqdm_ray

    return tqdm_ray.tqdm(total=total, desc=desc)
