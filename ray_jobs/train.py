"""Fine-tune an encoder on a dataset, over any number of workers.

    python -m ray_jobs.train --config configs/train.yaml --epochs 3 --lr 5e-5

One DDP worker a core or a GPU under Ray Train's TorchTrainer (Train V2); `--num-workers 0` trains in this
process. The same command after a kill goes on from the newest whole checkpoint. The loop is
`clickbait.training.loop`.
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
    """Runs or resumes the training and returns the run's URI; at once where the run is done already.

    Raises:
        ConfigError: W&B's settings cannot work.
        DataError: no whole dataset there, or the run's folder holds another run.
        ModelError: the base model is not available, or the dataset was cut by another tokenizer.
        RunInUse: another process is training this run.
        TrainingDiverged: the loss is not a number any more.
    """
    tracking.check()
    dataset = open_dataset(config.dataset)
    # Off a terminal a bar is a page of log for each of its steps.
    config = config.model_copy(
        update={"dataset": dataset.uri, "progress": config.progress and sys.stderr.isatty()}
    )
    run = Run(storage.join(config.output, config.name))
    there = (run.read_json("run.json") or {}).get("config", {}).get("model")
    config = config.model_copy(update={"model": locate.pin(config.model, there)})
    locate.locate(config.model)  # before any worker starts
    dataset.check_model(config.model)
    claim(run, config, dataset)
    if run.read_json("done.json") is not None:
        return run.uri
    driver = uuid.uuid4().hex
    # Held from here, for a clear error while somebody else trains; the first worker takes the lease over from
    # this process.
    with run.hold(driver):
        if run.read_json("done.json") is not None:  # done while this process waited for the lease
            return run.uri
        if config.num_workers:
            connect()
            check_resources(config)
        from ray_jobs.trainer import fit  # 5 s of torch and Ray Train: what is wrong is told before

        fit(config, driver=driver)
    return run.uri


def check_resources(config: TrainConfig) -> None:
    """Refuses what this cluster can never give, and would otherwise wait for without end. An autoscaler may
    yet give it.
    """
    if os.environ.get("CLICKBAIT_AUTOSCALES") == "1":
        return
    there = ray.cluster_resources()
    for name, asked in (
        ("CPU", config.cpus_per_worker * config.num_workers),
        ("GPU", config.num_workers * config.use_gpu),
    ):
        if asked > there.get(name, 0):
            raise DataError(
                f"{config.num_workers} workers ask for {asked:g} {name}, the cluster has "
                f"{there.get(name, 0):g}: lower --num-workers "
                f"or --cpus-per-worker (or set CLICKBAIT_AUTOSCALES=1 where the cluster grows)"
            )


def main(config: TrainConfig) -> None:
    """Train and say where the best checkpoint is."""
    uri = train(config)
    run = Run(uri)
    best = run.read_json("best.json") or {}
    print(f"best checkpoint: {run.checkpoint_uri(best['checkpoint'])}")
    print(f"epoch {best['epoch']:.0f}, validation accuracy {best['val_accuracy']:.4f}")


if __name__ == "__main__":
    cli.run(TrainConfig, main, __doc__)
