"""The chores of tasks.py: their names, that each job understands what its task gives it, and how they end."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from invoke.context import Context
from invoke.exceptions import Exit
from invoke.runners import Result

import tasks
from clickbait import cli, config
from serve import standalone
from tests.conftest import ROOT

# Fixed by the design: docs, CI and habits hang on them.
NAMES = {
    "preprocess-data",
    "train",
    "evaluate",
    "dev-api",
    "test",
    "upload-model",
    "stage-model",
    "docker-train",
    "docker-evaluate",
}
NAMES |= {"build-api", "run-api-docker", "build-docs", "serve-docs"}


class Recorder(Context):
    """A context that notes the line and runs nothing. Like the real one, it gets the whole line as one
    string.
    """

    def run(self, command: str, **settings: Any) -> Result:
        self._set(line=command, settings=settings)
        return Result()


@pytest.fixture(autouse=True)
def _at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # the tasks go there; this takes the tests back


def recorded(name: str, *args: Any, **kwargs: Any) -> tuple[list[str], dict[str, Any]]:
    """The words and the settings that the task runs its command with."""
    recorder = Recorder()
    getattr(tasks, name)(recorder, *args, **kwargs)
    return shlex.split(recorder.line), recorder.settings


def test_every_name_is_there() -> None:
    command = [sys.executable, "-m", "invoke", "--list", "--list-format", "json"]
    listed = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)
    assert {task["name"] for task in listed["tasks"]} >= NAMES


@pytest.mark.parametrize(
    ("name", "model", "args", "expected"),
    [
        (
            "preprocess_data",
            config.PreprocessConfig,
            "--source 'my headlines.csv'",
            {"source": "my headlines.csv"},
        ),
        ("train", config.TrainConfig, "--epochs 7", {"epochs": 7}),
        ("export", config.ExportConfig, "--threads 3", {"threads": 3}),
        ("evaluate", config.EvaluateConfig, "--worst 5", {"worst": 5}),
        ("upload_model", config.PromoteConfig, "", {"publish_only": True}),
        ("stage_model", config.PromoteConfig, "", {"alias": "staging"}),
        ("promote", config.PromoteConfig, "--version v3", {"alias": "production", "version": "v3"}),
        ("rollback", config.PromoteConfig, "--alias staging", {"alias": "staging", "rollback": True}),
    ],
)
def test_a_job_understands_what_its_task_gives_it(
    name: str, model: type[config.Config], args: str, expected: dict[str, Any]
) -> None:
    words, _ = recorded(name, args=args)
    assert words[:2] == [sys.executable, "-m"]
    assert (ROOT / f"{words[2].replace('.', '/')}.py").is_file()
    parsed = cli.parse(model, words[3:])
    assert {key: getattr(parsed, key) for key in expected} == expected


def test_the_server_understands_what_dev_api_gives_it() -> None:
    words, _ = recorded("dev_api", model="staging", args="--port 0")
    assert words[2] == "serve.standalone"
    assert (standalone.parse(words[3:]).model, standalone.parse(words[3:]).port) == ("staging", 0)


@pytest.mark.parametrize("name", ["docker_train", "docker_evaluate", "build_api"])
def test_without_docker_a_task_ends_in_one_line(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Exit, match="docker: not installed") as told:
        recorded(name)
    assert told.value.code == 2


def test_a_task_prints_its_command_and_ends_as_that_does() -> None:
    command = [sys.executable, "-m", "invoke", "dev-api", "--args", "--modl v3"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert told.returncode == 2
    assert "-m serve.standalone --registry artifacts/registry --model production --modl v3" in told.stdout
    assert told.stderr.strip() == 'error: --modl: unknown flag; did you mean "model"?'
