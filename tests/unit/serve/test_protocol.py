"""Our listeners' HTTP: answers as uvicorn would give them, and bounds on what a client may do with a
connection.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from serve import ports
from serve.http import protocol as protocols
from serve.http import uvicorn_private
from serve.http.uvicorn_private import MAX_HEAD, Protocol

ASK = b"POST /classify?a=b HTTP/1.1\r\nHost: here\r\nContent-Length: 2\r\n\r\nhi"


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Says what it was asked."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message["body"], message["more_body"]
    told = f"{scope['method']} {scope['path']} {scope['query_string'].decode()} {body.decode()}".encode()
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(told))]}
    )
    await send({"type": "http.response.body", "body": told})


@asynccontextmanager
async def listening(app: Any, kind: type[Protocol] = Protocol) -> AsyncIterator[int]:
    with ports.bind("127.0.0.1", 0) as bound:
        config = uvicorn.Config(app, http=kind, ws="none", lifespan="off", access_log=False, log_config=None)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[bound]))
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


@pytest.mark.parametrize(
    "parts", [[ASK[:5], ASK[5:40], ASK[40:]], [ASK[:-1], ASK[-1:]], [ASK[:-2] + b"h", b"i"]]
)
def test_a_request_in_pieces_is_one(parts: list[bytes]) -> None:
    assert asked(echo, *parts).endswith(b"a=b hi")


@pytest.mark.parametrize(
    "ask", [ASK.replace(b"/1.1", b"/1.0"), ASK.replace(b"Host: here", b"Host: here\r\nConnection: close")]
)
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
    monkeypatch.setattr(uvicorn_private, "HEAD_S", 0.1)
    for sent in ([], [ASK[:20]], [ASK, ASK[:20]]):
        assert asked(echo, *sent, seconds=2).endswith(b"<end>"), sent
    assert not asked(echo, ASK).endswith(b"<end>"), "a connection that was used is kept"


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
    monkeypatch.setattr(uvicorn_private, "LINGER_S", 0.5)
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
    head = asked(
        _sends({**START, "headers": [(b"content-length", b"5")]}, BODY), ASK.replace(b"POST", b"HEAD")
    )
    assert head.endswith(b"content-length: 5\r\n\r\n")


@pytest.mark.parametrize("value", [b"a\r\nx-more: b", b"a\nb", b"a\rb"])
def test_no_header_becomes_two(value: bytes) -> None:
    found = asked(
        _sends({**START, "headers": [(b"content-length", b"5"), (b"x-request-id", value)]}, BODY), ASK
    )
    assert not found.startswith(b"HTTP/1.1 200")
    assert b"x-more" not in found


def test_an_application_that_fails_after_its_head_is_a_500() -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        await send({**START, "headers": [(b"content-length", b"5")]})
        raise RuntimeError("half an answer")

    assert asked(fails, ASK).startswith(b"HTTP/1.1 500")


# One connection without sockets: what is received in which pieces is exact.


class Wire(asyncio.Transport):
    """A transport that keeps what is written to it. Like a socket it takes nothing once it is closed, or its
    end is written.
    """

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.ended = False

    def write(self, data: Any) -> None:
        assert not self.ended
        self.written += bytes(data)

    def close(self) -> None:
        self.ended = True

    write_eof = close

    def can_write_eof(self) -> bool:
        return True

    def is_closing(self) -> bool:
        return self.ended

    def closed(self, connection: Protocol) -> bytes:
        """The client goes: what it has heard, and whether the server had ended the connection."""
        found = self.written + b"<end>" * self.ended
        connection.connection_lost(None)
        return found

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading


def connect(app: Any) -> tuple[Protocol, Wire]:
    config = uvicorn.Config(app, http=Protocol, ws="none", lifespan="off", log_config=None)
    config.load()
    connection, wire = Protocol(config, ServerState(), {}), Wire()
    connection.connection_made(wire)
    return connection, wire


async def settle() -> None:
    for _ in range(8):
        await asyncio.sleep(0)


def heard(app: Any, *received: bytes) -> bytes:
    """What comes back where these pieces are received, one at a time."""

    async def main() -> bytes:
        connection, wire = connect(app)
        for piece in received:
            connection.data_received(piece)
            await settle()
        return wire.closed(connection)

    return asyncio.run(main())


H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n"
WEBSOCKET = b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
CHUNKED = (
    b"POST /chunked HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n3;a=b\r\n "
    b"ho\r\n0\r\n\r\n"
)


def posted(path: bytes, body: bytes, more: bytes = b"") -> bytes:
    return b"POST %b HTTP/1.1\r\nHost: here\r\n%bContent-Length: %d\r\n\r\n%b" % (path, more, len(body), body)


def bodies(found: bytes) -> list[bytes]:
    """Of answers with 200 and a content-length."""
    parts = [
        part.partition(b"\r\n\r\n") for part in found.removesuffix(b"<end>").split(b"HTTP/1.1 200 OK\r\n")[1:]
    ]
    for head, _, body in parts:
        assert b"content-length: %d" % len(body) in head
    return [body for _, _, body in parts]


def refusal(found: bytes, status: int) -> dict[str, str]:
    """The error's body of an answer that ends the connection."""
    head, _, body = found.partition(b"HTTP/1.1 %d " % status)[2].partition(b"\r\n\r\n")
    assert b"content-type: application/json" in head
    assert b"connection: close" in head
    assert body.endswith(b"<end>"), found
    body = body.removesuffix(b"<end>")
    assert b"content-length: %d" % len(body) in head
    told: dict[str, str] = json.loads(body)
    assert told.keys() == {"error", "error_type", "request_id"}
    assert f"x-request-id: {told['request_id']}".encode() in head
    return told


