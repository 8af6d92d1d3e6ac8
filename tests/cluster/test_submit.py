"""`inv submit`: what is sent and to whom, and that each mistake is one line before anything is uploaded."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socketserver
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from invoke.context import Context
from invoke.exceptions import Exit

from clickbait import cli, config
from clickbait.errors import ConfigError
from cluster import submit
from cluster.shell import module_file
from tests.conftest import ROOT, Cluster, free_port

TOKEN = "the-token"


class Jobs(BaseHTTPRequestHandler):
    """Ray's dashboard as tests/cluster/test_jobs_token.py sees it: 401 for no token, 403 for a wrong one, 404
    for a job that is not there.

    It notes whatever would change something.
    """

    changed: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        sent = self.headers.get("authorization")
        self.send_response(401 if sent is None else 404 if sent == f"Bearer {TOKEN}" else 403)
        self.end_headers()
        self.wfile.write(f"Job {self.path.rsplit('/', 1)[-1]} does not exist".encode())

    def do_POST(self) -> None:
        self.changed.append(self.path)
        self.send_response(500)
        self.end_headers()

    do_PUT = do_POST

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@pytest.fixture
def dashboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    Jobs.changed.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Jobs) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def run(name: str = "train", **given: Any) -> None:
    submit.submit(Context(), name, **given)


def refused(name: str = "train", **given: Any) -> str:
    with pytest.raises(Exit) as told:
        run(name, **given)
    assert told.value.code == 2
    assert "\n" not in str(told.value)
    return str(told.value)


def test_every_job_with_a_configuration_can_be_sent() -> None:
    known = submit.jobs()
    assert {"preprocess", "train", "evaluate", "export", "promote", "score", "sweep", "distil"} <= set(known)
    for name, module in known.items():
        assert module_file(module) is not None
        assert (ROOT / "configs" / f"{name}.yaml").is_file()


@pytest.mark.parametrize("secret", ["wrong", "expired"])
def test_a_refused_token_is_one_line_and_nothing_is_sent(
    dashboard: str, monkeypatch: pytest.MonkeyPatch, secret: str
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", secret)
    assert "refuses the token (403)" in refused(address=dashboard)
    assert not Jobs.changed


def test_the_right_token_is_let_in(dashboard: str) -> None:
    submit.knock(dashboard, TOKEN)


def test_no_token_is_one_line(dashboard: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert "no token" in refused(address=dashboard)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))
    assert f"{tmp_path / 'none'} has none" in refused(address=dashboard)


@pytest.mark.parametrize(
    ("name", "given", "told"),
    [
        ("trian", {}, 'did you mean "train"'),
        ("train", {"address": "127.0.0.1:8265"}, "http:// or https://"),
        ("train", {"metadata": ["ticket"]}, "key=value"),
        ("train", {"args": "--output 'a"}, "--args"),
        ("train", {"runtime_env": "no-such.yaml"}, "--runtime-env no-such.yaml"),
    ],
)
def test_a_mistake_is_one_line(dashboard: str, name: str, given: dict[str, Any], told: str) -> None:
    assert told in refused(name, **{"address": dashboard, **given})
    assert not Jobs.changed


class Page(BaseHTTPRequestHandler):
    """A web server that is no Ray: 404 for what it does not have."""

    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


class Binary(socketserver.BaseRequestHandler):
    """A server of another protocol, as ../shared/cases/h2port.py is: HTTP/2's first frame, or nothing."""

    def handle(self) -> None:
        self.request.recv(4096)
        self.request.sendall(bytes.fromhex("00001804000000000000040000ffff0005001000000006000020"))


