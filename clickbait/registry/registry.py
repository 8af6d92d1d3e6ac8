"""The registry: versions of a model, which are written once, and aliases, which move by compare-and-swap.

    python -m clickbait.registry --uri artifacts/registry list
    python -m clickbait.registry --uri gs://bucket/registry show production
    python -m clickbait.registry --uri gs://bucket/registry set-alias v3 production
    python -m clickbait.registry --uri gs://bucket/registry rollback production
    python -m clickbait.registry --uri gs://bucket/registry verify v3

    <uri>/<name>/versions/v3/   .claim          written first: reserves the number
                                the bundle's files
                                manifest.json   written last: readers see the version from now on
    <uri>/<name>/aliases/production.json
        {"version": "v3", "previous": "v2", "at": ..., "by": ..., "history": ["v1", "v2"]}

Readers and writers can work at the same time. A publisher that dies leaves a number without a manifest: no
reader sees it, and no other publisher uses it.
"""

from __future__ import annotations

import contextlib
import enum
import getpass
import hashlib
import os
import re
import shutil
import socket
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from clickbait.config import MODEL_NAME, did_you_mean
from clickbait.errors import (
    AliasConflict,
    BundleError,
    ConfigError,
    NotFound,
    PreconditionFailed,
    RegistryError,
)
from clickbait.registry import bundle
from clickbait.registry.bundle import MANIFEST, Manifest
from clickbait.storage import Storage, is_local, join, open_storage, replacing
from clickbait.storage.folder_cache import Cache, Lease

_VERSION = re.compile(r"v([1-9][0-9]*)")
_ALIAS = re.compile(r"[a-z][a-z0-9-]{0,63}")
LATEST = "latest"
CACHE, CACHE_VERSIONS = "CLICKBAIT_CACHE", "CLICKBAIT_CACHE_VERSIONS"
# Versions of remote registries that the cache keeps: production, its previous version, a canary and a shadow.
_KEPT = 4
_CACHED = re.compile(r"[0-9a-f]{16}/v[1-9][0-9]*(-[0-9a-f]{16})?")
_leases: dict[Path, list[Lease]] = {}  # leases of this process
# Bytes. An alias file lists all its versions, about 12 bytes each.
_ALIAS_LARGEST = 1 << 20


class Unset(enum.Enum):
    """Stands for an argument that was not passed. None means that the alias must not exist yet."""

    UNSET = enum.auto()