STREAM = b"".join(
    [
        posted(b"/one", b"hi"),
        b"GET /two?x=y HTTP/1.1\r\nHost: h\r\n\r\n",
        CHUNKED,
        posted(b"/h2c", b"GET / HTTP/1.1\r\n\r\n", H2C),
        b"\r\n",
        posted(b"/websocket", b"ho", WEBSOCKET),
        CHUNKED.replace(b"Host: h\r\n", H2C),
        posted(b"/last", b"x" * 20),
    ]
)
ANSWERS = [
    b"POST /one  hi",
    b"GET /two x=y ",
    b"POST /chunked  hi ho",
    b"POST /h2c  GET / HTTP/1.1\r\n\r\n",
    b"POST /websocket  ho",
    b"POST /chunked  hi ho",
    b"POST /last  " + b"x" * 20,
]


def test_pipelined_requests_are_answered_in_order_wherever_the_stream_is_cut() -> None:
    assert bodies(heard(echo, STREAM)) == ANSWERS
    assert bodies(heard(echo, *[STREAM[place : place + 1] for place in range(len(STREAM))])) == ANSWERS
    for cut in range(1, len(STREAM)):
        assert bodies(heard(echo, STREAM[:cut], STREAM[cut:])) == ANSWERS, STREAM[:cut]


@pytest.mark.parametrize("size", [MAX_HEAD - 200, MAX_HEAD, 3 * MAX_HEAD])
def test_a_request_behind_a_large_body_is_not_taken_for_a_long_head(size: int) -> None:
    stream = posted(b"/large", b"x" * size) + posted(b"/next", b"hi")
    for cut in (len(stream) - 40, len(stream) - 4):
        assert [len(body) for body in bodies(heard(echo, stream[:cut], stream[cut:]))] == [
            len(b"POST /large  ") + size,
            14,
        ]


def headed(length: int) -> bytes:
    """A request whose head has so many bytes."""
    start, end = b"GET / HTTP/1.1\r\nx-a: ", b"\r\nx-b: c\r\n\r\n"
    return start + b"a" * (length - len(start) - len(end)) + end


