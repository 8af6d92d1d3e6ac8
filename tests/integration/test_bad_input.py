"""What a user gets wrong ends with one line that says what to do, exit code 2, no traceback, and nothing
half-written.
"""

from __future__ import annotations

import pickle
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from clickbait.registry.registry import Registry
from tests.conftest import ROOT
from tests.tiny import tiny_bundle


def error_of(*command: str) -> str:
    """The one line that `python -m <command>` prints; it ends with 2 and says nothing else."""
    done = subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, text=True, cwd=ROOT, timeout=240
    )
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 2, done.stderr
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: "), lines[0]
    assert done.stdout == ""
    return lines[0]


@pytest.fixture
def untouched(tmp_path: Path) -> Iterator[str]:
    """An output folder that must not exist afterwards."""
    yield str(tmp_path / "output")
    assert not (tmp_path / "output").exists()


def test_a_missing_file(untouched: str) -> None:
    assert "nowhere.csv" in error_of("ray_jobs.preprocess", "--source", "nowhere.csv", "--output", untouched)


def test_an_unknown_column(tmp_path: Path, untouched: str) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("title,clickbait\nA headline,1\n")
    line = error_of("ray_jobs.preprocess", "--source", str(file), "--output", untouched)
    assert "headline" in line
    assert "title" in line


def test_a_model_name_with_no_network(untouched: str) -> None:
    line = error_of("ray_jobs.preprocess", "--model", "nobody/nothing", "--output", untouched)
    assert "hub cannot be reached" in line
    assert "package:" in line


def test_no_dataset(untouched: str) -> None:
    assert "ray_jobs.preprocess" in error_of("ray_jobs.train", "--dataset", untouched, "--output", untouched)


def test_no_bundle(untouched: str) -> None:
    assert "ray_jobs.export" in error_of("ray_jobs.promote", "--bundle", untouched)


def test_a_changed_byte_in_a_bundle(tmp_path: Path, untouched: str) -> None:
    bundle = tiny_bundle(tmp_path / "bundle")
    model = bundle / "model.onnx"
    data = bytearray(model.read_bytes())
    data[-1] ^= 1
    model.write_bytes(data)
    line = error_of("ray_jobs.promote", "--bundle", str(bundle), "--registry", untouched)
    assert "model.onnx: its SHA-256 is not the manifest's" in line


def test_a_pickle_in_a_bundle(tmp_path: Path, untouched: str) -> None:
    bundle = tiny_bundle(tmp_path / "bundle")
    (bundle / "model.safetensors").write_bytes(pickle.dumps({"a": 1}))
    assert "model.safetensors" in error_of(
        "ray_jobs.promote", "--bundle", str(bundle), "--registry", untouched
    )


def test_a_wrong_alias(tmp_path: Path) -> None:
    registry = Registry(str(tmp_path / "registry"))
    registry.set_alias(registry.publish(tiny_bundle(tmp_path / "bundle")), "production")
    line = error_of("serve.standalone", "--registry", str(tmp_path / "registry"), "--model", "prodution")
    assert "production" in line


def test_rollback_of_an_alias_that_never_moved(tmp_path: Path) -> None:
    registry = Registry(str(tmp_path / "registry"))
    registry.set_alias(registry.publish(tiny_bundle(tmp_path / "bundle")), "production")
    assert "production" in error_of(
        "ray_jobs.promote", "--rollback", "--registry", str(tmp_path / "registry")
    )


@pytest.mark.parametrize("command", ["serve.standalone", "ray_jobs.pipeline"])
def test_a_port_in_use(tmp_path: Path, untouched: str, command: str) -> None:
    folder = ["--registry", untouched] if command == "serve.standalone" else ["--work", untouched]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        line = error_of(command, *folder, "--port", str(taken.getsockname()[1]))
    assert "somebody listens there" in line
