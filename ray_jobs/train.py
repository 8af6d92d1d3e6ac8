"""Fine-tune an encoder on a dataset, over any number of workers.

    python -m ray_jobs.train --config configs/train.yaml --epochs 3 --lr 5e-5

Ray Train's TorchTrainer (Train V2) starts one DDP worker per core or GPU; `--num-workers 0` trains in this
process. If the job was killed, the same command resumes from the newest complete checkpoint. The training
loop is in `clickbait.training.loop`.
"""

from __future__ import annotations

import os
import sys
import uuid

import ray

from clickbait import cli, storage
from clickbait.config import TrainConfig
from clickbait.data.dataset import open_dataset
from clickbait.errors import DataError
from clickbait.pretrained import locate
from clickbait.training import tracking
from clickbait.training.runs import Run, claim
from ray_jobs.session import connect


def train(config: TrainConfig) -> str:
    """Trains or resumes, and returns the run's URI. Returns at once if the run is finished.

    Raises:
        ConfigError: W&B's settings are not valid.
        DataError: the dataset is missing or incomplete, or the run's folder holds another run.
        ModelError: the base model is not available, or the dataset was made with another tokenizer.
        RunInUse: another process is training this run.
        TrainingDiverged: the loss became NaN or infinite.
    """
    tracking.check()
    dataset = open_dataset(config.dataset)
    # Without a terminal, a progress bar fills the log.
    config = config.model_copy(
        update={"dataset": dataset.uri, "progress": config.progress and sys.stderr.isatty()}
    )
    run = Run(storage.join(config.output, config.name))
    started_with = (run.read_json("run.json") or {}).get("config", {}).get("model")
    config = config.model_copy(update={"model": locate.pin(config.model, started_with)})
    locate.locate(config.model)  # fail before any worker starts
    dataset.check_model(config.model)
    claim(run, config, dataset)
    if run.read_json("done.json") is not None:
        return run.uri
    driver = uuid.uuid4().hex
    # Take the lease here, so that a second trainer gets a clear error. The first worker takes it over.
    with run.hold(driver):
        if run.read_json("done.json") is not None:  # finished while this process waited for the lease
            return run.uri
        if config.num_workers:
            connect()
            check_resources(config)
        # Importing torch and Ray Train takes 5 s, so the checks above come first.
        from ray_jobs.trainer import fit

        fit(config, driver=driver)
    return run.uri


def check_resources(config: TrainConfig) -> None:
    """Raises DataError if the workers need more than the cluster has: Ray would wait forever.

    A cluster that scales itself (CLICKBAIT_AUTOSCALES=1) is not checked.
    """
    if os.environ.get("CLICKBAIT_AUTOSCALES") == "1":
        return
    available = ray.cluster_resources()
    for name, required in (
        ("CPU", config.cpus_per_worker * config.num_workers),
        ("GPU", config.num_workers * config.use_gpu),
    ):
        if required > available.get(name, 0):
            raise DataError(
                f"{config.num_workers} workers need {required:g} {name}, the cluster has "
                f"{available.get(name, 0):g}: lower --num-workers "
                f"or --cpus-per-worker (or set CLICKBAIT_AUTOSCALES=1 if the cluster scales itself)"
            )


def main(config: TrainConfig) -> None:
    """Trains and prints where the best checkpoint is."""
    uri = train(config)
    run = Run(uri)
    best = run.read_json("best.json") or {}
    print(f"best checkpoint: {run.checkpoint_uri(best['checkpoint'])}")
    print(f"epoch {best['epoch']:.0f}, validation accuracy {best['val_accuracy']:.4f}")


if __name__ == "__main__":
    cli.run(TrainConfig, main, __doc__)
