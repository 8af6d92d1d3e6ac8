"""Installs each extra alone into a fresh environment and starts its programs; then each image's start command
on what it copies.

    python -m cluster.extras                        # all: `make check-extras`
    python -m cluster.extras base standalone image:standalone

uv takes packages from its cache, so an environment is seconds, not minutes. A check fails in one line; the
exit code is `clickbait.cli.Code`, and 1 where a program did not start.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from clickbait import cli
from clickbait.errors import Refused
from cluster import dockerfile
from cluster.shell import ROOT, UV

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS: list[str] = sorted(PROJECT["project"]["optional-dependencies"])
IMAGES = ("standalone", "serve", "train", "bento", "frontend", "dev")
_START_S = 180  # Ray and its first replica, on a busy machine of two cores
_END_S = 60
JOBS = ("preprocess", "train", "export", "evaluate", "promote", "score")


@dataclass(frozen=True)
class Program:
    """A program of an environment, and how it shows that it starts."""

    words: list[str]
    """The first one is looked up in the environment's bin."""
    url: str | None = None
    """It is a server: this address answers 200, and it is stopped. None: it ends by itself."""
    code: int = 0
    says: str = ""
    """A regular expression that what it prints has to match."""
    variables: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Environment:
    """A fresh environment, and a folder to start programs in."""

    folder: Path
    cwd: Path
    registry: Path
    """With a version behind `production`."""
    variables: dict[str, str]


def modules(extra: str) -> tuple[str, ...]:
    """The programs that an extra is for, as modules; "" is the project without extras."""
    return {
        "": ("clickbait.registry", "clickbait.sample"),
        "standalone": ("serve.standalone",),
        "serve": ("serve.app",),
        "train": (
            *(f"ray_jobs.{job}" for job in JOBS),
            "tuning.sweep",
            "tuning.compare",
            "tuning.distil",
            "clickbait.data.download",
            "clickbait.pretrained.download_mpnet",
        ),
        "bento": ("serve.bento",),
        "frontend": ("serve.frontend",),
        "dev": (
            "ray_jobs.pipeline",
            *(f"cluster.{name}" for name in ("benchmark", "manifests", "readme_check", "smoke", "staged")),
        ),
        "peers": ("tests.performance.bench_serve", "tests.performance.bench_hops"),
        "docs": (),
    }[extra]


def programs(extra: str, environment: Environment) -> list[Program]:
    """What is started in the environment of an extra."""
    registry, port = str(environment.registry), str(_free_port())
    python, url = ["python", "-m"], f"http://127.0.0.1:{port}"
    helps = [
        Program([*python, module, "--help"], says="usage")
        for module in modules(extra)
        if module.startswith(("ray_jobs", "tuning", "clickbait"))
    ]
    match extra:
        case "":
            scorer = (
                "import sys; from clickbait.inference.scorer import Scorer; "
                "from clickbait.registry.registry import Registry; "
                "Scorer(Registry(sys.argv[1]).fetch('v1')).score(['a'])"
            )
            configs = "from clickbait.config import GateConfig, load; load(GateConfig, 'configs/gate.yaml')"
            return [
                *helps,
                Program([*python, "clickbait.registry", "--uri", registry, "list"], says="v1 .*production"),
                Program(["python", "-c", scorer, registry]),
                Program(["python", "-c", configs]),
            ]
        case "standalone":
            return [
                Program(
                    [*python, "serve.standalone", "--registry", registry, "--port", port], f"{url}/readyz"
                )
            ]
        case "serve":
            # A port of its own has only a configuration file; that the builder is reached shows in its line.
            return [
                Program(
                    ["serve", "run", "serve.app:build", f"registry={registry}", "model=nothing"],
                    code=2,
                    says="error: .*nothing",
                )
            ]
        case "train":
            rows = [
                *python,
                "ray_jobs.preprocess",
                "--output",
                str(environment.cwd / "datasets"),
                "--sample-size",
                "200",
            ]
            return [*helps, Program(rows, says="kept")]
        case "bento":
            words = ["bentoml", "serve", "serve.bento:Clickbait", "--port", port]
            return [Program(words, f"{url}/readyz", variables={"CLICKBAIT_REGISTRY": registry})]
        case "frontend":
            page = str(next(environment.folder.rglob("serve/frontend.py")))
            words = ["streamlit", "run", page, "--server.port", port, "--server.headless", "true"]
            return [Program(words, f"{url}/_stcore/health")]
        case "dev":
            return [
                Program([tool, "--version"])
                for tool in ("pytest", "ruff", "mypy", "zizmor", "invoke", "pre-commit")
            ]
        case "peers":
            return [Program(["locust", "--version"]), Program(["python", "-c", "import litserve, bentoml"])]
        case "docs":
            for name in ("docs", "zensical.toml"):
                _copy(ROOT / name, environment.cwd / name)
            return [Program(["zensical", "build", "--clean", "--strict"])]
    raise AssertionError(extra)


