"""API keys: which requests need one, and whether one that was sent is among those that are set."""

from __future__ import annotations

import hashlib
import hmac

from clickbait.errors import Unauthorized

CHALLENGE = b'Bearer realm="clickbait"'
_OPEN = ("/ready",)  # of a model of the inference protocol: a probe has no key


class Keys:
    """`given` is CLICKBAIT_API_KEYS: keys with commas between. None set: nobody is asked for one."""

    def __init__(self, given: str) -> None:
        self._digests = [_digest(key.strip().encode()) for key in given.split(",") if key.strip()]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def check(self, headers: dict[bytes, bytes]) -> None:
        """Takes `Authorization: Bearer KEY` or `X-API-Key: KEY`.

        Raises:
            Unauthorized: the status is `serve.api`'s.
        """
        scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
        sent = [headers.get(b"x-api-key", b""), key if scheme.lower() == b"bearer" else b""]
        # Every pair is compared, and digests are of one length: the time says neither which key was near nor how long it is.
        known = [hmac.compare_digest(_digest(one.strip()), digest) for one in sent for digest in self._digests]
        if not any(known):
            raise Unauthorized("send one of the server's keys: Authorization: Bearer KEY, or X-API-Key: KEY")


def needs_key(path: str) -> bool:
    """Whether a GET of `path` needs a key; what a model computes always does. Probes and the docs do not."""
    if path.startswith("/v2/models/"):
        return not path.endswith(_OPEN)
    return path in ("/model", "/metrics", "/v2")


def _digest(key: bytes) -> bytes:
    return hashlib.blake2b(key, digest_size=32).digest()
