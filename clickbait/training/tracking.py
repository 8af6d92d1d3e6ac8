"""W&B runs and the registry's mirror: one place that knows of W&B. Offline unless a key is there; rank 0
alone logs.

    python -m clickbait.training.tracking v3 --registry artifacts/registry     # mirror a version and its aliases again

Offline runs lie in `<output>/wandb/`; `wandb sync <output>/wandb/offline-run-*` sends them later. W&B decides
nothing: settings that cannot work are refused before anything starts (`check`), and a W&B that does not
answer costs one warning and an offline run.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from clickbait import cli, storage, telemetry
from clickbait.config import MODEL_NAME, WANDB_PROJECT, TrainConfig, did_you_mean
from clickbait.errors import ConfigError
from clickbait.training.runs import SELECTED_BY

if TYPE_CHECKING:
    from clickbait.data.dataset import Dataset
    from clickbait.registry.registry import Registry

MODES = {
    "online": "online",
    "run": "online",
    "shared": "shared",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
}
KEY = re.compile(r"[\w.-]{40,}")  # as wandb checks it: keys, on-premises keys with a prefix, and tokens
INIT_S = 15.0  # for an online run to begin: training waits for it
FINISH_S = 30.0  # for what is left to be sent; `wandb sync` sends the rest
MIRROR_S = 600.0  # for a version's files to be sent
log = logging.getLogger(__name__)


def mode() -> Any:
    """`WANDB_MODE`, else online where a key is there (`WANDB_API_KEY` or `wandb login`), else offline.

    Raises:
        ConfigError: WANDB_MODE is no mode of W&B's.
    """
    if wanted := os.environ.get("WANDB_MODE"):
        if wanted not in MODES:
            raise ConfigError(f'WANDB_MODE: "{wanted}" is no mode{did_you_mean(wanted, list(MODES))}')
        return MODES[wanted]
    return "online" if os.environ.get("WANDB_API_KEY") or _logged_in() else "offline"


def check() -> None:
    """Looks at W&B's settings before anything starts; opens no connection. The project's name is checked with
    the configuration.

    Raises:
        ConfigError: a mode that is none, online without a key, a key that cannot be one, or a server's
            address that is none.
    """
    if mode() not in ("online", "shared"):
        return
    key, server = os.environ.get("WANDB_API_KEY"), os.environ.get("WANDB_BASE_URL")
    if not key and not _logged_in():
        raise ConfigError(
            "WANDB_MODE is online and there is no key: set WANDB_API_KEY, run wandb login, or set "
            "WANDB_MODE=offline"
        )
    if key and not KEY.fullmatch(key):
        raise ConfigError(
            "WANDB_API_KEY: a key has 40 characters or more, letters, digits, _ - and . only: copy it again "
            "from W&B"
        )
    if server and not re.fullmatch(r"https?://[^/\s]+\S*", server):
        raise ConfigError(f'WANDB_BASE_URL: "{server}" is no http:// or https:// address')


def _logged_in() -> bool:
    netrc = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
    return netrc.is_file() and "wandb" in netrc.read_text(encoding="utf-8", errors="replace")


class Tracker:
    """A W&B run, or nothing on the workers that do not log: the training loop asks neither."""

    def __init__(self, run: Any = None) -> None:
        self._run = run

    @classmethod
    @contextmanager
    def start(
        cls, config: TrainConfig, dataset: Dataset, *, enabled: bool = True, group: str | None = None
    ) -> Iterator[Self]:
        """A run named after the training run; the same run resumed logs under the same id. Offline where W&B
        does not answer.
        """
        if not enabled or mode() == "disabled":
            yield cls()
            return
        folder = Path(config.output) if storage.is_local(config.output) else Path("artifacts")
        tracker = cls()
        tracker._run = tracker._quietly(lambda: _begin(config, dataset, folder, group))
        try:
            yield tracker
        finally:
            tracker._quietly(lambda: tracker._run and tracker._run.finish())

    def _quietly(self, call: Callable[[], Any]) -> Any:
        """Returns `call()`. An error of W&B becomes a warning and ends the tracking of this run."""
        try:
            return call()
        except Exception as error:  # wandb's own, its service's, its HTTP client's
            log.warning("W&B tracks this run no more: %s", _line(error))
            self._run = None
            return None

    def log(self, values: Mapping[str, float], step: int) -> None:
        """One point of each curve at an optimizer step."""
        if self._run is not None:
            self._quietly(lambda: self._run.log(dict(values), step=step))

    def summary(self, history: Sequence[Mapping[str, float]]) -> None:
        """The best epoch's figures as the run's summary."""
        if self._run is not None:
            best = min(history, key=lambda entry: entry[SELECTED_BY])
            self._quietly(
                lambda: self._run.summary.update({f"best_{name}": value for name, value in best.items()})
            )


def _begin(config: TrainConfig, dataset: Dataset, folder: Path, group: str | None) -> Any:
    """Starts a W&B run: online if it should be online and W&B answers, else offline."""
    telemetry.off()
    import wandb  # seconds to import, and only rank 0 wants it

    folder.mkdir(parents=True, exist_ok=True)
    arguments: dict[str, Any] = {
        "project": config.wandb_project,
        "name": config.name,
        "id": hashlib.sha256(f"{config.output}/{config.name}".encode()).hexdigest()[:16],
        "group": group or os.environ.get("WANDB_RUN_GROUP") or dataset.fingerprint,
        "job_type": "train",
        "config": {
            **config.model_dump(mode="json"),
            "dataset_fingerprint": dataset.fingerprint,
            "synthetic": dataset.synthetic,
        },
        "dir": folder,
    }
    if mode() != "offline":
        try:
            settings = wandb.Settings(
                silent=True, console="off", init_timeout=INIT_S, finish_timeout=FINISH_S
            )
            return wandb.init(**arguments, mode=mode(), resume="allow", settings=settings)
        except Exception as error:  # no network, no such server, a key that the server refuses
            later = f"send it later with wandb sync {folder}/wandb/offline-run-*"
            log.warning(
                "W&B does not answer, or refuses the key (%s): this run is tracked offline: %s",
                _line(error),
                later,
            )
            wandb.teardown()  # its service would not give the run's id a second time
    return wandb.init(**arguments, mode="offline", settings=wandb.Settings(silent=True, console="off"))


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def mirror(registry: Registry, version: str, aliases: Sequence[str], project: str) -> bool:
    """Registers a published version with its aliases as a W&B model artifact; True where that was done
    (online only).

    Whatever fails on the way is a warning: the registry here decides, and what it has published or moved
    stays.
    """
    try:
        if mode() not in ("online", "shared"):
            log.info("W&B is %s: version %s is not mirrored", mode(), version)
            return False
        _mirror(registry.fetch(version), version, aliases, project)
    except Exception as error:  # wandb's own, those of its HTTP client, and what it does not expect itself
        root = registry.uri.removesuffix(f"/{registry.name}")
        again = f"python -m clickbait.training.tracking {version} --registry {root} --project {project}"
        log.warning(
            "W&B does not mirror %s: %s: the registry has the version and its aliases; mirror it again: %s",
            version,
            _line(error),
            again,
        )
        return False
    return True


def _mirror(folder: Path, version: str, aliases: Sequence[str], project: str) -> None:
    telemetry.off()
    import wandb

    # An upload that does not end within the time raises, instead of waiting for ever for a server that is
    # gone.
    settings = wandb.Settings(
        silent=True, init_timeout=INIT_S, finish_timeout=MIRROR_S, finish_timeout_raises=True
    )
    with wandb.init(
        project=project, job_type="publish", name=f"publish-{version}", mode="online", settings=settings
    ) as run:
        artifact = wandb.Artifact(MODEL_NAME, type="model", metadata={"version": version})
        artifact.add_dir(str(folder))
        run.log_artifact(artifact, aliases=[version, *aliases])
        run.link_artifact(artifact, f"wandb-registry-model/{MODEL_NAME}", aliases=[version, *aliases])


def main(args: Sequence[str] | None = None) -> int:
    """Mirrors a version with the aliases that point at it; the exit code is `clickbait.cli.Code`."""
    return cli.exit_code(lambda: _run(sys.argv[1:] if args is None else args))


def _run(args: Sequence[str]) -> None:
    from clickbait.registry.registry import Registry

    parser = cli.Parser(
        prog="python -m clickbait.training.tracking",
        description="Mirror a version of the registry to W&B.",
        allow_abbrev=False,
    )
    parser.add_argument("version", help="v3, latest or an alias")
    parser.add_argument(
        "--registry", default="artifacts/registry", help="the registry's folder or gs:// URI (%(default)s)"
    )
    parser.add_argument("--project", default=WANDB_PROJECT, help="the W&B project (%(default)s)")
    given = parser.parse_args(args)
    check()
    registry = Registry(given.registry)
    version = registry.resolve(given.version)
    aliases = sorted(name for name, alias in registry.aliases().items() if alias.version == version)
    if not mirror(registry, version, aliases, given.project):
        raise ConfigError(
            f"{version} is not mirrored: W&B is {mode()}, or does not answer as the warning above says"
        )
    print(f"mirrored: {version} ({', '.join(aliases) or 'no alias'})")


if __name__ == "__main__":
    sys.exit(main())
