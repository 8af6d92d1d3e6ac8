"""A staged version: the gate, then the performance test, then the alias; a refusal says why. W&B is a fake of
its three calls.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from clickbait.config import PromoteConfig
from clickbait.errors import ConfigError, RegistryError
from clickbait.registry.registry import Registry
from cluster import smoke, staged
from cluster.benchmark import Figures
from tests.contracts import draft
from tests.tiny import tiny_bundle

PASSED = {"name": "accuracy", "value": 0.99, "op": ">=", "bound": 0.95, "passed": True, "note": ""}
FAILED = {**PASSED, "value": 0.5, "passed": False}
FIGURES = Figures("http://127.0.0.1", 1000, 16, 1000, {"200": 1000}, ["v1"], 1.0, 1000.0, 5.0, 5.0, 9.0, 20.0)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry(str(tmp_path / "registry"))
    registry.publish(draft(tmp_path / "draft"))
    return registry


@pytest.fixture
def config(tmp_path: Path, registry: Registry) -> PromoteConfig:
    return PromoteConfig(registry=str(tmp_path / "registry"))


def gate(monkeypatch: pytest.MonkeyPatch, check: dict[str, Any]) -> None:
    """tests/unit/evaluation/test_gate.py holds the gate itself; here it has made up its mind."""
    verdict = {"decision": "promoted" if check["passed"] else "refused", "champion": None, "checks": [check]}
    monkeypatch.setattr(staged, "judge", lambda *_: (verdict, None))


def test_what_passes_both_is_production(
    monkeypatch: pytest.MonkeyPatch, config: PromoteConfig, registry: Registry
) -> None:
    gate(monkeypatch, PASSED)
    result = staged.decide(config, "v1", 250.0, lambda *_: FIGURES)
    assert result.promoted
    assert registry.resolve("production") == "v1"
    assert "**v1 is `production` now.**" in staged.markdown(result, "production")


@pytest.mark.parametrize(
    ("figures", "why"),
    [
        ({"p95_ms": 251.0}, "p95_ms"),
        ({"p95_ms": None}, "p95_ms"),
        ({"statuses": {"200": 999, "503": 1}}, "requests_failed"),
    ],
)
def test_what_is_slow_or_fails_is_not(
    monkeypatch: pytest.MonkeyPatch,
    config: PromoteConfig,
    registry: Registry,
    figures: dict[str, Any],
    why: str,
) -> None:
    gate(monkeypatch, PASSED)
    result = staged.decide(config, "v1", 250.0, lambda *_: dataclasses.replace(FIGURES, **figures))
    assert not result.promoted
    assert registry.alias("production") is None
    assert f"**v1 was not promoted**: `{why}`" in staged.markdown(result, "production")


def test_what_the_gate_refuses_is_not_measured(
    monkeypatch: pytest.MonkeyPatch, config: PromoteConfig, registry: Registry
) -> None:
    gate(monkeypatch, FAILED)
    result = staged.decide(config, "v1", 250.0, lambda *_: pytest.fail("measured"))
    assert registry.alias("production") is None
    told = staged.markdown(result, "production")
    assert "`accuracy`" in told
    assert "was not run" in told


def test_a_mistake_is_a_comment_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    comment = tmp_path / "deep" / "staged.md"
    assert staged.main(["--version", "v9", "--registry", str(tmp_path), "--comment", str(comment)]) == 2
    assert "was not judged" in comment.read_text(encoding="utf-8")
    assert capsys.readouterr().err.startswith("error: ")
    assert staged.main(["--registry", str(tmp_path)]) == 2


class FakeApi:
    """W&B's public API in what is used: an artifact by its name with its metadata and files; its own error
    for a name it does not know.
    """

    folder: ClassVar[Path]
    version: ClassVar[str | None] = "v1"

    def artifact(self, name: str, type: str) -> Any:
        if name != "team/clickbait/clickbait-model:staging":
            raise ValueError(f"artifact {name} not found")

        def entry(file: str) -> Any:
            def download(root: str) -> str:
                return shutil.copy(self.folder / file, root)

            return SimpleNamespace(download=download)

        return SimpleNamespace(metadata={"version": self.version} if self.version else None, get_entry=entry)


@pytest.fixture
def mirrored(monkeypatch: pytest.MonkeyPatch, registry: Registry, tmp_path: Path) -> Path:
    """What W&B holds of v1; changing it changes nothing in the registry."""
    folder = tmp_path / "wandb-has"
    shutil.copytree(registry.fetch("v1"), folder)
    monkeypatch.setattr(FakeApi, "folder", folder, raising=False)
    error = type("Error", (Exception,), {})
    monkeypatch.setitem(
        sys.modules, "wandb", SimpleNamespace(Api=FakeApi, errors=SimpleNamespace(Error=error))
    )
    return folder


NAME = "team/clickbait/clickbait-model:staging"


def test_wandb_names_a_version(mirrored: Path, registry: Registry) -> None:
    assert staged.named_by_wandb(NAME, registry) == "v1"


def test_what_wandb_holds_must_be_what_the_registry_holds(mirrored: Path, registry: Registry) -> None:
    (mirrored / "manifest.json").write_text((mirrored / "manifest.json").read_text() + " ")
    with pytest.raises(RegistryError, match="is not what"):
        staged.named_by_wandb(NAME, registry)


def test_an_artifact_that_is_no_mirror_is_told(
    mirrored: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="not found"):
        staged.named_by_wandb("team/clickbait/other:staging", registry)
    monkeypatch.setattr(FakeApi, "version", None)
    with pytest.raises(ConfigError, match="names no version"):
        staged.named_by_wandb(NAME, registry)


def test_performance_is_measured_on_the_version_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real server and a real load; a bundle whose model is a few bytes."""
    registry = Registry(str(tmp_path / "registry"))
    version = registry.publish(tiny_bundle(tmp_path / "draft"))
    monkeypatch.setattr(staged, "REQUESTS", 40)
    found = staged.performance(str(tmp_path / "registry"), version)
    assert (found.answered, found.models) == (40, [version])
    with pytest.raises(ConfigError, match="v9 is not served"):
        staged.performance(str(tmp_path / "registry"), "v9")


