"""HAProxy as the launcher starts it: its refusals are ours, its labels come from a closed list, its own pages
are on loopback.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.serve._private.haproxy_metrics import HAProxyMetricsCollector

from serve.on_ray import haproxy, haproxy_process
from tests.echo import echo
from tests.proxy import Proxy, wait_until


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """HAProxy before one server that runs and nothing else; what it would tell Ray's metrics is in
    `datagrams`.
    """
    folder = tmp_path_factory.mktemp("ha")
    with echo() as server, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as metrics:
        metrics.bind(str(folder / "metrics.sock"))
        metrics.settimeout(5)
        proxy = Proxy(folder, [server])
        proxy.datagrams = metrics  # type: ignore[attr-defined]
        actor, started = proxy.start()
        wait_until(lambda: ask(proxy, "GET")[0] == 200, proxy.log)
        yield proxy
        actor.kill()
        actor.wait()
        os.kill(started, 9)


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """`serve.app` sets it when it is imported; the launcher takes it away before it looks for HAProxy."""
    monkeypatch.delenv(haproxy.BINARY, raising=False)


def ask(
    proxy: Proxy, method: str, path: str = "/news", body: bytes | None = None, **headers: str
) -> tuple[int, Any, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=20)
    try:
        connection.request(
            method, path, body, {name.replace("_", "-"): value for name, value in headers.items()}
        )
        answer = connection.getresponse()
        read = answer.read()
        return (
            answer.status,
            json.loads(read) if read else None,
            {name.lower(): value for name, value in answer.getheaders()},
        )
    finally:
        connection.close()


def test_it_knows_the_installed_ray(tmp_path: Path) -> None:
    """Else HAProxy is started with Ray's configuration: without JSON, with statistics on all interfaces."""
    assert ray.__version__ == haproxy_process.RAY
    proxy = Proxy(tmp_path, [1])
    for applications in (("news", "sport"), ("",), ()):
        text = proxy.write(*applications)
        assert haproxy_process.serves(text) is (len(applications) > 1)
        changed = haproxy_process.edit(text)
        proxy.path.write_text(changed)
        checked = subprocess.run(
            [haproxy_process._binary(), "-c", "-f", str(proxy.path)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert checked.returncode == 0, checked.stderr
        assert "%HM" not in changed
        with pytest.raises(haproxy_process.UnknownTemplate):
            haproxy_process.edit(changed)


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [("BREW", "/news", 405, "MethodNotAllowed"), ("GET", "/elsewhere", 404, "NotFound")],
)
def test_its_refusals_have_our_body(proxy: Proxy, method: str, path: str, status: int, kind: str) -> None:
    answered, error, headers = ask(proxy, method, path, x_request_id="of-mine")
    assert (answered, error["error_type"], error["request_id"], headers["x-request-id"]) == (
        status,
        kind,
        "of-mine",
        "of-mine",
    )
    assert headers["content-type"] == "application/json"
    _, error, headers = ask(proxy, method, path, x_request_id='a"b')
    assert error["request_id"] == headers["x-request-id"] != 'a"b'


@pytest.mark.parametrize("applications", [("news",), (), ("",)])
def test_a_request_that_nobody_takes_is_a_503_in_json(tmp_path: Path, applications: tuple[str, ...]) -> None:
    """No replica can be reached; Ray Serve starts; its last application was deleted. Ray's answers are a 500
    and two 404.
    """
    proxy = Proxy(tmp_path, [1])  # nobody listens there
    proxy.write(*applications)
    actor, started = proxy.start()
    try:
        answered, error, headers = ask(proxy, "POST", body=b"a headline")
        assert (answered, error["error_type"], headers["retry-after"]) == (503, "NotReady", "1")
    finally:
        actor.kill()
        actor.wait()
        os.kill(started, 9)


def test_the_404_of_rays_own_proxy_is_a_503_in_json(proxy: Proxy) -> None:
    """It has the requests of an application that is being deleted or started."""
    answered, error, headers = ask(proxy, "POST", "/news/gone", b"a headline", x_request_id="of-mine")
    assert (answered, error["error_type"], error["request_id"], headers["retry-after"]) == (
        503,
        "NotReady",
        "of-mine",
        "1",
    )


def test_what_haproxy_answers_itself_is_counted_as_what_it_is(tmp_path: Path) -> None:
    """The alert ClickbaitServerErrors reads ray_serve_num_http_requests_total by these; health checks have a
    route of their own.
    """
    proxy = Proxy(tmp_path, [1])  # nobody listens there
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as metrics:
        metrics.bind(str(tmp_path / "metrics.sock"))
        metrics.settimeout(10)
        actor, started = proxy.start()
        try:
            seen = []
            for path in ("/news", "/-/healthz"):
                with contextlib.suppress(json.JSONDecodeError):  # the health check's body is Ray's text
                    ask(proxy, "POST", path, b"a headline")
                line = HAProxyMetricsCollector.parse_line(metrics.recv(65_536))
                assert line is not None
                seen.append((line.status_code, line.route, line.app))
            assert seen == [("503", "/news", "news"), ("503", "/-/healthz", None)]
        finally:
            actor.kill()
            actor.wait()
            os.kill(started, 9)


@pytest.mark.parametrize("upgrade", ["websocket", "h2c"])
def test_an_upgrade_is_not_passed_on_and_the_body_is(proxy: Proxy, upgrade: str) -> None:
    connection = "Upgrade, HTTP2-Settings"
    status, told, _ = ask(
        proxy,
        "POST",
        "/news",
        b"a headline",
        connection=connection,
        upgrade=upgrade,
        http2_settings="AAMAAABkAARA",
        sec_websocket_key="dGhlIHNhbXBsZSBub25jZQ==",
    )
    assert (status, told["bytes"]) == (200, len(b"a headline"))
    assert not {"upgrade", "http2-settings"} & {name.lower() for name in told["headers"]}


def test_invented_methods_make_no_label(proxy: Proxy) -> None:
    metrics = proxy.datagrams  # type: ignore[attr-defined]
    methods = set()
    for number in range(20):
        ask(proxy, f"INVENTED{number}")
        while True:  # a request before may be logged late
            line = HAProxyMetricsCollector.parse_line(metrics.recv(65_536))
            assert line is not None
            if line.status_code == "405":
                break
        methods.add(line.method)
    assert methods == {"other"}


def test_statistics_and_metrics_are_on_loopback(proxy: Proxy) -> None:
    for port in (proxy.stats, proxy.metrics):
        with socket.create_connection(("127.0.0.1", port)):
            pass
        with (
            pytest.raises(ConnectionRefusedError),
            socket.create_connection(("127.0.0.2", port)),
        ):  # on all interfaces it would answer
            pass


def test_another_ray_or_another_template_leaves_the_configuration_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = Proxy(tmp_path, [1]).path.read_text()
    place = haproxy_process.Place(str(tmp_path / "haproxy.cfg"))
    for ray_version, changed in (
        ("2.61.0", text),
        (haproxy_process.RAY, text.replace("listen stats", "listen statistics")),
    ):
        with pytest.raises(haproxy_process.UnknownTemplate):
            haproxy_process._edited(changed, place, haproxy_process._binary(), ray_version)
    assert place.socket in text


def test_it_reads_the_version_of_the_ray_that_starts_it(proxy: Proxy) -> None:
    """Started under another Python, it finds HAProxy beside that Ray."""
    assert "stays as Ray wrote it" not in proxy.log.read_text()
    assert re.search(r"http-error status 503 content-type application/json", proxy.path.read_text())


def test_a_request_of_256_headlines_can_be_sent_again() -> None:
    """HAProxy keeps what fits its buffer, less 1 KiB for headers that it adds."""
    text = json.dumps(
        {"texts": ["You will not believe what happened to this council after the budget"] * 256}
    )
    assert len(text) + 2048 < int(haproxy.ENVIRONMENT["RAY_SERVE_HAPROXY_TUNE_BUFSIZE"])
