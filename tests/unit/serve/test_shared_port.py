"""The port that replicas share: only those of one application share it, and one that goes loses nobody."""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
from typing import Any

import pytest

from clickbait.errors import PortInUse
from serve import ports
from serve.on_ray import shared_port


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


def free() -> int:
    with ports.bind("127.0.0.1", 0) as probe:
        return int(probe.getsockname()[1])


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    writer.write(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    return head + await reader.readexactly(5)


async def connected(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    for _ in range(200):
        try:
            return await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            await asyncio.sleep(0.02)
    raise AssertionError("nobody listens")


def test_a_replica_that_goes_answers_who_is_connected_and_then_nobody_listens() -> None:
    async def main() -> None:
        port, leaving = free(), asyncio.Event()
        serving = asyncio.create_task(shared_port.serve(hello, "127.0.0.1", port, "ours", 75, leaving.is_set))
        reader, writer = await connected(port)
        assert b"connection: close" not in await ask(reader, writer)
        leaving.set()
        await asyncio.sleep(3 * shared_port._LOOK_S)
        assert b"connection: close" in await ask(reader, writer)
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        await asyncio.wait_for(serving, 10)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)

    asyncio.run(main())


def _hold(port: int, line: Any) -> None:
    claim, listener = shared_port._listen("127.0.0.1", port, "ours")
    with claim, listener:
        listener.listen()
        line.send(True)
        line.recv()


def test_replicas_of_one_application_share_it_and_no_others() -> None:
    port = free()
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    child = multiprocessing.get_context("spawn").Process(target=_hold, args=(port, theirs), daemon=True)
    child.start()
    assert ours.poll(60)
    claim, listener = shared_port._listen("127.0.0.1", port, "ours")
    listener.close()
    claim.close()
    with pytest.raises(PortInUse, match="another Ray"):
        shared_port._listen("127.0.0.1", port, "somebody else's")
    ours.send(True)
    child.join(30)
    claim, listener = shared_port._listen("127.0.0.1", port, "somebody else's")  # once nobody has it
    listener.close()
    claim.close()


def test_a_port_that_somebody_has_is_a_warning_and_not_shared(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # even one that would share it
        other.bind(("127.0.0.1", 0))
        other.listen()
        asyncio.run(
            asyncio.wait_for(
                shared_port.serve(hello, "127.0.0.1", other.getsockname()[1], "ours", 75, lambda: False), 10
            )
        )
    assert "no shared port" in caplog.text
    assert "somebody listens there" in caplog.text
