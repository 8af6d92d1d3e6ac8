"""Who uses a folder: a shared lock keeps it as it is, and only who has it alone may replace or remove it.

The lock is `flock` on the folder itself, so it goes with the folder, and the kernel drops it when its holder
dies.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import logging
import os
from collections.abc import Iterator
from pathlib import Path

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h
_log = logging.getLogger(__name__)


def take(folder: Path) -> int:
    """A descriptor that keeps the folder until it is closed.

    Raises:
        FileNotFoundError, NotADirectoryError: no folder there.
    """
    while True:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with contextlib.suppress(OSError):  # a file system without locks: as good as it gets
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        if _is_at(descriptor, folder):
            return descriptor
        os.close(descriptor)  # replaced or removed while we waited


@contextlib.contextmanager
def used(folder: Path) -> Iterator[None]:
    """Keeps the folder for as long as the block lasts.

    Raises:
        FileNotFoundError, NotADirectoryError: no folder there.
    """
    descriptor = take(folder)
    try:
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def alone(folder: Path, *, wait: bool) -> Iterator[bool]:
    """Whether nobody else uses the folder, and nobody starts to while the block lasts. `wait` until it is
    so.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        yield False
        return
    try:
        yield _locked(descriptor, folder, wait) and _is_at(descriptor, folder)
    finally:
        os.close(descriptor)


def swap(one: Path, other: Path) -> None:
    """Exchanges two folders in one step. Where the system cannot, in two: between them, nothing is at
    `other`.
    """
    library = ctypes.CDLL(None, use_errno=True)
    if hasattr(library, "renameat2"):  # Linux
        if (
            library.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
            == 0
        ):
            return
        _log.debug(
            "%s: cannot be exchanged in one step: %s", other, os.strerror(ctypes.get_errno())
        )  # NFS, for one
    aside = one.with_name(f"{one.name}-aside")
    os.rename(other, aside)
    os.rename(one, other)
    os.rename(aside, one)


def _locked(descriptor: int, folder: Path, wait: bool) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if not wait:
            return False
        _log.warning("%s is being read: waiting for its readers", folder)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:  # a file system without locks
        return wait
    return True


def _is_at(descriptor: int, folder: Path) -> bool:
    """Whether the folder of that descriptor is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(descriptor), folder.stat())
    except OSError:
        return False
