"""The compact architecture, built for speed: a bag of hashed n-grams, or a small transformer.

`TrainConfig`'s model, layers, hidden, intermediate and buckets select one of three forms:

    scratch:ngrams        layers 0: the mean of word, character and hashed word n-gram vectors
                          (fastText: Joulin et al. 2017)
    scratch:transformer   layers > 0, buckets 0: a post-norm encoder like BERT (Devlin et al. 2019) with
                          random weights
    both                  layers > 0, buckets > 0: an encoder whose input includes n-gram vectors

A fine-tuned BERT (such as MiniLM) or MPNet can be converted to this architecture without a change of its
logits (`clickbait.models.weight_transfer`). It is then served 1.8 times as fast.

A token is a WordPiece of the dataset's tokenizer. The character n-grams depend only on the token. So after
training, `fold` adds their vectors to the token's vector, and serving does not compute them. Importing this
module registers the architecture with transformers' Auto classes.
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

# Multipliers for hashing n-grams. Any odd numbers below 2**31 would do: the sum of 3 products with token ids
# up to 30,000 fits into int64.
_HASH = (1_000_003, 1_540_483_477, 374_761_393)
# Lengths of character n-grams: fastText's, without 6, because few WordPieces are that long.
CHARACTER_NGRAMS = (3, 4, 5)
INITIAL_STD = 0.02  # standard deviation of new weights, as in BERT
HEAD_SIZE = 32  # dimensions of an attention head of a new encoder, as in MiniLM


class CompactConfig(transformers.PretrainedConfig):  # type: ignore[misc]  # transformers is untyped here
    """The hyperparameters of the architecture.

    Args:
        vocab_size: number of tokens of the tokenizer.
        pad_token_id: the tokenizer's id of padding.
        hidden_size: dimensions of every vector.
        layers: number of encoder layers. 0 means a bag of n-grams.
        heads: attention heads per layer.
        intermediate_size: dimensions of the feed-forward part of a layer.
        buckets: hash buckets for word n-grams. 0 means no word n-grams.
        word_ngrams: length of the longest word n-gram, 2 or 3.
        character_buckets: hash buckets for character n-grams. 0 means none, or that they are folded already.
        character_width: the largest number of character n-grams of a token.
        max_tokens: number of positions.
        relative: add a bias for the distance of two tokens to attention (Raffel et al. 2020), as in MPNet.
        eps: added to the variance in layer norms.
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
        self.vocab_size, self.max_tokens = vocab_size, max_tokens
        self.hidden_size, self.intermediate_size = hidden_size, intermediate_size
        self.layers, self.heads, self.relative = layers, heads, relative
        self.buckets, self.word_ngrams = buckets, word_ngrams
        self.character_buckets, self.character_width = character_buckets, character_width
        self.eps, self.dropout = eps, dropout


class Layer(nn.Module):
    """An encoder layer as in BERT: attention and feed-forward, each followed by a layer norm.

    Query, key and value are computed by a single matrix.
    """

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
        """Computes the layer for packed tokens. Only attention uses the padded form.

        Args:
            x: float (real tokens, hidden).
            packing: converts between packed and padded form.
            bias: added to the attention scores, (batch, heads or 1, tokens or 1, tokens). Large and negative
                for padding.
            first: compute only the first token of each headline.

        Returns:
            float (real tokens, hidden), or (batch, hidden) with `first`.
        """
        hidden = x.shape[1]
        if first:  # keys and values of all tokens, but only one query: a sixth of the work
            query, key_value = self.projections()
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
        """Splits (batch, tokens, parts x hidden) into `parts` of (batch, heads, tokens, head size)."""
        batch, tokens, _ = x.shape
        return x.reshape(batch, tokens, parts, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)

    def projections(self) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
        """The functions that compute the queries, and the keys with the values."""
        if self.qkv is None:
            return self.query, self.key_value
        weight, bias = self.qkv.weight, self.qkv.bias
        hidden = weight.shape[1]
        return lambda x: F.linear(x, weight[:hidden], bias[:hidden]), lambda x: F.linear(
            x, weight[hidden:], bias[hidden:]
        )

    @torch.no_grad()
    def split(self) -> None:
        """Replaces the single matrix by one for queries and one for keys and values.

        The quantizer would leave a slice of a matrix in fp32, so the last layer needs separate matrices.
        """
        assert self.qkv is not None
        hidden = self.qkv.weight.shape[1]
        self.query, self.key_value = nn.Linear(hidden, hidden), nn.Linear(hidden, 2 * hidden)
        for kind in ("weight", "bias"):
            combined = getattr(self.qkv, kind)
            getattr(self.query, kind).copy_(combined[:hidden])
            getattr(self.key_value, kind).copy_(combined[hidden:])
        self.qkv = None


