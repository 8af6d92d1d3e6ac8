"""Folders on this machine that can be made again: at most so many, none removed that a process uses, and
whole whenever one is used.

    cache = Cache(Path("~/.cache/clickbait"), keep=4, names=re.compile("v[0-9]+"), variable="CLICKBAIT_CACHE")
    lease = cache.take("v3", Version(...))      # lease.folder is whole, and stays until lease.close()

Who takes an entry says how to check it and how to make it (`Entry`). A file of an entry is written under
another name, put on the disk and renamed (`storage.replacing`), one process at a time. So what is torn or
altered is noticed by its checksum and made again, while others read on.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from clickbait.errors import DiskFull
from clickbait.storage import PART, folder_locks, refused

_LOCK = ".lock"  # in the entry: one process makes it, the others wait
_GONE = ".gone-"  # an entry that is being removed


class Entry(Protocol):
    """How an entry is checked and made."""

    def whole(self, folder: Path, /) -> bool:
        """Whether all that is needed is there, byte for byte."""

    def lacking(self, folder: Path, /) -> int:
        """Bytes that `fill` will write, about."""

    def fill(self, folder: Path, /) -> None:
        """Writes what is not as it must be, by `storage.replacing`."""


@dataclass(frozen=True)
class Lease:
    """An entry in use: it is not removed until the lease is closed or the process ends."""

    folder: Path
    descriptor: int

    def close(self) -> None:
        """Lets go of the entry."""
        os.close(self.descriptor)


class Cache:
    """The entries below `root` whose path from there matches `names`; nothing else there is touched."""

    def __init__(self, root: Path, *, keep: int, names: re.Pattern[str], variable: str) -> None:
        """`keep`: entries that stay, those in use aside. `variable`: names the environment variable that
        chooses `root`, for messages.
        """
        self._root = root
        self._keep = keep
        self._names = names
        self._variable = variable

    def take(self, name: str, entry: Entry) -> Lease:
        """The entry of that name, made or mended where it is not whole.

        Raises:
            DiskFull: there is no room for it, and the others are in use.
            StorageError: the folder cannot be written.
        """
        try:
            lease = self._lease(name)
        except OSError as error:
            raise refused(error.filename or self._root, error) from None
        try:
            if not entry.whole(lease.folder):
                self._make(lease.folder, entry)
            with contextlib.suppress(OSError):
                os.utime(lease.folder)  # used now: it is the last to be removed
            self._remove(lease.folder, self._keep)
        except BaseException:
            lease.close()
            raise
        return lease

    def _lease(self, name: str) -> Lease:
        folder = self._root / name
        while True:
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir(mode=0o700, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # removed by another process in between
                return Lease(folder, folder_locks.take(folder))

    def _make(self, folder: Path, entry: Entry) -> None:
        try:
            with (folder / _LOCK).open("ab") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if entry.whole(folder):  # another process made it while we waited
                    return
                for left in list(folder.rglob(f"{PART}*")):  # of a process that died
                    shutil.rmtree(left, ignore_errors=True)
                    with contextlib.suppress(OSError):
                        left.unlink()
                try:
                    self._fill(folder, entry)
                except DiskFull:  # a quota, or somebody else's files: `disk_usage` could not tell
                    self._remove(folder, 1)
                    self._fill(folder, entry)
        except DiskFull:
            raise self._full(folder, entry.lacking(folder)) from None
        except OSError as error:
            raise refused(error.filename or folder, error) from None

    def _fill(self, folder: Path, entry: Entry) -> None:
        self._make_room(folder, entry)
        try:
            entry.fill(folder)
        except OSError as error:
            raise refused(error.filename or folder, error) from None

    def _make_room(self, folder: Path, entry: Entry) -> None:
        """Removes other entries, the longest unused first, until there is room."""
        lacking = entry.lacking(folder)
        for path in [*reversed(self._others(folder)), None]:
            if shutil.disk_usage(folder).free >= lacking:
                return
            if path is not None:
                _remove_unused(path)
        raise self._full(folder, lacking)

    def _full(self, folder: Path, lacking: int) -> DiskFull:
        free = shutil.disk_usage(folder).free
        return DiskFull(
            f"{self._root}: {lacking / 1e6:,.1f} MB are needed, {free / 1e6:,.1f} MB are free, and what else "
            f"is kept there is in use: "
            f"free some space, or set {self._variable} to a folder on a larger disk"
        )

    def _remove(self, folder: Path, keep: int) -> None:
        """Removes the longest unused, so that `keep` stay, `folder` among them."""
        for path in self._others(folder)[keep - 1 :]:
            _remove_unused(path)
        for left in folder.parent.glob(f"{_GONE}*"):  # of a process that died while it removed it
            shutil.rmtree(left, ignore_errors=True)

    def _others(self, folder: Path) -> list[Path]:
        """The other entries, the last used first."""
        used = {
            path: when for path in self._entries() if path != folder and (when := _used_at(path)) is not None
        }
        return sorted(used, key=lambda path: used[path], reverse=True)

    def _entries(self) -> Iterator[Path]:
        for path in [*self._root.glob("*"), *self._root.glob("*/*")]:
            if self._names.fullmatch(path.relative_to(self._root).as_posix()):
                yield path


def _used_at(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:  # removed by another process
        return None


def _remove_unused(path: Path) -> None:
    with folder_locks.alone(path, wait=False) as unused:
        if unused:
            gone = path.with_name(f"{_GONE}{uuid.uuid4().hex}")
            with contextlib.suppress(OSError):
                os.rename(path, gone)
            shutil.rmtree(gone, ignore_errors=True)
