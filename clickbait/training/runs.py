"""A run's folder at a storage URI: complete checkpoints and a note of the best. It has one writer at a time.

    <run>/run.json                          the configuration and the dataset's fingerprint
          lease.json                        who may write (`clickbait.storage.lease`)
          checkpoints/step-00000800/        model.safetensors optimizer.safetensors rng.safetensors config.json tokenizer.json
                                            state.json (last): step, epoch, position, history, and the SHA-256
                                            of each file
          best.json                         {"checkpoint": ..., and its validation figures}
          done.json                         the run is over

Ray Train's own snapshot (`checkpoint_manager_snapshot.json`) is written in place: a driver killed in
mid-write leaves a run that cannot be restored. So the loop keeps its checkpoints itself, in process and under
Ray alike, and reports pointers to them to Ray.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from clickbait.config import TrainConfig
from clickbait.errors import DataError, NotFound, PreconditionFailed
from clickbait.storage import Storage, join, lease, open_storage

if TYPE_CHECKING:
    from clickbait.data.dataset import Dataset

STATE = "state.json"
# Settings of `TrainConfig` that do not change a run's weights: where things lie, on what it runs, what is
# shown.
FREE = frozenset(
    {"dataset", "output", "name", "num_workers", "use_gpu", "cpus_per_worker", "threads", "checkpoint_steps"}
)
FREE |= {"keep_checkpoints", "max_failures", "profile", "progress", "wandb_project"}
log = logging.getLogger(__name__)
REPAIR = "copy it back from elsewhere, or train again under another --name"
# What the best epoch is the best by. Calibrated, because `export` calibrates: fine-tuning makes a model too
# sure of itself long before it stops to tell the classes apart better.
SELECTED_BY = "val_calibrated_log_loss"


class State(BaseModel):
    """The progress of a run: all that the next step depends on besides weights, optimizer and RNG."""

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


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint; `Run.checkpoint` gives it."""

    name: str
    state: State
    files: dict[str, str] | None
    """SHA-256 of each file but state.json; None where an older version wrote the checkpoint."""


class Run:
    """A run's folder. A writer must enter `hold` first, so that there is one writer at a time.

    Raises:
        DataError: the folder holds another run (its configuration or its dataset differ).
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.storage: Storage = open_storage(uri)
        self._held: lease.Held | None = None

    @contextlib.contextmanager
    def hold(self, driver: str | None = None) -> Iterator[None]:
        """Holds the run's lease inside the block. If the lease is lost, a write raises LeaseLost.

        Args:
            driver: the command that this process works for: another process of the same command takes the
                lease over at once.

        Raises:
            RunInUse: another process is writing this run.
        """
        with lease.hold(self.storage, driver) as self._held:
            try:
                yield
            finally:
                self._held = None

    def _check_held(self) -> None:
        if self._held is not None:
            self._held.check()

    def claim(
        self, description: dict[str, Any], defaults: Mapping[str, Any], ignored: Collection[str] = ()
    ) -> None:
        """Writes run.json, or checks that the run there is the same one.

        Args:
            description: what the run is, in layers of keys.
            defaults: values of settings that a run.json of an older version does not have, in the same
                layers.
            ignored: settings that an older version wrote and that do not change the run, layers joined by
                dots.

        Raises:
            DataError: it is another run; the message names each key that differs, with both values.
        """
        text = json.dumps(description, indent=2, sort_keys=True).encode()
        there = self.read_json("run.json")
        if there is None:
            with contextlib.suppress(PreconditionFailed):  # somebody else was faster
                self.storage.write("run.json", text, expect="")
            there = self.read_json("run.json") or {}
        old, new = _flat(defaults or {}) | _flat(there), _flat(json.loads(text))
        keys = sorted(key for key in old | new if key not in ignored and old.get(key) != new.get(key))
        if keys:
            differences = ", ".join(
                f"{key.removeprefix('config.')} ({_shown(old, key)} there, {_shown(new, key)} here)"
                for key in keys
            )
            raise DataError(
                f"{self.uri}: holds a run with another {differences}: choose another --name, or remove the "
                f"folder"
            )

    def read_json(self, key: str) -> dict[str, Any] | None:
        """The document at `key`, or None."""
        try:
            document: dict[str, Any] = json.loads(self.storage.read(key))
        except NotFound:
            return None
        return document

    def write_json(self, key: str, document: dict[str, Any]) -> None:
        """Writes the document, whole or not at all."""
        self._check_held()
        self.storage.write(key, json.dumps(document, indent=2).encode())

    def save(self, folder: Path, state: State) -> str:
        """Uploads a checkpoint's files, state.json last; returns its name."""
        name = _name(state)
        self._check_held()
        self.storage.delete(
            f"checkpoints/{name}/{STATE}"
        )  # an earlier attempt's would call a half-written one whole
        files = {}
        for path in sorted(folder.iterdir()):
            files[path.name] = _file_sha256(path)
            self.storage.upload(path, f"checkpoints/{name}/{path.name}")
        document = {**state.model_dump(mode="json"), "files": files}
        self._check_held()
        self.storage.write(
            f"checkpoints/{name}/{STATE}",
            json.dumps({**document, "sha256": _document_sha256(document)}).encode(),
        )
        return name

    def complete(self) -> list[str]:
        """Names of the whole checkpoints, oldest first."""
        suffix = f"/{STATE}"
        keys = self.storage.list("checkpoints")
        return sorted(
            key.removeprefix("checkpoints/").removesuffix(suffix) for key in keys if key.endswith(suffix)
        )

    def best(self) -> str | None:
        """The name of the checkpoint with the lowest calibrated validation log loss."""
        found = self.read_json("best.json")
        return None if found is None else str(found["checkpoint"])

    def prune(self, keep: int) -> None:
        """Deletes incomplete checkpoints, and all others except the best and the newest `keep`."""
        names = self.complete()
        self.discard(set(names[:-keep]) - {self.best()})
        kept = set(self.complete())
        for name in {key.split("/")[1] for key in self.storage.list("checkpoints")} - kept:
            self.storage.delete_folder(f"checkpoints/{name}")

    def discard(self, names: Iterable[str]) -> None:
        """Deletes checkpoints. state.json goes first: what is half deleted is not there."""
        self._check_held()
        for name in names:
            self.storage.delete(f"checkpoints/{name}/{STATE}")
            self.storage.delete_folder(f"checkpoints/{name}")

    def checkpoint(self, name: str) -> Checkpoint:
        """The whole checkpoint of that name.

        Raises:
            DataError: its state.json is not as it was written.
            NotFound: there is none.
        """
        wrong = DataError(f"{self.checkpoint_uri(name)}: {STATE} has changed since it was written: {REPAIR}")
        try:
            document = json.loads(self.storage.read(f"checkpoints/{name}/{STATE}"))
            files, sha256 = document.pop("files", None), document.pop("sha256", None)
            state = State.model_validate(document)
        except (ValueError, AttributeError):
            raise wrong from None
        # A checkpoint of an older version has no "files", and cannot be checked.
        if _name(state) != name or (
            files is not None and sha256 != _document_sha256({**document, "files": files})
        ):
            raise wrong
        return Checkpoint(name, state, files)

    @contextlib.contextmanager
    def fetch(self, checkpoint: Checkpoint | str) -> Iterator[Path]:
        """The checkpoint's files in a local folder, for as long as the block lasts; every byte is checked
        first.

        Raises:
            DataError: a file is missing, or its SHA-256 is not the checkpoint's.
        """
        if isinstance(checkpoint, str):
            checkpoint = self.checkpoint(checkpoint)
        below = f"checkpoints/{checkpoint.name}"
        names = checkpoint.files or [
            key.rsplit("/", 1)[1] for key in self.storage.list(below) if not key.endswith(f"/{STATE}")
        ]
        with tempfile.TemporaryDirectory(prefix="checkpoint-") as folder:
            for name in names:
                path = Path(folder) / name
                try:
                    self.storage.download(f"{below}/{name}", path)
                except NotFound:
                    raise DataError(f"{join(self.uri, below)}: {name} is missing: {REPAIR}") from None
                if checkpoint.files is not None and _file_sha256(path) != checkpoint.files[name]:
                    raise DataError(
                        f"{join(self.uri, below)}: {name} has changed since it was written: {REPAIR}"
                    )
            yield Path(folder)

    def state(self, name: str) -> State:
        """Where the run stood at that checkpoint."""
        return self.checkpoint(name).state

    def checkpoint_uri(self, name: str) -> str:
        """The checkpoint's folder."""
        return join(self.uri, "checkpoints", name)


