"""Settings come from flags, then the environment; what does not fit is one line; the server runs, drains and
ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import uvicorn

from clickbait.errors import ConfigError, PortInUse
from clickbait.registry.registry import Registry
from serve import ports, standalone
from serve.core.service import Service
from serve.http.api import create_app
from serve.on_ray import ingress, shared_port
from serve.settings import Settings, load
from tests.tiny import tiny_bundle

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name == "PORT" or name.upper() in {
            f"CLICKBAIT_{field.upper()}" for field in Settings.model_fields
        }:
            monkeypatch.delenv(name)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry(str(tmp_path / "registry"))
    registry.set_alias(registry.publish(tiny_bundle(tmp_path / "draft")), "production")
    return registry


def uri(tmp_path: Path) -> str:
    return str(tmp_path / "registry")


def test_every_setting_says_why() -> None:
    assert all(field.description for field in Settings.model_fields.values())


def test_a_flag_wins_over_the_environment_and_that_over_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load().model == "production"
    monkeypatch.setenv("CLICKBAIT_MODEL", "staging")
    assert load().model == "staging"
    assert standalone.parse(["--model", "v3"]).model == "v3"
    assert Path(load().registry).is_absolute()


def test_cloud_run_s_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "8080")
    assert standalone.parse([]).port == 8080
    assert standalone.parse(["--port", "9000"]).port == 9000
    monkeypatch.setenv("CLICKBAIT_PORT", "7000")
    assert standalone.parse([]).port == 7000


def test_a_service_link_of_kubernetes_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside a Service named `clickbait` every pod has CLICKBAIT_PORT=tcp://..., beside `clickbait-shared`
    CLICKBAIT_SHARED_PORT.
    """
    monkeypatch.setenv("CLICKBAIT_PORT", "tcp://10.0.0.1:8000")
    monkeypatch.setenv("CLICKBAIT_SHARED_PORT", "tcp://10.0.0.1:8001")
    assert (load().port, load().shared_port) == (8000, None)
    monkeypatch.setenv("PORT", "8080")
    assert standalone.parse([]).port == 8080


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CLICKBAIT_THREADS", "many"),
        ("clickbait_port", "99999"),
        ("CLICKBAIT_REGISTRY", "s3://bucket"),
        ("CLICKBAIT_TIMEOUT_S", "0"),
    ],
)
def test_a_bad_variable_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=f"^{name}: ") as raised:
        load()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--modle", "v1"], 'did you mean "model"'),
        (["--port", "http"], "port: "),
        (["--port"], "expected one argument"),
        (["v1"], "v1: unknown flag"),
        (["--model", "staging"], 'no alias "staging"'),
        (["--host", "no.such.host.invalid"], "give an address of this machine"),
    ],
)
def test_what_does_not_fit_is_one_line_and_2(
    registry: Registry, tmp_path: Path, args: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert standalone.main(["--registry", uri(tmp_path), "--port", "0", *args]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert told in said
    assert said.count("\n") == 1


def test_a_port_in_use_is_told_before_the_model_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortInUse):
            ports.bind("127.0.0.1", port)
        assert standalone.main(["--registry", "/nowhere", "--port", str(port)]) == 2
    assert (
        capsys.readouterr().err
        == f"error: 127.0.0.1:{port}: somebody listens there already: stop that, or give another --port\n"
    )


def test_a_corrupt_byte_is_one_line_and_2(
    registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = registry.fetch("v1") / "model.onnx"
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(data)
    assert standalone.main(["--registry", uri(tmp_path), "--port", "0"]) == 2
    assert "SHA-256" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("host", "url"),
    [("0.0.0.0", "http://127.0.0.1:1"), ("::", "http://[::1]:1"), ("10.0.0.1", "http://10.0.0.1:1")],
)
def test_where_a_client_finds_it(host: str, url: str) -> None:
    assert ports.url(host, 1) == url


def test_both_of_our_listeners_keep_a_connection_for_the_same_time(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[float] = []

    async def no_serving(self: uvicorn.Server, sockets: list[socket.socket] | None = None) -> None:
        kept.append(self.config.timeout_keep_alive)
        for one in sockets or ():
            one.close()

    monkeypatch.setattr(uvicorn.Server, "serve", no_serving)
    for given, seconds in (({}, 75), ({"keep_alive_s": 620}, 620)):
        chosen = load(registry=uri(tmp_path), port=0, **given)
        with ports.bind("127.0.0.1", 0) as bound:
            standalone.run(chosen, bound)
        with ports.bind("127.0.0.1", 0) as probe:
            port = probe.getsockname()[1]
        ingress.share("127.0.0.1", port, "ours", chosen.keep_alive_s)
        asyncio.run(
            shared_port.serve(create_app(Service(chosen), chosen), *ingress._shared.pop(), lambda: True)
        )
        assert kept[-2:] == [seconds, seconds]


def test_it_serves_and_ends_on_sigterm(registry: Registry, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "serve.standalone", "--registry", uri(tmp_path), "--port", "0"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        assert server.stderr is not None
        try:
            line = server.stdout.readline()
            assert line.startswith("serving v1 at http://127.0.0.1:")
            base = line.split()[3]
            body = json.dumps({"text": "you won"}).encode()
            request = urllib.request.Request(f"{base}/classify", body, {"content-type": "application/json"})
            for _ in range(100):  # the line is printed a moment before it listens
                try:
                    with urllib.request.urlopen(request, timeout=10) as answer:
                        assert json.load(answer)["model"] == "v1"
                        break
                except urllib.error.URLError:
                    time.sleep(0.05)
            else:
                pytest.fail("it does not answer")
            server.send_signal(signal.SIGTERM)
            assert server.wait(30) in (0, -signal.SIGTERM)
            assert server.stderr.read() == ""
        finally:
            server.kill()
