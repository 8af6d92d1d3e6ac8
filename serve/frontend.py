r"""A web page for the API: headlines, their verdicts, the words behind a score, and the version.

    CLICKBAIT_API_URL=http://127.0.0.1:8000 STREAMLIT_BROWSER_GATHER_USAGE_STATS=false streamlit run \
    serve/frontend.py

It only speaks HTTP, so it needs neither a model nor a registry. If `CLICKBAIT_API_KEY` is set, it is sent,
and never shown. Errors are shown as the API reports them: not reachable, full (429), a text that is not valid
(422), a wrong key (401).
"""

from __future__ import annotations

import http.client
import json
import os
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

TIMEOUT_S = 10.0  # twice the api's own CLICKBAIT_TIMEOUT_S, after which it has answered 504
MAX_ANSWER_BYTES = 16 << 20  # 256 results are some 20 kB; whatever sends more is not the api
LOOPBACK = ("localhost", "127.0.0.1", "::1")
DEFAULT_URL = "http://127.0.0.1:8000"
EXAMPLES = "Parliament passes the budget after a night of debate\nYou won't believe what this cat does next"


class ApiError(ValueError):
    """What the reader of the page can do about a request that failed, in one line."""


class Client:
    """The api, by HTTP."""

    def __init__(self, url: str, key: str = "", timeout_s: float = TIMEOUT_S) -> None:
        """Raises ApiError for an address that is none."""
        if not url.startswith(("http://", "https://")):
            raise ApiError(
                f"CLICKBAIT_API_URL is {url or 'empty'}: set it to the api's address, such as {DEFAULT_URL}"
            )
        self.url = url.rstrip("/")
        self._key = key
        self._timeout_s = timeout_s
        try:
            host = urllib.parse.urlsplit(self.url).hostname
        except ValueError:
            host = None
        if not host:
            raise ApiError(
                f"CLICKBAIT_API_URL is {url}: it has no host: set it to the api's address, such as "
                f"{DEFAULT_URL}"
            )
        # No proxy reaches this machine's own loopback.
        self._opener = urllib.request.build_opener(
            *([urllib.request.ProxyHandler({})] if host in LOOPBACK else [])
        )

    def explain(self, text: str) -> dict[str, Any]:
        """`{"label", "score", "model", "words": [{"word", "weight", ...}]}` of one headline."""
        return self._ask("/explain", {"text": text}, "label", "score", "model", "words")

    def classify(self, texts: list[str]) -> list[dict[str, Any]]:
        """`{"label", "score", "model"}` of each headline, in the order given."""
        results = self._ask("/classify/batch", {"texts": texts}, "results")["results"]
        if (
            not isinstance(results, list)
            or len(results) != len(texts)
            or not all(_has(result, "label", "score", "model") for result in results)
        ):
            raise self._other()
        return results

    def model(self) -> dict[str, Any]:
        """What is served."""
        return self._ask("/model", None, "version")

    def _ask(self, path: str, body: dict[str, Any] | None, *names: str) -> dict[str, Any]:
        """An answer with 200 that has the names.

        Raises:
            ApiError: there is none, or what answers is another program.
        """
        headers = {"content-type": "application/json"} | ({"x-api-key": self._key} if self._key else {})
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data=data, headers=headers)  # noqa: S310 (http or https: see __init__)
        try:
            with self._opener.open(request, timeout=self._timeout_s) as answer:
                answered = json.loads(answer.read(MAX_ANSWER_BYTES))
        except urllib.error.HTTPError as error:
            raise ApiError(explained(error.code, _told(error), error.headers.get("retry-after"))) from None
        except TimeoutError:
            raise ApiError(
                f"no answer from {self.url} within {self._timeout_s:g} s: try again, or send fewer headlines"
            ) from None
        except OSError as error:
            reason = getattr(error, "reason", error)
            raise ApiError(
                f"the api is away: nobody answers at {self.url} ({reason}); is it started?"
            ) from None
        except (ValueError, http.client.HTTPException):  # no JSON, or no HTTP
            raise self._other() from None
        if not _has(answered, *names):
            raise self._other()
        return dict(answered)

    def _other(self) -> ApiError:
        return ApiError(f"what answers at {self.url} is not the clickbait api: look at CLICKBAIT_API_URL")


