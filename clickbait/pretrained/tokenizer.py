"""The base model's tokenizer, from `tokenizer.json` alone: neither torch nor transformers.

A tokenizer is its file's bytes: a dataset and a bundle keep them, and the dataset's name hashes them.
"""

from __future__ import annotations

import hashlib

from tokenizers import Tokenizer

from clickbait.errors import ModelError
from clickbait.pretrained import locate

FILE = "tokenizer.json"


def tokenizer_bytes(model: str) -> bytes:
    """The `tokenizer.json` of `package:<module>` (`<module>/model`), of a folder, or of a model on the
    Hugging Face hub.

    Raises:
        ModelError: no such package or folder, no tokenizer.json in it, no network.
    """
    path = locate.file(model, FILE)
    if not path.exists():
        raise ModelError(
            f'model "{model}": no {FILE} in it: save its fast tokenizer, or give a hub name or '
            f"{locate.OFFLINE}"
        )
    return locate.document(path)


def check_model(model: str, dataset: str, cut_by: str, sha256: str) -> None:
    """Refuses a base model whose tokenizer is not the one that cut the dataset: it would read token ids that
    mean other words to it.

    A model without a tokenizer of its own (`scratch:`, a folder without tokenizer.json) takes the dataset's.

    Args:
        model: the base model.
        dataset: the dataset's URI, for the message.
        cut_by: the model whose tokenizer cut the dataset.
        sha256: of that tokenizer's tokenizer.json.

    Raises:
        ModelError: it is another tokenizer.
    """
    if model in locate.SCRATCH:
        return
    path = locate.file(model, FILE)
    if not path.exists():
        return
    own = hashlib.sha256(locate.document(path)).hexdigest()
    if own != sha256:
        raise ModelError(
            f'model "{model}": {dataset} was cut by the tokenizer of "{cut_by}" (SHA-256 {sha256[:12]}), the '
            f"model has another one "
            f"({own[:12]}): preprocess again with --model {model}"
        )


def load(data: bytes, max_tokens: int) -> Tokenizer:
    """The tokenizer, cutting at `max_tokens` (special ones counted) and never padding, whatever its file
    says.

    Raises:
        ModelError: not a tokenizer.json.
    """
    try:
        tokenizer = Tokenizer.from_str(data.decode())
    except Exception as error:  # tokenizers raises the bare class
        raise ModelError(f"not a {FILE} of a fast tokenizer: {' '.join(str(error).split())}") from None
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    return tokenizer
