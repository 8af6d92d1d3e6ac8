"""The application on a real Ray Serve: built as `serve run` builds it, asked over HTTP."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from clickbait.errors import ClickbaitError, PortInUse
from clickbait.registry.registry import Registry
from serve import ports
from serve.settings import load
from tests.tiny import tiny_bundle

ROOT = Path(__file__).parents[2]
KEY = "of-the-driver"  # in no environment of the cluster


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("registry")
    registry = Registry(str(folder / "registry"))
    registry.set_alias(registry.publish(tiny_bundle(folder / "draft")), "production")
    return str(folder / "registry")


@pytest.fixture(scope="module")
def shared() -> str:
    """The URL at which the replicas listen themselves."""
    with ports.bind("127.0.0.1", 0) as probe:
        return ports.url(*probe.getsockname())


@pytest.fixture(scope="module")
def url(ray_cluster: object, registry: str, shared: str) -> Iterator[str]:
    from serve.app import serve_on_ray, stop

    port = int(shared.rsplit(":", 1)[1])
    yield serve_on_ray(load(registry=registry, max_texts=8, poll_s=0.5, shared_port=port, api_keys=KEY), 0)
    stop()
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
        pass


def ask(url: str, body: Any = None, **headers: str) -> tuple[int, Any, Any]:
    """Status, body, headers."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        url, data=data, headers={"content-type": "application/json", "x-api-key": KEY, **headers}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer), answer.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error), error.headers


def test_it_is_ready_and_says_what_it_serves(url: str) -> None:
    assert ask(f"{url}/readyz")[:2] == (200, ask(f"{url}/")[1])
    assert ask(f"{url}/model")[1]["version"] == "v1"
    assert "/classify" in ask(f"{url}/openapi.json")[1]["paths"]


def test_a_key_that_only_the_driver_was_given_guards_every_replica(url: str, shared: str) -> None:
    for base in (url, shared):
        for path, body in (("/classify", {"text": "a secret"}), ("/model", None)):
            for key in ("", "another"):
                status, error, _ = ask(f"{base}{path}", body, **{"x-api-key": key})
                assert (status, error["error_type"]) == (401, "Unauthorized")
        assert ask(f"{base}/readyz", None, **{"x-api-key": ""})[1].keys() == {"message", "status"}


def test_it_classifies(url: str) -> None:
    status, bait, _ = ask(f"{url}/classify", {"text": "You won the secret trick"})
    assert (status, bait["label"], bait["model"]) == (200, "clickbait", "v1")
    _, batch, _ = ask(
        f"{url}/classify/batch", {"texts": ["You won the secret trick", "council approves budget"]}
    )
    assert [result["label"] for result in batch["results"]] == ["clickbait", "news"]
    assert batch["results"][0]["score"] == pytest.approx(bait["score"], abs=1e-6)


def test_many_at_a_time_each_get_their_own(url: str) -> None:
    texts = [f"{word} number {count}" for word in ("secret", "council") for count in range(30)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda text: ask(f"{url}/classify", {"text": text}), texts))
    assert [status for status, _, _ in answers] == [200] * 60
    assert [body["label"] for _, body, _ in answers] == ["clickbait"] * 30 + ["news"] * 30


def test_the_shared_port_answers_without_haproxy(url: str, shared: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(lambda text: ask(f"{shared}/classify", {"text": text}), ["secret", "council"] * 20)
        )
    assert [(status, body["label"]) for status, body, _ in answers] == [
        (200, "clickbait"),
        (200, "news"),
    ] * 20
    assert answers[0][2]["x-request-id"]


def test_haproxy_stands_in_front_of_a_ray_that_knew_nothing_of_it(url: str) -> None:
    """The session's `ray start` had none of the variables: they came with the controller's options."""
    from ray.util.state import list_actors

    alive = {actor.class_name for actor in list_actors(filters=[("state", "=", "ALIVE")])}
    assert "HAProxyManager" in alive


