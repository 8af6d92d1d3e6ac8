"""Publishes, or moves an alias, and dies at one write: once for each write there is, each time in a registry
of its own.

    python tests/faults/publish_and_die.py publish /tmp/registries /tmp/draft     # /tmp/registries/0, 1, 2, ...

Registry N holds v1 with the alias production, a publish of v2 (or production moved to v2) that died at its
Nth write, and prints nothing of it. The last one ran to its end. A write is a change on the disk (Python's
own audit events: file opened to write, renamed, folder made), or a request that changes something on the
server, cut off before it is sent and, again, after it is done.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from clickbait.registry.registry import Registry

DIED = 9


def main(action: str, root: str, draft: str) -> None:
    number = 0
    while True:
        child = os.fork()
        if not child:
            _one(action, f"{root}/{number}", Path(draft), number)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status == 0:
            break
        assert status == DIED, status
        number += 1
    print(number)


def _one(action: str, root: str, draft: Path, number: int) -> None:
    registry = Registry(root)
    registry.publish(draft)
    registry.set_alias("v1", "production")
    if action == "alias":
        registry.publish(draft)
    left = number

    def write() -> None:
        nonlocal left
        if left == 0:
            os._exit(DIED)
        left -= 1

    if root.startswith("gs://"):
        _watch_requests(write)
    else:
        _watch_disk(write, root)
    if action == "alias":
        registry.set_alias("v2", "production")
    else:
        registry.publish(draft)


def _watch_disk(write: Callable[[], None], root: str) -> None:
    def hook(event: str, args: tuple[Any, ...]) -> None:
        changes = event in ("os.rename", "os.mkdir", "os.remove", "os.link", "os.truncate")
        if event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            changes = True
        if changes and os.fspath(args[0]).startswith(root):
            write()

    sys.addaudithook(hook)


def _watch_requests(write: Callable[[], None]) -> None:
    import requests

    send = requests.Session.request

    def watched(
        self: requests.Session, method: str, url: str, *args: Any, **kwargs: Any
    ) -> requests.Response:
        if method == "GET":
            return send(self, method, url, *args, **kwargs)
        write()
        answer = send(self, method, url, *args, **kwargs)
        write()
        return answer

    mock.patch.object(requests.Session, "request", watched).start()


if __name__ == "__main__":
    main(*sys.argv[1:])
