"""`gs://` as a `clickbait.storage.Storage`. `open_storage` imports this; nobody else does.

Credentials are Google's application default ones; with STORAGE_EMULATOR_HOST set there are none, and the
emulator is asked. Requests are retried by the client. A retried conditional write may be refused because its
own first try got through, so every write carries a name of its own (`WRITE_ID`), and a refused one looks
whether that name stands there. Only a writer whose answer was lost and whose object was written over at once
is told that it lost when it did not.
"""

from __future__ import annotations

import contextlib
import functools
import io
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import google.auth.exceptions as auth
import requests
from google.api_core import exceptions as api
from google.cloud import storage as gcs
from google.cloud.storage.exceptions import DataCorruption
from google.cloud.storage.retry import DEFAULT_RETRY

from clickbait.errors import NotFound, StorageError
from clickbait.storage import (
    BUFFER,
    absolute,
    check_key,
    conflict,
    join,
    missing,
    refused,
    replacing,
    too_large,
)

WRITE_ID = "write-id"
_LOG_IN = "run `gcloud auth application-default login` or set GOOGLE_APPLICATION_CREDENTIALS to a key file"
# bytes a request when streaming: small enough for a worker's memory, few enough requests
_STREAM = 8 * BUFFER


class GcsStorage:
    """Keys are objects below a prefix; a generation is the object's own."""

    def __init__(self, uri: str) -> None:
        self.uri = absolute(uri)
        name, _, prefix = self.uri.removeprefix("gs://").partition("/")
        self._name = name
        self._prefix = f"{prefix}/" if prefix else ""

    def read(self, key: str, *, limit: int | None = None) -> bytes:
        return self.read_versioned(key, limit=limit)[0]

    def read_versioned(self, key: str, *, limit: int | None = None) -> tuple[bytes, str]:
        with self._explained(key):
            blob, data = self._blob(key), io.BytesIO()
            blob.download_to_file(_Bounded(data, limit, join(self.uri, key)))
            assert blob.generation is not None, "the answer's x-goog-generation header"
            return data.getvalue(), str(blob.generation)

    def write(self, key: str, data: bytes, *, expect: str | None = None) -> str:
        with self._explained(key, writing=True):
            blob, write_id = self._blob(key), uuid.uuid4().hex
            blob.metadata = {WRITE_ID: write_id}
            try:
                blob.upload_from_string(
                    data,
                    content_type="application/octet-stream",
                    if_generation_match=None if expect is None else int(expect or 0),
                    retry=DEFAULT_RETRY,
                )
            except api.PreconditionFailed:
                there = self._bucket.get_blob(self._prefix + key)
                if there is None or (there.metadata or {}).get(WRITE_ID) != write_id:
                    raise conflict(join(self.uri, key), expect or "") from None
                blob = there
            return str(blob.generation)

    def open(self, key: str) -> BinaryIO:
        with self._explained(key):
            blob = self._present(key)
            reader, generation = blob.open("rb", chunk_size=_STREAM), blob.generation

        def read(size: int) -> bytes:
            with self._explained(key):
                data: bytes = reader.read(size)
            # Each answer says what it is of. Without a look at it, a stream could begin in one version of the
            # object and end in the next.
            if blob.generation != generation:
                raise conflict(join(self.uri, key), str(generation))
            return data

        return io.BufferedReader(_Stream(read, reader.seek), BUFFER)

    def upload(self, path: Path, key: str) -> None:
        if not path.is_file():
            raise missing(str(path))
        with self._explained(key, writing=True):
            self._blob(key).upload_from_filename(
                str(path), content_type="application/octet-stream", retry=DEFAULT_RETRY
            )

    def download(self, key: str, path: Path, *, limit: int | None = None) -> None:
        with self._explained(key), replacing(path) as temporary, temporary.open("wb") as file:
            self._blob(key).download_to_file(_Bounded(file, limit, join(self.uri, key)))

    def exists(self, key: str) -> bool:
        with self._explained(key):
            return bool(self._blob(key).exists())

    def list(self, prefix: str = "") -> list[str]:
        below = f"{self._prefix}{check_key(self.uri, prefix)}/" if prefix else self._prefix
        with self._explained(prefix, writing=True):
            names = [
                blob.name
                for blob in self._bucket.list_blobs(prefix=below, fields="items(name),nextPageToken")
            ]
        return sorted(name.removeprefix(self._prefix) for name in names if not name.endswith("/"))

    def size(self, key: str) -> int:
        with self._explained(key):
            return int(self._present(key).size)

    def delete(self, key: str) -> None:
        with self._explained(key), contextlib.suppress(api.NotFound):
            self._blob(key).delete(retry=DEFAULT_RETRY)  # removing twice is removing once

    def delete_folder(self, prefix: str) -> None:
        for key in self.list(prefix):
            self.delete(key)

    @functools.cached_property
    def _bucket(self) -> Any:
        return gcs.Client().bucket(self._name)

    def _blob(self, key: str) -> Any:
        return self._bucket.blob(self._prefix + check_key(self.uri, key))

    def _present(self, key: str) -> Any:
        blob = self._bucket.get_blob(self._prefix + check_key(self.uri, key))
        if blob is None:
            raise missing(join(self.uri, key))
        return blob

    @contextlib.contextmanager
    def _explained(self, key: str, *, writing: bool = False) -> Iterator[None]:
        """The client's errors as ours. `writing` (or listing): a 404 can only mean the bucket."""
        where = join(self.uri, key)
        try:
            yield
        except api.NotFound as error:
            if writing or "bucket does not exist" in str(error):
                raise NotFound(
                    f"{where}: there is no bucket {self._name}; create it, or check the name"
                ) from None
            raise missing(where) from None
        except (api.Forbidden, api.Unauthorized) as error:
            raise StorageError(
                f"{where}: Google Cloud refuses these credentials ({error.code}); grant them the bucket, or "
                f"{_LOG_IN}"
            ) from None
        except (auth.DefaultCredentialsError, auth.RefreshError):
            raise StorageError(f"{where}: no Google Cloud credentials that work; {_LOG_IN}") from None
        except (api.GoogleAPIError, auth.GoogleAuthError, DataCorruption, requests.RequestException) as error:
            raise StorageError(
                f"{where}: Google Cloud Storage does not answer as it should: {_line(error)}; try again"
            ) from None
        except OSError as error:
            raise refused(error.filename or where, error) from None


class _Bounded:
    """The file that a download writes to, which takes at most `limit` bytes. None takes all."""

    def __init__(self, file: BinaryIO, limit: int | None, uri: str) -> None:
        self._file = file
        self._limit = limit
        self._uri = uri

    def write(self, data: bytes) -> int:
        if self._limit is not None and (size := self._file.tell() + len(data)) > self._limit:
            raise too_large(self._uri, size, self._limit)
        return self._file.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class _Stream(io.RawIOBase):
    """Two functions as a file."""

    def __init__(self, read: Callable[[int], bytes], seek: Callable[[int, int], int]) -> None:
        self._read = read
        self._seek = seek

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return self._seek(offset, whence)

    def readinto(self, buffer: Any, /) -> int:
        data = self._read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
