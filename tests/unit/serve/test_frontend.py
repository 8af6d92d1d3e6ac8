"""The page's client: what answers at its address, or does not, is told in one line."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from serve.frontend import ApiError, Client


@contextmanager
def answering(data: bytes) -> Iterator[str]:
    """A server that sends the bytes, whatever is asked."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65_536)
            self.request.sendall(data)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def ok(body: Any) -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(data), data)


ONE = {"label": "news", "score": 0.1, "model": "v1"}
OTHERS = {
    "another protocol": bytes.fromhex("00001804000000000000040000ffff"),
    "nothing": b"",
    "a page": ok(b"<html></html>"),
    "no UTF-8": ok(b"\xff\xfe{}"),
    "a list": ok([]),
    "a word": ok("hello"),
    "other names": ok({"status": "ok"}),
    "half an answer": b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{",
    "results of another shape": ok({"results": [{"name": 1}]}),
    "too few results": ok({"results": []}),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_a_port_that_is_no_api_is_one_line(kind: str) -> None:
    with answering(OTHERS[kind]) as url:
        client = Client(url, timeout_s=5)
        for call in (client.model, lambda: client.explain("a"), lambda: client.classify(["a"])):
            with pytest.raises(ApiError) as told:
                call()
            assert "\n" not in str(told.value)
            assert "Error" not in str(told.value)


def test_an_answer_of_the_api_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # which the loopback never goes through
    with answering(ok({"results": [ONE]})) as url:
        assert Client(url).classify(["a"]) == [ONE]


@pytest.mark.parametrize("url", ["", "api:8000", "http://", "http://[::1"])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(ApiError, match="CLICKBAIT_API_URL"):
        Client(url)
