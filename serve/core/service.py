"""What stands behind the routes: the version that serves, a canary and a shadow beside it where they are set.
No HTTP and no Ray in it.

service = Service(settings)
service.load()                                      # blocks; raises one line where the version cannot be served
service.start()                                     # from then on it follows the alias
await service.score(["..."], deadline)              # Answer: scores, and the version that computed them
await service.close()                               # answers what was accepted
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from clickbait.errors import ClickbaitError, NotReady, UnknownModel
from serve.core.background import Background
from serve.core.engine import Answer
from serve.core.following import Follower
from serve.core.metrics import Metrics
from serve.settings import Settings

log = logging.getLogger(__name__)
_SHADOW_WAITING = 8  # requests that may wait for the shadow: beyond that it has seen enough of this load


class Service:
    """Not ready until `load` has returned, and not any more once `close` is called."""

    def __init__(
        self, settings: Settings, beside: Callable[[Metrics], Coroutine[Any, Any, None]] | None = None
    ) -> None:
        """`beside` is run from `start` to `close`, with the metrics."""
        self._settings = settings
        self._beside = beside
        self.metrics = Metrics()
        self._main = Follower("main", settings.model, settings, self.metrics)
        self._canary = (
            Follower("canary", settings.canary, settings, self.metrics) if settings.canary else None
        )
        self._shadow = (
            Follower("shadow", settings.shadow, settings, self.metrics) if settings.shadow else None
        )
        self._followers = [one for one in (self._main, self._canary, self._shadow) if one]
        self._background = Background(self.metrics.task_failed)

    @property
    def ready(self) -> bool:
        """Whether a model is loaded and warmed, and requests are taken."""
        return self._main.engine is not None and self._main.engine.taking

    @property
    def version(self) -> str | None:
        """The version that is served, if one is loaded."""
        return self._main.engine.version if self._main.engine else None

    @property
    def work_s(self) -> float:
        """Estimated seconds of accepted work that is not computed yet, of the main version and the canary."""
        return sum(
            follower.engine.work_s for follower in (self._main, self._canary) if follower and follower.engine
        )

    def load(self) -> None:
        """Loads every role's version.

        Raises:
            ClickbaitError: the main version cannot be served. A canary or shadow that cannot is logged, and
                tried again later.
        """
        self._main.load()
        for follower in self._followers[1:]:
            try:
                follower.load()
            except ClickbaitError as error:
                log.warning("%s: %s cannot be served: %s", follower.role, follower.ref, error)

    def start(self) -> None:
        """Follows the aliases from now on, and does what is to be done beside, on the running loop."""
        if self._settings.poll_s:
            for follower in self._followers:
                self._background.keep(f"follow {follower.role}", follower.follow)
        if self._beside:
            self._background.keep("beside", partial(self._beside, self.metrics))

    async def score(self, texts: list[str], deadline: float, *, version: str | None = None) -> Answer:
        """Returns the scores of the texts.

        Args:
            texts: the texts.
            deadline: a time of the running loop's clock.
            version: if given, only this version computes them, and no canary.

        Raises:
            UnknownModel: `version` is not served, or was replaced before this was computed.
            NotReady, Overloaded, DeadlineExceeded: as `Batcher.submit`.
        """
        follower = self._main
        if (
            version is None
            and self._canary
            and self._canary.engine
            and random.random() < self._settings.canary_share  # noqa: S311
        ):
            follower = self._canary
        while True:
            engine = follower.engine
            if engine is None:
                raise NotReady("no model is loaded yet: try again after Retry-After seconds")
            if version not in (None, engine.version):
                raise not_served()
            try:
                answer = await engine.score(texts, deadline)
            except NotReady:
                if follower.engine is engine:  # else it was swapped while the texts were tokenized
                    raise
                continue
            self.metrics.count_texts(engine.version, answer.scores)
            if self._shadow and random.random() < self._settings.shadow_share:  # noqa: S311
                self._background.once("shadow", partial(self._compare, texts, answer))
            return answer

    def summary(self) -> dict[str, Any]:
        """What is served, for `GET /model`.

        Raises:
            NotReady: no model is loaded.
        """
        if self._main.engine is None:
            raise NotReady("no model is loaded yet: try again after Retry-After seconds")
        scorer = self._main.engine.scorer
        manifest = scorer.manifest
        return {
            "name": manifest.name,
            "version": scorer.version,
            "base_model": manifest.base_model,
            "created_at": manifest.created_at,
            "dataset": manifest.dataset,
            "synthetic": manifest.synthetic,
            "labels": list(manifest.labels),
            "threshold": manifest.threshold,
            "max_tokens": manifest.max_tokens,
            "max_characters": self._settings.max_characters,
            "runtime": scorer.runtime,
            "metrics": manifest.metrics,
            "decision": (manifest.verdict or {}).get("decision"),
        }

    def health(self) -> dict[str, Any]:
        """For `GET /readyz`: what serves in each role, and a newer version that was refused."""
        refused = self._main.refused
        return {
            "status": "ready" if self.ready else "not ready",
            "model": self.version,
            "canary": self._canary.engine.version if self._canary and self._canary.engine else None,
            "shadow": self._shadow.engine.version if self._shadow and self._shadow.engine else None,
            "refused": {"version": refused.version, "why": refused.why} if refused else None,
        }

    async def close(self) -> None:
        """Takes nothing more and answers what was accepted."""
        await self._background.cancel()
        for follower in self._followers:
            await follower.close()

    async def _compare(self, texts: list[str], answer: Answer) -> None:
        """Scores the texts with the shadow too; only metrics and the log hear of it."""
        engine = self._shadow.engine if self._shadow else None
        if engine is None or engine.waiting >= _SHADOW_WAITING:
            return
        try:
            theirs = await engine.score(texts, asyncio.get_running_loop().time() + self._settings.timeout_s)
        except Exception as error:
            log.warning("shadow: %s did not score: %s", engine.version, type(error).__name__)
            return
        other = 0
        for ours, shadow in zip(answer.scores, theirs.scores, strict=True):
            same = answer.scorer.label(ours) == theirs.scorer.label(shadow)
            other += not same
            self.metrics.compared(same, abs(ours - shadow))
        if other:
            log.info(
                "shadow: %s says otherwise than %s of %d of %d texts",
                engine.version,
                answer.scorer.version,
                other,
                len(texts),
            )


def not_served() -> UnknownModel:
    """What a request gets that names a version which is not served."""
    return UnknownModel("this version is not served: GET /model names the one that is")
