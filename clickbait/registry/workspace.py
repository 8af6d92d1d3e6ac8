"""A bundle that is not yet a version: built or changed in a local folder, then put at its URI in one step.

    with new("gs://bucket/bundle") as folder: ...                     # takes the place of the draft that is there
    with existing("gs://bucket/bundle") as folder: ...                # to read
    with existing("gs://bucket/bundle", change=True) as folder: ...   # what the block changed is there afterwards

Whoever reads sees the old draft or the new one, whole, whenever a writer dies. What a dead writer left, the
next one removes.

On a disk a draft is a plain folder, which is exchanged for the new one (`folder_locks.swap`). A bucket has no
such step. So each draft there has a folder of its own, and `draft.json`, written last, names the one that
counts:

    gs://bucket/bundle/draft.json            {"revision": 2}
                       r2/                   .claim (first: the number is taken), the files, manifest.json

Revisions are only ever removed below the one that counts, and `draft.json` only ever moves up, so no writer
removes the files of another that is still at work.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from clickbait import storage
from clickbait.errors import BundleError, NotFound, PreconditionFailed, StorageError
from clickbait.registry import bundle
from clickbait.registry.bundle import MANIFEST
from clickbait.storage import folder_locks

POINTER = "draft.json"
_REVISION = re.compile(r"r([1-9][0-9]*)/.*", re.DOTALL)
_POINTER_LARGEST = 1 << 16  # bytes: it has some 20
_log = logging.getLogger(__name__)


@contextlib.contextmanager
def new(uri: str) -> Iterator[Path]:
    """An empty folder to build a bundle in. It takes the place of the draft at `uri` when the block ends
    without an error.

    Raises:
        BundleError: something else than a draft is at `uri`.
    """
    draft = _at(uri)
    draft.refuse_others()
    with draft.workplace() as folder:
        yield folder
        draft.put(folder, None)


@contextlib.contextmanager
def existing(uri: str, *, change: bool = False) -> Iterator[Path]:
    """The bundle's local folder, to read. With `change`, a copy, which takes the draft's place when the block
    ends without an error.

    Raises:
        BundleError: no bundle there, a file of it is missing, or (with `change`) another draft was put there
            meanwhile.
    """
    draft = _at(uri)
    if not change:
        with draft.reading() as folder:
            yield folder
        return
    with draft.workplace() as folder:
        before = draft.copy(folder)
        yield folder
        draft.put(folder, before)


def address(uri: str, name: str) -> str:
    """The URI of a file of the draft at `uri`, for a person to open.

    Raises:
        BundleError: no bundle there.
    """
    return _at(uri).address(name)


class _Place(Protocol):
    """Where drafts are: a disk or a bucket. A state is what `put` compares: the manifest's bytes, or the
    pointer's generation.
    """

    def refuse_others(self) -> None:
        """Raises BundleError where something else than a draft would be replaced."""

    def workplace(self) -> contextlib.AbstractContextManager[Path]:
        """An empty folder."""

    def reading(self) -> contextlib.AbstractContextManager[Path]:
        """The draft's files, which stay as they are while the block lasts."""

    def copy(self, folder: Path) -> object:
        """Copies the draft to `folder` and returns its state."""

    def put(self, folder: Path, before: object | None) -> None:
        """Puts the bundle in `folder` in the draft's place; with `before`, only if that is still its
        state.
        """

    def address(self, name: str) -> str:
        """The URI of a file of the draft."""


def _at(uri: str) -> _Place:
    uri = storage.absolute(uri)
    return _Disk(Path(uri)) if storage.is_local(uri) else _Bucket(uri)


def _absent(uri: object) -> BundleError:
    return BundleError(
        f"{uri}: no bundle there (no {MANIFEST}): python -m ray_jobs.export --config configs/export.yaml"
    )


def _replaced(uri: object) -> BundleError:
    return BundleError(
        f"{uri}: another bundle was put there while this one was worked on; nothing was written: run this "
        f"step again"
    )


