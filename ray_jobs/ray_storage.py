"""Storage for the state of Ray Train and Ray Tune: a folder or a bucket.

Ray creates a directory before it writes. On a bucket, pyarrow then checks first that the bucket exists. That
needs `storage.buckets.get`, a permission that roles/storage.objectUser does not include. Object stores have
no directories, so `ObjectStore` skips the call.
"""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

import pyarrow.fs

from clickbait import storage


def run_storage(uri: str) -> dict[str, Any]:
    """`storage_path` and `storage_filesystem` of Ray's RunConfig for a URI (a path or gs://...)."""
    if storage.is_local(uri):
        return {"storage_path": uri, "storage_filesystem": None}
    filesystem, path = pyarrow.fs.FileSystem.from_uri(uri)
    # Google's client reads this variable, but pyarrow does not.
    if emulator := os.environ.get("STORAGE_EMULATOR_HOST"):
        parts = urlsplit(emulator)
        filesystem = pyarrow.fs.GcsFileSystem(
            anonymous=True, scheme=parts.scheme, endpoint_override=parts.netloc
        )
    return {"storage_path": path, "storage_filesystem": pyarrow.fs.PyFileSystem(ObjectStore(filesystem))}


class ObjectStore(pyarrow.fs.FileSystemHandler):  # type: ignore[misc]  # pyarrow has no types
    """A pyarrow file system that passes every call on, except `create_dir`, which does nothing."""

    def __init__(self, filesystem: pyarrow.fs.FileSystem) -> None:
        self.filesystem = filesystem

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectStore) and bool(self.filesystem == other.filesystem)

    def __hash__(self) -> int:
        return hash(self.filesystem.type_name)

    def get_type_name(self) -> str:
        return str(self.filesystem.type_name)

    def normalize_path(self, path: str) -> str:
        return str(self.filesystem.normalize_path(path))

    def get_file_info(self, paths: list[str]) -> Any:
        return self.filesystem.get_file_info(paths)

    def get_file_info_selector(self, selector: pyarrow.fs.FileSelector) -> Any:
        return self.filesystem.get_file_info(selector)

    def create_dir(self, path: str, recursive: bool) -> None:
        """Does nothing: an object's name includes its path."""

    def delete_dir(self, path: str) -> None:
        self.filesystem.delete_dir(path)

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:
        self.filesystem.delete_dir_contents(path, missing_dir_ok=missing_dir_ok)

    def delete_root_dir_contents(self) -> None:
        raise NotImplementedError("refuses to delete everything in a bucket")

    def delete_file(self, path: str) -> None:
        self.filesystem.delete_file(path)

    def move(self, src: str, dest: str) -> None:
        self.filesystem.move(src, dest)

    def copy_file(self, src: str, dest: str) -> None:
        self.filesystem.copy_file(src, dest)

    def open_input_stream(self, path: str) -> Any:
        return self.filesystem.open_input_stream(path)

    def open_input_file(self, path: str) -> Any:
        return self.filesystem.open_input_file(path)

    def open_output_stream(self, path: str, metadata: Any) -> Any:
        return self.filesystem.open_output_stream(path, metadata=metadata)

    def open_append_stream(self, path: str, metadata: Any) -> Any:
        return self.filesystem.open_append_stream(path, metadata=metadata)
