"""Follows an alias without a restart, for one role of a server (main, canary, shadow).

The alias is read every `poll_s` seconds, give or take a fifth. When it has moved, the new version is loaded
and warmed beside the old one. Then new requests go to the new version, and the old one answers what it has
accepted. A version that cannot be loaded is refused: the old one continues, and the reason is in /readyz, the
metrics and the log until the alias moves again. The refused version is tried again with growing pauses,
because a bucket that did not answer may answer later; the alias is still read at the same rate. A registry
that does not answer changes only the metrics.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from dataclasses import dataclass

from clickbait.errors import ClickbaitError
from clickbait.registry.registry import Registry
from serve.core.background import Background
from serve.core.engine import Engine
from serve.core.metrics import Metrics
from serve.settings import Settings

log = logging.getLogger(__name__)
_JITTER = 0.2
_RETRY_AT_MOST_S = 300.0
_DOUBLED_AT_MOST = 20  # tries; a wait has long reached its bound by then


@dataclass(frozen=True)
class Refused:
    """A version that the alias names and that is not served."""

    version: str
    why: str


class Follower:
    """`load` once, then `follow` in a task; `engine` is what serves now."""

    def __init__(self, role: str, ref: str, settings: Settings, metrics: Metrics) -> None:
        self.role, self.ref = role, ref
        self.engine: Engine | None = None
        self.refused: Refused | None = None
        self._settings = settings
        self._metrics = metrics
        self._registry = Registry(settings.registry)
        self._closing = Background(metrics.task_failed)  # versions before, until they have answered
        self._tries = 0  # of the refused version
        self._retry_at = 0.0  # when it is loaded again, by `time.monotonic`
        self._unread = ""  # why the alias could not be read the last time; said once, not at every look

    def load(self) -> None:
        """Loads the version that the alias names, or else the alias's previous version. Blocks.

        Raises:
            ClickbaitError: neither version can be served, or there is none.
        """
        version = self._registry.resolve(self.ref)
        if self._settings.poll_s:  # else nobody reads it again, and its age says nothing
            self._metrics.registry_read(self.role, time.time())
        try:
            self._take(self._loaded(version))
        except ClickbaitError as error:
            before = self._before(version)
            if before is None:
                raise
            try:
                engine = self._loaded(before)
            except ClickbaitError:
                raise error from None
            self._refuse(version, error)
            self._take(engine)

    async def follow(self) -> None:
        """Looks again and again, until it is cancelled."""
        while True:
            await asyncio.sleep(self._settings.poll_s * random.uniform(1 - _JITTER, 1 + _JITTER))  # noqa: S311  # no secret
            await self.look()

    async def look(self) -> None:
        """Looks once, and takes the version that the alias names now, if it can be served."""
        try:
            version = await asyncio.to_thread(self._registry.resolve, self.ref)
        except Exception as error:
            self._metrics.registry_read(self.role, None)
            if str(error) != self._unread:
                log.warning("%s: cannot read where %s points: %s", self.role, self.ref, error)
            self._unread = str(error)
            return
        self._unread = ""
        self._metrics.registry_read(self.role, time.time())
        if self.engine is not None and version == self.engine.version:
            self.refused, self._tries = None, 0
            return
        if self.refused is not None and self.refused.version == version and time.monotonic() < self._retry_at:
            return
        try:
            engine = await asyncio.to_thread(self._loaded, version)
        except Exception as error:  # whatever a bad version or its storage raises, the old one serves on
            self._refuse(version, error)
            return
        old = self.engine
        self._take(engine)
        if old is not None:
            self._closing.once("close", old.close)

    async def close(self) -> None:
        """Takes nothing more; what was accepted is answered, by the versions before too."""
        if self.engine is not None:
            await self.engine.close()
        await self._closing.finish()

    def _loaded(self, version: str) -> Engine:
        return Engine.load(self._registry, version, self._settings, self._metrics.count_batch)

    def _before(self, version: str) -> str | None:
        """The version that the alias named before."""
        try:
            alias = self._registry.alias(self.ref)
        except ClickbaitError:  # a version or `latest`
            return None
        return alias.previous if alias and alias.previous != version else None

    def _take(self, engine: Engine) -> None:
        before = self.engine.version if self.engine else None
        self.engine = engine
        if self.refused is None or self.refused.version == engine.version or before is not None:
            self.refused, self._tries = None, 0
        self._metrics.serves(self.role, engine.version, before)
        if before:
            log.info("%s: %s is served, %s was", self.role, engine.version, before)

    def _refuse(self, version: str, error: Exception) -> None:
        why = (
            str(error)
            if isinstance(error, ClickbaitError)
            else f"{type(error).__name__}: it cannot be loaded"
        )
        self._tries = self._tries + 1 if self.refused and self.refused.version == version else 1
        wait = self._settings.poll_s * 2 ** min(self._tries, _DOUBLED_AT_MOST)
        self._retry_at = time.monotonic() + min(wait, max(_RETRY_AT_MOST_S, self._settings.poll_s))
        self.refused = Refused(version, why)
        self._metrics.refused(self.role)
        log.error(
            "%s: %s is refused, %s serves on: %s",
            self.role,
            version,
            self.engine.version if self.engine else "nobody",
            why,
        )
