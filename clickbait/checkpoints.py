"""A run's folder at a storage URI: checkpoints that are whole or not there, and a note of the best.

    <run>/run.json                          the configuration and the dataset's fingerprint
          checkpoints/step-00000800/        model.safetensors optimizer.safetensors rng.safetensors config.json tokenizer.json
                                            state.json (last): step, epoch, position, history
          best.json                         {"checkpoint": ..., and its validation figures}
          done.json                         the run is over

Ray Train's own snapshot (`checkpoint_manager_snapshot.json`) is written in place: a driver killed in mid-write leaves a run that
cannot be restored. So the loop keeps its checkpoints itself, in process and under Ray alike, and reports pointers to them to Ray.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from clickbait.config import TrainConfig
from clickbait.errors import DataError, NotFound
from clickbait.storage import Storage, join, open_storage

if TYPE_CHECKING:
    from clickbait.dataset import Dataset

STATE = "state.json"
# What the best epoch is the best by. Calibrated, because `export` calibrates: fine-tuning makes a model too sure of itself long
# before it stops to tell the classes apart better.
SELECTED_BY = "val_calibrated_log_loss"


class State(BaseModel):
    """Where a run stands: all that the next step hangs on beside weights, optimizer and RNG."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    step: int
    """Optimizer steps taken."""
    epoch: int
    """The epoch that the next step belongs to, from 0."""
    position: int
    """Steps of that epoch already taken."""
    loss_sum: float
    """Training loss added up over those steps."""
    history: list[dict[str, float]]
    """One entry an epoch: epoch, step, train_loss, val_*, lr, seconds."""


class Run:
    """A run's folder.

    Raises:
        DataError: the folder holds another run (its configuration or its dataset differ).
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.storage: Storage = open_storage(uri)

    def claim(self, description: dict[str, Any]) -> None:
        """Writes run.json, or checks that the one there says the same."""
        text = json.dumps(description, indent=2, sort_keys=True).encode()
        found = self.read_json("run.json")
        if found is None:
            self.storage.write("run.json", text)
        elif found != json.loads(text):
            keys = sorted(key for key in found.keys() | description.keys() if found.get(key) != json.loads(text).get(key))
            raise DataError(f"{self.uri}: holds a run with another {', '.join(keys)}: choose another --name, or remove the folder")

    def read_json(self, key: str) -> dict[str, Any] | None:
        """The document at `key`, or None."""
        try:
            document: dict[str, Any] = json.loads(self.storage.read(key))
        except NotFound:
            return None
        return document

    def write_json(self, key: str, document: dict[str, Any]) -> None:
        """Writes the document, whole or not at all."""
        self.storage.write(key, json.dumps(document, indent=2).encode())

    def save(self, folder: Path, state: State) -> str:
        """Uploads a checkpoint's files, state.json last; returns its name."""
        name = f"step-{state.step:08d}"
        for path in sorted(folder.iterdir()):
            self.storage.upload(path, f"checkpoints/{name}/{path.name}")
        self.storage.write(f"checkpoints/{name}/{STATE}", state.model_dump_json().encode())
        return name

    def complete(self) -> list[str]:
        """Names of the whole checkpoints, oldest first."""
        suffix = f"/{STATE}"
        keys = self.storage.list("checkpoints")
        return sorted(key.removeprefix("checkpoints/").removesuffix(suffix) for key in keys if key.endswith(suffix))

    def best(self) -> str | None:
        """The name of the checkpoint with the lowest calibrated validation log loss."""
        found = self.read_json("best.json")
        return None if found is None else str(found["checkpoint"])

    def prune(self, keep: int) -> None:
        """Deletes all checkpoints but the best and the newest `keep`. state.json goes first: what is half deleted is not there."""
        names = self.complete()
        for name in set(names[:-keep]) - {self.best()}:
            self.storage.delete(f"checkpoints/{name}/{STATE}")
        kept = set(self.complete())
        for key in self.storage.list("checkpoints"):
            if key.split("/")[1] not in kept:
                self.storage.delete(key)

    @contextmanager
    def fetch(self, name: str) -> Iterator[Path]:
        """The checkpoint's files in a local folder, for as long as the block lasts."""
        with tempfile.TemporaryDirectory(prefix="checkpoint-") as folder:
            for key in self.storage.list(f"checkpoints/{name}"):
                self.storage.download(key, Path(folder) / key.rsplit("/", 1)[1])
            yield Path(folder)

    def state(self, name: str) -> State:
        """Where the run stood at that checkpoint."""
        return State.model_validate_json(self.storage.read(f"checkpoints/{name}/{STATE}"))

    def checkpoint_uri(self, name: str) -> str:
        """The checkpoint's folder."""
        return join(self.uri, "checkpoints", name)


def open_run(uri: str) -> Run:
    """A run that has a best checkpoint.

    Raises:
        DataError: there is none: train first.
    """
    run = Run(uri)
    if run.best() is None:
        raise DataError(f"{uri}: no trained run there: python -m ray_jobs.train --config configs/train.yaml")
    return run


def description(config: TrainConfig, dataset: Dataset) -> dict[str, Any]:
    """What a run is: the settings that change its weights, and its dataset. Resuming asks for the same."""
    free = {"dataset", "output", "name", "num_workers", "use_gpu", "cpus_per_worker", "threads", "checkpoint_steps"}
    free |= {"keep_checkpoints", "max_failures", "profile", "progress", "wandb_project"}
    values = config.model_dump(mode="json", exclude=free)
    if config.soft_labels is not None:  # a content's name, wherever it lies
        values["soft_labels"] = config.soft_labels.rstrip("/").rsplit("/", 1)[1]
    return {"config": values, "dataset": dataset.fingerprint}
