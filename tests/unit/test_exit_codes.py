"""Every command ends with one of five codes and, but for 0, one line: whatever is raised, by us, by another
library, in a Ray worker.
"""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clickbait import cli, errors, library_errors
from clickbait.errors import ClickbaitError, DataError, Refused
from tests.conftest import ROOT

BUGS = [
    AssertionError,
    AttributeError,
    IndexError,
    KeyError,
    NotImplementedError,
    RecursionError,
    RuntimeError,
    TypeError,
    ValueError,
]


def children(parent: type[ClickbaitError]) -> list[type[ClickbaitError]]:
    return [parent, *(found for child in parent.__subclasses__() for found in children(child))]


OURS = [kind for kind in children(ClickbaitError) if kind.__module__ == errors.__name__]


@pytest.fixture(autouse=True)
def _own_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def ended(capsys: pytest.CaptureFixture[str], error: BaseException) -> tuple[int, str]:
    """The code and the one line of a command that raises `error`."""

    def job() -> None:
        raise error

    capsys.readouterr()
    code = cli.exit_code(job)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1, said.err
    return code, said.err.strip()


def foreign_errors() -> dict[str, BaseException]:
    """An instance of each class of the table; without its constructor, as some want objects of their
    library.
    """
    made: dict[str, BaseException] = {}
    for name in library_errors.FIXES:
        module, _, attribute = name.rpartition(".")
        kind = getattr(importlib.import_module(module), attribute)
        made[name] = kind.__new__(kind, "a message\nin two lines")
    return made


