"""The load tests: wrk's figures are read right, it sends what was meant, peers answer as the model does,
ratios are what they say.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from invoke.context import Context
from invoke.runners import Result as Done

import tasks
from clickbait.errors import ConfigError
from clickbait.inference.scorer import Scorer
from cluster.shell import BIN
from tests.conftest import ROOT
from tests.performance import bench_serve, ceiling, processes, serve_figures, wrk
from tests.performance.peers import servers
from tests.tiny import tiny_bundle

TEXTS = ["You won the secret trick", "council approves the budget", "a word", 'the "market" closes \\ in 5°']


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundle") / "draft")


# wrk


def test_the_figures_are_those_that_the_script_printed() -> None:
    line = (
        '{"requests": 500, "us": 2000000, "p50": 12500, "p95": 20000, "p99": 31000, "status": 100, "socket": '
        '3, "timeout": 2}'
    )
    found = wrk.parse(f"Running 2s test\n  500 requests in 2.00s\nWRK {line}\n")
    assert (found.p50_ms, found.p95_ms, found.p99_ms) == (12.5, 20.0, 31.0)
    assert found.per_second == 200.0  # an error is no answer, however fast
    assert found.errors == 105


@pytest.mark.parametrize("output", ["", "unable to connect to 127.0.0.1:1 Connection refused\n"])
def test_no_figures_are_one_line(output: str) -> None:
    with pytest.raises(wrk.WrkError, match="no figures") as told:
        wrk.parse(output)
    assert "\n" not in str(told.value)


class Recorder(BaseHTTPRequestHandler):
    """Answers every request and keeps its path and body; every tenth is refused."""

    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, str]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        self.seen.append((self.path, body))
        self.send_response(429 if len(self.seen) % 10 == 0 else 200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def recorded() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    seen: list[tuple[str, str]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Own", (Recorder,), {"seen": seen}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", seen
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_wrk_sends_every_headline_in_turn_and_counts_refusals(
    recorded: tuple[str, list[tuple[str, str]]], tmp_path: Path
) -> None:
    url, seen = recorded
    texts = [*TEXTS, *(f"headline {number}" for number in range(20_000))]
    wrk.write_headlines(tmp_path / "headlines.txt", texts)
    offset = len(texts) - 5
    found = wrk.run(url, servers.SINGLE, tmp_path / "headlines.txt", connections=2, seconds=1, offset=offset)
    sent = [json.loads(body)["text"] for _, body in seen]
    assert {path for path, _ in seen} == {"/classify"}
    # From the offset on and round the end, quotes and all, none twice. wrk makes one more request first, and
    # does not send it.
    assert sorted((texts.index(text) - offset) % len(texts) for text in sent) == list(range(1, len(sent) + 1))
    assert found.requests > 2
    assert found.status_errors == pytest.approx(found.requests / 10, abs=2)
    seen.clear()
    wrk.run(url, servers.BATCH, tmp_path / "headlines.txt", connections=1, seconds=1, texts=3)
    assert [json.loads(body) for _, body in seen[:2]] == [{"texts": texts[3:6]}, {"texts": texts[6:9]}]
    assert seen[0][0] == "/classify/batch"


# The servers


def test_every_peer_has_what_starts_it(bundle: Path) -> None:
    found = servers.servers(bundle, "registry", "fast")
    assert list(found) == [
        *servers.PEERS,
        servers.OURS,
        servers.OURS_HAPROXY,
        servers.OURS_PUBLIC,
        servers.OURS_FAST,
        servers.STANDALONE,
    ]
    assert set(found) == set(bench_serve.KNOWN)
    for setups in found.values():
        assert len({server.setup for server in setups}) == len(setups)
        for server in setups:
            modules = [
                word.partition(":")[0] for word in server.command if word.startswith(("tests.", "serve."))
            ]
            modules += [
                app["import_path"].partition(":")[0]
                for app in (server.ray_serve or {"applications": []})["applications"]
            ]
            assert modules
            assert all((ROOT / f"{module.replace('.', '/')}.py").is_file() for module in modules)


def test_ours_is_the_document_that_users_deploy(bundle: Path) -> None:
    (ours,) = servers.servers(bundle, "registry", None)[servers.OURS]
    theirs = yaml.safe_load((ROOT / "configs" / "serve.yaml").read_text(encoding="utf-8"))
    assert ours.ray_serve is not None
    changed = ours.ray_serve["applications"][0]
    (deployment,) = changed["deployments"]
    assert deployment["num_replicas"] == servers.REPLICAS
    assert changed["args"] == {
        **theirs["applications"][0]["args"],
        "registry": "registry",
        "model": "production",
    }
    assert not any(
        "RAY_SERVE_ENABLE" in name for name in ours.env
    )  # HAProxy is on for users too, or the figures are not theirs
    assert {key: value for key, value in ours.ray_serve.items() if key != "applications"} == {
        key: value for key, value in theirs.items() if key != "applications"
    }


@pytest.mark.parametrize("name", ["fastapi", servers.STANDALONE])
def test_it_answers_what_the_model_computes_and_leaves_nothing(
    name: str, bundle: Path, tmp_path: Path
) -> None:
    server = servers.servers(bundle, bench_serve.publish(bundle, tmp_path / "registry"), None)[name][-1]
    with servers.running(server, tmp_path) as url:
        expected = Scorer(bundle).score(TEXTS).tolist()
        assert servers.ask(url, server.batch, TEXTS) == pytest.approx(expected, abs=1e-5)
        assert servers.ask(url, server.single, TEXTS[:1]) == pytest.approx(expected[:1], abs=1e-5)
        (log,) = tmp_path.glob("*.log")
        mark = log.stem.removeprefix(f"{name}-")
        assert processes.marked(mark)
    assert not processes.marked(mark)  # uvicorn's workers are gone with it


def test_a_server_that_dies_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    orphan = (
        "import subprocess, sys; "
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], "
        "start_new_session=True)"
    )
    command = (sys.executable, "-c", f"{orphan}; sys.exit('no model for ' + str(child.pid))")
    with (
        pytest.raises(servers.StartError, match="no model") as told,
        servers.running(servers.Server("it", "", command), tmp_path),
    ):
        pass
    state = Path("/proc", str(told.value).split()[-1], "stat")
    assert (
        not state.exists() or state.read_text().split()[2] == "Z"
    )  # who inherits it may not have looked yet


def test_peers_compute_the_model(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.performance.peers.model import Model

    monkeypatch.setenv("PEER_BUNDLE", str(bundle))
    assert [result["score"] for result in Model()(TEXTS)] == pytest.approx(
        Scorer(bundle).score(TEXTS).tolist(), abs=1e-5
    )


def test_who_has_lost_its_environment_is_ended_too(tmp_path: Path) -> None:
    """As Ray's agents, whose title is written over it."""
    with processes.started(
        ["bash", "-c", "env -i sleep 1000 & echo $!; wait"], os.environ, tmp_path / "log"
    ) as started:
        while not (child := started.log.read_text()):
            time.sleep(0.01)
        assert int(child) in started.pids()
    assert not started.pids()


