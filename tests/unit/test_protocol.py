"""Our listeners' HTTP: answers as uvicorn would give them, and bounds on what a client may do with a connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn

from serve import ports, protocol
from serve.protocol import Protocol

ASK = b"POST /classify?a=b HTTP/1.1\r\nHost: here\r\nContent-Length: 2\r\n\r\nhi"


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Says what it was asked."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message["body"], message["more_body"]
    told = f"{scope['method']} {scope['path']} {scope['query_string'].decode()} {body.decode()}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(told))]})
    await send({"type": "http.response.body", "body": told})


@asynccontextmanager
async def listening(app: Any, kind: type[Protocol] = Protocol) -> AsyncIterator[int]:
    with ports.bind("127.0.0.1", 0) as bound:
        config = uvicorn.Config(app, http=kind, ws="none", lifespan="off", access_log=False, log_config=None)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server._serve([bound]))
        for _ in range(500):
            if not server.started:
                await asyncio.sleep(0.01)
        try:
            yield int(bound.getsockname()[1])
        finally:
            server.should_exit = True
            await serving


async def said(port: int, *sent: bytes, seconds: float = 0.3) -> bytes:
    """What comes back until the connection ends, or nothing more comes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    found = b""
    try:
        for part in sent:
            writer.write(part)
            await asyncio.sleep(0.05)
        while part := await asyncio.wait_for(reader.read(65_536), seconds):
            found += part
        found += b"<end>"
    except TimeoutError:
        pass
    finally:
        writer.close()
    return found


def asked(app: Any, *sent: bytes, kind: type[Protocol] = Protocol, seconds: float = 0.3) -> bytes:
    async def main() -> bytes:
        async with listening(app, kind) as port:
            return await said(port, *sent, seconds=seconds)

    return asyncio.run(main())


def test_a_request_is_answered_and_the_connection_is_kept() -> None:
    found = asked(echo, ASK)
    assert found.startswith(b"HTTP/1.1 200 OK\r\n")
    assert found.endswith(b"\r\n\r\nPOST /classify a=b hi")


def test_requests_that_come_together_are_answered_in_order() -> None:
    found = asked(echo, ASK + ASK.replace(b"hi", b"ho"), ASK.replace(b"classify", b"%63"))
    assert [found.find(word) for word in (b"a=b hi", b"a=b ho", b"/c a=b hi")] == sorted(
        found.find(word) for word in (b"a=b hi", b"a=b ho", b"/c a=b hi")
    )
    assert found.count(b"HTTP/1.1 200") == 3


@pytest.mark.parametrize("parts", [[ASK[:5], ASK[5:40], ASK[40:]], [ASK[:-1], ASK[-1:]], [ASK[:-2] + b"h", b"i"]])
def test_a_request_in_pieces_is_one(parts: list[bytes]) -> None:
    assert asked(echo, *parts).endswith(b"a=b hi")


@pytest.mark.parametrize("ask", [ASK.replace(b"/1.1", b"/1.0"), ASK.replace(b"Host: here", b"Host: here\r\nConnection: close")])
def test_who_wants_no_more_is_told_so(ask: bytes) -> None:
    found = asked(echo, ask)
    assert found.count(b"connection: close") == 1
    assert found.endswith(b"<end>")


def test_a_chunked_body_and_one_that_waits_to_be_asked_for() -> None:
    chunked = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
    assert asked(echo, chunked).endswith(b"POST /  hi")
    expects = ASK.replace(b"Host", b"Expect: 100-continue\r\nHost")
    assert asked(echo, expects[:-2], b"hi").startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200")


@pytest.mark.parametrize("attribute", [{"leaving": True}, {"max_age_s": 1e-9}])
def test_a_server_that_goes_or_an_old_connection_ends_with_its_answer(attribute: dict[str, Any]) -> None:
    found = asked(echo, ASK, kind=type("Other", (Protocol,), attribute))
    assert b"connection: close\r\n" in found
    assert found.endswith(b"a=b hi<end>")


def test_who_sends_no_request_or_half_of_one_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_S", 0.1)
    for sent in ([], [ASK[:20]], [ASK, ASK[:20]]):
        assert asked(echo, *sent, seconds=2).endswith(b"<end>"), sent
    assert not asked(echo, ASK).endswith(b"<end>"), "a connection that was used is kept"


def test_headers_without_end_are_refused() -> None:
    found = asked(echo, b"GET / HTTP/1.1\r\n", *[b"x-a: " + 40_000 * b"a" + b"\r\n"] * 2, seconds=2)
    assert found.startswith(b"HTTP/1.1 400")
    assert found.endswith(b"<end>")


def test_who_is_refused_while_sending_hears_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is closed on a client that still sends is reset, and its answer lost."""
    refuse = _sends({**START, "status": 413, "headers": [(b"content-length", b"5")]}, BODY)
    length = 4_000_000
    head = b"POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % length

    async def main(sent: int) -> list[bytes]:
        async with listening(refuse) as port:
            return [await said(port, head, *[b"x" * (sent // 4)] * 4, seconds=3) for _ in range(5)]

    for found in asyncio.run(main(length)):
        assert found.startswith(b"HTTP/1.1 413")
        assert b"connection: close" in found
        assert found.endswith(b"hello<end>")
    monkeypatch.setattr(protocol, "LINGER_S", 0.5)
    assert asyncio.run(main(4000))[0].endswith(b"hello<end>"), "who sends no more is not waited for"


def _sends(*messages: dict[str, Any]) -> Callable[..., Any]:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    return app


START = {"type": "http.response.start", "status": 200}
BODY = {"type": "http.response.body", "body": b"hello"}


def test_what_is_not_whole_goes_out_as_uvicorn_has_it() -> None:
    parts = asked(_sends({**START, "headers": []}, {**BODY, "more_body": True}, BODY), ASK)
    assert b"transfer-encoding: chunked" in parts
    assert parts.endswith(b"5\r\nhello\r\n5\r\nhello\r\n0\r\n\r\n")
    head = asked(_sends({**START, "headers": [(b"content-length", b"5")]}, BODY), ASK.replace(b"POST", b"HEAD"))
    assert head.endswith(b"content-length: 5\r\n\r\n")


@pytest.mark.parametrize("value", [b"a\r\nx-more: b", b"a\nb", b"a\rb"])
def test_no_header_becomes_two(value: bytes) -> None:
    found = asked(_sends({**START, "headers": [(b"content-length", b"5"), (b"x-request-id", value)]}, BODY), ASK)
    assert not found.startswith(b"HTTP/1.1 200")
    assert b"x-more" not in found


def test_an_application_that_fails_after_its_head_is_a_500() -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        await send({**START, "headers": [(b"content-length", b"5")]})
        raise RuntimeError("half an answer")

    assert asked(fails, ASK).startswith(b"HTTP/1.1 500")
