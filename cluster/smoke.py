"""One headline to a server: is it ready, is the answer whole, and which version gave it. What a deployment
ends with.

    python -m cluster.smoke --url http://127.0.0.1:8000
    SMOKE_API_KEY=... python -m cluster.smoke --url http://127.0.0.1:8000 --model v3 --wait 120

Exit code: 0; 1 with a line that says what is wrong with the answer; the others are in `clickbait.cli`.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from clickbait import cli
from clickbait.errors import ConfigError, Refused
from clickbait.text import LABELS

HEADLINE = "You will never guess what happened next"
KEY = "SMOKE_API_KEY"  # a variable: a command line can be read by every process of the machine
_ASK_S = 30.0
_PAUSE_S = 1.0


class SmokeError(Refused):
    """The server answered, and not as it should."""


def ask(url: str, key: str = "", body: dict[str, Any] | None = None) -> tuple[int, Any]:
    """Status and JSON; POST where there is a body. 0 where nobody answers."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"content-type": "application/json"})  # noqa: S310 - check() looked
    if key:
        request.add_header("x-api-key", key)
    try:
        with urllib.request.urlopen(request, timeout=_ASK_S) as answer:  # noqa: S310
            status, text = int(answer.status), answer.read()
    except urllib.error.HTTPError as error:
        with error:
            status, text = error.code, error.read()
    except (OSError, http.client.HTTPException) as error:
        return 0, str(error) or type(error).__name__
    try:
        return status, json.loads(text)
    except ValueError:
        return status, text[:200].decode(errors="replace")


def check(url: str, key: str = "", model: str = "", wait_s: float = 0.0) -> dict[str, Any]:
    """The verdict on one headline.

    Args:
        url: the server's, without a path.
        key: for `x-api-key`, where it asks for one.
        model: the version that has to answer; any if not given.
        wait_s: for how long it may still be loading.

    Raises:
        ConfigError: no http:// or https:// address.
        SmokeError: not ready, or not the answer that it should be.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"--url {url}: an http:// or https:// address is needed")
    url = url.rstrip("/")
    until = time.monotonic() + wait_s
    while (ready := ask(f"{url}/readyz"))[0] != 200:
        if time.monotonic() >= until:
            raise SmokeError(f"{url}/readyz: {told(ready)}")
        time.sleep(_PAUSE_S)
    answer = ask(f"{url}/classify", key, {"text": HEADLINE})
    if answer[0] == 401:
        raise SmokeError(f"{url}/classify: 401: set {KEY} to one of the server's keys")
    if answer[0] != 200:
        raise SmokeError(f"{url}/classify: {told(answer)}")
    verdict = answer[1]
    if not isinstance(verdict, dict) or verdict.get("label") not in LABELS:
        raise SmokeError(f"{url}/classify: no label of {' or '.join(LABELS)} in {verdict}")
    score = verdict.get("score")
    if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
        raise SmokeError(f"{url}/classify: no score from 0 to 1 in {verdict}")
    if not verdict.get("model") or (model and verdict["model"] != model):
        raise SmokeError(
            f"{url}/classify: answered by {verdict.get('model') or 'no version'}, not by {model or 'one'}"
        )
    return verdict


def told(answer: tuple[int, Any]) -> str:
    """An answer in a line."""
    status, body = answer
    said = body.get("error", body) if isinstance(body, dict) else body
    return f"{status}: {said}" if status else f"no answer ({said})"


def main(args: Sequence[str] | None = None) -> int:
    """Checks and prints the verdict; the exit code is `clickbait.cli.Code`."""
    return cli.exit_code(lambda: _run(args))


def _run(args: Sequence[str] | None) -> None:
    parser = cli.Parser(
        prog="python -m cluster.smoke", description=__doc__.splitlines()[0] if __doc__ else None
    )
    parser.add_argument("--url", required=True, help="the server's address")
    parser.add_argument("--model", default="", help="the version that has to answer")
    parser.add_argument(
        "--wait", type=float, default=0.0, help="seconds that it may still be loading (%(default)s)"
    )
    given = parser.parse_args(args)
    print(json.dumps(check(given.url, os.environ.get(KEY, ""), given.model, given.wait)))


if __name__ == "__main__":
    sys.exit(main())