def image_programs(target: str, environment: Environment) -> list[Program]:
    """The image's start command, with ports and the registry of this machine; the folder is what the image
    copies.
    """
    for sources, destination in dockerfile.copied(target):
        for source in sources:
            place = environment.cwd / destination
            _copy(ROOT / source, place / Path(source).name if destination.endswith("/") else place)
    _copy(environment.registry, environment.cwd / "artifacts" / "registry")
    words, port = dockerfile.command(target), str(_free_port())
    variables = {
        name: value
        for name, value in dockerfile.variables(target).items()
        if name not in ("HOME", "USER", "WANDB_DIR", "BENTOML_HOME")
    }
    variables = {name: re.sub(r"^/app\b", str(environment.cwd), value) for name, value in variables.items()}
    variables |= {"PYTHONPATH": str(environment.cwd), "CLICKBAIT_REGISTRY": str(environment.registry)}
    url = f"http://127.0.0.1:{port}"
    match target:
        case "standalone":
            return [
                Program(
                    words,
                    f"{url}/readyz",
                    variables={**variables, "CLICKBAIT_HOST": "127.0.0.1", "CLICKBAIT_PORT": port},
                )
            ]
        case "serve":
            file = environment.cwd / "configs" / "serve.yaml"
            text = re.sub(r"\bport: 8000\b", f"port: {port}", file.read_text(encoding="utf-8"))
            text = re.sub(r"\bshared_port: 8001\b", f"shared_port: {_free_port()}", text)
            file.write_text(text, encoding="utf-8")
            return [Program(words, f"{url}/readyz", variables=variables)]
        case "train":  # there is no dataset, and it has to come as far as to say so
            return [
                Program(words, code=2, says="^error: .*ray_jobs.preprocess", variables=variables),
                Program(["ray", "--version"]),
            ]
        case "bento":
            words = [port if word == "3000" else "127.0.0.1" if word == "0.0.0.0" else word for word in words]  # noqa: S104
            return [Program(words, f"{url}/readyz", variables=variables)]
        case "frontend":
            variables |= {"STREAMLIT_SERVER_PORT": port, "STREAMLIT_SERVER_ADDRESS": "127.0.0.1"}
            return [Program(words, f"{url}/_stcore/health", variables=variables)]
        case "dev":  # its CMD sleeps; what it is for is a checkout that is mounted
            return [Program(["python", "-c", "import pytest"], variables=variables)]
    raise AssertionError(target)


def check(name: str, make_bundle: Callable[[Path], Path]) -> float:
    """Installs and starts one: an extra, `base`, or `image:<target>`. Returns the seconds that it took.

    Raises:
        Refused: a program did not start; the message ends with what it said last.
    """
    start = time.monotonic()
    with tempfile.TemporaryDirectory(
        prefix="x-", ignore_cleanup_errors=True
    ) as folder:  # short: Ray's sockets lie below it
        target = name.removeprefix("image:") if name.startswith("image:") else None
        extra = "" if name == "base" else name
        environment = _install(Path(folder), extra, target, make_bundle)
        for program in image_programs(target, environment) if target else programs(extra, environment):
            _run(name, program, environment)
    return time.monotonic() - start


