"""HTTP/1.1 for our own listeners: uvicorn's protocol on httptools, with less between the parser and the application, and with bounds.

uvicorn checks each header of an answer with two regular expressions and writes head and body apart; here an answer that is whole is
composed, checked and written at once. uvicorn bounds neither the bytes of a request's head nor how long one may take; here both are
bounded, so half-open connections end by themselves. WebSockets are not served.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

MAX_HEAD = 65_536  # bytes of a request line and its headers; browsers and proxies stay below a fifth of it
LINGER_S = 2.0  # as nginx gives a client to be silent
HEAD_S = 10.0  # from a connection, or from a request's first byte, to the end of its headers


class Protocol(HttpToolsProtocol):
    """One connection."""

    leaving = False
    """Set on a subclass: the server goes, so every answer closes its connection."""
    max_age_s: float | None = None
    """Set on a subclass: a connection that is older is closed with its next answer, give or take a fifth."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Nobody keeps a connection open without asking for anything."""
        super().connection_made(transport)
        self._head = 0  # bytes of a head that is not complete
        self._slow: asyncio.TimerHandle | None = None
        self._old = self.loop.time() + self.max_age_s * random.uniform(0.8, 1.2) if self.max_age_s else None  # noqa: S311
        self._in_head = True
        self._ended = False
        self._hurry()

    def connection_lost(self, exc: Exception | None) -> None:
        """No timer outlives it."""
        self._patient()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parses; a head that is too long or too slow ends the connection."""
        super().data_received(data)
        if self._in_head and not self.transport.is_closing():
            self._head += len(data)
            if self._head > MAX_HEAD:
                self.send_400_response("The request's headers are too long.")
            elif self._slow is None:
                self._hurry()

    def on_message_begin(self) -> None:
        """A new request's first bytes."""
        super().on_message_begin()
        self._in_head = True

    def on_headers_complete(self) -> None:
        """Starts the application, or queues the request behind the one that this connection waits for."""
        self._in_head, self._head = False, 0
        self._patient()
        parser, scope = self.parser, self.scope
        version = parser.get_http_version()
        scope["method"] = parser.get_method().decode("ascii")
        if version != "1.1":
            scope["http_version"] = version
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
            self.pipeline.appendleft((self.cycle, self.app))

    def on_message_complete(self) -> None:
        """The last of a request."""
        super().on_message_complete()
        if self._ended:
            self.transport.close()

    def end(self) -> None:
        """Closes, but not before the client has sent the rest of its request, for a moment: a reset could take the answer with it."""
        if self.cycle.more_body and self.transport.can_write_eof():
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


class _Cycle(RequestResponseCycle):
    """One request and its answer."""

    connection: Protocol
    _start: Any = None  # the head, until its body comes

    async def send(self, message: Any) -> None:
        """As ASGI has it."""
        start = self._start
        if start is None or message["type"] == "http.response.start":  # a second one: the application failed, and uvicorn says so
            if message["type"] != "http.response.start" or self.response_started or self.access_log:
                await super().send(message)
            else:
                self._start = message
            return
        self._start = None
        if self.more_body:  # it answers before it has read all: what is still to come is not worth the connection
            self.keep_alive = False
        body = message.get("body", b"")
        head = None if message.get("more_body", False) or self.flow.write_paused else self._whole(start, len(body))
        if head is None:
            await super().send(start)
            await super().send(message)
        elif not self.disconnected:
            self.response_started = self.response_complete = True
            self.waiting_for_100_continue = False
            self.transport.write(head if self.scope["method"] == "HEAD" else head + body)
            self.message_event.set()
            if not self.keep_alive:
                self.connection.end()
            self.on_response()

    def _whole(self, start: Any, length: int) -> bytes | None:
        """The head of an answer whose body is there; None leaves it to uvicorn, and so does a line end where none may be."""
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
