"""Each extra has what its programs import, and each image has what its start command imports. `make
check-extras` starts all of them.
"""

from __future__ import annotations

import importlib.metadata
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from clickbait.errors import Refused
from cluster import dockerfile, extras
from cluster.module_graph import Needs, needs
from tests.conftest import ROOT
from tests.tiny import tiny_bundle

PROJECT = extras.PROJECT["project"]
# Libraries that a program imports only where a user asks for what its extra does not bring; the message there
# says which extra does.
ON_REQUEST = {
    "tyro": "clickbait.cli.parse reads the configuration files of jobs; the servers have none",
    "torch": "CLICKBAIT_RUNTIME=torch",
    "transformers": "CLICKBAIT_RUNTIME=torch",
    "huggingface_hub": "a base model from the hub, for CLICKBAIT_RUNTIME=torch",
}
# What is named otherwise than its distribution, of libraries that not every environment of the tests has.
DISTRIBUTIONS = {"bentoml": "bentoml", "streamlit": "streamlit", "locust": "locust", "litserve": "litserve"}


def closure(names: set[str]) -> set[str]:
    """Every distribution that the project brings with these extras, by the metadata of what is installed
    here.
    """
    groups = PROJECT["optional-dependencies"]
    waiting = [
        Requirement(line)
        for line in [*PROJECT["dependencies"], *(line for name in names for line in groups[name])]
    ]
    done: set[tuple[str, str]] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        for extra in ["", *requirement.extras]:
            if (name, extra) in done:
                continue
            done.add((name, extra))
            if name == PROJECT["name"]:
                waiting += [Requirement(line) for line in groups.get(extra, [])]
                continue
            try:
                lines = importlib.metadata.requires(name) or []
            except importlib.metadata.PackageNotFoundError:
                continue
            waiting += [
                needed
                for line in lines
                if not (needed := Requirement(line)).marker or needed.marker.evaluate({"extra": extra})
            ]
    return {name for name, _ in done}


PACKAGES = importlib.metadata.packages_distributions()


def missing(wanted: Needs, installed: set[str], *, on_request: bool) -> dict[str, str]:
    """Libraries of no installed distribution, and the module that imports each."""
    imports = wanted.at_start | {
        name: module for name, module in wanted.later.items() if not (on_request and name in ON_REQUEST)
    }
    return {
        name: module
        for name, module in imports.items()
        if not {canonicalize_name(found) for found in PACKAGES.get(name, [DISTRIBUTIONS.get(name, name)])}
        & installed
    }


@pytest.mark.parametrize("extra", ["", *extras.EXTRAS])
def test_an_extra_brings_what_its_programs_import(extra: str) -> None:
    modules = extras.modules(extra)
    if not modules:
        return
    wanted = needs(*modules)
    assert wanted.files
    assert not missing(
        wanted, closure({extra} if extra else set()), on_request=extra not in ("train", "dev", "peers")
    )


def test_an_extra_brings_each_library_itself_and_not_by_luck() -> None:
    """httptools came with uvicorn[standard], which Ray asks for: `serve` had it, `standalone` did not."""
    direct = {
        canonicalize_name(Requirement(line).name)
        for line in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["standalone"]]
    }
    for name in needs("serve.standalone").at_start:
        found = {canonicalize_name(item) for item in PACKAGES[name]}
        assert found & (direct | {"starlette"}), name  # starlette is FastAPI's own


def modules_of(words: list[str]) -> list[str]:
    """The modules that a start command imports."""
    match words:
        case ["python", "-m", module, *_]:
            return [module]
        case ["serve", "run", file, *_]:
            return [
                app["import_path"].partition(":")[0]
                for app in yaml.safe_load((ROOT / file).read_text(encoding="utf-8"))["applications"]
            ]
        case ["bentoml", "serve", service, *_]:
            return [service.partition(":")[0]]
        case ["streamlit", "run", file]:
            return [".".join(Path(file).with_suffix("").parts)]
    return []


def started(target: str) -> list[list[str]]:
    """Every command that something of this repository starts in the target's image: its own, Compose's,
    Vertex AI's, KubeRay's.
    """
    image = f"clickbait-{target}"
    commands = [dockerfile.command(target)]
    compose: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    commands += [
        service["command"]
        for service in compose["services"].values()
        if service["image"] == image and "command" in service
    ]
    if target == "train":
        for path in [*(ROOT / "cluster/vertex").glob("*.yaml"), *(ROOT / "cluster/kuberay").rglob("*.yaml")]:
            commands += [
                shlex.split(line)
                for line in re.findall(
                    r"python -m (?:ray_jobs|tuning)\.\w+", path.read_text(encoding="utf-8")
                )
            ]
            commands += [
                ["python", "-m", module]
                for module in re.findall(r"python, -m, ([\w.]+)", path.read_text(encoding="utf-8"))
            ]
    return commands


@pytest.mark.parametrize("target", extras.IMAGES)
def test_an_image_has_what_its_start_commands_import(target: str) -> None:
    copied = {source for sources, _ in dockerfile.copied(target) for source in sources}
    installed = closure(dockerfile.extras(target))
    for words in started(target):
        scripts = {
            canonicalize_name(point.dist.name)
            for point in importlib.metadata.entry_points(name=words[0])
            if point.dist is not None
        }
        assert words[0] in ("python", "sleep", *installed) or scripts & installed, words
        wanted = needs(*modules_of(words))
        for file in wanted.files:
            assert {file.as_posix(), *(parent.as_posix() for parent in file.parents)} & copied, (
                f"{words}: {file} is not in the image"
            )
        assert not missing(wanted, installed, on_request=target != "train"), words


def test_cloud_run_starts_images_by_their_own_command() -> None:
    for path in (ROOT / "cluster" / "cloudrun").glob("*.yaml"):
        (container,) = yaml.safe_load(path.read_text(encoding="utf-8"))["spec"]["template"]["spec"][
            "containers"
        ]
        assert not {"command", "args"} & set(container), path


# Those whose packages `make test` has put into uv's cache, and that start in a moment. `make check-extras`
# takes the rest. The Dockerfile's own script installs the image, with hashes.
@pytest.mark.parametrize("name", ["base", "standalone", "image:standalone"])
def test_it_starts_in_a_fresh_environment(name: str) -> None:
    extras.check(name, tiny_bundle)


def test_a_library_that_is_missing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault that this file is for, made again: without httptools the server does not start."""
    without = [
        line for line in PROJECT["optional-dependencies"]["standalone"] if not line.startswith("httptools")
    ]
    monkeypatch.setitem(PROJECT["optional-dependencies"], "standalone", without)
    assert missing(needs("serve.standalone"), closure({"standalone"}), on_request=True) == {
        "httptools": "serve.http.uvicorn_private"
    }


def test_a_program_that_does_not_start_is_one_line_with_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "cwd").mkdir()
    inside = extras.Environment(Path("/"), tmp_path / "cwd", tmp_path, {"PATH": "/usr/bin:/bin"})
    with pytest.raises(Refused, match=r"ended with 1, not 0: no such module$"):
        extras._run("x", extras.Program(["sh", "-c", "echo no such module; exit 1"]), inside)
