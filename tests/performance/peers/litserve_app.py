"""LitServe: `decode_request`, `predict`, `encode_response`, with its dynamic batching for single headlines.

    PEER_BUNDLE=bundle PEER_WORKERS=2 PEER_BATCH=16 python -m tests.performance.peers.litserve_app 8000

Batches of a client have an endpoint of their own on the same port: they are batches already. PEER_BATCH is
`max_batch_size` and PEER_FAST_QUEUE=1 its queue over ZeroMQ.
"""

from __future__ import annotations

import sys
from typing import Any

import litserve

from tests.performance.peers.model import Model, setting

BATCH_TIMEOUT_S = 0.005  # a headline takes 2 ms: who waits longer than for two or three, waits for nothing


class Single(litserve.LitAPI):
    """One headline a request, batched by LitServe where `max_batch_size` is above 1."""

    def setup(self, device: str) -> None:
        self._model = Model()

    def decode_request(self, request) -> str:  # an annotation would be a schema to LitServe
        text: str = request["text"]
        return text

    def predict(self, inputs: Any) -> Any:
        return self._model([inputs])[0] if isinstance(inputs, str) else self._model(list(inputs))

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        return output


class Batch(litserve.LitAPI):
    """Many headlines a request."""

    def setup(self, device: str) -> None:
        self._model = Model()

    def decode_request(self, request) -> list[str]:
        texts: list[str] = request["texts"]
        return texts

    def predict(self, texts: list[str]) -> list[dict[str, Any]]:
        return self._model(texts)

    def encode_response(self, output: list[dict[str, Any]]) -> dict[str, Any]:
        return {"results": output}


def main() -> None:
    """Serves on the port given."""
    size, workers = setting("BATCH"), setting("WORKERS")
    single = Single(
        api_path="/classify", max_batch_size=size, batch_timeout=BATCH_TIMEOUT_S if size > 1 else 0.0
    )
    batch = Batch(api_path="/classify/batch")
    server = litserve.LitServer(
        [single, batch],
        accelerator="cpu",
        devices=1,
        workers_per_device=workers,
        fast_queue=bool(setting("FAST_QUEUE", 0)),
    )
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        num_api_servers=workers,
        log_level="warning",
        generate_client_file=False,
        access_log=False,
    )


if __name__ == "__main__":
    main()
