"""The workspace of a draft: a bundle that is not a version yet.

A draft is built or changed in a local folder, and then replaces the old draft at its URI in one step:

    with new("gs://bucket/bundle") as folder: ...                     # replaces the draft at this URI
    with existing("gs://bucket/bundle") as folder: ...                # for reading
    with existing("gs://bucket/bundle", change=True) as folder: ...   # a copy, which replaces the draft

A reader sees the complete old draft or the complete new one, even if a writer dies. The next writer removes
the files that a dead writer left.

On a disk, the draft is a folder that is swapped with the new one (`folder_locks.swap`). A bucket has no such
operation. So each revision of the draft has its own folder there, and `draft.json`, which is written last,
names the current revision:

    gs://bucket/bundle/draft.json            {"revision": 2}
                       r2/                   .claim (first: reserves the number), the files, manifest.json

Only revisions below the current one are removed, and the number in `draft.json` only grows. So no writer
removes the files of another writer that is still working.
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
_POINTER_LARGEST = 1 << 16  # bytes; a real pointer has about 20
_log = logging.getLogger(__name__)


@contextlib.contextmanager
def new(uri: str) -> Iterator[Path]:
    """Gives an empty folder for a new bundle. It replaces the draft at `uri` if the block ends without error.

    Raises:
        BundleError: `uri` holds something else than a draft.
    """
    draft = _at(uri)
    draft.refuse_others()
    with draft.workplace() as folder:
        yield folder
        draft.put(folder, None)


@contextlib.contextmanager
def existing(uri: str, *, change: bool = False) -> Iterator[Path]:
    """Gives a local folder with the bundle at `uri`, for reading.

    With `change`, it is a copy that replaces the draft if the block ends without error.

    Raises:
        BundleError: there is no bundle, a file is missing, or (with `change`) another process replaced the
            draft in the meantime.
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
    """The URI of a file of the draft at `uri`, for the user to open.

    Raises:
        BundleError: there is no bundle.
    """
    return _at(uri).address(name)


class _Place(Protocol):
    """The place of a draft: a disk or a bucket.

    `put` compares states of the draft. A state is the manifest's bytes on a disk, and the pointer's
    generation in a bucket.
    """

    def refuse_others(self) -> None:
        """Raises BundleError if something else than a draft would be replaced."""

    def workplace(self) -> contextlib.AbstractContextManager[Path]:
        """Gives an empty folder."""

    def reading(self) -> contextlib.AbstractContextManager[Path]:
        """Gives the draft's files. They do not change inside the block."""

    def copy(self, folder: Path) -> object:
        """Copies the draft to `folder` and returns its state."""

    def put(self, folder: Path, before: object | None) -> None:
        """Replaces the draft by the bundle in `folder`. With `before`, only if that is still the state."""

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
            temporary = Path(tempfile.mkdtemp(prefix=prefix, dir=self._target.parent))
            folder = temporary / "bundle"
            with contextlib.ExitStack() as stack:
                stack.callback(shutil.rmtree, temporary, ignore_errors=True)
                stack.enter_context(folder_locks.used(temporary))
                folder.mkdir()
                cleanup = stack.pop_all()
        with cleanup:
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
        bundle.verify(folder, needed=())  # a draft that the block did not seal must not replace a bundle
        with self._explained():
            for path in [*folder.rglob("*"), folder]:
                storage.sync(path)
            while not self._take_place(folder, before):
                pass
            storage.sync(self._target.parent)

    def address(self, name: str) -> str:
        return str(self._target / name)

    def _take_place(self, folder: Path, before: object | None) -> bool:
        """Tries to make `folder` the draft. False means that another writer was faster: try again."""
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
        """Refuses nothing, because a writer only changes `draft.json` and revisions."""

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
            shutil.rmtree(folder)  # the revision was replaced and removed while it was read: start again
            folder.mkdir()

    def put(self, folder: Path, before: object | None) -> None:
        manifest = bundle.verify(folder, needed=())
        revision = 0
        while True:
            current, generation = self._pointer()
            if before is not None and generation != before:
                raise _replaced(self._uri)
            # True the first time, and if another writer has published a higher revision: it may remove ours.
            if revision <= current:
                revision = self._upload(folder, [*manifest.files, MANIFEST])
            with contextlib.suppress(PreconditionFailed):  # another writer was faster
                self._store.write(POINTER, json.dumps({"revision": revision}).encode(), expect=generation)
                break
        self._remove_below(revision)

    def address(self, name: str) -> str:
        revision, _ = self._pointer()
        if not revision:
            raise _absent(self._uri)
        return storage.join(self._uri, f"r{revision}", name)

    def _pointer(self) -> tuple[int, str]:
        """Reads the current revision and the pointer's generation: 0 and "" if there is no pointer."""
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
        """The revision of each key in a revision's folder."""
        return {key: int(matched[1]) for key in self._store.list() if (matched := _REVISION.fullmatch(key))}

    def _remove_below(self, revision: int) -> None:
        try:
            for key, key_revision in self._revisions().items():
                if key_revision < revision:
                    self._store.delete(key)
        except StorageError as error:  # the new draft is in place; the next writer removes the old one
            _log.warning("%s: the previous draft could not be removed: %s", self._uri, error)
