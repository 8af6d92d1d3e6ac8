"""One URI (a path, `file://`, `gs://`) to a store of keys: atomic writes, and compare-and-swap where two may
write.

    store = open_storage("gs://bucket/registry")        # or "artifacts/registry"
    data, generation = store.read_versioned("aliases/production.json")
    store.write("aliases/production.json", b"...", expect=generation)   # PreconditionFailed if somebody was faster

A reader sees the old bytes or the new ones, never half. `clickbait.storage.gcs` holds the `gs://` side and is
imported only for it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import unquote

from clickbait.errors import DiskFull, NotFound, PreconditionFailed, StorageError

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
_WILD = re.compile(r"[*?]")
_LOCK = ".lock"  # one a folder: taken by every writer of its keys
# how the names begin of files that are being written, and of what a writer that died leaves behind
PART = ".part-"
BUFFER = 1 << 20


class Storage(Protocol):
    """Keys ("a/b.json") below one URI. Every method raises StorageError's family, with the whole URI in the
    message.
    """

    uri: str

    def read(self, key: str, *, limit: int | None = None) -> bytes:
        """The bytes at `key`. With `limit`, StorageError if there are more bytes than that; no more are
        read.
        """

    def read_versioned(self, key: str, *, limit: int | None = None) -> tuple[bytes, str]:
        """The bytes at `key` and their generation: opaque, good for `write(expect=...)`. `limit` as in
        `read`.
        """

    def write(self, key: str, data: bytes, *, expect: str | None = None) -> str:
        """Replaces `key` in one step and returns its new generation.

        `expect`: None overwrites, "" wants that nothing is there yet, a generation wants that nobody wrote
        since it was read.

        Raises:
            PreconditionFailed: something else is there than expected; nothing was written.
        """

    def open(self, key: str) -> BinaryIO:
        """The bytes at `key` as a stream; the caller closes it."""

    def upload(self, path: Path, key: str) -> None:
        """Copies the local file at `path` to `key`, in one step for a reader."""

    def download(self, key: str, path: Path, *, limit: int | None = None) -> None:
        """Copies `key` to the local file at `path`, in one step for a reader; folders are made. `limit` as in
        `read`.
        """

    def exists(self, key: str) -> bool:
        """Whether something is at `key`."""

    def list(self, prefix: str = "") -> list[str]:
        """Every key below the folder `prefix`, at any depth, sorted. No folder: no keys."""

    def size(self, key: str) -> int:
        """Bytes at `key`."""

    def delete(self, key: str) -> None:
        """Removes `key`; nothing there is fine."""

    def delete_folder(self, prefix: str) -> None:
        """Removes every key below the folder `prefix`, and the folder. Nothing may write there meanwhile."""


def absolute(uri: str) -> str:
    """A local path made absolute (`~` and `file://` understood), or `gs://bucket/prefix` without a slash at
    its end.
    """
    if not uri:
        raise StorageError('an empty path: give a folder such as "artifacts", or gs://bucket/prefix')
    found = _SCHEME.match(uri)
    if not found:
        return os.path.abspath(os.path.expanduser(uri))
    scheme, rest = found[1].lower(), uri[found.end() :]
    if scheme == "file":
        path = unquote(rest.removeprefix("localhost"))
        if not path.startswith("/"):
            raise StorageError(
                f"{uri}: a file:// URI holds an absolute path, such as file:///data/headlines.csv"
            )
        return os.path.abspath(path)
    if scheme != "gs":
        raise StorageError(f"{uri}: {scheme}:// is not supported; give a local path, file:// or gs://")
    rest = rest.rstrip("/")
    if not rest or rest.startswith("/") or _WILD.search(rest.partition("/")[0]):
        raise StorageError(f"{uri}: names no bucket; write gs://bucket/prefix")
    return f"gs://{rest}"


def is_local(uri: str) -> bool:
    """Whether `uri` is on this machine's disk."""
    return not absolute(uri).startswith("gs://")


def join(uri: str, *parts: str) -> str:
    """`uri` with `parts` below it."""
    return "/".join([absolute(uri).rstrip("/"), *(part.strip("/") for part in parts if part.strip("/"))])


def open_storage(uri: str) -> Storage:
    """The store rooted at `uri`. Opens no connection and makes no folder: the first call does."""
    uri = absolute(uri)
    if not uri.startswith("gs://"):
        return LocalStorage(uri)
    from clickbait.storage.gcs import GcsStorage  # heavy, and only for gs://

    return GcsStorage(uri)


