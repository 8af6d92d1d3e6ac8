"""What the project promises about itself: what is not in the tree, what is pinned, what serving drags in,
what CI may do.
"""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tests.conftest import ROOT

MAX_BYTES = 500 * 1024
# A package registry's host, or a path of the machine that this was built on.
PRIVATE = re.compile(r"://[^/ \"]*(?:pypi|npmjs|debian)|(?:^|[^\w.])/(?:work|farm|root)/", re.MULTILINE)
TRAINING_ONLY = {
    "torch",
    "transformers",
    "pyarrow",
    "pandas",
    "scikit-learn",
    "datasets",
    "matplotlib",
    "wandb",
    "onnx",
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def tree() -> list[Path]:
    """Every file that is committed or would be."""
    if not (ROOT / ".git").exists():
        pytest.skip("no git checkout here")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    found = [ROOT / name for name in names if name and (ROOT / name).is_file()]
    assert len(found) > 50
    return found


def requirements() -> Iterator[Requirement]:
    """The direct dependencies, of every extra; the project's own extras are left out."""
    lists = [PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"].values()]
    for requirement in (Requirement(line) for lines in lists for line in lines):
        if requirement.name != PROJECT["project"]["name"]:
            yield requirement


def test_no_file_names_a_registry_or_a_path_of_this_machine(tree: list[Path]) -> None:
    found = {}
    for path in tree:
        data = path.read_bytes()
        if b"\0" not in data and (match := PRIVATE.search(data.decode(errors="replace"))):
            found[path.relative_to(ROOT).as_posix()] = match[0]
    assert not found


def test_no_file_is_large(tree: list[Path]) -> None:
    assert not [path for path in tree if path.stat().st_size > MAX_BYTES]


def test_every_python_file_says_what_it_is_for(tree: list[Path]) -> None:
    texts = {path: path.read_text(encoding="utf-8") for path in tree if path.suffix == ".py"}
    assert not [
        path for path, text in texts.items() if text.strip() and not ast.get_docstring(ast.parse(text))
    ]


def test_every_direct_dependency_is_pinned_as_in_the_lock() -> None:
    locked: dict[str, set[str]] = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        requirement = Requirement(line)
        locked.setdefault(canonicalize_name(requirement.name), set()).add(str(requirement.specifier))
    wrong = []
    for requirement in requirements():
        exact = re.fullmatch(r"==[^*]+", str(requirement.specifier))
        if not exact or locked.get(canonicalize_name(requirement.name)) != {str(requirement.specifier)}:
            wrong.append(str(requirement))
    assert not wrong, "not pinned, or constraints.txt says otherwise: inv lock"
    assert all("==" in line for line in PROJECT["build-system"]["requires"])


def closure(extras: list[str]) -> set[str]:
    """Every distribution that the project with these extras installs here, by the metadata of what is
    installed.
    """
    groups = PROJECT["project"]["optional-dependencies"]
    waiting = [
        Requirement(line)
        for line in PROJECT["project"]["dependencies"] + [x for name in extras for x in groups[name]]
    ]
    done: set[tuple[str, str]] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        for extra in ["", *requirement.extras]:
            if (name, extra) in done or name == PROJECT["project"]["name"]:
                continue
            done.add((name, extra))
            for needed in map(Requirement, importlib.metadata.requires(name) or []):
                if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                    waiting.append(needed)
    return {name for name, _ in done}


def test_the_serving_install_has_nothing_of_training() -> None:
    found = closure(["standalone", "serve"])
    assert {
        "ray",
        "fastapi",
        "onnxruntime",
        "starlette",
    } <= found  # the walk goes through extras and beyond the first step
    assert not found & TRAINING_ONLY
    assert "ray" not in closure(["standalone"])
    assert closure(["train"]) >= TRAINING_ONLY


def make(*words: str) -> subprocess.CompletedProcess[str]:
    """`make -n`, as if no make had started the tests."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("MAKE") and name != "MFLAGS"
    }
    return subprocess.run(
        ["make", "-n", *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "target",
    [
        "demo",
        "serve",
        "test",
        "lint",
        "format",
        "bench-train",
        "bench-size",
        "bench-clean",
        "bench-serve",
        "bench-autoscale",
        "bench-score",
    ],
)
def test_make_knows_the_command_and_what_it_runs_is_there(target: str) -> None:
    told = make(target)
    assert told.returncode == 0, told.stderr
    assert ".venv/bin/" in told.stdout  # a name in .PHONY without a rule is no error
    for module in re.findall(r"python -m ((?:ray_jobs|tests)[\w.]*)", told.stdout):
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), module
    assert make("no-such-target").returncode != 0


@pytest.fixture(scope="module")
def workflows() -> dict[str, Any]:
    """Each workflow's document by its name."""
    paths = sorted((ROOT / ".github" / "workflows").iterdir())
    return {path.name: yaml.safe_load(path.read_text(encoding="utf-8")) for path in paths}


# What a job may write, beside nothing: GitHub's own token for Google, and a comment on a commit.
MAY_WRITE = {
    ("deploy.yaml", "id-token"),
    ("images.yaml", "id-token"),
    ("staged-model.yaml", "id-token"),
    ("staged-model.yaml", "contents"),
}


def test_workflows_may_read_and_little_else(workflows: dict[str, Any]) -> None:
    assert workflows
    for name, document in workflows.items():
        assert document["permissions"] == {"contents": "read"}
        for job in document["jobs"].values():
            assert {
                (name, what)
                for what, how in job.get("permissions", {}).items()
                if how not in ("read", "none")
            } <= MAY_WRITE
            assert job["timeout-minutes"] <= 90
            for step in job["steps"]:
                uses = step.get("uses")
                assert uses is None or re.fullmatch(r"[\w.-]+(/[\w.-]+)+@[0-9a-f]{40}", uses), uses
                assert "actions/checkout@" not in (uses or "") or step["with"]["persist-credentials"] is False


def test_ci_runs_on_every_python_that_the_project_takes(workflows: dict[str, Any]) -> None:
    job = workflows["ci.yaml"]["jobs"]["test"]
    taken = SpecifierSet(PROJECT["project"]["requires-python"])
    assert job["strategy"]["matrix"]["python"] == [
        version for minor in range(30) if (version := f"3.{minor}") in taken
    ]
    assert [step["run"] for step in job["steps"] if "run" in step] == ["bash .ci/run"]


def ci_run(folder: Path, make_script: str) -> subprocess.CompletedProcess[str]:
    """`.ci/run` in a checkout at `folder`/main where make is `make_script`: it keeps make's exit codes and
    sees its environment.
    """
    checkout, tools = folder / "main", folder / "tools"
    (checkout / ".ci").mkdir(parents=True)
    tools.mkdir()
    shutil.copy(ROOT / ".ci" / "run", checkout / ".ci" / "run")
    (tools / "make").write_text(f"#!/bin/sh\n{make_script}\n")
    (tools / "make").chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if name != "CLICKBAIT_DATA_DIR"}
    environment["PATH"] = f"{tools}{os.pathsep}{environment['PATH']}"
    command = ["bash", str(checkout / ".ci" / "run")]
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)


