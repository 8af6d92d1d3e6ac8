"""The variables that Ray Serve reads: ours where nobody chose, and none where there is no HAProxy."""

from __future__ import annotations

import os
import tomllib

import pytest

from serve.on_ray import haproxy
from tests.conftest import ROOT


def test_what_is_set_already_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*haproxy.ENVIRONMENT, haproxy.BINARY):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "0")
    monkeypatch.setattr(haproxy, "there", lambda: True)
    haproxy.set_variables()
    assert os.environ["RAY_SERVE_ENABLE_HA_PROXY"] == "0"
    assert os.environ["RAY_SERVE_THROUGHPUT_OPTIMIZED"] == "1"
    given = haproxy.controller_variables("/somewhere")
    assert given["RAY_SERVE_ENABLE_HA_PROXY"] == "0"
    assert given["RAY_SERVE_HAPROXY_SOCKET_PATH"] == "/somewhere/admin.sock"
    assert given[haproxy.BINARY] == os.environ[haproxy.BINARY] == str(haproxy.LAUNCHER)
    for name in (*haproxy.ENVIRONMENT, haproxy.BINARY):  # monkeypatch does not know of what set_variables set
        monkeypatch.delenv(name)


def test_without_an_haproxy_nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(haproxy, "there", lambda: False)
    before = dict(os.environ)
    haproxy.set_variables()
    assert dict(os.environ) == before
    assert haproxy.controller_variables("/somewhere") == {}


def test_haproxy_waits_for_a_replica_longer_than_the_replica_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would send a request again that the replica is about to answer."""
    name = "RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S"
    monkeypatch.setattr(haproxy, "there", lambda: True)
    monkeypatch.delenv(name, raising=False)
    assert haproxy.controller_variables("/somewhere")[name] == "10"
    assert haproxy.controller_variables("/somewhere", 30.0)[name] == "60"
    before = dict(os.environ)
    haproxy.set_variables(12.5)
    assert os.environ[name] == "25"
    for added in os.environ.keys() - before.keys():
        monkeypatch.delenv(added)
    monkeypatch.setenv(name, "7")  # the user's choice
    assert haproxy.controller_variables("/somewhere", 12.5)[name] == "7"
    before = dict(os.environ)
    haproxy.set_variables(12.5)
    assert os.environ[name] == "7"
    for added in os.environ.keys() - before.keys():
        monkeypatch.delenv(added)


def test_the_launcher_is_a_program_and_is_installed() -> None:
    assert os.access(haproxy.LAUNCHER, os.X_OK)
    document = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert haproxy.LAUNCHER.name in document["tool"]["setuptools"]["package-data"]["serve.on_ray"]
