"""Parses requests into texts by hand, within the limits; it is on the hot path.

No message contains any part of the input.
"""

from __future__ import annotations

import asyncio
import functools
import json
import re
from email.message import Message
from typing import Any

import orjson
from starlette.types import Receive, Scope

from clickbait.errors import (
    BadRequest,
    BodyTooLarge,
    DeadlineExceeded,
    InvalidText,
    TooManyTexts,
    UnsupportedMediaType,
)
from clickbait.text import clean, raw_bound
from serve.settings import Settings

JSON_TYPES = frozenset({b"application/json"})
_UTF_8 = frozenset({"utf-8", "utf8"})
_TYPE = re.compile(r"[a-z0-9.+-]+/[a-z0-9.+-]+")
# bytes of a content-type header: its parser takes the square of the count of parameters, and no client sends
# so many
_MAX_TYPE = 256
_COLON, _QUOTE = ord(":"), ord('"')
_READ = frozenset(
    {
        b"authorization",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"inference-header-content-length",
        b"x-api-key",
        b"x-request-id",
    }
)


TOLD = "clickbait.told"
"""In the scope of a request that Ray Serve has no part in (`serve.on_ray.ingress`): a `Told`."""


class Told:
    """The route and status of a request, for the server's own metrics.

    `full` says that the replica has as many requests as it may have, so this one must be refused.
    """

    __slots__ = ("full", "route", "status")

    def __init__(self, full: bool) -> None:
        self.full = full
        self.route = "other"
        self.status = 499  # nobody was there to be answered


class ClientGone(Exception):
    """Nobody is there to answer."""


class Incoming:
    """A request on its way: what the routes read of it. Plain slots: one is made a request."""

    __slots__ = ("body", "headers", "path", "request_id", "started", "version")

    def __init__(self, path: str, headers: dict[bytes, bytes], request_id: bytes, started: float) -> None:
        self.path = path
        self.headers = headers
        self.request_id = request_id
        self.started = started
        self.body = b""
        self.version: str | None = None  # the one that its path names: no other may answer it


def headers_of(scope: Scope) -> dict[bytes, bytes]:
    """The headers that this server reads. Names are in lower case already: ASGI says so."""
    return {name: value for name, value in scope["headers"] if name in _READ}


def check_headers(
    headers: dict[bytes, bytes], max_body_bytes: int, types: frozenset[bytes] = JSON_TYPES
) -> None:
    """Refuses a body by its headers, before it is read.

    Raises:
        UnsupportedMediaType, BodyTooLarge: the statuses are `serve.http.api`'s.
    """
    kind = headers.get(b"content-type", b"")
    if kind not in types and media_type(kind) not in types:
        raise UnsupportedMediaType("the body must be application/json in UTF-8: set the content-type header")
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise UnsupportedMediaType("a compressed body is not taken: send it without content-encoding")
    declared = headers.get(b"content-length", b"0")
    if declared.isdigit() and int(declared[:20]) > max_body_bytes:
        raise _too_large(max_body_bytes)


def media_type(kind: bytes) -> bytes | None:
    """The media type of a content-type header, in lower case, without parameters.

    None if it has no type, or is not UTF-8.
    """
    return _media_type(kind) if len(kind) <= _MAX_TYPE else None


@functools.lru_cache(maxsize=64)
def _media_type(kind: bytes) -> bytes | None:
    message = Message()
    message["content-type"] = kind.decode("latin-1")
    (name, _), *parameters = message.get_params(failobj=[("", "")])
    charsets = {
        str(value).strip().lower() for parameter, value in parameters if parameter.lower() == "charset"
    }
    name = name.strip().lower()
    return name.encode() if charsets <= _UTF_8 and _TYPE.fullmatch(name) else None


async def read_body(receive: Receive, limit: int, deadline: float) -> bytes:
    """The body, refused as soon as it is longer than `limit`, whatever its headers say.

    Raises:
        BodyTooLarge: it is longer.
        DeadlineExceeded: it did not come by `deadline`, a time of the running loop's clock.
        ClientGone: nobody sends the rest.
    """
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout_at(deadline):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                part = message.get("body", b"")
                size += len(part)
                if size > limit:
                    raise _too_large(limit)
                parts.append(part)
                if not message.get("more_body", False):
                    return parts[0] if len(parts) == 1 else b"".join(parts)
    except TimeoutError:
        raise DeadlineExceeded("the body did not come in time: send it faster, or less of it") from None


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body has more than {limit} bytes: send it in parts")


def text_of(body: bytes, settings: Settings) -> str:
    """The text of {"text": "..."}.

    Raises:
        BadRequest, InvalidText: the statuses are `serve.http.api`'s.
    """
    text = _field(body, "text")
    if not isinstance(text, str):
        raise BadRequest('"text" must be a string: send {"text": "a headline"}')
    _check_only_key(body, "text", strings=1)
    check_text(text, "text", settings.max_characters)
    return text