def check_key(uri: str, key: str) -> str:
    """`key`, if it stays below the root.

    Raises:
        StorageError: absolute, empty, or with `..` in it.
    """
    if not key or "\0" in key or any(part in ("", ".", "..") for part in key.split("/")):
        raise StorageError(
            f"{uri}: {key!r} is not a key below it; write folder/name, without .. and without a slash at the "
            f"start"
        )
    return key


def missing(uri: str) -> NotFound:
    """What to raise where nothing is."""
    return NotFound(f"{uri}: nothing there; check the path, or run the step that writes it")


def conflict(uri: str, expect: str) -> PreconditionFailed:
    """What to raise where something else is there than a writer expected."""
    return PreconditionFailed(
        f"{uri}: {'changed since it was read; read it again' if expect else 'is there already'}"
    )


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, to be written; then it takes the place of `path` in one step, on the
    disk for good.
    """
    temporary = path.with_name(f"{PART}{uuid.uuid4().hex}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)  # or a power cut could keep a later file and lose this one
    finally:
        temporary.unlink(missing_ok=True)


def open_regular(path: Path, *, follow: bool = True) -> BinaryIO:
    """Opens a regular file for reading. `follow`: whether `path` may be a link to one.

    Raises:
        StorageError: a folder, a FIFO, a socket or a device. A FIFO or `/dev/zero` may never end.
        OSError: it cannot be opened, or it is a link and `follow` is false.
    """
    # O_NONBLOCK: without it, opening a FIFO waits until somebody writes to it.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW))
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise irregular(path, mode)
    return os.fdopen(descriptor, "rb")


def irregular(path: Path, mode: int) -> StorageError:
    """What to raise where no regular file is."""
    return StorageError(f"{path}: is {kind(mode)}, not a regular file; give the path of a file")


def kind(mode: int) -> str:
    """What `lstat` found, in words."""
    kinds = {
        stat.S_IFLNK: "a link",
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFREG: "a file",
    }
    return kinds.get(stat.S_IFMT(mode), "a device")


def too_large(uri: str, size: int, limit: int) -> StorageError:
    """What to raise where more bytes are than can belong there."""
    return StorageError(
        f"{uri}: {size:,} bytes where at most {limit:,} belong; this is another file, or a damaged one"
    )


def refused(where: object, error: OSError) -> StorageError:
    """The operating system's error as one of ours."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(
            f"{where}: {error.strerror}; free some space there, or choose a folder on another disk"
        )
    return StorageError(f"{where}: {error.strerror}; check the path, its owner and the space left")