def test_the_ceiling_is_of_all_processes_together(bundle: Path, tmp_path: Path) -> None:
    wrk.write_headlines(tmp_path / "headlines.txt", [f"word number {number}" for number in range(200)])
    found = ceiling.ceiling(bundle, tmp_path / "headlines.txt", processes=2, seconds=0.2, offset=190)
    assert found > ceiling.TEXTS


# The figures


def result(per_second: float, errors: int = 0) -> wrk.Result:
    return wrk.Result(round(per_second * 4) + errors, 4.0, 1.0, 2.0, 3.0, errors, 0, 0)


def rounds(**at: float) -> dict[str, wrk.Result]:
    return {scenario.replace("_", "-"): result(value) for scenario, value in at.items()}


MEASURED = {
    "fastapi": [rounds(single_1=200, single_64=500, batch_1=10, batch_16=20, batch_64=21)] * 3,
    servers.RAY_DEFAULT: [
        rounds(single_1=50, single_64=value, batch_1=8, batch_16=9, batch_64=9) for value in (90, 100, 900)
    ],
    servers.OURS: [rounds(single_1=190, single_64=800, batch_1=15, batch_16=30, batch_64=28)] * 3,
    servers.OURS_HAPROXY: [rounds(single_1=150, single_64=700)] * 3,
    servers.OURS_PUBLIC: [rounds(single_1=120, single_64=560)] * 3,
    servers.OURS_FAST: [rounds(single_1=400, single_64=2000)] * 3,
}