class Alias(BaseModel):
    """The version that an alias points at, and its earlier versions."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    version: str
    """The version that the alias points at."""
    previous: str | None
    """The version that it pointed at before. `rollback` returns to it."""
    at: str
    """Time of the last move: ISO 8601, UTC."""
    by: str
    """Who moved it."""
    history: tuple[str, ...] = ()
    """Earlier versions without duplicates, latest last. Empty in files written before this field existed."""

    def named(self) -> tuple[str, ...]:
        """All versions that the alias points at or pointed at, without duplicates, the current one last."""
        earlier = [*self.history, *([self.previous] if self.previous else [])]
        return (*dict.fromkeys(version for version in earlier if version != self.version), self.version)


class Registry:
    """The versions and aliases of the model `name` at `uri`.

    `cache` is the local folder for versions of a remote registry. The default is CLICKBAIT_CACHE or
    `~/.cache/clickbait`.

    Raises:
        ConfigError: CLICKBAIT_CACHE_VERSIONS is not a number of versions.
    """

    def __init__(self, uri: str, name: str = MODEL_NAME, cache: Path | None = None) -> None:
        self.uri = join(uri, name)
        self.name = name
        self._storage = open_storage(self.uri)
        root = cache or Path(os.environ.get(CACHE) or "~/.cache/clickbait").expanduser()
        self._cache = Cache(root, keep=_kept(), names=_CACHED, variable=CACHE)

    def publish(self, folder: Path) -> str:
        """Publishes the draft in `folder` as the next version, and returns the version's name.

        Raises:
            BundleError: the draft is not intact.
            RegistryError: the folder holds a published version, not a draft.
        """
        draft = bundle.verify(folder)
        if draft.version is not None:
            raise RegistryError(
                f"{folder}: is {draft.version} already; publish a draft, fresh from the export"
            )
        version = self._claim()
        for name in draft.files:
            self._storage.upload(folder / name, _key(version, name))
        published = draft.model_copy(update={"version": version})
        self._storage.write(_key(version, MANIFEST), bundle.encoded(published), expect="")
        return version

    def versions(self) -> list[str]:
        """The complete versions, oldest first."""
        complete = [version for version, name in self._files() if name == MANIFEST]
        return sorted(complete, key=_number)

    def manifest(self, version: str) -> Manifest:
        """Reads the manifest of `version`.

        Raises:
            RegistryError: the version does not exist.
        """
        return self._manifest(version)[0]

    def resolve(self, ref: str) -> str:
        """The version that `ref` stands for: `v3`, `latest` or an alias.

        Raises:
            RegistryError: there is no such version or alias. The message lists the aliases.
        """
        if ref == LATEST:
            if not (versions := self.versions()):
                raise RegistryError(
                    f"{self.uri}: no version is published yet; run the pipeline or ray_jobs.promote first"
                )
            return versions[-1]
        if _VERSION.fullmatch(ref):
            if not self._storage.exists(_key(ref, MANIFEST)):
                raise self._no_version(ref)
            return ref
        alias = self.alias(ref) if _ALIAS.fullmatch(ref) else None
        if alias is None:
            raise self._unknown(ref)
        return alias.version

    def fetch(self, ref: str, runtime: str | None = None) -> Path:
        """Fetches a version to a local folder and verifies the SHA-256 of its files. The folder is read-only.

        A folder of a remote registry stays in the cache until this process ends or calls `release`.

        Args:
            ref: a version, `latest` or an alias.
            runtime: fetch and verify only the files that this runtime needs.

        Raises:
            RegistryError: `ref` does not exist.
            BundleError: a file differs from the manifest, or the bundle has no such runtime.
            DiskFull: the cache has no space for the version.
        """
        version = self.resolve(ref)
        manifest, data = self._manifest(version)
        needed = manifest.needed(runtime)
        if is_local(self.uri):
            folder = Path(self.uri, "versions", version)
            bundle.verify(folder, needed)
            return folder
        # Both hashes are needed: each registry has its own v3, and a registry that was deleted and created
        # again has another v3.
        uri_hash = hashlib.sha256(self.uri.encode()).hexdigest()[:16]
        name = f"{uri_hash}/{version}-{hashlib.sha256(data).hexdigest()[:16]}"
        lease = self._cache.take(name, _Fetched(self._storage, version, manifest, data, needed))
        _leases.setdefault(lease.folder, []).append(lease)
        return lease.folder

    @staticmethod
    def release(folder: Path) -> None:
        """Releases a folder that `fetch` returned. Call it once per `fetch`. The cache may then remove it."""
        if _leases.get(folder):
            _leases[folder].pop().close()

    def aliases(self) -> dict[str, Alias]:
        """All aliases by name."""
        aliases = {name: self.alias(name) for name in self._alias_names()}
        return {name: alias for name, alias in aliases.items() if alias is not None}

    def alias(self, name: str) -> Alias | None:
        """Reads an alias. None if it does not exist.

        Raises:
            RegistryError: the name is not a valid alias name, or the alias file is damaged.
        """
        return self._read_alias(name)[0]

    def set_alias(self, version: str, alias: str, *, expect: str | Unset | None = Unset.UNSET) -> Alias:
        """Points `alias` at `version`. Nothing changes if it already does.

        Args:
            version: the version.
            alias: the alias.
            expect: move the alias only if it points at this version. None: only if it does not exist.

        Raises:
            RegistryError: the version does not exist, or the alias name is not valid.
            AliasConflict: the alias does not point at `expect`.
        """
        if not (_VERSION.fullmatch(version) and self._storage.exists(_key(version, MANIFEST))):
            raise self._no_version(version)
        while True:
            current, generation = self._read_alias(alias)
            now = current.version if current else None
            if expect is not Unset.UNSET and now != expect:
                raise AliasConflict(
                    f"{self.uri}: {alias} points at {now or 'nothing'}, not at {expect or 'nothing'}; look "
                    f"again, then decide"
                )
            if current and now == version:
                return current
            moved = Alias(
                version=version,
                previous=now,
                at=datetime.now(UTC).isoformat(timespec="seconds"),
                by=_who(),
                history=current.named() if current else (),
            )
            # If the write is refused, another process moved the alias: read it and decide again.
            with contextlib.suppress(PreconditionFailed):
                self._storage.write(
                    _alias_key(alias), moved.model_dump_json(indent=2).encode() + b"\n", expect=generation
                )
                return moved

    def rollback(self, alias: str) -> str:
        """Points `alias` at its previous version, and returns that version. A second call undoes the first.

        Raises:
            RegistryError: the alias does not exist, or has no previous version.
            AliasConflict: another process moved the alias in the meantime.
        """
        current = self.alias(alias)
        if current is None:
            raise self._unknown(alias)
        if current.previous is None:
            raise RegistryError(
                f"{self.uri}: {alias} has pointed at {current.version} only; there is no version before to "
                f"go back to"
            )
        return self.set_alias(current.previous, alias, expect=current.version).version

    def _files(self) -> Iterator[tuple[str, str]]:
        """All files of all versions, as (version, file name)."""
        for key in self._storage.list("versions"):
            _, version, name = key.split("/", 2) if key.count("/") > 1 else ("", "", "")
            if _VERSION.fullmatch(version):
                yield version, name

    def _claim(self) -> str:
        """Reserves the next version number. A claim file can only be created once."""
        number = max((_number(version) for version, _ in self._files()), default=0)
        while True:
            number += 1
            with contextlib.suppress(PreconditionFailed):
                self._storage.write(_key(f"v{number}", ".claim"), f"{_who()}\n".encode(), expect="")
                return f"v{number}"

    def _manifest(self, version: str) -> tuple[Manifest, bytes]:
        if not _VERSION.fullmatch(version):
            raise self._no_version(version)
        try:
            data = self._storage.read(_key(version, MANIFEST), limit=bundle.MANIFEST_LARGEST)
        except NotFound:
            raise self._no_version(version) from None
        where = join(self.uri, _key(version, MANIFEST))
        manifest = bundle.decoded(data, where)
        if manifest.version != version:
            raise BundleError(f"{where}: says that it is {manifest.version}; publish the bundle again")
        return manifest, data

    def _alias_names(self) -> list[str]:
        names = [
            key.removeprefix("aliases/").removesuffix(".json")
            for key in self._storage.list("aliases")
            if key.endswith(".json")
        ]
        return [name for name in names if _ALIAS.fullmatch(name)]

    def _read_alias(self, name: str) -> tuple[Alias | None, str]:
        """Reads an alias and its generation. Returns None and "" if it does not exist."""
        if not _ALIAS.fullmatch(name) or name == LATEST or _VERSION.fullmatch(name):
            raise RegistryError(
                f"{name!r} cannot name an alias; take lower-case letters, digits and -, such as production"
            )
        try:
            data, generation = self._storage.read_versioned(_alias_key(name), limit=_ALIAS_LARGEST)
        except NotFound:
            return None, ""
        try:
            alias = Alias.model_validate_json(data)
        except ValidationError:
            where = join(self.uri, _alias_key(name))
            raise RegistryError(
                f"{where}: not an alias, its bytes are torn; delete it and set the alias {name} again"
            ) from None
        return alias, generation

    def _no_version(self, version: str) -> RegistryError:
        versions = self.versions()
        known = f"there are {', '.join(versions)}" if versions else "none is published yet"
        return RegistryError(f"{self.uri}: no version {version}; {known}")

    def _unknown(self, ref: str) -> RegistryError:
        names = self._alias_names()
        if not names:
            return RegistryError(
                f'{self.uri}: no alias "{ref}", nor any other; publish a version and set one, or ask for '
                f'"{LATEST}"'
            )
        return RegistryError(
            f'{self.uri}: no alias "{ref}"{did_you_mean(ref, names)} (aliases: {", ".join(names)})'
        )


def _key(version: str, name: str) -> str:
    return f"versions/{version}/{name}"


def _alias_key(name: str) -> str:
    return f"aliases/{name}.json"


def _number(version: str) -> int:
    return int(version[1:])


def _who() -> str:
    """Who moves the alias: the CI run, the W&B user, or the user of this machine."""
    if actor := os.environ.get("GITHUB_ACTOR"):
        return f"{actor}@github-actions/{os.environ.get('GITHUB_RUN_ID', 'run')}"
    if user := os.environ.get("WANDB_USERNAME"):
        return user
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def _kept() -> int:
    """Reads the number of versions to keep from CLICKBAIT_CACHE_VERSIONS."""
    text = os.environ.get(CACHE_VERSIONS) or str(_KEPT)
    if not re.fullmatch(r"[1-9][0-9]{0,3}", text):
        raise ConfigError(f"{CACHE_VERSIONS}: {text!r} is no number of versions to keep, from 1 to 9999")
    return int(text)


@dataclass(frozen=True)
class _Fetched:
    """A version in the cache (`clickbait.storage.folder_cache.Entry`)."""

    storage: Storage
    version: str
    manifest: Manifest
    data: bytes
    """Bytes of the manifest."""
    needed: list[str]
    """Names of the needed files, without the manifest."""

    def whole(self, folder: Path) -> bool:
        try:
            return (
                bundle.verify(folder, self.needed) == self.manifest
                and (folder / MANIFEST).read_bytes() == self.data
            )
        except BundleError:
            return False

    def lacking(self, folder: Path) -> int:
        return len(self.data) + sum(self.manifest.files[name].size for name in self._lacking(folder))

    def fill(self, folder: Path) -> None:
        self._tidy(folder)
        for name in self._lacking(folder):
            key, entry = _key(self.version, name), self.manifest.files[name]
            if (size := self.storage.size(key)) != entry.size:
                where = join(self.storage.uri, key)
                raise BundleError(
                    f"{where}: {size} bytes where the manifest says {entry.size}; publish the bundle again"
                )
            self.storage.download(key, folder / name, limit=entry.size)
            if not bundle.is_whole(folder, name, entry):
                with contextlib.suppress(FileNotFoundError):
                    (folder / name).unlink()
                raise BundleError(
                    f"{join(self.storage.uri, key)}: its SHA-256 is not the manifest's, so bytes changed; "
                    f"publish the bundle again"
                )
        with replacing(folder / MANIFEST) as temporary:
            temporary.write_bytes(self.data)
        bundle.verify(folder, self.needed)

    def _lacking(self, folder: Path) -> list[str]:
        return [name for name in self.needed if not bundle.is_whole(folder, name, self.manifest.files[name])]

    def _tidy(self, folder: Path) -> None:
        """Removes files that do not belong to the version or have the wrong size. `verify` rejects them."""
        for root, folders, names in os.walk(folder):
            for name in [*folders, *names]:
                path = Path(root) / name
                key, status = path.relative_to(folder).as_posix(), path.lstat()
                entry = self.manifest.files.get(key)
                is_file = stat.S_ISREG(status.st_mode) and (
                    key == MANIFEST or (entry is not None and status.st_size == entry.size)
                )
                is_folder = stat.S_ISDIR(status.st_mode) and entry is None and key != MANIFEST
                if name.startswith(".") or is_file or is_folder:
                    continue
                if stat.S_ISDIR(status.st_mode):
                    shutil.rmtree(path)
                else:
                    path.unlink()
