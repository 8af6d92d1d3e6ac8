"""The compact models, written for speed: a hashed n-gram bag and small transformers, from scratch or taught
by a larger one.

One architecture, three uses (`TrainConfig.model`, `layers`, `hidden`, `intermediate`, `buckets`):

    scratch:ngrams        layers 0: words, their characters and hashed word n-grams, averaged (fastText: Joulin et al. 2017)
    scratch:transformer   layers > 0, buckets 0: a post-norm encoder of BERT's form (Devlin et al. 2019), random weights
    both                  n-gram vectors added to the encoder's input: a small memory of phrases below a small reader

A fine-tuned BERT (MiniLM is one) or MPNet is the same function of the same weights:
`clickbait.models.weight_transfer` writes it so, and it is served 1.8 times as fast.

A token is a WordPiece of the dataset's tokenizer. The character n-grams of a token hang on the token alone,
so `fold` adds their vectors into the token's own once training is done: served, they cost nothing. Import
this module and transformers' Auto classes know the architecture.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn
from transformers.modeling_outputs import SequenceClassifierOutput

# Multipliers of the hash of an n-gram: odd, below 2**31, so that 30,000 x 3 of them stay within int64. Any
# odd numbers would do.
_HASH = (1_000_003, 1_540_483_477, 374_761_393)
CHARACTERS = (
    3,
    4,
    5,
)  # lengths of character n-grams: fastText's range less the longest, which few WordPieces have
INITIAL = 0.02  # standard deviation of new weights: BERT's
HEAD = 32  # dimensions of an attention head of a new encoder: MiniLM's


class CompactConfig(transformers.PretrainedConfig):  # type: ignore[misc]  # transformers is untyped here
    """The architecture. `vocab_size` and `pad_token_id` are the tokenizer's.

    Args:
        vocab_size: tokens.
        pad_token_id: the padding's id.
        hidden_size: dimensions of every vector.
        layers: encoder layers; 0 is a bag.
        heads: attention heads a layer.
        intermediate_size: dimensions within a layer's feed-forward.
        buckets: hash buckets for word n-grams; 0 for none.
        word_ngrams: longest word n-gram, 2 or 3.
        character_buckets: hash buckets for character n-grams; 0 for none, or once they are folded in.
        character_width: character n-grams of the token that has most.
        max_tokens: positions.
        relative: attention looks at distances too (Raffel et al. 2020), as MPNet's does.
        eps: added to a norm's variance.
        dropout: share of activations dropped in training.
    """

    model_type = "clickbait-compact"

    def __init__(
        self,
        vocab_size: int = 30522,
        pad_token_id: int = 0,
        hidden_size: int = 128,
        layers: int = 2,
        heads: int = 4,
        intermediate_size: int = 512,
        buckets: int = 0,
        word_ngrams: int = 3,
        character_buckets: int = 0,
        character_width: int = 0,
        max_tokens: int = 64,
        relative: bool = False,
        eps: float = 1e-12,
        dropout: float = 0.1,
        **others: Any,
    ) -> None:
        super().__init__(pad_token_id=pad_token_id, **others)
        self.vocab_size, self.hidden_size, self.layers, self.heads, self.buckets = (
            vocab_size,
            hidden_size,
            layers,
            heads,
            buckets,
        )
        self.word_ngrams, self.character_buckets, self.character_width = (
            word_ngrams,
            character_buckets,
            character_width,
        )
        self.intermediate_size, self.max_tokens, self.relative = intermediate_size, max_tokens, relative
        self.eps, self.dropout = eps, dropout


class Layer(nn.Module):
    """BERT's layer, query, key and value in one matrix: attention, feed-forward, a norm after each."""

    def __init__(self, config: CompactConfig) -> None:
        super().__init__()
        hidden, intermediate = config.hidden_size, config.intermediate_size
        self.heads = config.heads
        self.qkv: nn.Linear | None = nn.Linear(hidden, 3 * hidden)
        self.out = nn.Linear(hidden, hidden)
        self.up, self.down = nn.Linear(hidden, intermediate), nn.Linear(intermediate, hidden)
        self.norm1, self.norm2 = nn.LayerNorm(hidden, eps=config.eps), nn.LayerNorm(hidden, eps=config.eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, packing: Packing, bias: Tensor, *, first: bool = False) -> Tensor:
        """The real tokens' new vectors, float (real tokens, hidden), or with `first` each headline's first
        one's alone, (batch, hidden).

        x is float (real tokens, hidden): only attention sees the padded square. bias is added to its scores,
        (batch, heads or 1, tokens or 1, tokens): large and negative on padding.
        """
        hidden = x.shape[1]
        if first:  # all read, one is written: a sixth of the work
            query, key_value = self.halves()
            k, v = self._by_head(packing.pad(key_value(x)), 2)
            x = packing.first(x)
            (q,) = self._by_head(query(x).unsqueeze(1), 1)
        else:
            assert self.qkv is not None
            q, k, v = self._by_head(packing.pad(self.qkv(x)), 3)
        weights = (q @ k.transpose(-1, -2) * (hidden // self.heads) ** -0.5 + bias).softmax(-1)
        mixed = (self.dropout(weights) @ v).transpose(1, 2).flatten(2)
        x = self.norm1(x + self.dropout(self.out(mixed.flatten(0, 1) if first else packing.pack(mixed))))
        y: Tensor = self.norm2(x + self.dropout(self.down(F.gelu(self.up(x)))))
        return y

    def _by_head(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        """(batch, tokens, parts x hidden) to as many of (batch, heads, tokens, hidden of a head), in one
        move.
        """
        batch, tokens, _ = x.shape
        return x.reshape(batch, tokens, parts, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)

    def halves(self) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
        """What makes queries, and what makes keys and values."""
        if self.qkv is None:
            return self.query, self.key_value
        weight, bias = self.qkv.weight, self.qkv.bias
        hidden = weight.shape[1]
        return lambda x: F.linear(x, weight[:hidden], bias[:hidden]), lambda x: F.linear(
            x, weight[hidden:], bias[hidden:]
        )

    @torch.no_grad()
    def split(self) -> None:
        """Makes two matrices of the one, for good: the quantizer leaves a part of a matrix in fp32."""
        assert self.qkv is not None
        hidden = self.qkv.weight.shape[1]
        self.query, self.key_value = nn.Linear(hidden, hidden), nn.Linear(hidden, 2 * hidden)
        for kind in ("weight", "bias"):
            whole = getattr(self.qkv, kind)
            getattr(self.query, kind).copy_(whole[:hidden])
            getattr(self.key_value, kind).copy_(whole[hidden:])
        self.qkv = None


class Packing:
    """Between the padded square (batch, tokens) and its real tokens in a row (Effective Transformer,
    ByteDance 2020).

    Headlines that come as they come are half padding again: 1.55 tokens computed for each real one in batches
    of 16.
    """

    def __init__(self, attention_mask: Tensor, dtype: torch.dtype) -> None:
        """attention_mask: int64 (batch, tokens), 1 where a token is."""
        self.square = attention_mask.shape
        flat = attention_mask.flatten()
        self.rows = flat.nonzero().squeeze(1)
        """Where in the square each real token stands, int64 (real tokens)."""
        self.slots = (flat.cumsum(0) - 1).clamp(min=0)
        """Which real token stands at each place of the square, int64 (batch x tokens); at padding the one
        before it.
        """
        self.bias = (1.0 - attention_mask.to(dtype))[:, None, None] * -1e4  # within bf16 and fp16
        """For attention's scores: large and negative on padding, float (batch, 1, 1, tokens)."""

    def pack(self, x: Tensor) -> Tensor:
        """(batch, tokens, ...) to (real tokens, ...)."""
        return x.flatten(0, 1).index_select(0, self.rows)

    def pad(self, x: Tensor) -> Tensor:
        """(real tokens, n) to (batch, tokens, n); padding repeats a neighbour, which `bias` hides."""
        return x.index_select(0, self.slots).reshape(*self.square, -1)

    def first(self, x: Tensor) -> Tensor:
        """(real tokens, n) to (batch, n): each headline's first."""
        return x.index_select(0, self.slots.reshape(self.square)[:, 0])


class CompactForSequenceClassification(transformers.PreTrainedModel):  # type: ignore[misc]  # transformers is untyped here
    """Token and n-gram vectors, `layers` encoder layers, two logits.

    An encoder is read at its first token, as BERT is, so its last layer writes that one alone; a bag is
    averaged; with both, both are read.
    """

    config_class = CompactConfig
    base_model_prefix = "compact"
    main_input_name = "input_ids"

    def __init__(self, config: CompactConfig) -> None:
        super().__init__(config)
        hidden = config.hidden_size
        self.tokens = nn.Embedding(config.vocab_size, hidden)
        if config.character_buckets:
            self.characters = nn.EmbeddingBag(config.character_buckets, hidden, mode="sum", padding_idx=0)
            self.register_buffer(
                "spelling", torch.zeros(config.vocab_size, config.character_width, dtype=torch.int32)
            )
        if config.buckets:
            self.ngrams = nn.Embedding(config.buckets, hidden)
        if config.layers:
            self.positions = nn.Embedding(config.max_tokens, hidden)
            self.norm = nn.LayerNorm(hidden, eps=config.eps)
        if config.relative:
            self.distances = nn.Embedding(2 * config.max_tokens - 1, config.heads)
        self.encoder = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.dropout = nn.Dropout(config.dropout)
        self.dense = nn.Linear(2 * hidden if config.layers and config.buckets else hidden, hidden)
        self.classifier = nn.Linear(hidden, config.num_labels)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding | nn.EmbeddingBag):
            # A bag averages independent vectors: small ones would take epochs to grow.
            nn.init.normal_(
                module.weight,
                std=INITIAL if self.config.layers or isinstance(module, nn.Linear) else 5 * INITIAL,
            )
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **_: Any) -> SequenceClassifierOutput:
        """input_ids and attention_mask int64 (batch, tokens); logits float (batch, 2)."""
        mask = attention_mask.to(self.tokens.weight.dtype)
        x = self.tokens(input_ids)
        if self.config.character_buckets:
            spelled = self.spelling[input_ids].flatten(0, 1).long()
            x = x + self.characters(spelled).view_as(x)
        if self.config.buckets:
            x = x + self._phrases(input_ids)
        read = []
        if self.config.buckets or not self.config.layers:
            read.append((x * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True))
        if self.config.layers:
            packing = Packing(attention_mask, mask.dtype)
            places = torch.arange(input_ids.shape[1], device=input_ids.device)
            x = packing.pack(x) + self.positions(packing.pack(places.expand_as(input_ids)))
            x = self.dropout(self.norm(x))
            bias = packing.bias
            if self.config.relative:
                bias = bias + self.distances(places - places[:, None] + self.config.max_tokens - 1).permute(
                    2, 0, 1
                )
            for layer in self.encoder[:-1]:
                x = layer(x, packing, bias)
            x = self.encoder[-1](x, packing, bias if not self.config.relative else bias[:, :, :1], first=True)
            read.append(x)
        pooled = torch.tanh(self.dense(self.dropout(torch.cat(read, -1))))
        return SequenceClassifierOutput(logits=self.classifier(self.dropout(pooled)))

    def _phrases(self, input_ids: Tensor) -> Tensor:
        """The sum of the vectors of the n-grams that end at each token; before the first token stands
        padding.
        """
        total = torch.zeros((), device=input_ids.device)
        mixed = input_ids * _HASH[0]
        earlier = input_ids
        for back in range(1, self.config.word_ngrams):
            earlier = F.pad(earlier[:, :-1], (1, 0))
            mixed = mixed + earlier * _HASH[back]
            total = total + self.ngrams(mixed % self.config.buckets)
        return total

    @torch.no_grad()
    def fold(self) -> None:
        """For export: the same logits, and less to compute. Adds the character n-grams' vectors to the
        tokens' and drops them.
        """
        if self.config.layers:
            cast(Layer, self.encoder[-1]).split()
        if not self.config.character_buckets:
            return
        self.tokens.weight += torch.cat([self.characters(part.long()) for part in self.spelling.split(4096)])
        self.config.character_buckets = self.config.character_width = 0
        del self.characters, self.spelling


def spelling(vocabulary: dict[str, int], buckets: int) -> np.ndarray:
    """The character n-grams of every token as bucket numbers from 1, int32 (tokens, most), 0 where there are
    no more.

    A word's start is marked `<`; a piece that goes on a word (`##ing`) has none. Special tokens (`[CLS]`)
    have no spelling.
    """
    rows: dict[int, list[int]] = {}
    for token, index in vocabulary.items():
        special = token.startswith("[") and token.endswith("]")
        text = "" if special else token.removeprefix("##") if token.startswith("##") else f"<{token}"
        grams = {text[at : at + size] for size in CHARACTERS for at in range(len(text) - size + 1)}
        rows[index] = sorted(
            1 + zlib.crc32(gram.encode("utf-8", "surrogatepass")) % (buckets - 1) for gram in grams
        )
    table = np.zeros((max(rows) + 1, max(map(len, rows.values()))), np.int32)
    for index, grams_of in rows.items():
        table[index, : len(grams_of)] = grams_of
    return table


transformers.AutoConfig.register(CompactConfig.model_type, CompactConfig)
transformers.AutoModelForSequenceClassification.register(CompactConfig, CompactForSequenceClassification)
