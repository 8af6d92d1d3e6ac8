"""Loads the model to train: a Hugging Face encoder (hub name, folder, package) or a compact model.

Weights are safetensors, never a pickle: `clickbait.pretrained.locate` checks this before they are loaded.
Remote code is never run. Only training imports this module, because it imports torch.
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

BUCKETS = 2**17  # 25,600 headlines have about 300,000 different bigrams and trigrams; most occur once
CHARACTER_BUCKETS = 2**15  # 30,000 WordPieces have about 60,000 different n-grams of 3 to 5 characters


def load(config: TrainConfig, tokenizer: bytes, max_tokens: int) -> transformers.PreTrainedModel:
    """Loads the model to train, in fp32 on the CPU. New weights are random and depend only on the seed.

    Args:
        config: uses model, layers, hidden, intermediate, buckets, dropout and seed.
        tokenizer: the dataset's `tokenizer.json`.
        max_tokens: length of the longest headline in tokens.

    Raises:
        ModelError: the folder or package does not exist, there is no network, the weights are a pickle or
            have the wrong SHA-256, or the model cannot be cut down.
    """
    transformers.logging.disable_progress_bar()  # otherwise there is a bar for every checkpoint that is saved
    seed_everything(config.seed)
    if config.model in SCRATCH:
        return _compact(config, tokenizer, max_tokens)
    overrides = {} if config.dropout is None else {"hidden_dropout_prob": config.dropout}
    encoder = _from_pretrained(config.model, locate(config.model), **overrides)
    if config.layers is config.hidden is config.intermediate is config.buckets is None:
        model_tokens = encoder.config.vocab_size
        dataset_tokens = max(Tokenizer.from_str(tokenizer.decode()).get_vocab().values()) + 1
        if dataset_tokens > model_tokens:
            raise ModelError(
                f'model "{config.model}" has {model_tokens} tokens, but the dataset has {dataset_tokens}: '
                f"preprocess with this model"
            )
        return encoder
    if not weight_transfer.is_supported(encoder):
        kind = encoder.config.model_type
        raise ModelError(
            f'model "{config.model}" is a "{kind}", which cannot be cut down: give a BERT (such as MiniLM), '
            f"an MPNet, or {SCRATCH[1]}"
        )
    compact_model = _compact(config, tokenizer, max_tokens, encoder.config)
    weight_transfer.initialise(compact_model, encoder)
    return compact_model


def _compact(
    config: TrainConfig, tokenizer: bytes, max_tokens: int, base: transformers.PretrainedConfig | None = None
) -> compact.CompactForSequenceClassification:
    """A compact model with new weights. Sizes that the configuration does not set are those of `base`."""
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
        else (max(hidden // compact.HEAD_SIZE, 1), 4 * hidden)
    )
    if bag and layers:
        raise ModelError(
            f"{NGRAMS} has no layers: leave layers out, or take scratch:transformer with buckets"
        )
    if layers and hidden % heads:
        raise ModelError(
            f"hidden: {hidden} cannot be divided by {heads} attention heads: take a multiple of "
            f"{compact.HEAD_SIZE}"
        )
    spelling = compact.spelling(vocabulary, CHARACTER_BUCKETS) if bag else None
    compact_config = compact.CompactConfig(
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
    model = compact.CompactForSequenceClassification(compact_config)
    if spelling is not None:
        model.spelling.copy_(torch.from_numpy(spelling))
    return model


def load_checkpoint(folder: Path) -> transformers.PreTrainedModel:
    """Loads the fine-tuned model of a checkpoint's folder, in fp32 on the CPU, in evaluation mode."""
    check_folder(folder)
    return _from_pretrained(str(folder), folder).eval()


def seed_everything(seed: int) -> None:
    """Seeds python, numpy and torch, because a library may use any of them."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def parameters(model: torch.nn.Module) -> int:
    """The number of weights of the model."""
    return sum(weights.numel() for weights in model.parameters())


def _labels() -> dict[str, Any]:
    """The entries of a transformers configuration that describe the classes."""
    return {
        "num_labels": len(LABELS),
        "id2label": dict(enumerate(LABELS)),
        "label2id": {label: index for index, label in enumerate(LABELS)},
    }


def _from_pretrained(name: str, source: str | Path, **extra: Any) -> transformers.PreTrainedModel:
    transformers.logging.set_verbosity_error()  # hides the warning about new weights, which are intended
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