def _has(answered: Any, *names: str) -> bool:
    return isinstance(answered, dict) and set(names) <= answered.keys()


def explained(status: int, told: str, retry_after: str | None = None) -> str:
    """A status of the api as a line for who reads the page; `told` is what the api itself said."""
    if status == 401:
        return "the api asks for a key, and none or another was sent: set CLICKBAIT_API_KEY"
    if status == 422:
        return f"the api does not take this: {told}"
    if status == 429:
        return f"the api is full: try again in {retry_after or 1} s"
    if status == 503:
        return "the api has no model yet: try again in a moment"
    if status == 504:
        return "the api did not get to it in time: try again, or send fewer headlines"
    return f"the api answered {status}: {told}"


def _told(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.loads(error.read(MAX_ANSWER_BYTES))["error"])
    except (ValueError, KeyError, TypeError, OSError):
        return error.reason or "no reason given"


def lines(text: str) -> list[str]:
    """The headlines of a text: one a line, blank lines left out."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def pushes(words: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The words with their weights as a table's rows, the strongest first."""
    ordered = sorted(words, key=lambda word: -abs(word["weight"]))
    return [
        {
            "word": word["word"],
            "towards": "clickbait" if word["weight"] > 0 else "news",
            "weight": round(word["weight"], 3),
        }
        for word in ordered
    ]


def show_one(st: Any, client: Client, text: str) -> None:
    """The verdict on one headline, and the words that pushed it."""
    found = client.explain(text)
    left, middle, right = st.columns(3)
    left.metric("Verdict", found["label"])
    middle.metric("P(clickbait)", f"{found['score']:.3f}")
    right.metric("Model", found["model"])
    st.progress(found["score"])
    st.subheader("What pushed it")
    st.caption("The score without each word in turn; a weight above 0 pushed towards clickbait.")
    st.table(pushes(found["words"]))


def show_many(st: Any, client: Client, texts: list[str]) -> None:
    """A table of verdicts."""
    results = client.classify(texts)
    rows = [
        {"headline": text, "label": result["label"], "P(clickbait)": result["score"]}
        for text, result in zip(texts, results, strict=True)
    ]
    st.metric("Clickbait", f"{sum(result['label'] == 'clickbait' for result in results)} of {len(results)}")
    st.dataframe(rows, hide_index=True, width="stretch")
    st.caption(f"Computed by {', '.join(sorted({result['model'] for result in results}))}.")


def page() -> None:
    """Draws the page; Streamlit runs it anew at each click."""
    import streamlit as st

    st.set_page_config(page_title="Clickbait detector")
    st.title("Clickbait or news?")
    try:
        client = Client(
            os.environ.get("CLICKBAIT_API_URL", DEFAULT_URL), os.environ.get("CLICKBAIT_API_KEY", "")
        )
        st.caption(f"Model {client.model()['version']} at {client.url}")
    except ApiError as error:
        st.error(str(error))
        return
    one, many = st.tabs(["One headline", "Many headlines"])
    with one, st.form("one"):
        text = st.text_input("Headline", placeholder="You won't believe what this cat does next")
        asked_one = st.form_submit_button("Classify", type="primary")
    with many, st.form("many"):
        texts = lines(st.text_area("Headlines, one a line", placeholder=EXAMPLES, height=200))
        asked_many = st.form_submit_button("Classify all", type="primary")
    try:
        if asked_one:
            with one:
                show_one(st, client, text)
        if asked_many:
            with many:
                show_many(st, client, texts)
    except ApiError as error:
        with one if asked_one else many:
            st.error(str(error))


if __name__ == "__main__":  # so does `streamlit run`
    page()
