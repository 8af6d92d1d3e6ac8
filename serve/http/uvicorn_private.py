"""HTTP/1.1 for our own listeners: uvicorn's protocol on httptools, faster and with limits.

This is the only module that uses private parts of uvicorn. Import it through `serve.http.protocol`, which
checks the version first.

Faster: uvicorn checks each header of an answer with two regular expressions, and writes head and body
separately. Here a complete answer is composed, checked and written in one step. Limits: uvicorn limits
neither the size of a request's head nor the time for it. Here both are limited, so half-open connections end
by themselves. Requests that are not HTTP get the api's own error body.

HTTP/1.1 is the only protocol. A request that asks to change to WebSocket or HTTP/2 (`Upgrade`) is answered by
HTTP/1.1, with its body, as RFC 9110 section 7.8 allows.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import random
import secrets
from typing import Any
from urllib.parse import unquote

import httptools
import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

MAX_HEAD = 65_536  # bytes of a request line and its headers; browsers and proxies stay below a fifth of it
LINGER_S = 2.0  # as nginx gives a client to be silent
HEAD_S = 10.0  # from a connection, or from a request's first byte, to the end of its headers
_SLICE = 16_384  # bytes parsed at a time: within one, nobody counts where a head begins
_NOT_HTTP = (
    400,
    "BadRequest",
    "this is not a whole HTTP/1.1 request: check the request line, the headers and the length of the body",
)
_LONG_HEAD = (
    431,
    "HeadTooLarge",
    f"the request line and the headers have more than {MAX_HEAD} bytes: send fewer headers, or shorter ones",
)
_FAILED = (500, "InternalError", "the server failed: report it with the request_id")
_UPGRADE = frozenset({b"connection", b"upgrade", b"http2-settings"})
_ids = (
    b"%b%08x" % (server, number) for server in [secrets.token_hex(8).encode()] for number in itertools.count()
)
_USED_METHODS = (
    "_should_upgrade_to_ws",
    "_start_asgi_task",
    "_unset_keepalive_if_required",
    "on_message_begin",
    "on_message_complete",
    "on_response_complete",
    "timeout_keep_alive_handler",
)
_CYCLE_ARGUMENTS = (
    "scope",
    "transport",
    "flow",
    "logger",
    "access_logger",
    "access_log",
    "default_headers",
    "message_event",
    "expect_100_continue",
    "keep_alive",
    "on_response",
)


def check() -> None:
    """Checks that uvicorn's classes have what is used here.

    Raises:
        AttributeError, TypeError: a method is missing, or takes other arguments.
    """
    for name in _USED_METHODS:
        getattr(HttpToolsProtocol, name)
    inspect.signature(RequestResponseCycle).bind(**dict.fromkeys(_CYCLE_ARGUMENTS))


class Protocol(HttpToolsProtocol):
    """One connection."""

    leaving = False
    """Set on a subclass: the server shuts down, so every answer closes its connection."""
    max_age_s: float | None = None
    """Set on a subclass: an older connection is closed with its next answer, give or take a fifth."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Nobody keeps a connection open without asking for anything."""
        super().connection_made(transport)
        self._head = 0  # bytes of a head that is not complete, but for the slice that it begins in
        self._slice = 0  # bytes of the slice that is being parsed
        self._running: RequestResponseCycle | None = None  # the request that those in the queue wait for
        self._upgrading = False  # the head that was just parsed asks for another protocol
        self._refused: bytes | None = None  # an answer that ends the connection, once those before it are out
        self._slow: asyncio.TimerHandle | None = None
        self._old = self.loop.time() + self.max_age_s * random.uniform(0.8, 1.2) if self.max_age_s else None  # noqa: S311
        self._in_head = True
        self._ended = False
        self._hurry()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancels the timer, and tells the running request that its client has left.

        uvicorn tells only the last request, and others may be in front of it.
        """
        self._patient()
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parses. What is no HTTP, or a head that is too long or too slow, ends the connection."""
        if len(data) <= _SLICE:
            self._parse(data)
            return
        view = memoryview(data)
        for start in range(0, len(data), _SLICE):
            self._parse(view[start : start + _SLICE])

    def _parse(self, data: bytes | memoryview) -> None:
        """Parses a slice."""
        if self._refused is not None:
            return
        self._slice = len(data)
        try:
            while True:
                try:
                    self.parser.feed_data(data)
                    break
                except httptools.HttpParserUpgrade as upgrade:
                    data = self._without_upgrade() + data[upgrade.args[0] :]
        except httptools.HttpParserError:
            if self._refused is None:
                self._refuse(*_NOT_HTTP)
            return
        if self._in_head and not self.transport.is_closing():
            self._head += len(data)
            if self._head > MAX_HEAD:
                self._refuse(*_LONG_HEAD)
            elif self._slow is None:
                self._hurry()

    def _without_upgrade(self) -> bytes:
        """Writes the parsed head again without its `Upgrade`, and makes a new parser for it.

        The old parser accepted the head as complete and well-formed, but it would not read a body after it.
        """
        headers = [(name, value) for name, value in self.headers if name not in _UPGRADE]
        options = [
            option.strip().lower()
            for name, value in self.headers
            if name == b"connection"
            for option in value.split(b",")
        ]
        headers += [(b"connection", option) for option in options if option not in _UPGRADE]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it
        self._upgrading = False
        request_line = b"%b %b HTTP/%b\r\n" % (
            self.scope["method"].encode(),
            self.url,
            self.scope["http_version"].encode(),
        )
        return request_line + b"".join(b"%b: %b\r\n" % header for header in headers) + b"\r\n"

    def on_message_begin(self) -> None:
        """A new request's first bytes."""
        super().on_message_begin()
        if (
            self.timeout_keep_alive_task is not None
        ):  # not at any byte: blank lines are no request, and would keep the connection for ever
            self._unset_keepalive_if_required()
        self._in_head, self._head = True, -self._slice  # what is before it in this slice is another request's

    def on_headers_complete(self) -> None:
        """Starts the application, or queues the request behind the one that this connection waits for."""
        if self._head + self._slice + _SLICE > MAX_HEAD and self._length() > MAX_HEAD:
            self._refuse(*_LONG_HEAD)
            raise _Refused
        parser, scope = self.parser, self.scope
        version = parser.get_http_version()
        scope["method"] = parser.get_method().decode("ascii")
        if version != "1.1":
            scope["http_version"] = version
        if parser.should_upgrade() and scope["method"] != "CONNECT":
            self._upgrading = True
            return
        self._in_head, self._head = False, 0
        self._patient()
        if (
            self.timeout_keep_alive_task is not None
        ):  # the answer before this request came after the request's first bytes
            self._unset_keepalive_if_required()
        url = httptools.parse_url(self.url)
        path = url.path.decode("ascii")
        scope["path"] = self.root_path + (unquote(path) if "%" in path else path)
        scope["raw_path"] = self.root_path.encode("ascii") + url.path
        scope["query_string"] = url.query or b""
        keep_alive = version != "1.0" and parser.should_keep_alive() and not self.leaving
        if self._old is not None and self.loop.time() > self._old:
            keep_alive = False
        before = self.cycle
        self.cycle: _Cycle = _Cycle(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=keep_alive,
            on_response=self.on_response_complete,
        )
        self.cycle.connection = self
        if before is None or before.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:
            self.flow.pause_reading()
            if not self.pipeline:
                self._running = before
            self.pipeline.appendleft((self.cycle, self.app))

    def on_message_complete(self) -> None:
        """The last of a request."""
        if self._upgrading:
            return
        super().on_message_complete()
        if self._ended:
            self.transport.close()

    def on_response_complete(self) -> None:
        """Starts the next queued request, or sends a refusal, or waits for more."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._running, app = self.pipeline.pop()
            self._start_asgi_task(self._running, app)
        elif self._refused is not None:
            self._write_refusal()
        else:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _refuse(self, status: int, kind: str, told: str) -> None:
        """Ends the connection with an error, after the answers to the complete requests before it."""
        if self._ended:  # its last answer is out
            self.transport.close()
            return
        request_id = next(_ids)
        body = orjson.dumps({"error": told, "error_type": kind, "request_id": request_id.decode()})
        headers = (
            b"content-type: application/json\r\ncontent-length: %d\r\nx-request-id: %b\r\nconnection: "
            b"close\r\n\r\n"
        )
        self._refused = STATUS_LINE[status] + headers % (len(body), request_id) + body
        self._patient()
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            self._write_refusal()
        elif cycle.more_body:  # what cannot be read is the rest of this request
            if self.pipeline:
                self.pipeline.popleft()
                return
            cycle.disconnected = True
            cycle.message_event.set()
            if cycle.response_started:
                self.transport.close()
            else:
                self._write_refusal()

    def _write_refusal(self) -> None:
        if self._refused is not None and not self.transport.is_closing():
            self._unset_keepalive_if_required()
            self.transport.write(self._refused)
            self._linger()

    def _length(self) -> int:
        """The bytes of a head that is complete, as it was sent but for white space around values."""
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def end(self, more_body: bool) -> None:
        """Closes the connection after an answer.

        `more_body`: the client has not sent all of that request.
        """
        if more_body:
            self._linger()
        else:
            self.transport.close()

    def _linger(self) -> None:
        """Closes after a moment, so that the client can send the rest of its request.

        Without the delay, a reset could destroy the answer.
        """
        self._patient()
        if self.transport.can_write_eof():
            self._ended = True
            self.transport.write_eof()
            self._slow = self.loop.call_later(LINGER_S, self._too_slow)
        else:
            self.transport.close()

    def _should_upgrade_to_ws(self) -> bool:
        return False

    def _hurry(self) -> None:
        self._slow = self.loop.call_later(HEAD_S, self._too_slow)

    def _patient(self) -> None:
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None

    def _too_slow(self) -> None:
        self._slow = None
        if not self.transport.is_closing():
            self.transport.close()


class _Refused(Exception):
    """Ends the parsing of a connection that is answered already."""


class _Cycle(RequestResponseCycle):
    """One request and its answer."""

    connection: Protocol
    _start: Any = None  # the head, until its body comes

    async def send(self, message: Any) -> None:
        """As ASGI has it."""
        start = self._start
        if (
            start is None or message["type"] == "http.response.start"
        ):  # a second one: the application failed, and uvicorn says so
            if message["type"] != "http.response.start" or self.response_started or self.access_log:
                await super().send(message)
            else:
                self._start = message
            return
        self._start = None
        if (
            self.more_body
        ):  # it answers before it has read all: what is still to come is not worth the connection
            self.keep_alive = False
        body = message.get("body", b"")
        head = (
            None
            if message.get("more_body", False) or self.flow.write_paused
            else self._whole(start, len(body))
        )
        if head is None:
            await super().send(start)
            await super().send(message)
        elif not self.disconnected:
            self.response_started = self.response_complete = True
            self.waiting_for_100_continue = False
            self.transport.write(head if self.scope["method"] == "HEAD" else head + body)
            self.message_event.set()
            if not self.keep_alive:
                self.connection.end(self.more_body)
            self.on_response()

    async def send_500_response(self) -> None:
        """The application failed, or its answer cannot be sent."""
        status, kind, told = _FAILED
        request_id = next(_ids)
        body = orjson.dumps({"error": told, "error_type": kind, "request_id": request_id.decode()})
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", request_id),
        ]
        await self.send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [*headers, (b"connection", b"close")],
            }
        )
        await self.send({"type": "http.response.body", "body": body})

    def _whole(self, start: Any, length: int) -> bytes | None:
        """The head of an answer whose body is complete; None leaves it to uvicorn.

        A head with a line end inside a header is left to uvicorn too.
        """
        lines = [STATUS_LINE[start["status"]]]
        headers = [*self.default_headers, *start.get("headers", ())]
        if not self.keep_alive:
            headers.append((b"connection", b"close"))
        told = -1
        for name, value in headers:
            if name == b"content-length":
                told = int(value)
            elif name == b"transfer-encoding" or (name == b"connection" and self.keep_alive):
                return None
            lines += (name, b": ", value, b"\r\n")
        lines.append(b"\r\n")
        head = b"".join(lines)
        ends = len(headers) + 2
        return head if told == length and head.count(b"\r") == head.count(b"\n") == ends else None