@pytest.mark.parametrize("server", [Page, Binary, socketserver.BaseRequestHandler])
def test_a_port_that_is_no_ray_is_one_line(monkeypatch: pytest.MonkeyPatch, server: Any) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    kind = ThreadingHTTPServer if server is Page else socketserver.ThreadingTCPServer
    with kind(("127.0.0.1", 0), server) as there:
        thread = threading.Thread(target=there.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            line = refused(address=f"http://127.0.0.1:{there.server_address[1]}")
        finally:
            there.shutdown()
            thread.join()
    assert line.startswith(f"error: --address http://127.0.0.1:{there.server_address[1]}: ")


def test_what_ray_says_against_a_job_is_one_line() -> None:
    class Client:
        def submit_job(self, **_: Any) -> str:
            raise RuntimeError("Request failed with status code 500:\nTraceback (most recent call last): ...")

    with pytest.raises(ConfigError, match="Ray does not take the job"):
        submit._submit(Client())


def test_nobody_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    assert "nobody answers" in refused(address=f"http://127.0.0.1:{free_port()}")


def test_dry_run_prints_a_whole_command_and_no_secret(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "env.yaml"
    file.write_text("env_vars: {WANDB_API_KEY: very-secret}\nexcludes: [notes]\n")
    run(args="--epochs 7", runtime_env=str(file), metadata=["ticket=42"], dry_run=True)
    line = capsys.readouterr().out
    assert "very-secret" not in line
    words = shlex.split(line)
    entry = words[words.index("--") + 1 :]
    assert cli.parse(config.TrainConfig, entry[3:]).epochs == 7
    environment = json.loads(words[words.index("--runtime-env-json") + 1])
    assert {*submit.EXCLUDES, "notes"} == set(environment["excludes"])
    told = json.loads(words[words.index("--metadata-json") + 1])
    assert (told["job_name"], told["ticket"]) == ("train", "42")
    assert {"user", "git_commit"} <= set(told)


def test_what_is_sent_has_no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's own packer decides, for the excludes are its pattern language."""
    from ray._private.runtime_env.packaging import create_package

    for name in (
        ".git/HEAD",
        "artifacts/x",
        ".venv/x",
        "data/x",
        "deep/y.csv",
        "wandb/x",
        "clickbait/data.py",
        "configs/train.yaml",
    ):
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    import zipfile

    target = tmp_path / "package.zip"
    create_package(str(tmp_path / "tree"), target, excludes=submit.EXCLUDES, include_gitignore=True)
    with zipfile.ZipFile(target) as package:
        assert {name for name in package.namelist() if not name.endswith("/")} == {
            "clickbait/data.py",
            "configs/train.yaml",
        }


@pytest.mark.parametrize(("code", "text"), [(0, "did it"), (3, "failed at it")])
def test_the_jobs_exit_code_and_log_are_ours(
    ray_cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str], code: int, text: str
) -> None:
    """A real job server; a small working directory, for what it holds is not the point here."""
    submit.knock(ray_cluster.dashboard, ray_cluster.token)
    entry = f"sh -c 'echo {text}; exit {code}'"
    environment = {"working_dir": str(tmp_path), "env_vars": {}}
    assert submit.send(ray_cluster.dashboard, environment, {"job_name": "test"}, entry, follow=True) == code
    told = capsys.readouterr().out
    assert re.search(r"^submitted raysubmit_\w+$", told, re.MULTILINE)
    assert text in told


def test_a_wrong_token_is_told_by_a_real_cluster(ray_cluster: Cluster) -> None:
    with pytest.raises(ConfigError, match="refuses the token"):
        submit.knock(ray_cluster.dashboard, "0" * 64)


def test_secrets_logs_and_the_commands_own_output_are_not_sent(tmp_path: Path) -> None:
    """A file that grows while Ray packs the checkout fails the upload, and .env has keys."""
    excludes = submit.environment("", "")["excludes"]
    assert {".env", ".env.*", "*.log", "*.pem", "*.key"} <= set(excludes)
    folder = Path(tempfile.mkdtemp(dir=ROOT / "tests", prefix="own-output-"))
    try:
        program = "from cluster import submit; print(submit.own_output())"
        with (folder / "out.txt").open("w+") as file:
            subprocess.run(
                [sys.executable, "-c", program],
                stdout=file,
                check=True,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
            file.seek(0)
            assert file.read().strip() == f"['/tests/{folder.name}/out.txt']"
    finally:
        shutil.rmtree(folder)


def test_what_ray_says_of_a_refused_job_is_told() -> None:
    class Refusing:
        def submit_job(self, **asked: Any) -> str:
            raise RuntimeError(
                "Request failed with status code 500:\n  the runtime environment\n  is too large."
            )

    with pytest.raises(
        ConfigError,
        match=r"not take the job: .*Request failed with status code 500: the runtime environment is",
    ):
        submit._submit(Refusing(), entrypoint="x")
