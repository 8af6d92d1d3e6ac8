"""Work that runs beside the requests, on the event loop: none of it ends unseen.

background = Background(metrics.task_failed)
background.keep("follow main", follower.follow)      # until it returns or is cancelled; after an exception it starts again
background.once("close", engine.close)               # an exception is logged and counted
await background.cancel()
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

log = logging.getLogger(__name__)
_AGAIN_S, _AGAIN_AT_MOST_S = 1.0, 60.0  # before work that failed starts again: doubled each time


class Background:
    """A set of tasks. `failed` is called with the name of one that raised an exception."""

    def __init__(self, failed: Callable[[str], None]) -> None:
        self._failed = failed
        self._tasks: set[asyncio.Task[Any]] = set()

    def once(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Runs `work()`."""
        self._start(self._seen(name, work))

    def keep(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Runs `work()` until it returns; after an exception it runs again, later and later."""
        self._start(self._kept(name, work))

    async def finish(self) -> None:
        """Waits for every task, those that start meanwhile too."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def cancel(self) -> None:
        """Cancels every task and waits for its end."""
        for task in self._tasks:
            task.cancel()
        await self.finish()

    def _start(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _seen(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> bool:
        """Whether `work()` raised an exception."""
        try:
            await work()
        except Exception:
            log.exception("%s failed", name)
            self._failed(name)
            return True
        return False

    async def _kept(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        wait = _AGAIN_S
        while await self._seen(name, work):
            await asyncio.sleep(wait)
            wait = min(2 * wait, _AGAIN_AT_MOST_S)
