"""W&B runs and the registry's mirror: one place that knows of W&B. Offline unless a key is there; rank 0 alone logs.

Offline runs lie in `<output>/wandb/`; `wandb sync <output>/wandb/offline-run-*` sends them later.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from clickbait import storage
from clickbait.checkpoints import SELECTED_BY
from clickbait.config import MODEL_NAME, TrainConfig

if TYPE_CHECKING:
    from clickbait.dataset import Dataset
    from clickbait.registry import Registry

log = logging.getLogger(__name__)


def mode() -> Any:
    """`WANDB_MODE`, else online where a key is there (`WANDB_API_KEY` or `wandb login`), else offline."""
    if os.environ.get("WANDB_MODE"):
        return os.environ["WANDB_MODE"]
    netrc = Path.home() / ".netrc"
    logged_in = netrc.is_file() and "wandb" in netrc.read_text(encoding="utf-8", errors="replace")
    return "online" if os.environ.get("WANDB_API_KEY") or logged_in else "offline"


class Tracker:
    """A W&B run, or nothing on the workers that do not log: the training loop asks neither."""

    def __init__(self, run: Any = None) -> None:
        self._run = run

    @classmethod
    @contextmanager
    def start(cls, config: TrainConfig, dataset: Dataset, *, enabled: bool = True, group: str | None = None) -> Iterator[Self]:
        """A run named after the training run; the same run resumed logs under the same id."""
        if not enabled or mode() == "disabled":
            yield cls()
            return
        import wandb  # seconds to import, and only rank 0 wants it

        folder = Path(config.output) if storage.is_local(config.output) else Path("artifacts")
        folder.mkdir(parents=True, exist_ok=True)
        run = wandb.init(
            project=config.wandb_project,
            name=config.name,
            id=hashlib.sha256(f"{config.output}/{config.name}".encode()).hexdigest()[:16],
            resume="allow" if mode() == "online" else None,
            group=group or os.environ.get("WANDB_RUN_GROUP") or dataset.fingerprint,
            job_type="train",
            config={**config.model_dump(mode="json"), "dataset_fingerprint": dataset.fingerprint, "synthetic": dataset.synthetic},
            dir=folder,
            mode=mode(),
            settings=wandb.Settings(silent=True, console="off"),
        )
        try:
            yield cls(run)
        finally:
            run.finish()

    def log(self, values: Mapping[str, float], step: int) -> None:
        """One point of each curve at an optimizer step."""
        if self._run is not None:
            self._run.log(dict(values), step=step)

    def summary(self, history: Sequence[Mapping[str, float]]) -> None:
        """The best epoch's figures as the run's summary."""
        if self._run is not None:
            best = min(history, key=lambda entry: entry[SELECTED_BY])
            self._run.summary.update({f"best_{name}": value for name, value in best.items()})


def mirror(registry: Registry, version: str, aliases: Sequence[str], project: str) -> bool:
    """Registers a published version with its aliases as a W&B model artifact; True where that was done (online only).

    Whatever fails on the way is a warning: the registry here decides, and what it has published or moved stays.
    """
    if mode() != "online":
        log.info("W&B is %s: version %s is not mirrored", mode(), version)
        return False
    try:
        _mirror(registry.fetch(version), version, aliases, project)
    except Exception as error:  # wandb's own, those of its HTTP client, and what it does not expect itself
        why = " ".join(str(error).split()) or type(error).__name__
        log.warning("W&B does not mirror %s: %s: the registry has the version and its aliases", version, why)
        return False
    return True


def _mirror(folder: Path, version: str, aliases: Sequence[str], project: str) -> None:
    import wandb

    with wandb.init(project=project, job_type="publish", name=f"publish-{version}", settings=wandb.Settings(silent=True)) as run:
        artifact = wandb.Artifact(MODEL_NAME, type="model", metadata={"version": version})
        artifact.add_dir(str(folder))
        run.log_artifact(artifact, aliases=[version, *aliases])
        run.link_artifact(artifact, f"wandb-registry-model/{MODEL_NAME}", aliases=[version, *aliases])
