"""Ctrl-C of `serve run`: the application goes first, Ray Serve after it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from serve import app


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
