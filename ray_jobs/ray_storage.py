"""Where Ray Train and Ray Tune keep their own state: a folder, or a bucket with the rights that this
project's accounts have.

Ray makes a directory before it writes, and for a bucket pyarrow asks first whether the bucket is there
(`storage.buckets.get`), a right that roles/storage.objectUser lacks. Object stores have no directories, so
nothing is made and nothing is asked.
"""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

import pyarrow.fs

from clickbait import storage


def run_storage(uri: str) -> dict[str, Any]:
    """The arguments `storage_path` and `storage_filesystem` of Ray's RunConfig for a URI (a path or
    gs://...).
    """
    if storage.is_local(uri):
        return {"storage_path": uri, "storage_filesystem": None}
    filesystem, path = pyarrow.fs.FileSystem.from_uri(uri)
    if emulator := os.environ.get(
        "STORAGE_EMULATOR_HOST"
    ):  # Google's own client reads it, and pyarrow's does not
        parts = urlsplit(emulator)
        filesystem = pyarrow.fs.GcsFileSystem(
            anonymous=True, scheme=parts.scheme, endpoint_override=parts.netloc
        )
    return {"storage_path": path, "storage_filesystem": pyarrow.fs.PyFileSystem(ObjectStore(filesystem))}


class ObjectStore(pyarrow.fs.FileSystemHandler):  # type: ignore[misc]  # pyarrow has no types
    """A file system of pyarrow's without directories: everything is passed on, but for `create_dir`."""

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
        """Nothing: an object's name has its path."""

    def delete_dir(self, path: str) -> None:
        self.filesystem.delete_dir(path)

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:
        self.filesystem.delete_dir_contents(path, missing_dir_ok=missing_dir_ok)

    def delete_root_dir_contents(self) -> None:
        raise NotImplementedError("a whole bucket is not emptied")

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
