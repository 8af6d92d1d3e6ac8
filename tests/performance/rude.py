"""Clients that misbehave, to see that the others do not suffer: they trickle, hang, send 20 MB, or nest
100,000 deep.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

SLOW, HALF_OPEN = 50, 100  # connections of each kind that are held all the time
_HEAD = (
    b"POST /classify HTTP/1.1\r\nhost: rude\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
)
_BIG = 20_000_000
_DEEP = b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"


def misbehave(url: str, seconds: float) -> dict[str, dict[str, int]]:
    """All of them at once for `seconds`; by kind, how often they got which status (`closed`: cut off, `held`:
    no answer).
    """
    where = urlsplit(url)
    assert where.hostname is not None
    assert where.port is not None
    return asyncio.run(_all(where.hostname, where.port, seconds))


async def _all(host: str, port: int, seconds: float) -> dict[str, dict[str, int]]:
    kinds: dict[str, tuple[int, Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]]] = {
        "slowloris": (SLOW, _trickle),
        "half open": (HALF_OPEN, _hang),
        "20 MB": (1, _big),
        "deep": (2, _deep),
    }
    told: dict[str, Counter[str]] = {kind: Counter() for kind in kinds}

    async def client(
        kind: str, act: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
    ) -> None:
        while True:
            writer = acting = None
            try:
                reader, writer = await asyncio.open_connection(host, port)
                acting = asyncio.ensure_future(act(reader, writer))
                line = await asyncio.wait_for(
                    reader.readline(), timeout=60
                )  # an answer may come before all is sent
                told[kind][line[9:12].decode("ascii", "replace") if line else "closed"] += 1
            except asyncio.CancelledError:
                told[kind]["held"] += 1
                raise
            except OSError:
                told[kind]["closed"] += 1
            finally:
                if writer is not None:
                    writer.transport.abort()
                if acting is not None:
                    acting.cancel()
                    await asyncio.gather(acting, return_exceptions=True)
            await asyncio.sleep(0.5)

    clients = [
        asyncio.create_task(client(kind, act)) for kind, (count, act) in kinds.items() for _ in range(count)
    ]
    await asyncio.sleep(seconds)
    for task in clients:
        task.cancel()
    await asyncio.gather(*clients, return_exceptions=True)
    return {kind: dict(counted) for kind, counted in told.items()}


async def _trickle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A byte of the body every half second."""
    writer.write(_HEAD % 1000 + b'{"text": "')
    while True:
        await asyncio.sleep(0.5)
        writer.write(b"a")
        await writer.drain()


async def _hang(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Half of a head, and then nothing."""
    writer.write(_HEAD[:40])
    await asyncio.sleep(3600)


async def _big(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(_HEAD % _BIG)
    for _chunk in range(_BIG // 100_000):
        writer.write(b"a" * 100_000)
        await writer.drain()


async def _deep(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(_HEAD % len(_DEEP) + _DEEP)
    await writer.drain()
