"""API keys: where they come from, that they are never lost on the way to a replica, and that one is taken
back without a restart.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clickbait.errors import ConfigError, Unauthorized
from serve import standalone
from serve.http import keys
from serve.http.keys import Keys
from serve.settings import Settings, load


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith("CLICKBAIT_API_KEY"):
            monkeypatch.delenv(name)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that `serve.http.keys` sees."""
    now = [0.0]
    monkeypatch.setattr(keys, "monotonic", lambda: now[0])
    return now


def takes(chosen: Keys, key: str) -> bool:
    try:
        chosen.check({b"x-api-key": key.encode()})
    except Unauthorized:
        return False
    return True


def sha256(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def test_keys_come_as_values_digests_and_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("three\n\n four , five\r\nschlüssel\n", encoding="utf-8-sig")
    digests = f"{sha256('one')},{sha256('two')}"
    chosen = Keys(load(api_keys="a, b", api_key_digests=digests, api_keys_file=str(tmp_path / "keys")))
    assert chosen
    for key in ("a", "b", "one", "two", "three", "four", "five", "schlüssel"):
        assert takes(chosen, key)
    for key in ("", "c", "a, b", "four , five", sha256("one"), digests):
        assert not takes(chosen, key)


def test_a_server_without_keys_asks_for_none() -> None:
    assert not Keys(load())
    assert not Keys(load(api_keys=""))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"api_keys": ","}, "there is no key in it"),
        ({"api_keys": " , ,"}, "there is no key in it"),
        ({"api_keys": "\n"}, "there is no key in it"),
        ({"api_key_digests": "abc"}, "api_key_digests"),
        ({"api_key_digests": sha256("")}, "everybody has"),
        ({"api_keys_required": True}, "none is set"),
    ],
)
def test_keys_that_are_none_do_not_open_the_server(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told) as raised:
        Keys(load(**given))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "name",
    ["CLICKBAIT_API_KEYSFILE", "CLICKBAIT_APIKEYS", "clickbait_api_keys_path", "CLICKBAIT_API_KEY_DIGEST"],
)
def test_a_variable_that_is_nearly_one_does_not_open_the_server(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "one")
    with pytest.raises(ConfigError, match=f'{name}: unknown variable; did you mean "CLICKBAIT_API_KEY'):
        load()


def test_what_the_front_end_and_kubernetes_set_is_no_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "CLICKBAIT_API_KEY",
        "CLICKBAIT_API_URL",
        "CLICKBAIT_API_PORT",
        "CLICKBAIT_API_SERVICE_HOST",
    ):
        monkeypatch.setenv(name, "tcp://10.0.0.1:8000")
    load()