def test_every_name_of_the_table_is_a_class_of_the_installed_library_and_ends_with_2(
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = foreign_errors()
    assert set(made) == set(library_errors.FIXES)  # all are installed with the `dev` extra
    for name, error in made.items():
        code, line = ended(capsys, error)
        assert code == cli.Code.USER, name
        assert line.startswith(f"error: {type(error).__name__}"), line
        assert library_errors.FIXES[name] in line, line


# Made like the libraries make them, by what a user gives them.
EDGES: dict[str, Callable[[Path], Any]] = {
    "a file that is not there": lambda folder: (folder / "none").read_bytes(),
    "a folder that is a file": lambda folder: next(os.scandir(__file__)),
    "a port nobody listens on": lambda folder: importlib.import_module("urllib.request").urlopen(
        "http://127.0.0.1:9", timeout=5
    ),
    "a Parquet file of text": lambda folder: importlib.import_module("pyarrow.parquet").read_table(
        _file(folder, b"not Parquet")
    ),
    "a YAML file of a tab": lambda folder: importlib.import_module("yaml").safe_load("a:\n\t- b"),
    "half a JSON file": lambda folder: importlib.import_module("json").loads('{"a": '),
    "bytes that are no UTF-8": lambda folder: b"\xff".decode(),
    "a zip file of text": lambda folder: importlib.import_module("zipfile").ZipFile(
        _file(folder, b"not a zip")
    ),
    "an ONNX graph of text": lambda folder: importlib.import_module("onnxruntime").InferenceSession(
        _file(folder, b"not ONNX")
    ),
    "weights of text": lambda folder: importlib.import_module("safetensors").safe_open(
        _file(folder, b"not safetensors"), "np"
    ),
    "no login": lambda folder: (
        importlib.import_module("google.oauth2.credentials").Credentials("").refresh(None)
    ),
}


def _file(folder: Path, data: bytes) -> str:
    path = folder / "file"
    path.write_bytes(data)
    return str(path)


@pytest.mark.parametrize("edge", EDGES)
def test_what_a_user_gives_another_library_ends_with_2_and_one_line(
    edge: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.exit_code(lambda: EDGES[edge](tmp_path)) == cli.Code.USER
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    assert "the traceback is in" in said


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from([*OURS, *BUGS, OSError, ConnectionError, MemoryError, SystemExit]),
    text=st.text(max_size=600),
    wrap=st.booleans(),
)
def test_any_error_with_any_text_is_one_line_and_its_kind_s_code(
    capsys: pytest.CaptureFixture[str], kind: type[BaseException], text: str, wrap: bool
) -> None:
    error = kind(text or "x")
    code, line = ended(capsys, in_a_task(error) if wrap and isinstance(error, Exception) else error)
    if issubclass(kind, Refused):
        assert (code, line[:8]) == (cli.Code.REFUSED, "refused:")
    elif issubclass(kind, (ClickbaitError, OSError, MemoryError)):
        assert (code, line[:6]) == (cli.Code.USER, "error:")
    else:
        assert code == cli.Code.FAULT
        (path,) = re.findall(r"the traceback is in (\S+\.txt)", line)
        assert kind.__name__ in Path(path).read_text(encoding="utf-8")


def in_a_task(error: Exception) -> BaseException:
    """What `ray.get` raises where a task raised `error`: Ray's own wrapper, made by Ray."""
    from ray.exceptions import RayTaskError

    return RayTaskError(
        "task", f"Traceback (most recent call last):\n{type(error).__name__}", error, "python", 1, "127.0.0.1"
    ).as_instanceof_cause()


def in_a_training(error: Exception) -> BaseException:
    from ray.train import WorkerGroupError  # type: ignore[attr-defined]

    return WorkerGroupError("workers failed:\ntraceback", {0: in_a_task(error)})


def in_ray_data(error: Exception) -> BaseException:
    from ray.data.exceptions import UserCodeException

    try:
        raise UserCodeException("see the traceback") from in_a_task(error)
    except UserCodeException as wrapped:
        return wrapped


@pytest.mark.parametrize("wrap", [in_a_task, in_a_training, in_ray_data])
def test_an_error_of_a_worker_is_the_line_that_it_would_be_here(
    wrap: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(capsys, wrap(DataError("rows.csv: no column"))) == (2, "error: rows.csv: no column")
    assert ended(capsys, wrap(Refused("no")))[0] == 1
    assert ended(capsys, wrap(PermissionError(13, "Permission denied", "/data")))[0] == 2
    code, line = ended(capsys, wrap(KeyError("a bug")))
    assert code == 3
    assert "KeyError" in line


def test_ctrl_c_a_closed_pipe_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(capsys, KeyboardInterrupt())[0] == 130

    def leave() -> None:
        raise SystemExit(0)

    assert cli.exit_code(leave) == 0
    assert cli.exit_code(lambda: None) == 0
    command = f"{sys.executable} -m clickbait.sample --count 20000 | head -n 1"
    piped = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert piped.returncode == 130
    assert "Traceback" not in piped.stderr
    assert "Exception" not in piped.stderr


def test_a_fault_is_told_where_no_file_can_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / f"clickbait-{os.getuid()}").write_text("not a folder")

    def job() -> None:
        raise KeyError("x")

    assert cli.exit_code(job) == 3
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert "the traceback is above" in said.splitlines()[-1]


def test_a_crash_of_a_job_is_not_a_refusal(tmp_path: Path) -> None:
    """Python's own code of a crash is 1, which is the gate's; the weekly retraining takes 1 for a result."""
    code = (
        "import ray_jobs.promote as job; job.promote = lambda config: {}['bug']; from clickbait import cli; "
    )
    code += "cli.run(job.PromoteConfig, job.main, None)"
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    (file,) = (tmp_path / f"clickbait-{os.getuid()}" / "faults").iterdir()
    assert str(file) in done.stderr
    assert "KeyError: 'bug'" in file.read_text()


def test_every_program_ends_in_the_boundary() -> None:
    """Each module with a command line calls `cli.run` or `cli.exit_code`, and none catches errors for itself
    on the way out.
    """
    others = (
        "frontend.py",
        "haproxy_process.py",
    )  # started by Streamlit and by Ray Serve, who show their errors
    for folder in ("clickbait", "ray_jobs", "serve", "tuning", "cluster"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            if re.search(r'^if __name__ == "__main__"', text, re.MULTILINE) and path.name not in others:
                if path.parent.name == "registry":
                    text = path.with_name("command.py").read_text(encoding="utf-8")
                assert re.search(r"cli\.(run|exit_code)\(", text), path
            if path.name != "cli.py":
                assert 'print(f"error:' not in text, path
                assert not [
                    node
                    for node in ast.walk(ast.parse(text))
                    if isinstance(node, ast.Name) and node.id == "SystemExit"
                ] or (path.name == "cli.py"), path