def _install(
    folder: Path, extra: str, target: str | None, make_bundle: Callable[[Path], Path]
) -> Environment:
    """Installs the extra with the project, or what the image's target installs, by the script of the
    Dockerfile.
    """
    from clickbait.registry.registry import Registry

    cwd = folder / "cwd"
    cwd.mkdir()
    inside = {**_clean_environment(), "VIRTUAL_ENV": str(folder / "venv")}
    _done([*UV, "venv", "--python", sys.executable, str(folder / "venv")], ROOT, inside)
    if target:
        install_as_the_image(sorted(dockerfile.extras(target)), ROOT, folder / "venv", folder / "bin", inside)
    else:
        source = folder / "source"
        # A copy: setuptools builds in the folder that it is given.
        for entry in (
            "pyproject.toml",
            "constraints.txt",
            "README.md",
            "LICENSE",
            *{
                name.partition(".")[0]
                for name in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
            },
        ):
            _copy(ROOT / entry, source / entry)
        _done(
            [*UV, "pip", "install", "--constraint", "constraints.txt", f".[{extra}]" if extra else "."],
            source,
            inside,
        )
    registry = Registry(str(folder / "registry"))
    registry.set_alias(registry.publish(make_bundle(folder / "draft")), "production")
    variables = {
        **_clean_environment(),
        "PATH": f"{folder / 'venv' / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "RAY_ADDRESS": "local",  # never another's cluster on this machine
        "RAY_TMPDIR": str(folder),
        "CLICKBAIT_CACHE": str(folder / "cache"),
        "HOME": str(cwd),
        "WANDB_MODE": "disabled",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return Environment(folder / "venv", cwd, folder / "registry", variables)


def install_as_the_image(
    extras: list[str], project: Path, environment: Path, bin_folder: Path, variables: dict[str, str]
) -> None:
    """Runs cluster/install_extras.sh, which has its programs under other names in an image.

    Args:
        extras: of the project's.
        project: a folder with pyproject.toml, constraints.txt and cluster/pins.
        environment: to install into.
        bin_folder: is made, for the script's own program.
        variables: of the process.

    Raises:
        Refused: it failed: what is installed has another hash, or none, or is no wheel.
    """
    bin_folder.mkdir()
    (bin_folder / "with-pip-settings").symlink_to(UV[0])
    path = f"{bin_folder}{os.pathsep}{variables['PATH']}"
    script = [str(ROOT / "cluster" / "install_extras.sh"), ",".join(extras)]
    _done(script, project, {**variables, "PATH": path, "VENV": str(environment), "UV_PROGRAM": UV[1]})


def _done(words: list[str], cwd: Path, variables: dict[str, str]) -> None:
    done = subprocess.run(words, cwd=cwd, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        what = " ".join([Path(words[0]).name, *words[1:]])
        raise Refused(f"{what}: ended with {done.returncode}: {_end(done.stderr, 8)}")


def _clean_environment() -> dict[str, str]:
    """This process's variables without what would lend the new environment this one's packages or
    settings.
    """
    left_out = re.compile(
        r"PYTHON|VIRTUAL_ENV$|CLICKBAIT_|RAY_|WANDB_|STREAMLIT_|BENTOML_|MAKE|MFLAGS$|PORT$"
    )
    return {name: value for name, value in os.environ.items() if not left_out.match(name)}


def _run(name: str, program: Program, environment: Environment) -> None:
    words = [str(environment.folder / "bin" / program.words[0]), *program.words[1:]]
    shown = f"{name}: {' '.join(program.words)}"
    log = environment.cwd.parent / "log"
    with log.open("wb") as sink:
        variables = {**environment.variables, **program.variables}
        process = subprocess.Popen(
            words, cwd=environment.cwd, env=variables, stdout=sink, stderr=sink, start_new_session=True
        )
        try:
            if program.url is None:
                process.wait(_START_S)
            elif not _answers(program.url, process):
                raise Refused(f"{shown}: no answer at {program.url}: {_end(log.read_text(errors='replace'))}")
        except subprocess.TimeoutExpired:
            raise Refused(f"{shown}: has not ended within {_START_S} s") from None
        finally:
            _stop(process)
    said = log.read_text(errors="replace")
    if program.url is None and (
        process.returncode != program.code or not re.search(program.says, said, re.MULTILINE)
    ):
        raise Refused(f"{shown}: ended with {process.returncode}, not {program.code}: {_end(said)}")


def _answers(url: str, process: subprocess.Popen[bytes]) -> bool:
    end = time.monotonic() + _START_S
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < end and process.poll() is None:
        with suppress(OSError), opener.open(url, timeout=5):
            return True
        time.sleep(0.2)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ends the program and what it started: its session is its own."""
    for number in (signal.SIGINT, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)


def _copy(source: Path, destination: Path) -> None:
    destination.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, destination, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    else:
        shutil.copy(source, destination)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _end(text: str, count: int = 3) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(lines[-count:])[-400:] or "it said nothing"


def main(args: Sequence[str] | None = None) -> int:
    """Checks what is named, or all; the exit code is `clickbait.cli.Code`."""
    return cli.exit_code(lambda: _run_all(args))


def _run_all(args: Sequence[str] | None) -> None:
    from tests.tiny import tiny_bundle

    known = ["base", *EXTRAS, *(f"image:{target}" for target in IMAGES)]
    parser = cli.Parser(
        prog="python -m cluster.extras", description=__doc__.splitlines()[0] if __doc__ else None
    )
    parser.add_argument(
        "names", nargs="*", metavar="name", help=f"one of {', '.join(known)}; all if none is given"
    )
    names = parser.parse_args(args).names or known
    if unknown := [name for name in names if name not in known]:
        parser.error(f"{unknown[0]}: known are {', '.join(known)}")
    failed = []
    for name in names:
        try:
            print(f"{name:<18} starts, after {check(name, tiny_bundle):.0f} s", flush=True)
        except Refused as error:
            failed.append(name)
            print(f"{name:<18} FAILS: {error}", flush=True)
    if failed:
        raise Refused(f"{', '.join(failed)}: the lines above say why")


if __name__ == "__main__":
    sys.exit(main())
