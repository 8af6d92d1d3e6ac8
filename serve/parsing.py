"""From the bytes of a request to texts, by hand: what the hot path takes, within its limits. Nothing of the input is ever in a message."""

from __future__ import annotations

import json
from typing import Any

import orjson
from starlette.datastructures import Headers
from starlette.types import Receive

from clickbait.errors import BadRequest, BodyTooLarge, InvalidText, TooManyTexts, UnsupportedMediaType
from clickbait.text import clean
from serve.settings import Settings

_COLON = ord(":")
Parsed = tuple[list[str], bool]
"""The texts, and whether the answer is one result or a list."""


class ClientGone(Exception):
    """Nobody is there to answer."""


def parse_one(body: bytes, settings: Settings) -> Parsed:
    """The text of `/classify`.

    Raises:
        BadRequest, InvalidText: the statuses are `serve.api`'s.
    """
    text = _field(body, "text")
    if not isinstance(text, str):
        raise BadRequest('"text" must be a string: send {"text": "a headline"}')
    _check_text(text, "text", settings.max_characters)
    return [text], True


def parse_many(body: bytes, settings: Settings) -> Parsed:
    """The texts of `/classify/batch`.

    Raises:
        BadRequest, InvalidText, TooManyTexts: the statuses are `serve.api`'s. One bad text refuses them all, and is named by its index.
    """
    texts = _field(body, "texts")
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise BadRequest('"texts" must be a list of strings: send {"texts": ["a headline", "another"]}')
    if not texts:
        raise InvalidText("texts: send at least one")
    if len(texts) > settings.max_texts:
        raise TooManyTexts(f"texts: {len(texts)} where {settings.max_texts} are taken: send them in parts")
    for index, text in enumerate(texts):
        _check_text(text, f"texts[{index}]", settings.max_characters)
    return texts, False


def _field(body: bytes, name: str) -> Any:
    """The value of the one key that the route takes. Keys that the client chose are not echoed."""
    try:
        document = orjson.loads(body)  # refuses NaN, lone surrogates and nesting beyond 1024
    except orjson.JSONDecodeError:
        raise BadRequest(f'the body is not JSON: send {{"{name}": ...}} in UTF-8') from None
    if not isinstance(document, dict) or name not in document:
        raise BadRequest(f'the body must be a JSON object with "{name}"')
    # Each key has its colon, so two keys, equal ones too, of which orjson takes the last, need two; few headlines have one.
    if body.count(_COLON) > 1 and _has_two_keys(body):
        raise BadRequest(f'the body must have "{name}" once and no other key')
    return document[name]


def _has_two_keys(body: bytes) -> bool:
    """Whether an object in `body`, which is JSON, has more than one key."""
    try:
        return bool(json.loads(body, object_pairs_hook=len) != 1)
    except RecursionError:  # nesting that only orjson takes, in a value that an equal key replaced
        return True


def _check_text(text: str, name: str, max_characters: int) -> None:
    length = len(clean(text))
    if not length:
        raise InvalidText(f"{name}: is blank: send a headline")
    if length > max_characters:
        raise InvalidText(f"{name}: {length} characters where {max_characters} are taken: shorten it")


def check_headers(headers: Headers, max_body_bytes: int) -> None:
    """Refuses a body by its headers, before it is read.

    Raises:
        UnsupportedMediaType, BodyTooLarge: the statuses are `serve.api`'s.
    """
    kind, _, rest = headers.get("content-type", "").partition(";")
    parameters = rest.replace('"', "").replace(" ", "").lower()
    if kind.strip().lower() != "application/json" or parameters not in ("", "charset=utf-8"):
        raise UnsupportedMediaType("the body must be application/json in UTF-8: set the content-type header")
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("a compressed body is not taken: send it without content-encoding")
    declared = headers.get("content-length", "0")
    if declared.isdecimal() and int(declared[:20]) > max_body_bytes:
        raise _too_large(max_body_bytes)


async def read_body(receive: Receive, limit: int) -> bytes:
    """The body, refused as soon as it is longer than `limit`, whatever its headers say.

    Raises:
        BodyTooLarge: it is longer.
        ClientGone: nobody sends the rest.
    """
    parts: list[bytes] = []
    size = 0
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


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body has more than {limit} bytes: send it in parts")