class LocalStorage:
    """Keys are files below a folder. Writers of one folder's keys take turns by flock; readers never wait.

    Only regular files are read, and links to them.
    """

    def __init__(self, uri: str) -> None:
        self.uri = absolute(uri)

    def read(self, key: str, *, limit: int | None = None) -> bytes:
        return self.read_versioned(key, limit=limit)[0]

    def read_versioned(self, key: str, *, limit: int | None = None) -> tuple[bytes, str]:
        with self._explained(key), self._opened(key, limit) as file:
            data = file.read()
            return data, _generation(file.fileno(), data)

    def write(self, key: str, data: bytes, *, expect: str | None = None) -> str:
        path = self._path(key)
        with self._explained(key), self._locked(path):
            if expect is not None and self._current(key) != expect:
                raise conflict(str(path), expect)
            with replacing(path) as temporary, temporary.open("wb") as file:
                file.write(data)
                file.flush()
                return _generation(file.fileno(), data)

    def open(self, key: str) -> BinaryIO:
        with self._explained(key):
            return open_regular(self._path(key))

    def upload(self, path: Path, key: str) -> None:
        target = self._path(key)
        with (
            self._explained(key, path),
            open_regular(path) as source,
            self._locked(target),
            replacing(target) as temporary,
        ):
            _copy(source, temporary)

    def download(self, key: str, path: Path, *, limit: int | None = None) -> None:
        with self._explained(key), self._opened(key, limit) as source, replacing(path) as temporary:
            _copy(source, temporary)

    def exists(self, key: str) -> bool:
        return self._path(key).is_file()

    def list(self, prefix: str = "") -> list[str]:
        root = self._path(prefix) if prefix else Path(self.uri)
        found = []
        for folder, _, names in os.walk(root):
            relative = Path(folder).relative_to(self.uri)
            found += [
                (relative / name).as_posix() for name in names if name != _LOCK and not name.startswith(PART)
            ]
        return sorted(found)

    def size(self, key: str) -> int:
        with self._explained(key):
            if not self.exists(key):
                raise missing(str(self._path(key)))
            return self._path(key).stat().st_size

    def delete(self, key: str) -> None:
        path = self._path(key)
        with self._explained(key):
            if path.exists():
                with self._locked(path):
                    path.unlink(missing_ok=True)

    def delete_folder(self, prefix: str) -> None:
        path = self._path(prefix)
        with self._explained(prefix):
            if path.exists():
                shutil.rmtree(path)  # with its lock files, which deleting key by key leaves behind

    def _path(self, key: str) -> Path:
        return Path(self.uri) / check_key(self.uri, key)

    def _opened(self, key: str, limit: int | None) -> BinaryIO:
        file = open_regular(self._path(key))
        size = os.fstat(file.fileno()).st_size
        if limit is not None and size > limit:
            file.close()
            raise too_large(str(self._path(key)), size, limit)
        return file

    def _current(self, key: str) -> str:
        try:
            return self.read_versioned(key)[1]
        except NotFound:
            return ""

    @contextlib.contextmanager
    def _locked(self, path: Path) -> Iterator[None]:
        """The folder of `path` for one writer at a time. The kernel lets go when the writer dies; the empty
        lock file stays.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        # O_NONBLOCK: a FIFO of that name must not hold the writer for ever.
        lock = os.open(
            path.parent / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666
        )
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    @contextlib.contextmanager
    def _explained(self, key: str, *others: Path) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, NotADirectoryError) as error:
            raise missing(
                str(error.filename if error.filename in map(str, others) else self._path(key))
            ) from None
        except OSError as error:
            raise refused(error.filename or self._path(key), error) from None


def _generation(descriptor: int, data: bytes) -> str:
    """Who the file is: a new inode and time for each write, and the content too, in case both were used
    again.
    """
    status = os.fstat(descriptor)
    return f"{status.st_ino}-{status.st_mtime_ns}-{hashlib.sha256(data).hexdigest()}"


def _copy(source: BinaryIO, path: Path) -> None:
    with path.open("wb") as target:
        shutil.copyfileobj(source, target, BUFFER)


def sync(path: Path) -> None:
    """Puts a file, or a folder's list of names, on the disk for good."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def expand(uri: str) -> list[str]:
    """The files that a file's, a folder's or a glob's URI stands for, sorted.

    A folder gives every file below it. `*` and `?` stay within a name, `**` crosses folders. Below a folder
    and by a glob, names that start with `.` or `_` (`_SUCCESS`, a temporary folder) are left out.

    Raises:
        NotFound: no file.
        StorageError: a FIFO, a socket or a device.
    """
    uri = absolute(uri)
    base = uri
    wanted: Callable[[str], bool] = _any
    if not (is_local(uri) and Path(uri).is_dir()):  # a folder may have a * in its name
        if _is_file(uri):
            return [uri]
        if is_local(uri) and Path(uri).exists():
            raise irregular(Path(uri), Path(uri).stat().st_mode)
        if wild := _WILD.search(uri):
            cut = uri.rindex("/", 0, wild.start())
            base, wanted = uri[:cut] or "/", _matcher(uri[cut + 1 :])
    found = [join(base, key) for key in open_storage(base).list() if not _hidden(key) and wanted(key)]
    if not found:
        raise NotFound(
            f"{uri}: no file there; give a file, a folder with files in it, or a glob such as data/**/*.csv"
        )
    return found


def _is_file(uri: str) -> bool:
    if is_local(uri):
        return Path(uri).is_file()
    bucket, _, key = uri.removeprefix("gs://").partition("/")
    return bool(key) and open_storage(f"gs://{bucket}").exists(key)


def _any(_: str) -> bool:
    return True


def _hidden(key: str) -> bool:
    return any(part.startswith((".", "_")) for part in key.split("/"))


def _matcher(pattern: str) -> Callable[[str], bool]:
    """A glob as a test of keys: `**/` any folders or none, `**` anything, `*` and `?` anything but a
    slash.
    """
    meaning = {"**/": r"(?:[^/]+/)*", "**": r".*", "*": r"[^/]*", "?": r"[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
    compiled = re.compile("".join(meaning.get(part, re.escape(part)) for part in parts), re.DOTALL)
    return lambda key: compiled.fullmatch(key) is not None
