"""A bundle that is not yet a version: a folder at any URI, worked on locally, and whole again when the work is done."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clickbait import storage
from clickbait.bundle import MANIFEST
from clickbait.errors import BundleError


@contextmanager
def new(uri: str) -> Iterator[Path]:
    """An empty folder to build a bundle in; it takes the place of what stands at `uri` when the block ends without an error."""
    if not storage.is_local(uri):
        with tempfile.TemporaryDirectory(prefix="bundle-") as name:
            yield Path(name)
            _upload(Path(name), uri)
        return
    target = Path(uri)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as name:
        built, old = Path(name) / "new", Path(name) / "old"
        built.mkdir()
        yield built
        if target.exists():
            os.replace(target, old)
        os.replace(built, target)


@contextmanager
def existing(uri: str, *, change: bool = False) -> Iterator[Path]:
    """The bundle's local folder. With `change`, what the block wrote goes back to a remote `uri`, the manifest last.

    Raises:
        BundleError: no bundle there.
    """
    store = storage.open_storage(uri)
    if not store.exists(MANIFEST):
        raise BundleError(f"{uri}: no bundle there (no {MANIFEST}): python -m ray_jobs.export --config configs/export.yaml")
    if storage.is_local(uri):
        yield Path(uri)
        return
    with tempfile.TemporaryDirectory(prefix="bundle-") as name:
        for key in store.list():
            target = Path(name) / key
            target.parent.mkdir(parents=True, exist_ok=True)
            store.download(key, target)
        yield Path(name)
        if change:
            _upload(Path(name), uri)


def _upload(folder: Path, uri: str) -> None:
    store = storage.open_storage(uri)
    store.delete(MANIFEST)  # a reader sees no bundle rather than a torn one
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    for name in [*(n for n in names if n != MANIFEST), MANIFEST]:
        store.upload(folder / name, name)