@pytest.mark.parametrize("pieces", [1, 2, 40])
@pytest.mark.parametrize("before", [b"", posted(b"/before", b"x" * 100_000)])
def test_a_head_of_more_than_64_kib_is_refused_however_it_comes(pieces: int, before: bytes) -> None:
    def sent(length: int) -> bytes:
        stream = before + headed(length)
        step = -(-len(stream) // pieces)
        return heard(echo, *[stream[place : place + step] for place in range(0, len(stream), step)])

    count = 1 + bool(before)
    assert len(bodies(sent(MAX_HEAD - 20))) == count
    for length in (MAX_HEAD + 200, 4 * MAX_HEAD):
        found = sent(length)
        assert found.count(b"HTTP/1.1 200") == count - 1
        assert refusal(found, 431)["error_type"] == "HeadTooLarge"


def test_a_head_without_end_is_refused() -> None:
    for line in (b"x-a: " + b"a" * 1000 + b"\r\n", b"a" * 1000, b"\r\n" * 500):
        start = b"" if line[:1] == b"\r" else b"GET / HTTP/1.1\r\nx-a: "
        assert refusal(heard(echo, start, *[line] * 90), 431)["error_type"] == "HeadTooLarge"


@pytest.mark.parametrize(
    "sent",
    [
        b"abracadabra\r\n\r\n",
        b"INVENTED / HTTP/1.1\r\nHost: h\r\n\r\n",
        b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET http://h:port/ HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost h\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: two\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nabracadabra\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\n%bTransfer-Encoding: chunked\r\n\r\nabracadabra\r\n" % H2C,
        b"\x16\x03\x01\x02\x00\x01\x00",  # TLS
    ],
)
@pytest.mark.parametrize("before", [b"", posted(b"/before", b"hi")])
def test_what_is_no_http_is_refused_with_the_api_s_error_body_behind_what_came_before(
    sent: bytes, before: bytes
) -> None:
    found = heard(echo, before + sent)
    assert found.count(b"HTTP/1.1 200") == bool(before)
    assert found.startswith(b"HTTP/1.1 200" if before else b"HTTP/1.1 400")
    told = refusal(found, 400)
    assert told["error_type"] == "BadRequest"
    assert "abracadabra" not in told["error"]


def test_a_refusal_waits_for_the_answers_before_it() -> None:
    gate = asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await gate.wait()
        await echo(scope, receive, send)

    async def main() -> tuple[bytes, bytes]:
        connection, wire = connect(slow)
        connection.data_received(posted(b"/one", b"hi") + posted(b"/two", b"ho") + b"no HTTP\r\n\r\n")
        await settle()
        before = wire.written
        gate.set()
        await settle()
        return before, wire.closed(connection)

    before, found = asyncio.run(main())
    assert before == b""
    assert [found.find(word) for word in (b"/one", b"/two", b"HTTP/1.1 400")] == sorted(
        found.find(word) for word in (b"/one", b"/two", b"HTTP/1.1 400")
    )
    refusal(found, 400)


def test_a_client_that_goes_is_missed_by_every_request_that_it_sent() -> None:
    started: list[str] = []
    missed: list[str] = []

    async def waits(scope: Any, receive: Any, send: Any) -> None:
        started.append(scope["path"])
        while (await receive())["type"] != "http.disconnect":
            pass
        missed.append(scope["path"])

    async def main() -> None:
        connection, _ = connect(waits)
        connection.data_received(posted(b"/one", b"hi") + posted(b"/two", b"ho") + posted(b"/three", b"hi"))
        await settle()
        connection.connection_lost(None)
        await settle()

    asyncio.run(main())
    assert started == missed == ["/one"], "the others are never begun"


def test_blank_lines_do_not_keep_a_connection() -> None:
    async def main() -> bytes:
        connection, wire = connect(echo)
        connection.timeout_keep_alive = 0.05  # type: ignore[assignment]
        connection.data_received(posted(b"/one", b"hi"))
        await settle()
        connection.data_received(b"\r\n")
        for _ in range(100):
            await asyncio.sleep(0.02)
            if wire.ended:
                break
        return wire.closed(connection)

    assert asyncio.run(main()).endswith(b"hi<end>")


def test_an_application_that_fails_has_the_api_s_error_body() -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("abracadabra")

    told = refusal(heard(fails, posted(b"/", b"hi")), 500)
    assert told["error_type"] == "InternalError"
    assert "abracadabra" not in told["error"]


@pytest.fixture
def fresh() -> Iterator[None]:
    """`http_protocol` looks at uvicorn anew, and does so again after the test."""
    protocols._ours.cache_clear()
    yield
    protocols._ours.cache_clear()


def test_our_protocol_fits_the_installed_uvicorn(fresh: None, caplog: pytest.LogCaptureFixture) -> None:
    protocol = protocols.http_protocol(60.0)
    assert isinstance(protocol, type)
    assert issubclass(protocol, Protocol)
    assert protocol.max_age_s == 60.0
    assert not caplog.text


@pytest.mark.parametrize("surprise", ["version", "moved", "signature", "method"])
def test_another_uvicorn_is_served_by_its_own_implementation_after_one_warning(
    surprise: str, fresh: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if surprise == "version":
        monkeypatch.setattr(uvicorn, "__version__", "0.55.0")
    elif surprise == "moved":
        monkeypatch.delitem(sys.modules, "serve.http.uvicorn_private")
        monkeypatch.delattr(sys.modules["serve.http"], "uvicorn_private")
        monkeypatch.setitem(sys.modules, "uvicorn.protocols.http.httptools_impl", None)
    elif surprise == "signature":
        monkeypatch.setattr(uvicorn_private, "RequestResponseCycle", lambda scope, transport: None)
    else:
        monkeypatch.setattr(uvicorn_private, "HttpToolsProtocol", object)
    assert protocols.http_protocol() == protocols.http_protocol(60.0) == "httptools"
    assert len(caplog.records) == 1


def test_public_apis_only_is_a_choice_and_no_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(protocols.PUBLIC_APIS_ONLY, "1")
    assert protocols.http_protocol() == "httptools"
    assert not caplog.text
    monkeypatch.setenv(protocols.PUBLIC_APIS_ONLY, "0")
    assert protocols.http_protocol() != "httptools"
