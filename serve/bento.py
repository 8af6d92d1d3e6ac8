"""The same model under BentoML: for who runs BentoML anyway, and to compare servers in the cloud.

    BENTOML_DO_NOT_TRACK=true CLICKBAIT_REGISTRY=artifacts/registry bentoml serve serve.bento:Clickbait --port
    3000

    POST /classify {"text"}   /classify/batch {"texts"}      the api's bodies and answers
    POST /adaptive {"texts"}                                 a list of results; BentoML computes what several requests sent together

Only /adaptive is batched: a batchable endpoint of BentoML takes and gives lists, so `/classify` would have to
pass its text on to a second service, one hop more, and small batches gain nothing on a core
(docs/LEADERBOARD.md). The version is the one that the alias points at when a worker starts: unlike the api
this does not follow it. It checks no keys: what does belongs in front of it.
"""

from __future__ import annotations

import os
from http import HTTPStatus
from typing import Any

import bentoml
from bentoml.exceptions import BentoMLException

from clickbait import cli
from clickbait.errors import ConfigError
from clickbait.inference.scorer import Scorer
from clickbait.registry.registry import Registry
from clickbait.text import clean, is_unicode, raw_bound
from serve import settings

MAX_BATCH = 64  # texts that /adaptive computes at a time
MAX_LATENCY_MS = 5000  # CLICKBAIT_TIMEOUT_S's default: who waited longer has gone
TIMEOUT_S = 30  # a backstop for a worker that hangs


class Unprocessable(BentoMLException):
    """A text that the model does not take; the message says why and not what it was."""

    error_code = HTTPStatus.UNPROCESSABLE_ENTITY


@bentoml.service(
    name="clickbait",
    workers=1,  # one a core: more containers, not more threads
    threads=1,  # a Scorer is one thread's
    traffic={"timeout": TIMEOUT_S},
    logging={"access": {"enabled": False}},  # a line a request costs more than parsing it
)
class Clickbait:
    """A worker: one model, computed on one thread."""

    def __init__(self) -> None:
        """Loads the model; if that fails, the worker ends with one line and BentoML starts another."""
        if code := cli.exit_code(self._load):
            os._exit(code)  # raised, it would be two tracebacks each time

    def _load(self) -> None:
        self._settings = settings.load()
        if self._settings.keyed:
            raise ConfigError(
                "CLICKBAIT_API_KEYS: this server checks no keys: unset it, and let what stands in front of "
                "BentoML check them"
            )
        self._scorer = Scorer.of(
            Registry(self._settings.registry),
            self._settings.model,
            runtime=self._settings.runtime,
            device=self._settings.device,
            threads=self._settings.threads,
        )
        self._scorer.score(["warm up"])

    @bentoml.api(route="/classify")
    def classify(self, text: str) -> dict[str, Any]:
        """One headline."""
        return self._results([text])[0]

    @bentoml.api(route="/classify/batch")
    def classify_batch(self, texts: list[str]) -> dict[str, Any]:
        """Many headlines, in the order given."""
        return {"results": self._results(texts)}

    @bentoml.api(route="/adaptive", batchable=True, max_batch_size=MAX_BATCH, max_latency_ms=MAX_LATENCY_MS)
    def adaptive(self, texts: list[str]) -> list[dict[str, Any]]:
        """Scores the texts of several requests together.

        One text that is not valid refuses all of them: BentoML has no other way.
        """
        return self._results(texts)

    def _results(self, texts: list[str]) -> list[dict[str, Any]]:
        """The answers, with the api's limits.

        Raises:
            Unprocessable: too many texts, or one that is empty, too long or not Unicode.
        """
        if not 1 <= len(texts) <= self._settings.max_texts:
            raise Unprocessable(
                f"texts: {len(texts)} where 1 to {self._settings.max_texts} are taken: send them in parts"
            )
        for number, text in enumerate(texts):
            if not is_unicode(text):
                raise Unprocessable(f"texts[{number}]: a lone surrogate is no character")
            taken = self._settings.max_characters
            # what cleaning costs is bounded by this
            length = len(text) if len(text) > raw_bound(taken) else len(clean(text))
            if not 1 <= length <= taken:
                raise Unprocessable(f"texts[{number}]: {length} characters where 1 to {taken} are taken")
        return [self._scorer.result(score) for score in self._scorer.score(texts)]