class Server(BaseHTTPRequestHandler):
    """The api in what the smoke test asks; a test sets what it says."""

    ready: ClassVar[int]
    status: ClassVar[int]
    verdict: ClassVar[Any]

    def do_GET(self) -> None:
        self.say(self.ready, {"error": "loading"})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.say(self.status, self.verdict)

    def say(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


GOOD = {"label": "clickbait", "score": 0.97, "model": "v3"}


@pytest.fixture
def server() -> Iterator[str]:
    Server.ready, Server.status, Server.verdict = 200, 200, GOOD
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{running.server_port}"
        finally:
            running.shutdown()
            thread.join()


def test_a_whole_answer_passes(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert smoke.main(["--url", server, "--model", "v3"]) == 0
    assert json.loads(capsys.readouterr().out) == GOOD


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"ready": 503}, "503: loading"),
        ({"status": 401}, "SMOKE_API_KEY"),
        ({"status": 500, "verdict": {"error": "it failed"}}, "500: it failed"),
        ({"verdict": []}, "no label"),
        ({"verdict": {**GOOD, "label": "spam"}}, "no label"),
        ({"verdict": {**GOOD, "score": 1.5}}, "no score"),
        ({"verdict": {**GOOD, "score": True}}, "no score"),
        ({"verdict": {**GOOD, "model": ""}}, "no version"),
        ({"verdict": {**GOOD, "model": "v2"}}, "answered by v2, not by v3"),
    ],
)
def test_anything_else_does_not(
    server: str, changes: dict[str, Any], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in changes.items():
        setattr(Server, name, value)
    assert smoke.main(["--url", server, "--model", "v3"]) == 1
    assert told in capsys.readouterr().err


def test_an_address_that_is_none_is_the_users_error() -> None:
    assert smoke.main(["--url", "localhost:8000"]) == 2
