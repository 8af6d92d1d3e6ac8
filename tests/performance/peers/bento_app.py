"""BentoML: a service with adaptive batching (/adaptive), and the same without (/classify, /classify/batch).

    PEER_BUNDLE=bundle PEER_WORKERS=2 bentoml serve tests.performance.peers.bento_app:Classifier

A batchable endpoint takes a list, so a single headline goes to it as a list of one: a service in front that
takes a text would cost one more hop. PEER_CALLS is `threads`, the calls a worker computes at a time.
"""

from __future__ import annotations

from typing import Any

import bentoml

from tests.performance.peers.model import Model, setting


@bentoml.service(
    workers=setting("WORKERS"),
    threads=setting("CALLS"),
    traffic={"timeout": 60},
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
)
class Classifier:
    """A model a worker."""

    def __init__(self) -> None:
        self._model = Model()

    @bentoml.api(route="/adaptive", batchable=True, max_batch_size=64, max_latency_ms=10_000)
    def adaptive(self, texts: list[str]) -> list[dict[str, Any]]:
        """What several requests sent, together."""
        return self._model(texts)

    @bentoml.api(route="/classify")
    def classify(self, text: str) -> dict[str, Any]:
        """One headline."""
        return self._model([text])[0]

    @bentoml.api(route="/classify/batch")
    def classify_batch(self, texts: list[str]) -> dict[str, Any]:
        """Many headlines."""
        return {"results": self._model(texts)}
