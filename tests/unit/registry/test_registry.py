"""A registry on local disk keeps the contract; its command line does what it says, or one line and exit code
2.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from clickbait.registry.command import main
from clickbait.registry.registry import Registry
from tests.contracts import RegistryContract, draft


class TestLocal(RegistryContract):
    @pytest.fixture
    def root(self, tmp_path: Path) -> str:
        return str(tmp_path / "registry")

    def test_fetch_copies_nothing(self, registry: Registry, tmp_path: Path) -> None:
        registry.publish(draft(tmp_path / "draft"))
        assert registry.fetch("v1") == tmp_path / "registry" / "clickbait-model" / "versions" / "v1"
        assert not (tmp_path / "cache").exists()


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry(str(tmp_path))
    registry.publish(draft(tmp_path / "draft"))
    return registry


def test_who_moved_it(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GITHUB_ACTOR", "WANDB_USERNAME"):
        monkeypatch.delenv(name, raising=False)
    alias = registry.set_alias("v1", "production")
    assert re.fullmatch(r".+@.+", alias.by)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", alias.at)
    monkeypatch.setenv("GITHUB_ACTOR", "octocat")
    monkeypatch.setenv("GITHUB_RUN_ID", "7")
    assert registry.set_alias("v1", "staging").by == "octocat@github-actions/7"


def test_an_alias_written_before_it_kept_a_history_is_read(registry: Registry, tmp_path: Path) -> None:
    for _ in range(2):
        registry.publish(tmp_path / "draft")
    old = {"version": "v2", "previous": "v1", "at": "2026-01-02T03:04:05+00:00", "by": "somebody"}
    (Path(registry.uri) / "aliases").mkdir()
    (Path(registry.uri) / "aliases" / "production.json").write_text(json.dumps(old))
    alias = registry.alias("production")
    assert alias is not None
    assert alias.named() == ("v1", "v2")
    assert registry.set_alias("v3", "production").named() == ("v1", "v2", "v3")


def test_two_models_share_a_registry(registry: Registry, tmp_path: Path) -> None:
    other = Registry(str(tmp_path), name="other-model")
    assert other.versions() == []
    assert other.publish(tmp_path / "draft") == "v1"


def test_command_line(registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    registry.publish(tmp_path / "draft")
    uri = ["--uri", str(tmp_path)]
    assert main([*uri, "set-alias", "v1", "production"]) == 0
    assert main([*uri, "set-alias", "v2", "production"]) == 0
    assert main([*uri, "rollback", "production"]) == 0
    assert main([*uri, "verify", "production"]) == 0
    assert "production points at v1" in capsys.readouterr().out
    assert main([*uri, "show", "production"]) == 0
    assert json.loads(capsys.readouterr().out)["version"] == "v1"
    assert main([*uri, "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["v1", "v2"]
    assert lines[0].endswith("production")
    assert "production" not in lines[1]


@pytest.mark.parametrize(
    "args",
    [
        "show prodution",
        "set-alias v9 production",
        "rollback production",
        "verify v9",
        "lst",
        "",
        "--uri s3://x list",
    ],
)
def test_command_line_says_what_is_wrong_in_one_line(
    args: str, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = registry.uri.rpartition("/")[0]
    assert main(["--uri", uri, *args.split()]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert re.fullmatch(r"error: .+\n", told.err)


def test_runs_as_a_module(registry: Registry) -> None:
    command = [sys.executable, "-m", "clickbait.registry", "--uri", os.path.dirname(registry.uri), "list"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("v1")
    assert done.stderr == ""