class Packing:
    """Converts between a padded batch (batch, tokens) and its real tokens in one row.

    The method is that of Effective Transformer (ByteDance 2020). Without it, a batch of 16 unsorted headlines
    computes 1.55 tokens for each real token.
    """

    def __init__(self, attention_mask: Tensor, dtype: torch.dtype) -> None:
        """attention_mask is int64 (batch, tokens): 1 for a real token, 0 for padding."""
        self.padded_shape = attention_mask.shape
        flat = attention_mask.flatten()
        self.rows = flat.nonzero().squeeze(1)
        """Position of each real token in the flattened batch, int64 (real tokens)."""
        self.slots = (flat.cumsum(0) - 1).clamp(min=0)
        """Index of the real token at each position of the flattened batch, int64 (batch x tokens).

        Padding has the index of the real token before it.
        """
        self.bias = (1.0 - attention_mask.to(dtype))[:, None, None] * -1e4  # in the range of bf16 and fp16
        """Added to attention scores: large and negative for padding, float (batch, 1, 1, tokens)."""

    def pack(self, x: Tensor) -> Tensor:
        """Converts (batch, tokens, ...) to (real tokens, ...)."""
        return x.flatten(0, 1).index_select(0, self.rows)

    def pad(self, x: Tensor) -> Tensor:
        """Converts (real tokens, n) to (batch, tokens, n). Padding repeats a real token; `bias` masks it."""
        return x.index_select(0, self.slots).reshape(*self.padded_shape, -1)

    def first(self, x: Tensor) -> Tensor:
        """Selects the first token of each headline: (real tokens, n) to (batch, n)."""
        return x.index_select(0, self.slots.reshape(self.padded_shape)[:, 0])


class CompactForSequenceClassification(transformers.PreTrainedModel):  # type: ignore[misc]  # transformers is untyped here
    """The classifier: token and n-gram vectors, `layers` encoder layers, two logits.

    The head reads the first token of an encoder, as in BERT, so the last layer computes only that token. For
    a bag, the head reads the mean of the vectors. If there are both, it reads both.
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
            # The mean of a bag's independent vectors is small. Larger vectors save epochs of training.
            scale = 1 if self.config.layers or isinstance(module, nn.Linear) else 5
            nn.init.normal_(module.weight, std=scale * INITIAL_STD)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **_: Any) -> SequenceClassifierOutput:
        """input_ids and attention_mask are int64 (batch, tokens). The logits are float (batch, 2)."""
        mask = attention_mask.to(self.tokens.weight.dtype)
        x = self.tokens(input_ids)
        if self.config.character_buckets:
            ngram_ids = self.spelling[input_ids].flatten(0, 1).long()
            x = x + self.characters(ngram_ids).view_as(x)
        if self.config.buckets:
            x = x + self._word_ngrams(input_ids)
        features = []
        if self.config.buckets or not self.config.layers:
            features.append((x * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True))
        if self.config.layers:
            packing = Packing(attention_mask, mask.dtype)
            positions = torch.arange(input_ids.shape[1], device=input_ids.device)
            x = packing.pack(x) + self.positions(packing.pack(positions.expand_as(input_ids)))
            x = self.dropout(self.norm(x))
            bias = packing.bias
            if self.config.relative:
                distances = positions - positions[:, None] + self.config.max_tokens - 1
                bias = bias + self.distances(distances).permute(2, 0, 1)
            for layer in self.encoder[:-1]:
                x = layer(x, packing, bias)
            x = self.encoder[-1](x, packing, bias if not self.config.relative else bias[:, :, :1], first=True)
            features.append(x)
        pooled = torch.tanh(self.dense(self.dropout(torch.cat(features, -1))))
        return SequenceClassifierOutput(logits=self.classifier(self.dropout(pooled)))

    def _word_ngrams(self, input_ids: Tensor) -> Tensor:
        """Sum of the vectors of the n-grams that end at each token. Padding precedes the first token."""
        total = torch.zeros((), device=input_ids.device)
        hashes = input_ids * _HASH[0]
        earlier = input_ids
        for back in range(1, self.config.word_ngrams):
            earlier = F.pad(earlier[:, :-1], (1, 0))
            hashes = hashes + earlier * _HASH[back]
            total = total + self.ngrams(hashes % self.config.buckets)
        return total

    @torch.no_grad()
    def fold(self) -> None:
        """Simplifies the model for export, without a change of its logits.

        Adds the vectors of character n-grams to the token vectors, and splits the last layer's matrix.
        """
        if self.config.layers:
            cast(Layer, self.encoder[-1]).split()
        if not self.config.character_buckets:
            return
        self.tokens.weight += torch.cat([self.characters(part.long()) for part in self.spelling.split(4096)])
        self.config.character_buckets = self.config.character_width = 0
        del self.characters, self.spelling


def spelling(vocabulary: dict[str, int], buckets: int) -> np.ndarray:
    """The hash buckets of every token's character n-grams, int32 (tokens, most n-grams of a token).

    Buckets count from 1; 0 fills the rest of a row. The start of a word is marked by `<`. A piece that
    continues a word (`##ing`) has no mark. Special tokens (`[CLS]`) have no n-grams.
    """
    rows: dict[int, list[int]] = {}
    for token, index in vocabulary.items():
        special = token.startswith("[") and token.endswith("]")
        text = "" if special else token.removeprefix("##") if token.startswith("##") else f"<{token}"
        ngrams = {
            text[start : start + size] for size in CHARACTER_NGRAMS for start in range(len(text) - size + 1)
        }
        rows[index] = sorted(
            1 + zlib.crc32(ngram.encode("utf-8", "surrogatepass")) % (buckets - 1) for ngram in ngrams
        )
    table = np.zeros((max(rows) + 1, max(map(len, rows.values()))), np.int32)
    for index, bucket_ids in rows.items():
        table[index, : len(bucket_ids)] = bucket_ids
    return table


transformers.AutoConfig.register(CompactConfig.model_type, CompactConfig)
transformers.AutoModelForSequenceClassification.register(CompactConfig, CompactForSequenceClassification)