class _Disk:
    def __init__(self, target: Path) -> None:
        self._target = Path(os.path.realpath(target)) if target.is_symlink() else target

    def refuse_others(self) -> None:
        if not self._target.exists() or (self._target.is_dir() and not any(self._target.iterdir())):
            return
        try:
            with storage.open_regular(self._target / MANIFEST) as file:
                is_bundle = "runtimes" in json.loads(file.read(bundle.MANIFEST_LARGEST))
        except (OSError, ValueError, TypeError):  # StorageError is a ValueError
            is_bundle = False
        if not is_bundle:
            raise BundleError(
                f"{self._target}: holds something else than a bundle, which would be removed: choose another "
                f"--output"
            )

    @contextlib.contextmanager
    def workplace(self) -> Iterator[Path]:
        with self._explained():
            self._target.parent.mkdir(parents=True, exist_ok=True)
            prefix = f".{self._target.name}-draft-"
            for left in self._target.parent.glob(f"{glob.escape(prefix)}????????"):
                with folder_locks.alone(left, wait=False) as dead:  # its writer died
                    if dead:
                        shutil.rmtree(left, ignore_errors=True)
            made = Path(tempfile.mkdtemp(prefix=prefix, dir=self._target.parent))
            folder = made / "bundle"
            with contextlib.ExitStack() as stack:
                stack.callback(shutil.rmtree, made, ignore_errors=True)
                stack.enter_context(folder_locks.used(made))
                folder.mkdir()
                kept = stack.pop_all()
        with kept:
            yield folder

    @contextlib.contextmanager
    def reading(self) -> Iterator[Path]:
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(folder_locks.used(self._target))
            except OSError:
                raise _absent(self._target) from None
            if not (self._target / MANIFEST).is_file():
                raise _absent(self._target)
            yield self._target

    def copy(self, folder: Path) -> bytes:
        with self.reading():
            manifest = bundle.verify(self._target, needed=())
            with self._explained():
                for name in manifest.files:
                    (folder / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(self._target / name, folder / name, follow_symlinks=False)
                shutil.copyfile(self._target / MANIFEST, folder / MANIFEST, follow_symlinks=False)
            return (folder / MANIFEST).read_bytes()

    def put(self, folder: Path, before: object | None) -> None:
        bundle.verify(
            folder, needed=()
        )  # not sealed: a mistake of the block, and nothing to replace a bundle with
        with self._explained():
            for path in [*folder.rglob("*"), folder]:
                storage.sync(path)
            while not self._take_place(folder, before):
                pass
            storage.sync(self._target.parent)

    def address(self, name: str) -> str:
        return str(self._target / name)

    def _take_place(self, folder: Path, before: object | None) -> bool:
        """Whether `folder` is the draft now; False where another writer was faster and `before` does not
        mind.
        """
        with folder_locks.alone(self._target, wait=True) as mine:
            if before is not None and not (mine and self._state() == before):
                raise _replaced(self._target)
            if mine:
                folder_locks.swap(folder, self._target)
                return True
        try:
            os.rename(folder, self._target)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
            return False
        return True

    def _state(self) -> bytes | None:
        try:
            return (self._target / MANIFEST).read_bytes()
        except OSError:
            return None

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise storage.refused(error.filename or self._target, error) from None


class _Bucket:
    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._store = storage.open_storage(uri)

    def refuse_others(self) -> None:
        """Nothing to refuse: a writer touches `draft.json` and revisions only."""

    @contextlib.contextmanager
    def workplace(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="bundle-") as name:
            yield Path(name)

    @contextlib.contextmanager
    def reading(self) -> Iterator[Path]:
        with self.workplace() as folder:
            self.copy(folder)
            yield folder

    def copy(self, folder: Path) -> str:
        while True:
            revision, generation = self._pointer()
            if not revision:
                raise _absent(self._uri)
            try:
                self._download(revision, folder)
            except NotFound as error:
                if self._pointer()[0] == revision:
                    raise BundleError(f"{error}; export the bundle again") from None
            else:
                return generation
            shutil.rmtree(folder)  # replaced, and removed while it was read
            folder.mkdir()

    def put(self, folder: Path, before: object | None) -> None:
        manifest = bundle.verify(folder, needed=())
        revision = 0
        while True:
            current, generation = self._pointer()
            if before is not None and generation != before:
                raise _replaced(self._uri)
            if (
                revision <= current
            ):  # the first time; or others wrote meanwhile, and may remove what is below theirs
                revision = self._upload(folder, [*manifest.files, MANIFEST])
            with contextlib.suppress(PreconditionFailed):  # somebody was faster
                self._store.write(POINTER, json.dumps({"revision": revision}).encode(), expect=generation)
                break
        self._remove_below(revision)

    def address(self, name: str) -> str:
        revision, _ = self._pointer()
        if not revision:
            raise _absent(self._uri)
        return storage.join(self._uri, f"r{revision}", name)

    def _pointer(self) -> tuple[int, str]:
        """The revision that counts, and the pointer's generation; 0 and "" where there is none."""
        try:
            data, generation = self._store.read_versioned(POINTER, limit=_POINTER_LARGEST)
        except NotFound:
            return 0, ""
        try:
            return int(json.loads(data)["revision"]), generation
        except (ValueError, TypeError, KeyError):
            raise BundleError(
                f"{storage.join(self._uri, POINTER)}: not a draft's; remove it and export the bundle again"
            ) from None

    def _download(self, revision: int, folder: Path) -> None:
        data = self._store.read(f"r{revision}/{MANIFEST}", limit=bundle.MANIFEST_LARGEST)
        for name, entry in bundle.decoded(
            data, storage.join(self._uri, f"r{revision}", MANIFEST)
        ).files.items():
            self._store.download(f"r{revision}/{name}", folder / name, limit=entry.size)
        (folder / MANIFEST).write_bytes(data)

    def _upload(self, folder: Path, names: list[str]) -> int:
        revision = max([self._pointer()[0], *self._revisions().values()])
        while True:
            revision += 1
            with contextlib.suppress(PreconditionFailed):
                self._store.write(f"r{revision}/.claim", b"", expect="")
                break
        for name in names:
            self._store.upload(folder / name, f"r{revision}/{name}")
        return revision

    def _revisions(self) -> dict[str, int]:
        """Every key below a revision's folder, and the revision."""
        return {key: int(matched[1]) for key in self._store.list() if (matched := _REVISION.fullmatch(key))}

    def _remove_below(self, revision: int) -> None:
        try:
            for key, theirs in self._revisions().items():
                if theirs < revision:
                    self._store.delete(key)
        except StorageError as error:  # the draft is in place; the next writer removes what is left
            _log.warning("%s: the draft before could not be removed: %s", self._uri, error)
