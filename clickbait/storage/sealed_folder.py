"""A folder that is whole or not there: a dataset, a set of soft labels, the scores of a lake.

    <folder>/<files>
             manifest.json   what is in the folder: under `files` every file with its SHA-256
             _SUCCESS        the manifest's SHA-256; written last

A reader checks the SHA-256 of each file before it parses the file. Two jobs that write the same folder do
no harm as long as equal names mean equal bytes: so the folder, or each of its files, is named by its content.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from clickbait import storage
from clickbait.errors import DataError, NotFound

MANIFEST, SUCCESS = "manifest.json", "_SUCCESS"


def sha256(data: bytes) -> str:
    """Hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def json_bytes(value: Any) -> bytes:
    """The value as JSON, the same bytes for the same value."""
    return json.dumps(value, indent=1, ensure_ascii=False).encode() + b"\n"


@dataclass(frozen=True)
class SealedFolder:
    """The folder at `uri`, whole or in the making."""

    uri: str
    kind: str
    """What the folder holds, for messages: `dataset`."""
    command: str
    """What writes it, for messages: `python -m ray_jobs.preprocess`."""

    def is_whole(self) -> bool:
        """Whether `_SUCCESS` is there and holds the SHA-256 of the manifest beside it."""
        return self.find_manifest() is not None

    def find_manifest(self) -> dict[str, Any] | None:
        """The manifest of a whole folder; None where the folder is not whole."""
        try:
            success, data = self._read_seal()
        except NotFound:
            return None
        return _parsed(data) if sha256(data) == success else None

    def manifest(self) -> dict[str, Any]:
        """The manifest of a whole folder.

        Raises:
            DataError: the folder is not whole, or the manifest's SHA-256 is not the one in `_SUCCESS`.
        """
        try:
            success, data = self._read_seal()
        except NotFound:
            raise DataError(
                f"{self.uri}: no whole {self.kind} there: run {self.command}, or name the folder of one"
            ) from None
        if sha256(data) != success:
            raise self._damaged(MANIFEST, f"its SHA-256 is not the one in {SUCCESS}")
        return _parsed(data)

    def read(self, key: str, manifest: dict[str, Any]) -> bytes:
        """The bytes of one file of the manifest.

        Raises:
            DataError: the file is missing, or its SHA-256 is not the manifest's.
        """
        try:
            data = storage.open_storage(self.uri).read(key)
        except NotFound:
            raise self._damaged(key, "missing") from None
        entry = manifest["files"][key]  # the SHA-256 alone in soft labels
        if sha256(data) != (entry if isinstance(entry, str) else entry["sha256"]):
            raise self._damaged(key, "its SHA-256 is not the manifest's")
        return data

    def put(self, key: str, data: bytes, rows: int | None = None) -> dict[str, Any]:
        """Writes one file, and returns its entry for the manifest's `files`."""
        storage.open_storage(self.uri).write(key, data)
        return ({} if rows is None else {"rows": rows}) | {"sha256": sha256(data), "size": len(data)}

    def delete_others(self, files: Collection[str], folders: Sequence[str] = ("",)) -> None:
        """Deletes all files below `folders` except `files`; the seal of a whole folder stays."""
        store = storage.open_storage(self.uri)
        keep = {*files, *((MANIFEST, SUCCESS) if self.is_whole() else ())}
        others = {key for folder in folders for key in store.list(folder)} - keep
        for key in sorted(
            others, key=lambda key: (key != SUCCESS, key)
        ):  # `_SUCCESS` first: from then on nothing is whole
            store.delete(key)

    def seal(self, manifest: dict[str, Any]) -> None:
        """Makes the folder whole: writes the manifest, then `_SUCCESS`.

        A folder that another job has sealed in the meantime keeps that job's manifest.
        """
        if self.is_whole():
            return
        data = json_bytes(manifest)
        self.put(MANIFEST, data)
        self.put(SUCCESS, f"{sha256(data)}\n".encode())

    def _read_seal(self) -> tuple[str, bytes]:
        store = storage.open_storage(self.uri)
        return store.read(SUCCESS).decode(errors="replace").strip(), store.read(MANIFEST)

    def _damaged(self, key: str, reason: str) -> DataError:
        return DataError(
            f"{storage.join(self.uri, key)}: {reason}: delete the folder and run {self.command} again"
        )


def _parsed(manifest: bytes) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(manifest)
    return parsed
