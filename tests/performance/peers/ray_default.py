"""Ray Serve as its tutorial on batching writes it: `@serve.batch` and Ray Serve's own defaults, behind its
own proxy.

PEER_BUNDLE=bundle RAY_SERVE_ENABLE_HA_PROXY=0 serve run tests.performance.peers.ray_default:app
"""

from __future__ import annotations

from typing import Any

from ray import serve
from starlette.requests import Request

from tests.performance.peers.model import Model


@serve.deployment
class Classifier:
    """A replica."""

    def __init__(self) -> None:
        self._model = Model()

    @serve.batch
    async def _batch(self, texts: list[str]) -> list[dict[str, Any]]:
        return self._model(texts)

    async def __call__(self, request: Request) -> dict[str, Any]:
        """One headline, or many: those are a batch already."""
        body = await request.json()
        if "texts" in body:
            return {"results": self._model(body["texts"])}
        found: dict[str, Any] = await self._batch(body["text"])
        return found


app = Classifier.bind()
