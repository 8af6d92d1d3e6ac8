"""The encoders: any Hugging Face one by hub name, by folder, or out of an installed package. Imports torch;
only training does.

Weights are safetensors, never a pickle, which `clickbait.pretrained.locate` checks before they are loaded;
remote code is never run.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer

from clickbait.config import TrainConfig
from clickbait.errors import ModelError
from clickbait.models import compact, weight_transfer
from clickbait.pretrained.locate import NGRAMS, SCRATCH, check_folder, locate
from clickbait.text import LABELS

BUCKETS = 2**17  # 25,600 headlines have some 300,000 different bigrams and trigrams, most of them once
CHARACTER_BUCKETS = 2**15  # 30,000 WordPieces have some 60,000 different n-grams of 3 to 5 characters


def load(config: TrainConfig, tokenizer: bytes, max_tokens: int) -> transformers.PreTrainedModel:
    """The model to train, what is new in it drawn from the seed; fp32, on the CPU.

    Args:
        config: model, layers, hidden, intermediate, buckets, dropout and seed are read.
        tokenizer: the dataset's `tokenizer.json`.
        max_tokens: the longest headline in tokens.

    Raises:
        ModelError: no such folder or package, no network, weights that are a pickle or not the known ones, a
            model that cannot be cut down.
    """
    transformers.logging.disable_progress_bar()  # it also draws one for each checkpoint that is saved
    seed_everything(config.seed)
    if config.model in SCRATCH:
        return _compact(config, tokenizer, max_tokens)
    extra = {} if config.dropout is None else {"hidden_dropout_prob": config.dropout}
    whole = _from_pretrained(config.model, locate(config.model), **extra)
    if config.layers is config.hidden is config.intermediate is config.buckets is None:
        known, used = (
            whole.config.vocab_size,
            max(Tokenizer.from_str(tokenizer.decode()).get_vocab().values()) + 1,
        )
        if used > known:
            raise ModelError(
                f'model "{config.model}" knows {known} tokens, the dataset has {used}: preprocess with this '
                f"model"
            )
        return whole
    if not weight_transfer.can_read(whole):
        kind = whole.config.model_type
        raise ModelError(
            f'model "{config.model}" is a "{kind}", which cannot be cut down: give a BERT (MiniLM is one), '
            f"an MPNet, or {SCRATCH[1]}"
        )
    student = _compact(config, tokenizer, max_tokens, whole.config)
    weight_transfer.inherit(student, whole)
    return student


def _compact(
    config: TrainConfig, tokenizer: bytes, max_tokens: int, base: transformers.PretrainedConfig | None = None
) -> compact.CompactForSequenceClassification:
    """A compact model with new weights, of `base`'s measures where the configuration names none."""
    vocabulary = Tokenizer.from_str(tokenizer.decode()).get_vocab()
    bag = config.model == NGRAMS
    hidden = config.hidden or (base.hidden_size if base else 64 if bag else 128)
    layers = (
        config.layers if config.layers is not None else base.num_hidden_layers if base else 0 if bag else 2
    )
    same = base is not None and hidden == base.hidden_size
    heads, inner = (
        (base.num_attention_heads, base.intermediate_size)
        if base and same
        else (max(hidden // compact.HEAD, 1), 4 * hidden)
    )
    if bag and layers:
        raise ModelError(
            f"{NGRAMS} has no layers: leave layers out, or take scratch:transformer with buckets"
        )
    if layers and hidden % heads:
        raise ModelError(
            f"hidden: {hidden} cannot be shared by {heads} attention heads: take a multiple of {compact.HEAD}"
        )
    spelling = compact.spelling(vocabulary, CHARACTER_BUCKETS) if bag else None
    made = compact.CompactConfig(
        vocab_size=max(vocabulary.values()) + 1,
        pad_token_id=next((vocabulary[name] for name in ("[PAD]", "<pad>") if name in vocabulary), 0),
        hidden_size=hidden,
        layers=layers,
        heads=heads,
        intermediate_size=config.intermediate or inner,
        buckets=config.buckets if config.buckets is not None else BUCKETS if bag else 0,
        character_buckets=0 if spelling is None else CHARACTER_BUCKETS,
        character_width=0 if spelling is None else spelling.shape[1],
        max_tokens=max_tokens,
        relative=same and base is not None and base.model_type == "mpnet",
        eps=base.layer_norm_eps if base and same else 1e-12,
        dropout=0.1 if config.dropout is None else config.dropout,
        **_labels(),
    )
    model = compact.CompactForSequenceClassification(made)
    if spelling is not None:
        model.spelling.copy_(torch.from_numpy(spelling))
    return model


def load_checkpoint(folder: Path) -> transformers.PreTrainedModel:
    """A fine-tuned model out of a checkpoint's folder; fp32, on the CPU, in evaluation mode."""
    check_folder(folder)
    return _from_pretrained(str(folder), folder).eval()


def seed_everything(seed: int) -> None:
    """Seeds python, numpy and torch: a library may draw from any of them."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def parameters(model: torch.nn.Module) -> int:
    """How many weights the model has."""
    return sum(weights.numel() for weights in model.parameters())


def _labels() -> dict[str, Any]:
    """What a configuration says of the classes."""
    return {
        "num_labels": len(LABELS),
        "id2label": dict(enumerate(LABELS)),
        "label2id": {label: index for index, label in enumerate(LABELS)},
    }


def _from_pretrained(name: str, source: str | Path, **extra: Any) -> transformers.PreTrainedModel:
    transformers.logging.set_verbosity_error()  # "newly initialized weights" is what fine-tuning means
    transformers.logging.disable_progress_bar()
    try:
        return transformers.AutoModelForSequenceClassification.from_pretrained(
            source,
            **_labels(),
            **extra,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
        )
    except (OSError, ValueError) as error:
        raise ModelError(f'model "{name}": {" ".join(str(error).split())}') from None
