"""The base model's tokenizer, read from `tokenizer.json` without torch or transformers.

A dataset and a bundle store the bytes of this file. They are part of the dataset's fingerprint.
"""

from __future__ import annotations

import hashlib

from tokenizers import Tokenizer

from clickbait.errors import ModelError
from clickbait.pretrained import locate

FILE = "tokenizer.json"


def tokenizer_bytes(model: str) -> bytes:
    """Reads the `tokenizer.json` of a model: a package, a folder or a name on the Hugging Face hub.

    Raises:
        ModelError: the model does not exist or has no tokenizer.json, or there is no network.
    """
    path = locate.file(model, FILE)
    if not path.exists():
        raise ModelError(
            f'model "{model}": no {FILE} in it: save its fast tokenizer, or give a hub name or '
            f"{locate.OFFLINE}"
        )
    return locate.document(path)


def check_model(model: str, dataset: str, cut_by: str, sha256: str) -> None:
    """Checks that a base model has the dataset's tokenizer. With another one, token ids mean other words.

    A model without a tokenizer (`scratch:`, or a folder without tokenizer.json) uses the dataset's.

    Args:
        model: the base model.
        dataset: URI of the dataset, for the message.
        cut_by: the model whose tokenizer the dataset was made with.
        sha256: SHA-256 of that model's tokenizer.json.

    Raises:
        ModelError: the model has another tokenizer.
    """
    if model in locate.SCRATCH:
        return
    path = locate.file(model, FILE)
    if not path.exists():
        return
    model_sha256 = hashlib.sha256(locate.document(path)).hexdigest()
    if model_sha256 != sha256:
        raise ModelError(
            f'model "{model}": {dataset} was cut by the tokenizer of "{cut_by}" (SHA-256 {sha256[:12]}), the '
            f"model has another one "
            f"({model_sha256[:12]}): preprocess again with --model {model}"
        )


def load(data: bytes, max_tokens: int) -> Tokenizer:
    """Loads a tokenizer that truncates at `max_tokens`, special tokens included, and never pads.

    Settings of the file for truncation and padding are ignored.

    Raises:
        ModelError: the bytes are not a tokenizer.json.
    """
    try:
        tokenizer = Tokenizer.from_str(data.decode())
    except Exception as error:  # tokenizers raises the bare class
        raise ModelError(f"not a {FILE} of a fast tokenizer: {' '.join(str(error).split())}") from None
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    return tokenizer