def test_haproxy_is_ours(url: str) -> None:
    """The launcher knows this Ray: refusals are JSON, invented methods make no series, and an ignored upgrade
    keeps its body.
    """
    import ray

    host, port = url.removeprefix("http://").split(":")

    def send(method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        try:
            fields = {"content-type": "application/json", "x-api-key": KEY, **headers}
            connection.request(method, path, None if body is None else json.dumps(body), fields)
            answer = connection.getresponse()
            return answer.status, json.load(answer)
        finally:
            connection.close()

    upgrade = {
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    assert send("POST", "/classify", {"text": "a secret"}, **upgrade)[0] == 200
    for number in range(20):
        status, error = send(f"INVENTED{number}", "/classify")
        assert (status, error["error_type"]) == (405, "MethodNotAllowed")
    (node,) = ray.nodes()
    page, end = (
        f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics",
        time.monotonic() + 60,
    )
    while 'method="other"' not in (series := urllib.request.urlopen(page, timeout=10).read().decode()):
        assert time.monotonic() < end
        time.sleep(1)
    assert "INVENTED" not in series


def test_what_prometheus_scrapes_of_the_machine_has_the_replicas_figures(url: str) -> None:
    import ray

    (node,) = ray.nodes()
    page, end = (
        f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics",
        time.monotonic() + 60,
    )
    # Ours, and Ray's own, which its dashboard shows: on Ray's way past serve/on_ray/ingress.py these would
    # have the prefix for a route.
    wanted = [
        r'^ray_clickbait_answers_total\{[^}]*route="/classify"[^}]*\} [1-9]',
        r'^ray_clickbait_score_count\{[^}]*version="v1"[^}]*\} [1-9]',
        r'^ray_serve_deployment_request_counter_total\{[^}]*route="/classify"[^}]*\} [1-9]',
    ]
    while True:
        # The first ones of a new server go through Ray's own proxy, until HAProxy has learnt of the replica.
        assert ask(f"{url}/classify", {"text": "a secret"})[0] == 200
        told = urllib.request.urlopen(page, timeout=10).read().decode()
        if all(re.search(line, told, re.MULTILINE) for line in wanted):
            break
        assert time.monotonic() < end, sorted(
            set(re.findall(r"^ray_(?:clickbait|serve_deployment)_\w+", told, re.MULTILINE))
        )
        time.sleep(1)
    assert "ray_clickbait_version" in told


def test_a_moved_alias_is_served_without_a_restart(url: str, registry: str, tmp_path: Path) -> None:
    versions = Registry(registry)
    version = versions.publish(tiny_bundle(tmp_path / "draft", temperature=3.0))
    for alias in (version, "v1"):
        versions.set_alias(alias, "production")
        end = time.monotonic() + 60
        while (answer := ask(f"{url}/classify", {"text": "a secret"}))[1]["model"] != alias:
            assert answer[0] == 200
            assert time.monotonic() < end
            time.sleep(0.1)
    assert ask(f"{url}/readyz")[1]["refused"] is None


@pytest.mark.parametrize(
    ("path", "body", "status", "kind"),
    [
        ("/classify", {"text": " "}, 422, "InvalidText"),
        ("/classify", {"wrong": "a"}, 400, "BadRequest"),
        ("/classify/batch", {"texts": ["a"] * 9}, 422, "TooManyTexts"),
        ("/classify", {"text": "x" * 2_000_000}, 413, "BodyTooLarge"),
        ("/nowhere", None, 404, "NotFound"),
        ("/classify", None, 405, "MethodNotAllowed"),
    ],
)
def test_errors_have_their_body_on_both_ports(
    url: str, shared: str, path: str, body: Any, status: int, kind: str
) -> None:
    for base in (url, shared):
        answered, error, headers = ask(f"{base}{path}", body, **{"x-request-id": "of-mine"})
        assert (answered, error["error_type"], error["request_id"]) == (status, kind, "of-mine")
        assert headers.get_all("x-request-id") == ["of-mine"]  # once


def test_a_port_in_use_is_one_line(url: str, registry: str) -> None:
    from serve.app import serve_on_ray

    with pytest.raises(PortInUse):
        serve_on_ray(load(registry=registry), int(url.rsplit(":", 1)[1]))


def test_a_wrong_alias_ends_build(registry: str) -> None:
    from serve.app import build

    with pytest.raises(ClickbaitError, match='did you mean "production"') as raised:
        build({"registry": registry, "model": "prodution"})
    assert "\n" not in str(raised.value)
    with pytest.raises(ClickbaitError, match='did you mean "registry"'):
        build({"registri": registry})


def test_serve_run_ends_with_one_line_and_2(registry: str) -> None:
    command = [
        str(Path(sys.executable).with_name("serve")),
        "run",
        "serve.app:build",
        f"registry={registry}",
        "model=nothing",
    ]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in ended.stderr + ended.stdout


def test_build_binds_the_alias_and_absolute_paths(registry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from serve.app import build

    monkeypatch.setenv("CLICKBAIT_MAX_WAITING", "7")
    deployment = build({"registry": os.path.relpath(registry)})._bound_deployment
    (chosen,) = deployment.init_args
    assert (chosen["model"], chosen["registry"], chosen["max_waiting"]) == ("production", registry, 7)
    assert deployment.max_queued_requests == 7
    assert deployment.max_ongoing_requests > 7  # ours refuses first, with our body


def test_the_config_is_valid_and_names_what_is_there(registry: str) -> None:
    from ray.serve.schema import ServeDeploySchema

    from serve.app import build
    from serve.on_ray import haproxy

    document = yaml.safe_load((ROOT / "configs" / "serve.yaml").read_text())
    config = ServeDeploySchema.model_validate(document)
    assert document["controller_options"]["runtime_env"]["env_vars"] == haproxy.ENVIRONMENT | {
        haproxy.BINARY: "serve/on_ray/haproxy-launcher"
    }
    (application,) = config.applications
    assert application.import_path == "serve.app:build"
    bound = build({**application.args, "registry": registry})._bound_deployment
    assert [deployment.name for deployment in application.deployments] == [bound.name]
