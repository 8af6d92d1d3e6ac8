"""From a BERT or an MPNet to a compact model: the whole of it (`rewritten`), or what a smaller one can start
from (`inherit`).
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
    """The parts of a BERT or an MPNet that a compact model has too."""

    words: Tensor
    positions: Tensor
    norm: nn.Module
    layers: list[_EncoderLayer]
    distances: Callable[[Tensor], Tensor] | None
    """Distances (key less query), int64, to what attention adds, float (..., heads)."""
    head: tuple[nn.Module, nn.Module]
    """dense, then out."""


@dataclass(frozen=True)
class _EncoderLayer:
    qkv: tuple[nn.Linear, nn.Linear, nn.Linear]
    parts: dict[str, Any]
    """The others, by their names in `Layer`."""


def can_read(model: transformers.PreTrainedModel) -> bool:
    """Whether the architecture can be this one's: a BERT or MPNet for classification, with GELU and learned
    positions.
    """
    known = isinstance(
        model, transformers.BertForSequenceClassification | transformers.MPNetForSequenceClassification
    )
    return known and model.config.hidden_act == "gelu"


def _read(model: transformers.PreTrainedModel) -> _Encoder:
    if model.config.model_type == "mpnet":
        return _read_mpnet(model)
    bert = model.bert
    layers = []
    for layer in bert.encoder.layer:
        own = layer.attention.self
        out, norm1 = layer.attention.output.dense, layer.attention.output.LayerNorm
        parts = {
            "out": out,
            "norm1": norm1,
            "up": layer.intermediate.dense,
            "down": layer.output.dense,
            "norm2": layer.output.LayerNorm,
        }
        layers.append(_EncoderLayer((own.query, own.key, own.value), parts))
    embeddings = bert.embeddings
    positions = embeddings.position_embeddings.weight + embeddings.token_type_embeddings.weight[0]
    head = bert.pooler.dense, model.classifier
    return _Encoder(embeddings.word_embeddings.weight, positions, embeddings.LayerNorm, layers, None, head)


def _read_mpnet(model: transformers.PreTrainedModel) -> _Encoder:
    mpnet = model.mpnet
    layers = []
    for layer in mpnet.encoder.layer:
        own = layer.attention.attn
        norm1 = layer.attention.LayerNorm
        parts = {
            "out": own.o,
            "norm1": norm1,
            "up": layer.intermediate.dense,
            "down": layer.output.dense,
            "norm2": layer.output.LayerNorm,
        }
        layers.append(_EncoderLayer((own.q, own.k, own.v), parts))
    embeddings, table = mpnet.embeddings, mpnet.encoder.relative_attention_bias

    def distances(apart: Tensor) -> Tensor:
        found: Tensor = table(mpnet.encoder.relative_position_bucket(apart, num_buckets=table.num_embeddings))
        return found

    positions = embeddings.position_embeddings.weight[embeddings.padding_idx + 1 :]
    head = model.classifier.dense, model.classifier.out_proj
    return _Encoder(
        embeddings.word_embeddings.weight, positions, embeddings.LayerNorm, layers, distances, head
    )


@torch.no_grad()
def rewritten(
    model: transformers.PreTrainedModel, max_tokens: int
) -> CompactForSequenceClassification | None:
    """The logits of a fine-tuned BERT or MPNet out of this architecture, computed without padding; None for
    others.

    max_tokens: positions that are kept.
    """
    if not can_read(model):
        return None
    theirs = model.config
    config = CompactConfig(
        vocab_size=theirs.vocab_size,
        pad_token_id=theirs.pad_token_id,
        hidden_size=theirs.hidden_size,
        layers=theirs.num_hidden_layers,
        heads=theirs.num_attention_heads,
        intermediate_size=theirs.intermediate_size,
        max_tokens=max_tokens,
        relative=theirs.model_type == "mpnet",
        eps=theirs.layer_norm_eps,
        num_labels=theirs.num_labels,
    )
    mine: CompactForSequenceClassification = CompactForSequenceClassification(config).eval()
    inherit(mine, model)
    for own, their in zip((mine.dense, mine.classifier), _read(model).head, strict=True):
        own.load_state_dict(their.state_dict())
    return mine


@torch.no_grad()
def inherit(student: CompactForSequenceClassification, teacher: transformers.PreTrainedModel) -> None:
    """Starts the student from a BERT or MPNet: all but the head where shapes allow, else the tokens' vectors
    by their principal components.

    Of the teacher's layers the student takes the first: what they compute of what they are given stays what
    it was. Evenly spaced ones (DistilBERT: Sanh et al. 2019) are given what none of them has seen.

    Raises:
        ModelError: the teacher has other tokens, or fewer layers, positions or neurons in a feed-forward
            part.
    """
    config, theirs = student.config, _read(teacher)
    if len(theirs.words) != config.vocab_size:
        raise ModelError(
            f"the model knows {len(theirs.words)} tokens, the dataset's tokenizer {config.vocab_size}: "
            f"preprocess with this model"
        )
    if theirs.words.shape[1] != config.hidden_size:
        centred = theirs.words - theirs.words.mean(0)
        _, _, axes = torch.linalg.svd(centred.T @ centred)
        projected = centred @ axes[: config.hidden_size].T
        student.tokens.weight.copy_(projected * student.tokens.weight.std() / projected.std())
        return
    for name, has, wanted in (
        ("layers", len(theirs.layers), config.layers),
        ("max_tokens", len(theirs.positions), config.max_tokens),
    ):
        if has < wanted:
            raise ModelError(f"{name}: the model has {has}, {wanted} were asked for")
    student.tokens.weight.copy_(theirs.words)
    if not config.layers:
        return
    student.positions.weight.copy_(theirs.positions[: config.max_tokens])
    student.norm.load_state_dict(theirs.norm.state_dict())
    if config.relative and theirs.distances:
        student.distances.weight.copy_(
            theirs.distances(torch.arange(1 - config.max_tokens, config.max_tokens))
        )
    for mine, layer in zip(cast("list[Layer]", list(student.encoder)), theirs.layers, strict=False):
        assert mine.qkv is not None
        for kind in ("weight", "bias"):
            getattr(mine.qkv, kind).copy_(torch.cat([getattr(part, kind) for part in layer.qkv]))
        for name in ("out", "norm1", "norm2"):
            getattr(mine, name).load_state_dict(layer.parts[name].state_dict())
        _inherit_feed_forward(mine, layer.parts["up"], layer.parts["down"])


def _inherit_feed_forward(mine: Layer, up: nn.Linear, down: nn.Linear) -> None:
    """All neurons, or those whose vectors in and out are longest."""
    if mine.up.out_features > len(up.weight):
        raise ModelError(
            f"intermediate: the model has {len(up.weight)}, {mine.up.out_features} were asked for"
        )
    strength = up.weight.norm(dim=1) * down.weight.norm(dim=0)
    kept = strength.topk(mine.up.out_features).indices.sort().values
    mine.up.weight.copy_(up.weight[kept])
    mine.up.bias.copy_(up.bias[kept])
    mine.down.weight.copy_(down.weight[:, kept])
    mine.down.bias.copy_(down.bias)
