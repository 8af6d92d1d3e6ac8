"""A sealed folder is whole or not there, and no byte of it is read unchecked."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from clickbait.errors import DataError
from clickbait.storage import LocalStorage, open_storage
from clickbait.storage.sealed_folder import SealedFolder


def folder_at(path: Path) -> SealedFolder:
    return SealedFolder(str(path), "set of rows", "python -m rows")


def sealed(path: Path) -> tuple[SealedFolder, dict[str, Any]]:
    folder = folder_at(path)
    manifest = {"files": {"a/part": folder.put("a/part", b"rows", 4)}}
    folder.seal(manifest)
    return folder, manifest


def test_a_sealed_folder_gives_its_manifest_and_its_files(tmp_path: Path) -> None:
    folder, manifest = sealed(tmp_path)
    assert folder.is_whole()
    assert folder.manifest() == folder.find_manifest() == manifest
    assert manifest["files"]["a/part"] == {
        "rows": 4,
        "sha256": hashlib.sha256(b"rows").hexdigest(),
        "size": 4,
    }
    assert folder.read("a/part", manifest) == b"rows"


@pytest.mark.parametrize("lost", ["_SUCCESS", "manifest.json"])
def test_without_its_seal_it_is_not_whole(tmp_path: Path, lost: str) -> None:
    folder, _ = sealed(tmp_path)
    (tmp_path / lost).unlink()
    assert not folder.is_whole()
    with pytest.raises(
        DataError, match="no whole set of rows there: run python -m rows, or name the folder of one"
    ):
        folder.manifest()


def test_a_changed_byte_is_told_and_so_is_a_missing_file(tmp_path: Path) -> None:
    folder, manifest = sealed(tmp_path)
    (tmp_path / "a" / "part").write_bytes(b"Rows")
    with pytest.raises(
        DataError, match="a/part: its SHA-256 is not the manifest's: delete the folder and run python"
    ):
        folder.read("a/part", manifest)
    (tmp_path / "a" / "part").unlink()
    with pytest.raises(DataError, match="a/part: missing: delete the folder and run python -m rows again"):
        folder.read("a/part", manifest)
    (tmp_path / "manifest.json").write_text("{}")
    assert folder.find_manifest() is None
    with pytest.raises(DataError, match=r"manifest\.json: its SHA-256 is not the one in _SUCCESS"):
        folder.manifest()


def test_the_success_file_is_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys: list[str] = []
    write = LocalStorage.write
    monkeypatch.setattr(
        LocalStorage,
        "write",
        lambda self, key, *rest, **named: keys.append(key) or write(self, key, *rest, **named),
    )
    sealed(tmp_path)
    assert keys == ["a/part", "manifest.json", "_SUCCESS"]


def test_a_second_job_keeps_the_manifest_of_the_first(tmp_path: Path) -> None:
    folder, manifest = sealed(tmp_path)
    folder.seal({"files": {}})
    assert folder.manifest() == manifest


def test_the_seal_is_deleted_first_and_only_where_the_folder_is_not_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, manifest = sealed(tmp_path)
    folder.put("a/stale", b"")
    folder.put("b/stale", b"")
    folder.delete_others(manifest["files"], ("a",))
    assert open_storage(folder.uri).list() == ["_SUCCESS", "a/part", "b/stale", "manifest.json"]
    (tmp_path / "manifest.json").write_text("{}")
    deleted: list[str] = []
    monkeypatch.setattr(LocalStorage, "delete", lambda self, key: deleted.append(key))
    folder.delete_others(manifest["files"])
    assert deleted == ["_SUCCESS", "b/stale", "manifest.json"]


def test_a_folder_of_an_earlier_version_is_whole(tmp_path: Path) -> None:
    """Soft labels had the SHA-256 alone for each file, another indent and no line end."""
    digest = hashlib.sha256(b"rows").hexdigest()
    manifest = json.dumps({"files": {"part": digest}}, indent=2, sort_keys=True).encode()
    (tmp_path / "part").write_bytes(b"rows")
    (tmp_path / "manifest.json").write_bytes(manifest)
    (tmp_path / "_SUCCESS").write_text(hashlib.sha256(manifest).hexdigest())
    folder = folder_at(tmp_path)
    assert folder.read("part", folder.manifest()) == b"rows"
