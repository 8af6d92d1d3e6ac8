"""API keys: which requests need one, and whether one that was sent is among those that are set.

Keys come from the settings (`api_keys`, `api_key_digests`) and from a file that may change while the server
runs (`api_keys_file`). Only their SHA-256 digests are kept.
"""

from __future__ import annotations

import codecs
import hmac
import logging
import os
import stat
from pathlib import Path
from time import monotonic

from clickbait.errors import ConfigError, Unauthorized
from serve.settings import Settings, digest, split

log = logging.getLogger(__name__)

CHALLENGE = b'Bearer realm="clickbait"'
MAX_FILE_BYTES = 65_536  # a thousand keys of 64 characters
_LOOK_S = 1.0  # between two looks at the file, which take a microsecond or two
_OPEN = ("/ready",)  # of a model of the inference protocol: a probe has no key


class Keys:
    """The keys of a server; true where a client must send one."""

    def __init__(self, settings: Settings) -> None:
        """Reads them.

        Raises:
            ConfigError: the file cannot be read or has no key, or there must be keys and there is none.
        """
        self._fixed = settings.digests
        self._file = _File(settings.api_keys_file) if settings.api_keys_file else None
        self._needed = settings.keyed
        if self._needed and not self._digests():
            raise ConfigError(
                "api_keys_required: clients must send a key, and none is set: "
                "give CLICKBAIT_API_KEYS or CLICKBAIT_API_KEYS_FILE to whatever starts the server"
            )

    def __bool__(self) -> bool:
        return self._needed

    def check(self, headers: dict[bytes, bytes]) -> None:
        """Takes `Authorization: Bearer KEY` or `X-API-Key: KEY`.

        Raises:
            Unauthorized: the status is `serve.http.api`'s.
        """
        if not self.among(headers):
            raise Unauthorized("send one of the server's keys: Authorization: Bearer KEY, or X-API-Key: KEY")

    def among(self, headers: dict[bytes, bytes]) -> bool:
        """Whether one of the keys was sent; false where none is set."""
        scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
        sent = [headers.get(b"x-api-key", b""), key if scheme.lower() == b"bearer" else b""]
        digests = [digest(one.strip()) for one in sent]
        # Every pair is compared, and digests are of one length: the time says neither which key was near nor
        # how long it is.
        known = [hmac.compare_digest(one, other) for one in digests for other in self._digests()]
        return any(known)

    def _digests(self) -> frozenset[str]:
        return self._fixed | self._file.digests() if self._file else self._fixed


class _File:
    """The keys in a file, read again when it has changed."""

    def __init__(self, path: str) -> None:
        """Raises ConfigError where it cannot be read, or has no key."""
        self._path = Path(path)
        self._seen = self._state()
        self._keys = self._read()
        self._look_at = monotonic() + _LOOK_S

    def digests(self) -> frozenset[str]:
        """The digests of the keys, at most a second old.

        If the file is missing or not valid, these are the last valid ones, and the log says so.
        """
        now = monotonic()
        if now >= self._look_at:
            self._look_at = now + _LOOK_S
            state = self._state()
            if state != self._seen:
                self._seen = state
                try:
                    self._keys = self._read()
                except ConfigError as error:
                    log.warning("%s; the keys that it had are still taken", error)
                else:
                    log.warning("%s has changed: %d keys are taken now", self._path, len(self._keys))
        return self._keys

    def _state(self) -> tuple[int, ...] | None:
        """What changes when the file changes; None if there is no file.

        Kubernetes changes a mounted secret by pointing a link to another folder.
        """
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino, status.st_dev

    def _read(self) -> frozenset[str]:
        try:
            with open(os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise ConfigError(f"api_keys_file {self._path}: it is no regular file")
                data = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise ConfigError(
                f"api_keys_file {self._path}: {error.strerror}: give a file with one key per line"
            ) from None
        if len(data) > MAX_FILE_BYTES:
            raise ConfigError(
                f"api_keys_file {self._path}: it has more than {MAX_FILE_BYTES} bytes: give a file with one "
                f"key per line"
            )
        keys = split(data.removeprefix(codecs.BOM_UTF8))
        if not keys:
            raise ConfigError(f"api_keys_file {self._path}: there is no key in it: write one key per line")
        return frozenset(map(digest, keys))


def needs_key(path: str) -> bool:
    """Whether a GET of `path` needs a key; what a model computes always does. Probes and the docs do not."""
    if path.startswith("/v2/models/"):
        return not path.endswith(_OPEN)
    return path in ("/model", "/metrics", "/v2")
