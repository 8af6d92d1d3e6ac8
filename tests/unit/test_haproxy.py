"""The variables that Ray Serve reads: ours where nobody chose, and none where there is no HAProxy."""

from __future__ import annotations

import os

import pytest

from serve import haproxy


def test_what_is_set_already_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in haproxy.ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "0")
    monkeypatch.setattr(haproxy, "there", lambda: True)
    haproxy.set_defaults()
    assert os.environ["RAY_SERVE_ENABLE_HA_PROXY"] == "0"
    assert os.environ["RAY_SERVE_THROUGHPUT_OPTIMIZED"] == "1"
    given = haproxy.controller_variables("/somewhere")
    assert given["RAY_SERVE_ENABLE_HA_PROXY"] == "0"
    assert given["RAY_SERVE_HAPROXY_SOCKET_PATH"] == "/somewhere/admin.sock"
    for name in haproxy.ENVIRONMENT:  # monkeypatch does not know of what set_defaults set
        monkeypatch.delenv(name)


def test_without_an_haproxy_nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(haproxy, "there", lambda: False)
    before = dict(os.environ)
    haproxy.set_defaults()
    assert dict(os.environ) == before
    assert haproxy.controller_variables("/somewhere") == {}
