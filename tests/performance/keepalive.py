"""A pool of keep-alive connections that sends prepared HTTP/1.1 requests and tells what became of each: the
client under `openloop`.

Written by hand over asyncio's protocols, without a task or a parser for each request: on the server's own
machine, what the generator takes the server lacks. Nothing is sent twice: a lost answer counts as lost.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import Callable

MAX_CONNECTIONS = 2048  # the rest waits for a free one, its clock running
NO_RETRY_AFTER = "no Retry-After"
_REUSE_S = (
    2.0  # a connection that is idle for longer may be closed by the server just now: a new one is opened
)
_SWEEP_S = 0.05  # between two looks for requests whose time is over

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection:[ \t]*close", re.IGNORECASE)
_RETRY_AFTER = re.compile(rb"\r\nretry-after:[ \t]*\d", re.IGNORECASE)
_VERSION = re.compile(rb'"model":\s*"([^"]{1,64})"')
_KIND = re.compile(rb'"error_type":\s*"(\w{1,64})"')

Done = Callable[[float, float, int, str, str], None]
"""When the request was due and when it ended (`time.monotonic`), status (0: no answer), version, error."""


class Request:
    """A request on its way. `connection` is None while it waits for one."""

    __slots__ = ("connection", "data", "done", "due")

    def __init__(self, due: float, data: bytes) -> None:
        self.due = due
        self.data = data
        self.done = False
        self.connection: _Connection | None = None


class Pool:
    """Connections to one server, opened as they are needed. `done` is called once for each request."""

    def __init__(self, host: str, port: int, timeout_s: float, done: Done) -> None:
        self._host, self._port, self._timeout_s = host, port, timeout_s
        self._done = done
        self._idle: list[_Connection] = []
        self._waiting: deque[Request] = deque()
        # in order of their time, so that those who are late are on the left
        self._asked: deque[Request] = deque()
        self._open = 0  # connections, those that are being opened among them
        self._opening: set[asyncio.Task[None]] = set()
        self._all = False  # that will be asked is asked

    def ask(self, request: Request) -> None:
        """Sends it, on an idle connection if there is one."""
        self._asked.append(request)
        now = time.monotonic()
        while self._idle:
            connection = self._idle.pop()
            if connection.usable(now):
                connection.send(request)
                return
            connection.close()
        self._waiting.append(request)
        self._connect()

    async def watch(self) -> None:
        """Gives up what is late; returns when `end` was called and every request has its end."""
        while self._asked or not self._all:
            await asyncio.sleep(_SWEEP_S)
            late = time.monotonic() - self._timeout_s
            while self._asked and (self._asked[0].done or self._asked[0].due < late):
                request = self._asked.popleft()
                if not request.done:
                    self.finish(request, 0, "", "Timeout")
                    if request.connection is not None:
                        request.connection.close()  # its answer would be taken for the next request's
        for connection in self._idle:
            connection.close()

    def end(self) -> None:
        """No request comes any more."""
        self._all = True

    def free(self, connection: _Connection) -> None:
        """`connection` can take a request."""
        if request := self._next():
            connection.send(request)
        else:
            self._idle.append(connection)

    def lost(self, connection: _Connection) -> None:
        """`connection` is closed."""
        self._open -= 1
        if connection in self._idle:
            self._idle.remove(connection)
        if self._waiting:
            self._connect()

    def finish(self, request: Request, status: int, version: str, error: str) -> None:
        """The one end of a request; a second is ignored."""
        if not request.done:
            request.done = True
            self._done(request.due, time.monotonic(), status, version, error)

    def _connect(self) -> None:
        if self._open < MAX_CONNECTIONS:
            self._open += 1
            task = asyncio.get_running_loop().create_task(self._opened())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _opened(self) -> None:
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: _Connection(self), self._host, self._port
            )
        except OSError as error:
            self._open -= 1
            if request := self._next():
                self.finish(request, 0, "", type(error).__name__)

    def _next(self) -> Request | None:
        while self._waiting:
            request = self._waiting.popleft()
            if not request.done:
                return request
        return None


class _Connection(asyncio.Protocol):
    """One connection, with one request at a time."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._transport: asyncio.Transport | None = None
        self._request: Request | None = None
        self._received = bytearray()
        self._body = -1  # where it begins
        self._length: int | None = None  # of the body; None: it is chunked
        self._idle_since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._idle_since = time.monotonic()
        self._pool.free(self)

    def usable(self, now: float) -> bool:
        """Whether it is open and not about to be closed by the server."""
        return (
            self._transport is not None
            and not self._transport.is_closing()
            and now - self._idle_since < _REUSE_S
        )

    def send(self, request: Request) -> None:
        assert self._transport is not None
        self._request = request
        request.connection = self
        self._transport.write(request.data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._request is None:
            self.close()  # an answer to nothing
            return
        self._received += data
        if self._body < 0:
            if (end := self._received.find(b"\r\n\r\n")) < 0:
                return
            self._body = end + 4
            length = _LENGTH.search(self._received, 0, end)
            chunked = length is None and _CHUNKED.search(self._received, 0, end)
            self._length = None if chunked else int(length[1]) if length else 0
        whole = (
            self._received.endswith(b"0\r\n\r\n")
            if self._length is None
            else len(self._received) >= self._body + self._length
        )
        if whole:
            self._answered()

    def _answered(self) -> None:
        received, request, head = self._received, self._request, self._body - 2
        assert request is not None
        status = int(received[9:12])
        version = _VERSION.search(received, self._body) if status == 200 else None
        kind = _KIND.search(received, self._body) if status != 200 else None
        error = kind[1].decode() if kind else "" if status == 200 else "Unknown"
        if status == 429 and not _RETRY_AFTER.search(received, 0, head):
            error = NO_RETRY_AFTER
        ends = self._length == 0 or _CLOSE.search(received, 0, head) is not None
        self._request, self._received, self._body = None, bytearray(), -1
        self._idle_since = time.monotonic()
        self._pool.finish(request, status, version[1].decode() if version else "", error)
        if ends:
            self.close()
        else:
            self._pool.free(self)

    def connection_lost(self, error: Exception | None) -> None:
        request, self._request = self._request, None
        if request is not None:
            self._pool.finish(request, 0, "", type(error).__name__ if error else "Closed")
        self._pool.lost(self)