def test_the_ratios_are_of_what_they_say() -> None:
    assert serve_figures.best_peer(MEASURED) == "fastapi"
    assert serve_figures.shows(MEASURED, [900, 1000, 1100]) == {
        "single_c64_vs_best_peer": 1.6,
        "single_c64_vs_ray_default": 8.0,  # of medians: 100
        "single_c1_vs_fastapi": 0.95,
        "batch32_vs_ceiling": 0.96,  # 30 x 32 of 1000
        "batch32_vs_best_peer": round(30 / 21, 4),
        "fast_model_vs_minilm": 2.5,
        "haproxy_c64_vs_best_peer": 1.4,
        "haproxy_c1_vs_fastapi": 0.75,
        "private_parts_c1_vs_public": 1.25,
        "private_parts_c64_vs_public": 1.25,
    }
    assert serve_figures.shows({"fastapi": MEASURED["fastapi"]}, [1000]) == {}


def test_errors_of_all_rounds_are_told_and_not_counted_as_answers() -> None:
    found = serve_figures.medians({"fastapi": [{"batch-1": result(10, errors)} for errors in (0, 5, 2)]})[
        "fastapi"
    ]["batch-1"]
    assert (found["requests_per_second"], found["headlines_per_second"], found["errors"]) == (10, 320, 7)


def test_a_rate_with_no_answer_is_all_failed() -> None:
    assert serve_figures.at_rate(10, 20, [])["failed"] == 20
    found = serve_figures.at_rate(10, 101, [float(number) for number in range(100)])
    assert (found["p50_ms"], found["p99_ms"], found["failed"]) == (50.0, 99.0, 1)
    medians = serve_figures.median_rates([[found], [found], [{**found, "p50_ms": 80.0, "failed": 4}]])
    assert (medians[0]["p50_ms"], medians[0]["failed"]) == (50.0, 6)


def test_the_table_and_the_plot_have_every_server(tmp_path: Path) -> None:
    told = serve_figures.table(MEASURED)
    serve_figures.plot(MEASURED, [1000.0], tmp_path / "serve.svg")
    assert all(name in told for name in MEASURED)
    assert (tmp_path / "serve.svg").read_text(encoding="utf-8").startswith("<?xml")


# The commands


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--servers", "fastapy"], "known are fastapi"),
        (["--bundle", "nowhere"], "make bench-models"),
        (["--rounds", "0"], "at least 1"),
    ],
)
def test_what_a_user_can_mend_is_told(args: list[str], told: str, bundle: Path) -> None:
    with pytest.raises(ConfigError, match=told):
        bench_serve.parse(["--bundle", str(bundle), "--fast-bundle", str(bundle), *args])


def test_locust_finds_its_users_and_the_task_is_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    if not (BIN / "locust").is_file():
        pytest.skip("locust is not installed: it comes with the extra peers")

    class Noted(Context):
        def run(self, command: str, **settings: Any) -> Done:
            self._set(line=command)
            return Done()

    monkeypatch.chdir(ROOT)
    noted = Noted()
    tasks.locust(noted, host="http://127.0.0.1:9", args="--list")
    words = noted.line.split()
    assert words[1:] == ["-f", "tests/performance/locustfile.py", "--host", "http://127.0.0.1:9", "--list"]
    done = subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, check=False
    )  # apart: locust patches sockets on import
    assert "Reader" in done.stdout, done.stderr
