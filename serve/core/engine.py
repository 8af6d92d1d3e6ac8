"""A version that is ready to answer: fetched, verified, loaded and warmed, with the batcher that feeds it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from clickbait.errors import BundleError
from clickbait.inference import backends, graph_cache
from clickbait.inference.scorer import Scorer
from clickbait.registry.registry import Registry
from serve.core.batching import Batch, Batcher
from serve.settings import Settings

_WARM_WORDS = (
    1,
    8,
    32,
    512,
)  # headlines of these many words: short, usual, long, and cut to the model's longest
_WARM_USUAL = 8
_WARM_BATCH = 32
# A batch of a small model is computed on the loop, which is kept from its sockets for so long. Loop and
# engine have one core, and where the scheduler has them take turns on it, each finds the other's numbers in
# the caches: on a thread a headline takes a tenth longer. What makes this bearable for connections is that
# the batcher then lets the loop work until nothing more comes (`Batcher._others`).
_INLINE_S = 0.020
_INLINE_TEXTS = 64  # tokenized on the loop: half a millisecond; more go to a thread
_FORGET = 0.1  # the newest request's share in the estimate of a character's tokens
_SURE = 0.8  # of the estimated tokens: whoever is refused before tokenizing would be refused after it too


@dataclass(frozen=True, slots=True)
class Answer:
    """The scores of a request."""

    scores: list[float]
    """P(clickbait), in the order of the texts."""
    scorer: Scorer
    """The version that computed them."""
    tokens: int
    """Of all texts."""
    queued_s: float
    """Waited for the engine."""
    computed_s: float
    """On the engine."""


class Engine:
    """Made by `load`; `score` until `close`."""

    def __init__(
        self, scorer: Scorer, settings: Settings, observe: Callable[[Batch], None], token_s: float = 0.0
    ) -> None:
        """`token_s`: seconds that a token takes, as the warm-up has it."""
        self.scorer = scorer
        self._character_tokens = 0.0  # tokens of a character, estimated
        self._encoder = ThreadPoolExecutor(1, thread_name_prefix="tokenizer")
        budget = settings.batch_tokens or scorer.token_budget
        self._batcher: Batcher[list[int]] = Batcher(
            lambda rows: scorer.score_tokens(rows, budget).tolist(),
            max_tokens=budget,
            max_waiting=settings.max_waiting,
            inline_s=_INLINE_S
            if settings.device == backends.CPU
            else 0.0,  # beside a GPU the loop's core is free
            token_s=token_s,
            observe=observe,
        )

    @classmethod
    def load(
        cls, registry: Registry, version: str, settings: Settings, observe: Callable[[Batch], None]
    ) -> Engine:
        """Fetches the version, loads it and warms it; blocks.

        Raises:
            ClickbaitError: no such version, a byte that is wrong, a model that cannot be loaded or does not
                give numbers.
        """
        shared = graph_cache.folder() if settings.share_weights else None
        scorer = Scorer.of(
            registry,
            version,
            runtime=settings.runtime,
            device=settings.device,
            threads=settings.threads,
            shared=shared,
        )
        for words in _WARM_WORDS:
            for count in (1, _WARM_BATCH):
                if not np.isfinite(scorer.score(["word " * words] * count)).all():
                    raise BundleError(f"{version}: the model's scores are not numbers; export it again")
        rows = scorer.encode(["word " * _WARM_USUAL] * _WARM_BATCH)
        began = time.perf_counter()
        scorer.score_tokens(rows)
        return cls(scorer, settings, observe, (time.perf_counter() - began) / sum(map(len, rows)))

    @property
    def version(self) -> str:
        """The version's name."""
        return self.scorer.version

    @property
    def taking(self) -> bool:
        """Whether requests are taken."""
        return not self._batcher.closing

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return self._batcher.waiting

    @property
    def work_s(self) -> float:
        """Seconds of work that was accepted and is not computed yet, estimated."""
        return self._batcher.work_s

    async def score(self, texts: list[str], deadline: float) -> Answer:
        """The texts' scores. `deadline` is a time of the running loop's clock.

        Raises:
            NotReady, Overloaded, DeadlineExceeded: as `Batcher.submit`.
        """
        if len(texts) <= _INLINE_TEXTS:
            rows = self.scorer.encode(texts)
        else:
            characters = sum(map(len, texts))
            self._batcher.check(int(_SURE * self._character_tokens * characters), deadline)
            rows = await asyncio.get_running_loop().run_in_executor(self._encoder, self.scorer.encode, texts)
            newest = sum(map(len, rows)) / max(characters, 1)
            self._character_tokens += (_FORGET if self._character_tokens else 1.0) * (
                newest - self._character_tokens
            )
        lengths = [len(row) for row in rows]
        outcome = await self._batcher.submit(rows, lengths, deadline)
        return Answer(outcome.scores, self.scorer, sum(lengths), outcome.queued_s, outcome.computed_s)

    async def close(self) -> None:
        """Takes nothing more and answers what was accepted."""
        await self._batcher.close()
        self._encoder.shutdown(wait=False)
