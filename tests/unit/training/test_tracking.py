"""W&B decides nothing: settings that cannot work are refused before anything starts, and a server that is
away costs a warning.

wandb itself runs, against a server on the loopback interface that refuses, hangs, or turns the key away.
"""

from __future__ import annotations

import http.server
import logging
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from clickbait.cli import Code
from clickbait.config import TrainConfig, validate
from clickbait.data.dataset import Dataset
from clickbait.errors import ConfigError
from clickbait.registry.registry import Registry
from clickbait.training import tracking
from clickbait.training.tracking import Tracker
from tests.contracts import draft
from tests.wandb_file import read_run

DATASET = Dataset("nowhere", {"fingerprint": "f00d", "synthetic": True})


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"WANDB_MODE": "onlin"}, r'WANDB_MODE: "onlin" is no mode; did you mean "online"\?'),
        ({"WANDB_MODE": "online"}, "there is no key: set WANDB_API_KEY"),
        ({"WANDB_API_KEY": "short"}, "WANDB_API_KEY: a key has 40 characters or more"),
        ({"WANDB_API_KEY": "a" * 39 + " "}, "WANDB_API_KEY: a key has 40 characters or more"),
        ({"WANDB_API_KEY": "a" * 40, "WANDB_BASE_URL": "api.wandb.ai"}, "is no http:// or https:// address"),
    ],
)
def test_settings_that_cannot_work_are_one_line(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], message: str
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=message) as told:
        tracking.check()
    assert "\n" not in str(told.value)
    assert settings.get("WANDB_API_KEY", "nothing") not in str(told.value), "a key in an error"


@pytest.mark.parametrize(
    ("settings", "mode"),
    [
        ({}, "offline"),
        ({"WANDB_API_KEY": "a" * 40}, "online"),
        ({"WANDB_API_KEY": "local-" + "b" * 40}, "online"),
        ({"WANDB_API_KEY": "short", "WANDB_MODE": "offline"}, "offline"),
        ({"WANDB_MODE": "dryrun"}, "offline"),
        ({"WANDB_MODE": "disabled"}, "disabled"),
    ],
)
def test_settings_that_work(monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], mode: str) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    tracking.check()
    assert tracking.mode() == mode


@pytest.mark.parametrize("project", ["", "a/b", "what?", "a" * 129])
def test_a_project_that_wandb_does_not_take_is_refused_with_the_configuration(project: str) -> None:
    with pytest.raises(ConfigError, match="wandb_project"):
        validate(TrainConfig, {"wandb_project": project}, "train.yaml")


def test_no_job_starts_with_settings_that_cannot_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the dataset, the bundle or the registry is looked for: none of them is there."""
    from clickbait.config import PromoteConfig
    from ray_jobs.promote import promote
    from ray_jobs.train import train

    monkeypatch.setenv("WANDB_MODE", "onlin")
    for start in (
        lambda: train(TrainConfig(dataset="nowhere")),
        lambda: promote(PromoteConfig(bundle="nowhere")),
    ):
        with pytest.raises(ConfigError, match="WANDB_MODE"):
            start()


class Handler(http.server.BaseHTTPRequestHandler):
    """Turns every key away, or says nothing while `hangs`."""

    hangs = False

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.hangs:
            time.sleep(60.0)
        self.send_response(401)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    do_GET = do_POST

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(params=["refuses", "hangs", "turns the key away"])
def away(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Settings for an online run at a server that is of no use."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = None
    if request.param != "refuses":
        handler = type("Asked", (Handler,), {"hangs": request.param == "hangs"})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
        server.daemon_threads = True
        server.block_on_close = False
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    for name, value in (
        ("WANDB_BASE_URL", f"http://127.0.0.1:{port}"),
        ("WANDB_API_KEY", "a" * 40),
        ("NO_PROXY", "127.0.0.1"),
    ):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(tracking, "INIT_S", 1.0)
    yield request.param
    if server is not None:
        server.shutdown()
        server.server_close()


def test_a_run_goes_on_offline_where_the_server_is_away(
    away: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Tracker.start(TrainConfig(output=str(tmp_path), name="one"), DATASET) as tracker:
        tracker.log({"train_loss": 0.5}, step=20)
    (warning,) = [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.WARNING and record.name.startswith("clickbait")
    ]
    assert "W&B does not answer, or refuses the key" in warning
    assert f"send it later with wandb sync {tmp_path}/wandb/offline-run-*" in warning
    assert "\n" not in warning
    sys.modules["wandb"].teardown()  # `finish` of an offline run does not wait until all is on the disk
    assert [row["train_loss"] for row in read_run(tmp_path)["history"]] == [0.5]


def test_a_version_is_not_mirrored_where_the_server_is_away(
    away: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = tmp_path / "registry"
    monkeypatch.setenv("CLICKBAIT_CACHE", str(tmp_path / "cache"))
    registry = Registry(str(root))
    registry.set_alias(registry.publish(draft(tmp_path / "draft")), "production")
    assert tracking.main(["production", "--registry", str(root)]) == Code.USER
    assert (
        f"mirror it again: python -m clickbait.training.tracking v1 --registry {root} --project clickbait"
        in caplog.text
    )
    assert "error: v1 is not mirrored" in capsys.readouterr().err


def test_a_tracker_that_breaks_stops_no_training(caplog: pytest.LogCaptureFixture) -> None:
    """As wandb's service does when it is killed: each call raises."""

    class Broken:
        summary: ClassVar[dict[str, Any]] = {}

        def log(self, *_: object, **__: object) -> None:
            raise BrokenPipeError("the service is gone")

        def finish(self) -> None:
            raise BrokenPipeError("the service is gone")

    tracker = Tracker(Broken())
    tracker.log({"a": 1.0}, step=1)
    tracker.log({"a": 1.0}, step=2)
    tracker.summary([])
    assert caplog.text.count("W&B tracks this run no more: the service is gone") == 1
