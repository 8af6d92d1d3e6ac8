"""The open-loop generator against a small server that answers by the text it is asked."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from clickbait.errors import ConfigError
from tests.conftest import free_port
from tests.performance import openloop

ANSWERS = {
    "good": b'HTTP/1.1 200 OK\r\nContent-Length: 29\r\n\r\n{"label":"news","model":"v7"}',
    "full": b'HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 27\r\n\r\n{"error_type":"Overloaded"}',
    "rude": b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n",
    "broken": b"HTTP/1.1 500 Internal Server Error\r\nConnection: close\r\nContent-Length: 4\r\n\r\noops",
    "chunked": b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\ne\r\n{"model":"v8"}\r\n0\r\n\r\n',
}


@dataclass
class Server:
    """Keeps of the real one: keep-alive, and an answer in pieces."""

    url: str = ""
    connections: int = 0
    texts: list[str] = field(default_factory=list)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                text = json.loads(await reader.readexactly(length))["text"]
                self.texts.append(text)
                if text == "drop":
                    return
                if text == "stall":
                    time.sleep(0.3)  # noqa: ASYNC251  # the whole server: everybody waits
                answer = ANSWERS.get(text, ANSWERS["good"])
                writer.write(answer[:20])
                await writer.drain()
                writer.write(answer[20:])
                if b"Connection: close" in answer:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@pytest.fixture
def server() -> Iterator[Server]:
    found, ready = Server(), threading.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        listening = await asyncio.start_server(found.handle, "127.0.0.1", 0)
        found.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        ready.set()
        await stop.wait()
        listening.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    stop = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(10)
    yield found
    loop.call_soon_threadsafe(stop.set)
    thread.join(10)
    loop.run_until_complete(asyncio.sleep(0.05))  # the cancelled close their sockets
    loop.close()


def test_every_request_of_the_schedule_has_one_sample_in_its_order(server: Server) -> None:
    samples = openloop.run(server.url, [(0.2, 100), (0.1, 200)], ["good"])
    assert [sample.at for sample in samples] == pytest.approx(
        [i / 100 for i in range(20)] + [0.2 + i / 200 for i in range(20)]
    )
    assert {(sample.status, sample.version, sample.error) for sample in samples} == {(200, "v7", "")}


def test_an_answer_is_told_by_its_status_version_and_error(server: Server) -> None:
    samples = openloop.run(server.url, [(0.12, 50)], ["good", "full", "rude", "broken", "chunked", "drop"])
    assert [(sample.status, sample.version, sample.error) for sample in samples] == [
        (200, "v7", ""),
        (429, "", "Overloaded"),
        (429, "", "no Retry-After"),
        (500, "", "Unknown"),
        (200, "v8", ""),
        (0, "", "Closed"),
    ]


def test_connections_are_kept(server: Server) -> None:
    openloop.run(server.url, [(0.5, 20)], ["good"])
    assert server.connections < 5


def test_a_request_is_sent_once_though_its_connection_is_lost(server: Server) -> None:
    openloop.run(server.url, [(0.1, 50)], ["good", "drop"])
    assert sorted(server.texts) == ["drop"] * 2 + ["good"] * 3


def test_nobody_who_comes_while_the_server_stalls_is_spared_the_wait(server: Server) -> None:
    """A generator that waits for answers would have asked once and seen one slow answer."""
    samples = openloop.run(server.url, [(0.3, 100)], ["stall"] + ["good"] * 29)
    for sample in samples[:25]:
        assert sample.at + sample.seconds >= 0.3
    assert all(sample.status == 200 for sample in samples)


def test_who_was_due_before_the_generator_ran_counts_from_when_he_was_due(server: Server) -> None:
    samples = openloop.run(server.url, [(0.1, 50)], ["good"], start=time.monotonic() - 5)
    assert all(sample.seconds > 4.5 for sample in samples)


def test_a_refused_connection_is_a_sample() -> None:
    samples = openloop.run(f"http://127.0.0.1:{free_port()}", [(0.1, 50)], ["good"])
    assert {(sample.status, sample.error) for sample in samples} == {(0, "ConnectionRefusedError")}


def test_what_is_not_answered_in_time_is_lost_and_its_connection_is_not_used_again(server: Server) -> None:
    samples = openloop.run(server.url, [(0.1, 10), (0.5, 0), (0.1, 10)], ["stall", "good"], timeout_s=0.1)
    assert [(sample.status, sample.error) for sample in samples] == [(0, "Timeout"), (200, "")]


def test_a_closed_loop_asks_as_often_as_it_is_answered(server: Server) -> None:
    samples = openloop.closed(server.url, 3, 0.3, ["good", "broken"])
    assert len(samples) == len(server.texts) > 6
    assert {sample.status for sample in samples} == {200, 500}


@pytest.mark.parametrize("phases", [[], [(0, 5)], [(1, -1)], [(10, 1e6)], [(3600, 1)]])
def test_a_run_is_bounded(phases: list[tuple[float, float]]) -> None:
    with pytest.raises(ConfigError, match="phases"):
        openloop.run("http://127.0.0.1:1", phases, ["good"])


def test_as_a_command_it_writes_what_it_saw(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "samples.json"
    monkeypatch.setattr(
        "sys.argv", ["openloop", "--url", server.url, "--phases", "0.1:20,0.1:30", "--out", str(out)]
    )
    openloop.main()
    samples = json.loads(out.read_text())
    assert [sample["status"] for sample in samples] == [200] * 5
    with pytest.raises(ConfigError, match="10:100"):
        openloop.parse_phases("10")