SAY = 'echo "make $* in ${PWD##*/}, data: ${CLICKBAIT_DATA_DIR-unset}"'


def test_ci_lints_and_tests_with_the_real_headlines_where_they_are(tmp_path: Path) -> None:
    data = tmp_path / "shared" / "data"
    data.mkdir(parents=True)
    told = ci_run(tmp_path, SAY)
    assert told.returncode == 0, told.stderr
    lines = [line for line in told.stdout.splitlines() if line.startswith("make ")]
    assert lines == [f"make {name} in main, data: {data}" for name in ("lint", "test")]


def test_ci_leaves_the_variable_unset_where_there_is_no_data(tmp_path: Path) -> None:
    told = ci_run(tmp_path, SAY)
    assert "make test in main, data: unset" in told.stdout
    assert "CLICKBAIT_DATA_DIR is unset" in told.stdout


@pytest.mark.parametrize(("failing", "run"), [("lint", ["lint"]), ("test", ["lint", "test"])])
def test_ci_fails_as_its_first_failing_step_does(tmp_path: Path, failing: str, run: list[str]) -> None:
    told = ci_run(tmp_path, f'echo "make $1"; [ "$1" != {failing} ] || exit 7')
    assert told.returncode == 7
    assert re.findall(r"^make (\w+)$", told.stdout, re.MULTILINE) == run


# pip's setting, uv's, and the value that uv has to get.
PIP_AND_UV = [
    ("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "https://index.example/simple", "https://index.example/simple"),
    (
        "PIP_EXTRA_INDEX_URL",
        "UV_INDEX",
        "https://a.example https://b.example",
        "https://a.example https://b.example",
    ),
    ("PIP_FIND_LINKS", "UV_FIND_LINKS", "/a /b", "/a,/b"),
    ("PIP_CERT", "SSL_CERT_FILE", "/a.pem", "/a.pem"),
    ("PIP_TRUSTED_HOST", "UV_INSECURE_HOST", "a.example", "a.example"),
]


@pytest.mark.parametrize(("pip", "uv", "value", "expected"), PIP_AND_UV)
def test_what_pip_is_told_reaches_uv(pip: str, uv: str, value: str, expected: str) -> None:
    command = [str(ROOT / "cluster" / "with_pip_settings.sh"), "printenv", uv]

    def told(**variables: str) -> str:
        environment = {"PATH": os.environ["PATH"], **variables}
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False
        ).stdout.strip()

    assert told() == ""
    assert told(**{pip: value}) == expected
    assert told(**{pip: value, uv: "mine"}) == "mine"


def test_a_second_index_does_not_stand_in_for_the_first_where_no_hash_is_checked() -> None:
    """Only the images' script sets `unsafe-best-match`: it checks hashes. What the user sets is left as it
    is.
    """
    wrapper = str(ROOT / "cluster" / "with_pip_settings.sh")
    environment = {"PATH": os.environ["PATH"], "PIP_EXTRA_INDEX_URL": "https://b.example"}

    def strategy(**variables: str) -> str:
        command = [wrapper, "printenv", "UV_INDEX_STRATEGY"]
        return subprocess.run(
            command, env=environment | variables, capture_output=True, text=True, check=False
        ).stdout.strip()

    assert strategy() == ""
    assert strategy(UV_INDEX_STRATEGY="unsafe-best-match") == "unsafe-best-match"
    sets = re.compile(r"^[^#\n]*best-match", re.MULTILINE)
    files = [ROOT / "Makefile", *(ROOT / "cluster").glob("*.sh")]
    scripts = [path for path in files if sets.search(path.read_text(encoding="utf-8"))]
    assert scripts == [ROOT / "cluster" / "install_extras.sh"]
    assert "--require-hashes" in scripts[0].read_text(encoding="utf-8")


def test_make_and_the_images_run_uv_with_pip_s_settings() -> None:
    installs = re.findall(r".*uv pip install.*", (ROOT / "Makefile").read_text(encoding="utf-8"))
    assert installs
    assert all("with_pip_settings.sh" in line for line in installs)
    script = (ROOT / "cluster" / "install_extras.sh").read_text(encoding="utf-8")
    assert 'with-pip-settings "${UV_PROGRAM:-/opt/uv/bin/uv}"' in script