def test_a_file_that_cannot_be_read_does_not_open_the_server(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text(" \n,\n")
    (tmp_path / "large").write_bytes(b"x" * (keys.MAX_FILE_BYTES + 1))
    os.mkfifo(tmp_path / "pipe")
    for name in ("missing", "empty", "large", "pipe", "."):
        with pytest.raises(ConfigError, match="api_keys_file") as raised:
            Keys(load(api_keys="one", api_keys_file=str(tmp_path / name)))
        assert "\n" not in str(raised.value)


def test_a_key_is_added_and_taken_back_without_a_restart(tmp_path: Path, clock: list[float]) -> None:
    path = tmp_path / "keys"
    path.write_text("old\n")
    chosen = Keys(load(api_keys="fixed", api_keys_file=str(path)))
    for text, taken, refused in [
        ("old\nnew\n", ["old", "new"], []),
        ("new\n", ["new"], ["old"]),
        ("nex\n", ["nex"], ["new", "old"]),
    ]:
        (tmp_path / "next").write_text(text)
        (tmp_path / "next").replace(path)
        clock[0] += 1.5
        assert all(takes(chosen, key) for key in [*taken, "fixed"])
        assert not any(takes(chosen, key) for key in refused)


def test_a_mounted_secret_changes_by_a_link(tmp_path: Path, clock: list[float]) -> None:
    for name, key in (("one", "old"), ("two", "new")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "keys").write_text(key)
        os.utime(tmp_path / name / "keys", (1, 1))
    (tmp_path / "..data").symlink_to("one")
    (tmp_path / "keys").symlink_to("..data/keys")
    chosen = Keys(load(api_keys_file=str(tmp_path / "keys")))
    assert takes(chosen, "old")
    (tmp_path / "..next").symlink_to("two")
    (tmp_path / "..next").replace(tmp_path / "..data")
    clock[0] += 1.5
    assert takes(chosen, "new")
    assert not takes(chosen, "old")


def test_the_file_is_looked_at_once_a_second_and_read_when_it_has_changed(
    tmp_path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "keys").write_text("one")
    chosen = Keys(load(api_keys_file=str(tmp_path / "keys")))
    looks, reads = [0], [0]
    look, read = keys._File._state, keys._File._read

    def counted(count: list[int], work: Any) -> Any:
        def call(self: Any) -> Any:
            count[0] += 1
            return work(self)

        return call

    monkeypatch.setattr(keys._File, "_state", counted(looks, look))
    monkeypatch.setattr(keys._File, "_read", counted(reads, read))
    for _ in range(1000):
        clock[0] += 0.01
        assert takes(chosen, "one")
    assert (looks[0], reads[0]) == (10, 0) or (looks[0], reads[0]) == (9, 0)


@pytest.mark.parametrize("bad", [None, "", " \n", "x" * (keys.MAX_FILE_BYTES + 1)])
def test_a_file_that_goes_bad_leaves_the_last_good_keys(
    tmp_path: Path, clock: list[float], caplog: pytest.LogCaptureFixture, bad: str | None
) -> None:
    path = tmp_path / "keys"
    path.write_text("first")
    chosen = Keys(load(api_keys_file=str(path)))
    path.unlink() if bad is None else path.write_text(bad)
    for _ in range(5):
        clock[0] += 1.5
        assert takes(chosen, "first")
        assert not takes(chosen, "")
    said = [record for record in caplog.records if "still taken" in record.getMessage()]
    assert len(said) == 1, "told once, not every second"
    assert str(path) in said[0].getMessage()
    path.write_text("second")
    clock[0] += 1.5
    assert takes(chosen, "second")
    assert not takes(chosen, "first")
    assert "first" not in caplog.text
    assert "second" not in caplog.text


# On the way to a replica


def bound(**given: Any) -> dict[str, Any]:
    """What `serve.app.build` gives to a replica, as it comes out of Ray's state."""
    chosen: dict[str, Any] = json.loads(json.dumps(load(**given).for_replica()))
    return chosen


def test_keys_of_the_driver_reach_a_replica_and_no_secret_lies_in_rays_state(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CLICKBAIT_API_KEYS", "of-the-driver,another")
    chosen = bound()
    assert "of-the-driver" not in json.dumps(chosen)
    monkeypatch.setenv("CLICKBAIT_API_KEYS", "of-the-replicas-machine")
    replica = Keys(Settings(**chosen))
    assert takes(replica, "of-the-driver")
    assert takes(replica, "another")
    assert not takes(replica, "of-the-replicas-machine")


def test_a_replica_that_should_have_keys_and_has_none_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("one")
    chosen = bound(api_keys_file=str(tmp_path / "keys"))
    assert takes(Keys(Settings(**chosen)), "one")
    (tmp_path / "keys").unlink()  # as on another machine
    with pytest.raises(ConfigError, match="api_keys_file"):
        Keys(Settings(**chosen))
    with pytest.raises(ConfigError, match="none is set"):
        Keys(Settings(**{**bound(api_keys="one"), "api_key_digests": ""}))


def test_a_replica_s_own_keys_are_taken_where_the_driver_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = bound()
    monkeypatch.setenv("CLICKBAIT_API_KEYS", "of-the-replicas-machine")
    assert takes(Keys(Settings(**chosen)), "of-the-replicas-machine")


def test_every_server_looks_for_its_keys_before_it_loads_a_model(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from serve.app import Classifier, build

    monkeypatch.setenv("CLICKBAIT_API_KEYS_REQUIRED", "true")
    assert standalone.main(["--registry", "/nowhere", "--port", "0"]) == 2
    assert "none is set" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="none is set"):
        build({"registry": "/nowhere"})
    with pytest.raises(ConfigError, match="none is set"):
        Classifier.func_or_class.__bases__[0].__init__(SimpleNamespace(), {"registry": "/nowhere"})  # type: ignore[attr-defined]


def test_bentoml_which_checks_no_keys_does_not_start_where_there_are_some(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bento = pytest.importorskip("serve.bento", reason="the bento extra is not installed")
    monkeypatch.setenv("CLICKBAIT_API_KEYS", "one")
    monkeypatch.setattr("os._exit", sys.exit)
    with pytest.raises(SystemExit) as ended:
        bento.Clickbait.inner()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "checks no keys" in line
