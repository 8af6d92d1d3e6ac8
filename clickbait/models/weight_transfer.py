"""Weight transfer from a BERT or MPNet to a compact model.

`convert` copies a whole fine-tuned model. `initialise` copies what fits into a smaller model before training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
import transformers
from torch import Tensor, nn

from clickbait.errors import ModelError
from clickbait.models.compact import CompactConfig, CompactForSequenceClassification, Layer


@dataclass(frozen=True)
class _Encoder:
    """The parts of a BERT or MPNet that a compact model also has."""

    words: Tensor
    positions: Tensor
    norm: nn.Module
    layers: list[_EncoderLayer]
    distances: Callable[[Tensor], Tensor] | None
    """A function from distances (key minus query), int64, to attention biases, float (..., heads)."""
    head: tuple[nn.Module, nn.Module]
    """The dense layer and the output layer."""


@dataclass(frozen=True)
class _EncoderLayer:
    qkv: tuple[nn.Linear, nn.Linear, nn.Linear]
    parts: dict[str, Any]
    """The other modules of the layer, by their names in `Layer`."""


def is_supported(model: transformers.PreTrainedModel) -> bool:
    """Whether the model can be transferred: a BERT or MPNet for classification, with GELU."""
    is_encoder = isinstance(
        model, transformers.BertForSequenceClassification | transformers.MPNetForSequenceClassification
    )
    return is_encoder and model.config.hidden_act == "gelu"


def _read(model: transformers.PreTrainedModel) -> _Encoder:
    if model.config.model_type == "mpnet":
        return _read_mpnet(model)
    bert = model.bert
    layers = []
    for layer in bert.encoder.layer:
        attention = layer.attention.self
        out, norm1 = layer.attention.output.dense, layer.attention.output.LayerNorm
        parts = {
            "out": out,
            "norm1": norm1,
            "up": layer.intermediate.dense,
            "down": layer.output.dense,
            "norm2": layer.output.LayerNorm,
        }
        layers.append(_EncoderLayer((attention.query, attention.key, attention.value), parts))
    embeddings = bert.embeddings
    positions = embeddings.position_embeddings.weight + embeddings.token_type_embeddings.weight[0]
    head = bert.pooler.dense, model.classifier
    return _Encoder(embeddings.word_embeddings.weight, positions, embeddings.LayerNorm, layers, None, head)


def _read_mpnet(model: transformers.PreTrainedModel) -> _Encoder:
    mpnet = model.mpnet
    layers = []
    for layer in mpnet.encoder.layer:
        attention = layer.attention.attn
        norm1 = layer.attention.LayerNorm
        parts = {
            "out": attention.o,
            "norm1": norm1,
            "up": layer.intermediate.dense,
            "down": layer.output.dense,
            "norm2": layer.output.LayerNorm,
        }
        layers.append(_EncoderLayer((attention.q, attention.k, attention.v), parts))
    embeddings, table = mpnet.embeddings, mpnet.encoder.relative_attention_bias

    def distances(offsets: Tensor) -> Tensor:
        buckets = mpnet.encoder.relative_position_bucket(offsets, num_buckets=table.num_embeddings)
        biases: Tensor = table(buckets)
        return biases

    positions = embeddings.position_embeddings.weight[embeddings.padding_idx + 1 :]
    head = model.classifier.dense, model.classifier.out_proj
    return _Encoder(
        embeddings.word_embeddings.weight, positions, embeddings.LayerNorm, layers, distances, head
    )


@torch.no_grad()
def convert(model: transformers.PreTrainedModel, max_tokens: int) -> CompactForSequenceClassification | None:
    """Converts a fine-tuned BERT or MPNet to a compact model with the same logits.

    The compact model does not compute padding, so it is faster.

    Args:
        model: the fine-tuned model.
        max_tokens: number of positions to keep.

    Returns:
        The compact model, or None if `is_supported` is false.
    """
    if not is_supported(model):
        return None
    source = model.config
    config = CompactConfig(
        vocab_size=source.vocab_size,
        pad_token_id=source.pad_token_id,
        hidden_size=source.hidden_size,
        layers=source.num_hidden_layers,
        heads=source.num_attention_heads,
        intermediate_size=source.intermediate_size,
        max_tokens=max_tokens,
        relative=source.model_type == "mpnet",
        eps=source.layer_norm_eps,
        num_labels=source.num_labels,
    )
    converted: CompactForSequenceClassification = CompactForSequenceClassification(config).eval()
    initialise(converted, model)
    for target, part in zip((converted.dense, converted.classifier), _read(model).head, strict=True):
        target.load_state_dict(part.state_dict())
    return converted


@torch.no_grad()
def initialise(student: CompactForSequenceClassification, teacher: transformers.PreTrainedModel) -> None:
    """Initialises the student with the weights of a BERT or MPNet, all but the head.

    If the hidden sizes differ, only the token vectors are taken, reduced to their principal components.

    The student takes the first layers of the teacher, because these then get the same inputs as in the
    teacher. Evenly spaced layers (DistilBERT: Sanh et al. 2019) would get inputs that they were not trained
    on.

    Raises:
        ModelError: the teacher has other tokens, or fewer layers, positions or feed-forward neurons.
    """
    config, encoder = student.config, _read(teacher)
    if len(encoder.words) != config.vocab_size:
        raise ModelError(
            f"the model has {len(encoder.words)} tokens, but the dataset's tokenizer has "
            f"{config.vocab_size}: preprocess with this model"
        )
    if encoder.words.shape[1] != config.hidden_size:
        centred = encoder.words - encoder.words.mean(0)
        _, _, axes = torch.linalg.svd(centred.T @ centred)
        projected = centred @ axes[: config.hidden_size].T
        student.tokens.weight.copy_(projected * student.tokens.weight.std() / projected.std())
        return
    for name, available, needed in (
        ("layers", len(encoder.layers), config.layers),
        ("max_tokens", len(encoder.positions), config.max_tokens),
    ):
        if available < needed:
            raise ModelError(f"{name}: the model has only {available}, but {needed} are needed")
    student.tokens.weight.copy_(encoder.words)
    if not config.layers:
        return
    student.positions.weight.copy_(encoder.positions[: config.max_tokens])
    student.norm.load_state_dict(encoder.norm.state_dict())
    if config.relative and encoder.distances:
        student.distances.weight.copy_(
            encoder.distances(torch.arange(1 - config.max_tokens, config.max_tokens))
        )
    for target, layer in zip(cast("list[Layer]", list(student.encoder)), encoder.layers, strict=False):
        assert target.qkv is not None
        for kind in ("weight", "bias"):
            getattr(target.qkv, kind).copy_(torch.cat([getattr(part, kind) for part in layer.qkv]))
        for name in ("out", "norm1", "norm2"):
            getattr(target, name).load_state_dict(layer.parts[name].state_dict())
        _initialise_feed_forward(target, layer.parts["up"], layer.parts["down"])


def _initialise_feed_forward(target: Layer, up: nn.Linear, down: nn.Linear) -> None:
    """Copies the feed-forward neurons. If the target has fewer, it takes those with the largest weights."""
    if target.up.out_features > len(up.weight):
        raise ModelError(
            f"intermediate: the model has only {len(up.weight)}, but {target.up.out_features} are needed"
        )
    strength = up.weight.norm(dim=1) * down.weight.norm(dim=0)
    kept = strength.topk(target.up.out_features).indices.sort().values
    target.up.weight.copy_(up.weight[kept])
    target.up.bias.copy_(up.bias[kept])
    target.down.weight.copy_(down.weight[:, kept])
    target.down.bias.copy_(down.bias)