def texts_of(body: bytes, settings: Settings) -> list[str]:
    """The texts of {"texts": [...]}.

    Raises:
        BadRequest, InvalidText, TooManyTexts: the statuses are `serve.http.api`'s. One bad text refuses them
            all, and is named by its index.
    """
    texts = _field(body, "texts")
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise BadRequest('"texts" must be a list of strings: send {"texts": ["a headline", "another"]}')
    _check_only_key(body, "texts", strings=len(texts))
    check_texts(texts, "texts", settings)
    return texts


def flat(values: Any) -> list[str] | None:
    """["a", "b"] and [["a"], ["b"]] alike; None for anything else."""
    if not isinstance(values, list):
        return None
    texts = [one[0] if isinstance(one, list) and len(one) == 1 else one for one in values]
    return texts if all(isinstance(text, str) for text in texts) else None


def check_texts(texts: list[str], name: str, settings: Settings) -> None:
    """Refuses none, too many, and a text that `check_text` refuses.

    Raises:
        InvalidText, TooManyTexts: the statuses are `serve.http.api`'s.
    """
    if not texts:
        raise InvalidText(f"{name}: send at least one")
    check_count(len(texts), name, settings)
    for index, text in enumerate(texts):
        check_text(text, f"{name}[{index}]", settings.max_characters)


def check_count(count: int, name: str, settings: Settings) -> None:
    """Refuses more texts than a request may have.

    Raises:
        TooManyTexts: the status is `serve.http.api`'s.
    """
    if count > settings.max_texts:
        raise TooManyTexts(f"{name}: {count} where {settings.max_texts} are taken: send them in parts")


def check_text(text: str, name: str, max_characters: int) -> None:
    """Refuses a text that is blank or too long, counted before and after cleaning.

    Raises:
        InvalidText: the status is `serve.http.api`'s.
    """
    if len(text) <= max_characters and text.isascii() and text.isprintable() and text and not text.isspace():
        return  # cleaning only folds its blanks: most headlines end here, a microsecond earlier
    if len(text) > raw_bound(max_characters):  # first: what cleaning costs is bounded by this
        raise InvalidText(
            f"{name}: {len(text)} characters, white space included, where {raw_bound(max_characters)} are "
            f"taken: shorten it"
        )
    length = len(clean(text))
    if not length:
        raise InvalidText(f"{name}: is blank: send a headline")
    if length > max_characters:
        raise InvalidText(f"{name}: {length} characters where {max_characters} are taken: shorten it")


def _field(body: bytes, name: str) -> Any:
    """The value of the one key that the route takes. Keys that the client chose are not echoed."""
    document = _parsed(body)
    if not isinstance(document, dict) or name not in document:
        raise BadRequest(f'the body must be a JSON object with "{name}"')
    if len(document) != 1:
        raise BadRequest(f'the body must have "{name}" once and no other key')
    return document[name]


def _check_only_key(body: bytes, name: str, strings: int) -> None:
    """Refuses `name` twice, of which orjson took the last. `strings` are the strings of its value."""
    # A second key brings a colon and two quotes more; few headlines have both.
    if body.count(_COLON) > 1 and body.count(_QUOTE) > 2 + 2 * strings and not _has_each_key_once(body):
        raise BadRequest(f'the body must have "{name}" once and no other key')


def object_of(body: bytes, keys: frozenset[str]) -> dict[str, Any]:
    """The JSON object that `body` is, with no key twice and none that is not in `keys`.

    Raises:
        BadRequest: the status is `serve.http.api`'s.
    """
    document = _parsed(body)
    if not isinstance(document, dict) or not document.keys() <= keys:
        raise BadRequest(f"the body must be a JSON object with no other key than {', '.join(sorted(keys))}")
    if body.count(_COLON) > 1 and not _has_each_key_once(body):
        raise BadRequest("the body must have each key once")
    return document


def _parsed(body: bytes) -> Any:
    try:
        return orjson.loads(body)  # refuses NaN, lone surrogates and nesting beyond 1024
    except orjson.JSONDecodeError:
        raise BadRequest("the body is not JSON in UTF-8: /docs shows what the route takes") from None


def _has_each_key_once(body: bytes) -> bool:
    """Whether no object in `body`, which is JSON, has a key twice."""
    try:
        json.loads(body, object_pairs_hook=_once)
    except (ValueError, RecursionError):  # a key twice, or nesting or digits that only orjson takes
        return False
    return True


def _once(pairs: list[tuple[str, Any]]) -> None:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError
