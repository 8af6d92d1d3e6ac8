"""Environments that are not as on a developer's laptop: worked around, or told in one line before anything is
started.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

import pytest

from clickbait import environment
from clickbait.data import download
from clickbait.errors import ConfigError
from clickbait.pretrained import download_mpnet
from serve.settings import load
from tests.conftest import ROOT

PROXIES = [
    name
    for scheme in ("http", "https", "all", "no")
    for name in (f"{scheme}_proxy", f"{scheme}_proxy".upper())
]


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [*PROXIES, "RAY_ADDRESS", "RAY_TMPDIR"]:
        monkeypatch.setenv(name, "")  # so that what a test's subject sets is taken back
        monkeypatch.delenv(name)
    monkeypatch.setattr(environment, "SHORT", str(tmp_path))


def test_the_loopback_goes_past_every_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    environment.bypass_proxy_for_loopback()
    assert "no_proxy" not in os.environ
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "internal.example, localhost")
    environment.bypass_proxy_for_loopback()
    environment.bypass_proxy_for_loopback()  # twice is once
    assert os.environ["NO_PROXY"] == "internal.example,localhost,127.0.0.1,::1,[::1]"
    for host in ("localhost:8000", "127.0.0.1:8000", "[::1]:8000"):
        assert urllib.request.proxy_bypass_environment(host), host
    assert not urllib.request.proxy_bypass_environment("pypi.example")
    monkeypatch.setenv("no_proxy", "*")
    environment.bypass_proxy_for_loopback()
    assert os.environ["no_proxy"] == "*"


@pytest.mark.parametrize("address", ["http://127.0.0.1:8265", "https://ray.example"])
def test_an_address_for_jobs_is_no_cluster(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ConfigError, match="HOST:6379"):
        environment.prepare_for_ray()


def test_a_long_temporary_folder_leaves_room_for_ray_s_sockets(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/x" * 40)
    environment.prepare_for_ray()
    assert os.environ["RAY_TMPDIR"] == str(tmp_path / f"clickbait-{os.getuid()}")
    monkeypatch.setenv("RAY_TMPDIR", "/x" * 40)
    with pytest.raises(ConfigError, match="RAY_TMPDIR"):
        environment.prepare_for_ray()
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")
    monkeypatch.delenv("RAY_TMPDIR")
    environment.prepare_for_ray()
    assert "RAY_TMPDIR" not in os.environ


def test_a_blank_in_the_path_of_the_interpreter_is_kept_from_ray(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Ray's runtime environments start workers by a shell line without quotes: the demo waited for a replica
    for ever.
    """
    monkeypatch.setattr(environment, "SHORT", tempfile.gettempdir())
    folder = tmp_path / "a blank"
    folder.mkdir()
    (folder / ".venv").symlink_to(Path(sys.prefix))
    monkeypatch.setattr(sys, "executable", str(folder / ".venv" / "bin" / "python"))
    environment.prepare_for_ray()
    environment.prepare_for_ray()
    assert " " not in sys.executable
    prefix = subprocess.run(
        [sys.executable, "-c", "import numpy, sys; print(sys.prefix)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(prefix.stdout.strip()).resolve() == Path(sys.prefix).resolve()
    Path(sys.executable).parent.parent.unlink()


def test_a_home_that_cannot_be_written_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/nonexistent")
    with pytest.raises(ConfigError, match="HOME is /nonexistent"):
        environment.prepare_for_ray()
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    environment.prepare_for_ray()  # that cluster's machines have homes of their own


def test_a_stream_that_is_not_utf_8_loses_a_character_and_not_the_program() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    environment.replace_unencodable(stream)
    print("── accuracy 0.99 …", file=stream, flush=True)
    assert raw.getvalue() == b"?? accuracy 0.99 ?\n"
    for encoding in ("ascii", "latin-1"):
        variables = {**os.environ, "PYTHONIOENCODING": encoding}
        command = [
            sys.executable,
            "-c",
            "from clickbait import cli; cli.exit_code(lambda: print('── caf\u00e9'))",
        ]
        done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, check=False)
        assert done.stderr == b""
        assert done.stdout.startswith(b"?? caf")


@pytest.mark.parametrize("name", ["download", "teacher"])
def test_help_starts_nothing(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program = {"download": download, "teacher": download_mpnet}[name]

    def never(*_: object) -> None:
        raise AssertionError("it downloads")

    monkeypatch.setattr(program, "download", never)
    for args, code in ((["--help"], 0), (["-h"], 0), (["--hlep"], 2), (["a", "b"], 2)):
        assert program.main(args) == code
    assert "usage" in capsys.readouterr().out


def test_the_pipeline_sends_a_key_of_the_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from ray_jobs.pipeline import key_for

    assert key_for(load()) == ""
    assert key_for(load(api_keys="first,second")) == "first"
    file = tmp_path / "keys"
    file.write_text("third\nfourth\n")
    assert key_for(load(api_keys_file=str(file))) == "third"
    with pytest.raises(ConfigError, match="CLICKBAIT_API_KEYS"):
        key_for(load(api_key_digests="0" * 64))


@pytest.mark.parametrize(
    ("name", "value"), [("CLICKBAIT_THREADS", "many"), ("CLICKBAIT_API_KEYS_REQUIRED", "1")]
)
def test_a_wrong_serving_setting_is_told_before_the_pipeline_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str
) -> None:
    from clickbait.config import PipelineConfig
    from ray_jobs import pipeline

    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError):
        pipeline.pipeline(PipelineConfig(work=str(tmp_path / "work")))
    assert not (tmp_path / "work").exists()
