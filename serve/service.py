"""What stands behind the routes: one model version, loaded and warmed, and the batcher that feeds it. No HTTP and no Ray in it.

service = Service(settings)
service.load()                                      # blocks; raises one line where the version cannot be served
await service.classify(["..."], deadline)           # [{"label": "news", "score": 0.02, "model": "v3"}]
await service.close()                               # answers what was accepted
"""

from __future__ import annotations

from typing import Any

import numpy as np

from clickbait.errors import BundleError, NotReady
from clickbait.registry import Registry
from clickbait.scorer import Scorer
from serve.batching import Batcher
from serve.settings import Settings

_WARM_WORDS = (1, 8, 32, 512)  # headlines of these many words: short, usual, long, and cut to the model's longest


class Service:
    """Not ready until `load` has returned, and not any more once `close` is called."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._scorer: Scorer | None = None
        self._batcher: Batcher | None = None

    @property
    def ready(self) -> bool:
        """Whether a model is loaded and warmed, and requests are taken."""
        return self._batcher is not None and not self._batcher.closing

    @property
    def version(self) -> str | None:
        """The version that is served, if one is loaded."""
        return self._scorer.version if self._scorer else None

    def load(self) -> None:
        """Fetches the version from the registry, loads it and warms it.

        Raises:
            ClickbaitError: no such version, a byte that is wrong, a model that cannot be loaded or does not give numbers.
        """
        settings = self._settings
        folder = Registry(settings.registry).fetch(settings.model)
        scorer = Scorer(folder, runtime=settings.runtime, threads=settings.threads, verified=True)
        for words in _WARM_WORDS:
            for count in (1, settings.max_batch):
                if not np.isfinite(scorer.score(["word " * words] * count)).all():
                    raise BundleError(f"{folder}: the model's scores are not numbers; export it again")
        self._scorer = scorer
        self._batcher = Batcher(lambda texts: scorer.score(texts).tolist(), max_batch=settings.max_batch, max_waiting=settings.max_waiting)

    async def classify(self, texts: list[str], deadline: float) -> list[dict[str, Any]]:
        """A result for each text, in their order. `deadline` is a time of the running loop's clock.

        Raises:
            NotReady, Overloaded, DeadlineExceeded: as `Batcher.submit`.
        """
        if self._batcher is None or self._scorer is None:
            raise _not_ready()
        scorer = self._scorer
        return [scorer.result(score) for score in await self._batcher.submit(texts, deadline)]

    def summary(self) -> dict[str, Any]:
        """What is served, for `GET /model`.

        Raises:
            NotReady: no model is loaded.
        """
        if self._scorer is None:
            raise _not_ready()
        manifest = self._scorer.manifest
        return {
            "name": manifest.name,
            "version": self._scorer.version,
            "base_model": manifest.base_model,
            "created_at": manifest.created_at,
            "dataset": manifest.dataset,
            "synthetic": manifest.synthetic,
            "labels": list(manifest.labels),
            "threshold": manifest.threshold,
            "max_tokens": manifest.max_tokens,
            "max_characters": self._settings.max_characters,
            "runtime": self._scorer.runtime,
            "metrics": manifest.metrics,
            "decision": (manifest.verdict or {}).get("decision"),
        }

    async def close(self) -> None:
        """Takes nothing more and answers what was accepted."""
        if self._batcher is not None:
            await self._batcher.close()


def _not_ready() -> NotReady:
    return NotReady("no model is loaded yet: try again after Retry-After seconds")
