"""A bundle and texts in, scores out: the tokenizer and a backend on one thread, with next to no padding.

    scorer = Scorer(Path("artifacts/bundle"))
    scorer.score(["Markets close higher", "You won't believe number 7"])   # array([0.02, 0.97], dtype=float32)

The served model takes `input_ids` and `attention_mask`, int64 (batch, sequence), and gives `logits`, float32
(batch, 2), in the order of the manifest's labels: news, clickbait.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clickbait.inference import backends
from clickbait.inference.word_tokenizer import Words
from clickbait.registry import bundle
from clickbait.registry.registry import Registry

# Tokens, padding counted, in one run of the model: some 17 headlines. The activations of a run then stay near
# the core; with twice as many it is a matter of the processor what a headline takes, with half as many it
# takes more, alone a third more (`make bench-engine`).
TOKEN_BUDGET = 256
# On a GPU a run costs as much as a thousand headlines (`python -m tests.performance.bench_gpu`).
GPU_TOKEN_BUDGET = 16_384
DRAFT = "draft"  # the version of a bundle that is not published


class Scorer:
    """A loaded model version. One thread at a time may call `score` or `score_tokens`."""

    def __init__(
        self,
        folder: Path,
        *,
        runtime: str | None = None,
        device: str = backends.CPU,
        threads: int = 1,
        verified: bool = False,
        shared: Path | None = None,
    ) -> None:
        """Loads the bundle in `folder`, every byte of it checked first unless `verified` says that this was
        just done.

        Args:
            folder: the bundle.
            runtime: one of its runtimes, or `torch`; None takes what it was exported for.
            device: `cpu` or `cuda`.
            threads: compute threads on the CPU.
            verified: the bundle's bytes were checked.
            shared: where this machine's processes share a model's weights
                (`clickbait.inference.graph_cache`); None keeps a copy of its own.

        Raises:
            BundleError: a byte that is not the manifest's, or a file that tokenizers or onnxruntime cannot
                load.
            ConfigError: the bundle has no such runtime, or the machine has no such device.
        """
        self.manifest = bundle.read_manifest(folder) if verified else bundle.verify(folder)
        self.version = self.manifest.version or DRAFT
        self.runtime = backends.choose(self.manifest, runtime, device)
        tokenizer = _tokenizer(folder / "tokenizer.json", self.manifest.max_tokens)
        self.token_budget = GPU_TOKEN_BUDGET if device == backends.CUDA else TOKEN_BUDGET
        self._words = Words(tokenizer)
        self._pad = _pad_id(tokenizer)
        self._backend = backends.load(
            folder, self.manifest, self.runtime, device=device, threads=threads, shared=shared
        )

    @classmethod
    def of(
        cls,
        registry: Registry,
        ref: str,
        *,
        runtime: str | None = None,
        device: str = backends.CPU,
        threads: int = 1,
        shared: Path | None = None,
    ) -> Scorer:
        """Loads the version of a registry that `ref` names. Only the files that its runtime reads are
        fetched.

        The other arguments are `__init__`'s.

        Raises:
            RegistryError: `ref` names no version.
            BundleError, ConfigError: as `__init__`.
        """
        version = registry.resolve(ref)
        runtime = backends.choose(registry.manifest(version), runtime, device)
        folder = registry.fetch(version, runtime)
        try:
            return cls(folder, runtime=runtime, device=device, threads=threads, verified=True, shared=shared)
        finally:
            registry.release(folder)  # what is loaded needs the files no more

    def score(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """P(clickbait) of each text, in the order given: float32 (n,). Texts are cleaned here; no text gives
        no score.
        """
        return self.score_tokens(self.encode(texts))

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of each text, cleaned and cut at the model's longest. Any thread may call it."""
        return self._words.encode(texts)

    def score_tokens(self, ids: Sequence[list[int]], budget: int | None = None) -> NDArray[np.float32]:
        """P(clickbait) of each row of token ids, as `encode` gives them, in the order given: float32 (n,).

        `budget`: tokens of one run, padding counted; None takes `token_budget`, the device's.
        """
        scores = np.empty(len(ids), np.float32)
        for rows in micro_batches([len(row) for row in ids], budget or self.token_budget):
            scores[rows] = self._run([ids[row] for row in rows])
        return scores

    def label(self, score: float) -> str:
        """The label of a score: clickbait from the manifest's threshold on."""
        news, clickbait = self.manifest.labels
        return clickbait if score >= self.manifest.threshold else news

    def result(self, score: float) -> dict[str, Any]:
        """What the HTTP api answers for a score. It is rounded before it is labelled, so a client that
        compares comes to the same.
        """
        score = round(float(score), 6)
        return {"label": self.label(score), "score": score, "model": self.version}

    def _run(self, ids: list[list[int]]) -> NDArray[np.float32]:
        """Scores of token ids that are sorted by length: padded to the last, (n,)."""
        shape = (len(ids), max(len(ids[-1]), 1))
        input_ids = np.full(shape, self._pad, np.int64)
        mask = np.zeros(shape, np.int64)
        for row, tokens in enumerate(ids):
            input_ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        logits = self._backend(input_ids, mask)
        margin = (logits[:, 1] - logits[:, 0]) / np.float32(self.manifest.temperature)
        # softmax(...)[:, 1] of two classes, in the form that cannot overflow
        return np.asarray(0.5 * (1.0 + np.tanh(0.5 * margin)), np.float32)


def micro_batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Row numbers, shortest first, cut so that longest x count stays within `budget` tokens. A longer row
    goes alone.
    """
    rows: list[int] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if rows and lengths[row] * (len(rows) + 1) > budget:
            yield rows
            rows = []
        rows.append(row)
    if rows:
        yield rows


def _tokenizer(path: Path, max_tokens: int) -> Any:
    # Read by tokenizers at each batch: a replica owns one core, and a pool of threads in it would fight its
    # neighbours.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise backends.cannot_load("tokenizers", path, error) from None
    tokenizer.no_padding()  # padding goes by micro-batch
    tokenizer.enable_truncation(max_tokens)
    return tokenizer


def _pad_id(tokenizer: Any) -> int:
    """The pad token's id. Where there is none the mask hides the pads, and any id does."""
    for token in ("[PAD]", "<pad>"):
        if (found := tokenizer.token_to_id(token)) is not None:
            return int(found)
    return 0
