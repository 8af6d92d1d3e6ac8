"""Goodput counts what was answered: not refusals, not lost answers."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from clickbait.errors import ConfigError
from tests.performance import bench_goodput

ANSWERS = [
    b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 0\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n[{}]",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
    b"",  # the connection ends
    b"HTTP/1.1 504 Gateway Timeout\r\nContent-Length: 2\r\n\r\n{}",
]


def test_a_client_asks_again_after_each_answer_and_notes_what_it_was() -> None:
    bodies: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while len(bodies) < len(ANSWERS):
            head = await reader.readuntil(b"\r\n\r\n")
            bodies.append(await reader.readexactly(int(head.partition(b"content-length: ")[2])))
            answer = ANSWERS[len(bodies) - 1]
            if not answer:
                break
            writer.write(answer)
            await writer.drain()
            if b"close" in answer:
                break
        writer.close()

    async def main() -> list[bench_goodput.Answer]:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        asking = asyncio.create_task(bench_goodput.client(port, [b"one", b"two two"], time.monotonic() + 0.5))
        answers = await asking
        server.close()
        return answers

    answers = asyncio.run(main())
    assert [status for _, _, status in answers][:5] == [429, 200, 200, 0, 504]
    assert bodies == [b"one", b"two two", b"one", b"two two", b"one"]


def test_the_figures_are_medians_over_rounds() -> None:
    def round_(goodput: float, p99: float | None, failed: int) -> dict[str, Any]:
        return {"bulk": {"goodput": goodput}, "single": {"p99_ms": p99, "failed": failed}}

    measured = {
        "now": {"16": [round_(900.0, 40.0, 0), round_(800.0, 50.0, 1), round_(100.0, 60.0, 0)]},
        "before": {"16": [round_(0.0, None, 9)]},
    }
    assert bench_goodput.shows(measured) == {
        "goodput_16_now": 800.0,
        "single_p99_ms_beside_16_now": 50.0,
        "single_failed_beside_16_now": 1.0,
        "goodput_16_before": 0.0,
        "single_failed_beside_16_before": 9.0,
    }


def test_a_checkout_that_is_none_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(ConfigError, match="no checkout of this project there"):
        bench_goodput.parse(["--bundle", str(tmp_path), "--against", str(tmp_path)])
