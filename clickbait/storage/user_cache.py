"""A folder on this machine that this user alone may write to, for what is made here and can be made again."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def path(name: str) -> Path:
    """Where such a folder is, below the system's temporary one."""
    return Path(tempfile.gettempdir()) / f"clickbait-{os.getuid()}" / name


def own(folder: Path) -> Path:
    """Makes the folder, and the one it is in, for this user alone, and returns it.

    Raises:
        PermissionError: somebody else made one of them first, or may write to it, and could put his own files
            there.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for made in (folder, folder.parent):
        found = made.lstat()
        if found.st_uid != os.getuid() or found.st_mode & 0o022:
            raise PermissionError(f"{made} belongs to another user, or others may write to it")
    return folder
