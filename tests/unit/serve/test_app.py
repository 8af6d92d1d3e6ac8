"""`serve run`: Ctrl-C stops the application before Ray Serve, and importing `serve.app` changes nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from clickbait.registry.registry import Registry
from serve import app
from serve.on_ray import haproxy
from tests.conftest import ROOT
from tests.tiny import tiny_bundle


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    """What is there for Ctrl-C comes back."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(10)  # Python calls the handler within it


def test_replicas_answer_what_they_have_before_haproxy_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """KeyboardInterrupt is what `serve run` shuts down on, and a shutdown kills HAProxy first."""
    deleted: list[str] = []
    monkeypatch.setattr(app.ray, "is_initialized", lambda: True)
    monkeypatch.setattr(app.ray_serve, "delete", deleted.append)
    app._answer_before_the_end("default")
    with pytest.raises(KeyboardInterrupt):
        press_ctrl_c()
    assert deleted == ["default"]


def test_a_second_ctrl_c_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app.ray, "is_initialized", lambda: True)
    monkeypatch.setattr(app.ray_serve, "delete", lambda name: press_ctrl_c())
    app._answer_before_the_end("default")
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        press_ctrl_c()
    assert time.monotonic() - start < 10


def test_importing_the_application_sets_no_environment_variable() -> None:
    code = (
        "import os, ray.serve, ray.serve.schema; before = dict(os.environ); import serve.app; "
        "print(sorted(set(os.environ.items()) ^ set(before.items())))"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_SERVE_")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_serve_run_has_the_variables_before_it_starts_ray(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    registry = Registry(str(tmp_path / "registry"))
    registry.set_alias(registry.publish(tiny_bundle(tmp_path / "draft")), "production")
    names = [*haproxy.ENVIRONMENT, haproxy.BINARY]
    for name in names:
        monkeypatch.setenv(name, "")  # so that monkeypatch restores it
        monkeypatch.delenv(name)
    monkeypatch.setattr(haproxy, "there", lambda: True)
    monkeypatch.setattr(app.environment, "prepare_for_ray", lambda: None)
    with click.Context(click.Command("run")):
        app.build({"registry": str(tmp_path / "registry"), "timeout_s": "12.5"})
    assert {name for name in names if name in os.environ} == set(names)
    assert os.environ["RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S"] == "25"
