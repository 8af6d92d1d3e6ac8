"""Chooses the HTTP/1.1 implementation of our own listeners: ours, or uvicorn's.

Ours (`serve.http.uvicorn_private`) is faster, and it limits what a client may do with a connection. It uses
parts of uvicorn that are no public API, so it is only used with the version of uvicorn that it was written
for. In every other case uvicorn's own implementation is used, and one warning says so.

CLICKBAIT_PUBLIC_APIS_ONLY=1 chooses public APIs everywhere: here and in `serve.on_ray.ingress`.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os

import uvicorn

log = logging.getLogger(__name__)

UVICORN = "0.54.0"
"""The version that `serve.http.uvicorn_private` was written for."""
PUBLIC_APIS_ONLY = "CLICKBAIT_PUBLIC_APIS_ONLY"
_OF_UVICORN = "httptools"  # the name of uvicorn's own implementation, for `uvicorn.Config(http=...)`


def public_apis_only() -> bool:
    """Whether the environment asks for public APIs only."""
    return os.environ.get(PUBLIC_APIS_ONLY, "").lower() not in ("", "0", "false")


def http_protocol(max_age_s: float | None = None) -> type[asyncio.Protocol] | str:
    """The value for `uvicorn.Config(http=...)`.

    Args:
        max_age_s: our implementation closes a connection that is older, in seconds; None: it never does.
    """
    protocol = None if public_apis_only() else _ours()
    if protocol is None:
        return _OF_UVICORN
    return type("AgingProtocol", (protocol,), {"max_age_s": max_age_s})


@functools.cache
def _ours() -> type[asyncio.Protocol] | None:
    """Our implementation, or None (after one warning) if the installed uvicorn does not fit."""
    try:
        if uvicorn.__version__ != UVICORN:
            raise ImportError(f"uvicorn is {uvicorn.__version__}, not {UVICORN}")
        from serve.http import uvicorn_private

        uvicorn_private.check()
    except Exception as error:  # a moved import, another signature: whatever it is, the public way works
        log.warning(
            "using uvicorn's own HTTP implementation, which is slower and has no limit for a request's head: "
            "%s",
            error,
        )
        return None
    return uvicorn_private.Protocol
