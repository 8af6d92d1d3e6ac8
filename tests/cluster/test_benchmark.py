"""The cloud benchmark sends what it says, measures what came back, and says in one line what to set."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from cluster import benchmark
from cluster.benchmark import Answer, Target


@pytest.fixture
def server() -> Iterator[tuple[str, list[tuple[str, dict[str, str]]]]]:
    """A server that answers as the api does, and every tenth request with 503; it keeps what it was sent."""
    seen: list[tuple[str, dict[str, str]]] = []
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            with lock:
                seen.append(
                    (json.loads(body)["text"], {key.lower(): value for key, value in self.headers.items()})
                )
                status = 503 if self.path == "/full" and len(seen) % 10 == 0 else 200
            answer = json.dumps({"label": "news", "score": 0.1, "model": "v7"}).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    bound = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=bound.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{bound.server_port}", seen
    bound.shutdown()
    thread.join()
    bound.server_close()


def test_the_benchmark_sends_as_many_as_it_says_and_reports_what_came_back(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, seen = server
    monkeypatch.setenv(benchmark.KEY, "a-key")
    monkeypatch.setenv(benchmark.TOKEN, "a-token")
    output = tmp_path / "deep" / "figures.json"
    assert (
        benchmark.main(["--url", url, "--requests", "50", "--concurrency", "4", "--output", str(output)]) == 0
    )
    found = json.loads(output.read_text(encoding="utf-8"))
    assert (found["requests"], found["answered"], found["statuses"], found["models"]) == (
        50,
        50,
        {"200": 50},
        ["v7"],
    )
    assert len(seen) == 50 + 4  # and one that is not counted on each connection
    assert len({text for text, _ in seen}) == 50
    assert {headers["x-api-key"] for _, headers in seen} == {"a-key"}
    assert {headers["x-serverless-authorization"] for _, headers in seen} == {"Bearer a-token"}
    assert found["median_ms"] <= found["p95_ms"] <= found["max_ms"]
    assert found["requests_per_second"] == pytest.approx(50 / found["seconds"], rel=0.05)


def test_the_benchmark_fails_where_an_answer_was_not_200(
    server: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    url, _ = server
    assert benchmark.main(["--url", url, "--path", "/full", "--requests", "50", "--concurrency", "2"]) == 1
    assert "status 503" in capsys.readouterr().out


def test_the_figures_are_those_of_the_good_answers() -> None:
    answers = [Answer(n / 1000, "200") for n in range(1, 101)] + [
        Answer(9.0, "503"),
        Answer(9.0, "TimeoutError"),
    ]
    found = benchmark.figures(Target("http://x"), answers, seconds=10.0)
    assert (found.mean_ms, found.median_ms, found.p95_ms, found.max_ms) == (50.5, 50.5, 95.0, 100.0)
    assert (found.requests_per_second, found.statuses) == (10.0, {"200": 100, "503": 1, "TimeoutError": 1})
    assert benchmark.figures(Target("http://x"), [], 1.0).p95_ms is None


@pytest.mark.parametrize(
    "args",
    [
        ["--url", "file:///etc/passwd"],
        ["--url", "ftp://host"],
        ["--url", "host:8000"],
        ["--url", "http://host/path"],
        ["--url", "http://host", "--requests", "0"],
        ["--url", "http://host", "--requests", "1000000000"],
        ["--url", "http://host", "--concurrency", "5000"],
        ["--url", "http://host", "--path", "classify"],
        ["--url", "http://127.0.0.1:1", "--requests", "1"],
    ],
)
def test_the_benchmark_says_what_to_set(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main(args) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: --")
    assert line.count("\n") == 1