def open_run(uri: str, *, unfinished: bool = False) -> Run:
    """A run that is over and has a best checkpoint.

    Args:
        uri: the run's folder.
        unfinished: a run that is not over will do.

    Raises:
        DataError: there is none, or it is not over; the message says how far it is.
    """
    run = Run(uri)
    if run.best() is None:
        raise DataError(f"{uri}: no trained run there: python -m ray_jobs.train --config configs/train.yaml")
    if run.read_json("done.json") is None:
        names = run.complete()
        epochs = len(run.state(names[-1]).history) if names else 0
        planned = (run.read_json("run.json") or {}).get("config", {}).get("epochs", "?")
        progress = f"{uri}: the training is not over: {epochs} of {planned} epochs are done"
        if not unfinished:
            raise DataError(
                f"{progress}: give the same training command to go on, or --unfinished to take the best "
                f"epoch so far"
            )
        log.warning("%s; taking the best of them", progress)
    return run


def description(config: TrainConfig, dataset: Dataset) -> dict[str, Any]:
    """What a run is: the settings that change its weights, and its dataset. Resuming asks for the same."""
    values = config.model_dump(mode="json", exclude=set(FREE))
    if config.soft_labels is not None:  # a content's name, wherever it lies
        values["soft_labels"] = config.soft_labels.rstrip("/").rsplit("/", 1)[1]
    return {"config": values, "dataset": dataset.fingerprint}


def claim(run: Run, config: TrainConfig, dataset: Dataset) -> None:
    """Writes what the run is into its folder, or checks that the run there is this one.

    A run.json that was written before a setting existed does not have it, so a new setting's default must be
    what the code did before.

    Raises:
        DataError: the folder holds a run with other settings or of another dataset.
    """
    defaults = {"config": TrainConfig().model_dump(mode="json", exclude=set(FREE))}
    run.claim(description(config, dataset), defaults, {f"config.{name}" for name in FREE})


def _name(state: State) -> str:
    return f"step-{state.step:08d}"


def _file_sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _document_sha256(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """One layer of keys, inner ones with dots."""
    flat: dict[str, Any] = {}
    for key, value in document.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _shown(flat: Mapping[str, Any], key: str) -> str:
    return json.dumps(flat[key]) if key in flat else "not set"
