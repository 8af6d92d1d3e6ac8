"""Checks that everything cluster/README.md names exists, and that its commands are in a working order.

    python -m cluster.readme_check [page.md]

For each command in a code block: the page lists its program among the tools; the module, task, make target,
overlay, job, target of the Dockerfile, Terraform output or variable exists and has each flag; each shell
variable was set further up; an earlier command provides what it needs (`cluster.readme_walk`). For the text:
each path and link exists. Prints one line for each fault, and ends with exit code 1.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path

from invoke.tasks import Task

from clickbait import cli, config
from clickbait.config import keys
from clickbait.errors import Refused
from cluster import readme_walk
from cluster.kuberay.agreement import SECRETS
from cluster.shell import ROOT, module_file

PAGE = ROOT / "cluster" / "README.md"
TASK_MODULES = ("tasks", "cluster.cloud", "cluster.images", "cluster.submit")
BUILTINS = {"export", "cp", "date", "printf"}  # the shell's, and what every machine has
TERRAFORM = ROOT / "cluster" / "terraform"
OVERLAYS = ROOT / "cluster" / "kuberay" / "overlays"
Words = list[str]


def blocks(text: str) -> list[str]:
    """The code blocks for a shell, in order."""
    return re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def split(block: str) -> list[str]:
    """The block's commands; continued lines are joined."""
    lines = block.replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def simple(line: str) -> Iterator[Words]:
    """The words of each command in a line: what stands in $(...), and between pipes, apart. A substitution
    leaves `$()` where it stood.
    """
    while inner := re.search(r"\$\(((?:[^()]|\([^()]*\))*)\)", line):
        yield from simple(inner[1])
        line = f"{line[: inner.start()]}$<>{line[inner.end() :]}"
    words: Words = []
    for word in [*shlex.split(line, comments=True), "|"]:
        if word in ("|", "&", "&&", ";"):
            if words:
                yield words
            words = []
        else:
            words.append(word)


def flags(words: Sequence[str]) -> list[str]:
    """The long flags, without their values."""
    return [word.split("=")[0] for word in words if word.startswith("--") and word != "--"]


def value(words: Sequence[str], flag: str) -> str | None:
    """What stands after a flag, or after its equals sign."""
    for i, word in enumerate(words):
        if word == flag and i + 1 < len(words):
            return words[i + 1]
        if word.startswith(f"{flag}="):
            return word.partition("=")[2]
    return None


def tasks() -> dict[str, Task[Callable[..., None]]]:
    """Every invoke task of the project by its name on the command line."""
    by_name: dict[str, Task[Callable[..., None]]] = {}
    for name in TASK_MODULES:
        if (ROOT / f"{name.replace('.', '/')}.py").is_file():
            module = import_module(name)
            by_name |= {
                str(task.name).replace("_", "-"): task
                for task in vars(module).values()
                if isinstance(task, Task)
            }
    return by_name


def _inv(words: Words) -> Iterator[str]:
    """`.venv/bin/inv task --flag`, and for a job's --args the job's own flags."""
    known = tasks()
    if len(words) < 2 or words[1] not in known:
        yield f"inv {' '.join(words[1:2])}: no such task"
        return
    has = {
        f"--{name.replace('_', '-')}"
        for argument in known[words[1]].get_arguments()
        for name in argument.names
    }
    inner = value(words, "--args")
    yield from (
        f"inv {words[1]}: no flag {flag}"
        for flag in flags([word for word in words[2:] if word != inner])
        if flag not in has
    )
    yield from _config_flags(words[1], shlex.split(inner or ""))


def _config_flags(job: str, words: Sequence[str]) -> Iterator[str]:
    model = getattr(config, f"{job.replace('-data', '').capitalize()}Config", None)
    if model is not None:
        has = {f"--{key.replace('_', '-')}" for key in keys(model)} | {"--config"}
        yield from (f"{job}: no flag {flag}" for flag in flags(words) if flag not in has)


def _python(words: Words) -> Iterator[str]:
    """`.venv/bin/python -m module --flag`."""
    if words[1:2] != ["-m"] or len(words) < 3:
        yield f"{shlex.join(words)}: only python -m is looked at"
        return
    path = module_file(words[2])
    if path is None:
        yield f"python -m {words[2]}: no such module"
        return
    if words[2].startswith("ray_jobs."):
        yield from _config_flags(words[2].partition(".")[2], words[3:])
    else:
        text = path.read_text(encoding="utf-8")
        yield from (
            f"python -m {words[2]}: no flag {flag}" for flag in flags(words[3:]) if f'"{flag}"' not in text
        )
    overlay, job = value(words, "--overlay"), value(words, "--job")
    if overlay and not (OVERLAYS / overlay / "kustomization.yaml").is_file():
        yield f"--overlay {overlay}: not in cluster/kuberay/overlays"
    elif overlay and job and not (OVERLAYS / overlay / "jobs" / job / "kustomization.yaml").is_file():
        yield f"--job {job}: not a job of the overlay {overlay}"


def _make(words: Words) -> Iterator[str]:
    targets = set(
        re.findall(r"^([a-z][a-z-]*):(?!=)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    )
    yield from (
        f"make {word}: no such target" for word in words[1:] if "=" not in word and word not in targets
    )


def declared(kind: str) -> set[str]:
    """The names of Terraform's blocks of a kind: `output`, `variable`."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(TERRAFORM.glob("*.tf")))
    return set(re.findall(rf'^{kind} "([^"]+)"', text, re.MULTILINE))


def resources() -> set[str]:
    """Terraform's resources as type.name."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(TERRAFORM.glob("*.tf")))
    return {
        f"{kind}.{name}" for kind, name in re.findall(r'^resource "([^"]+)" "([^"]+)"', text, re.MULTILINE)
    }


def _terraform(words: Words) -> Iterator[str]:
    if value(words, "-chdir") != "cluster/terraform":
        yield f"{shlex.join(words)}: -chdir=cluster/terraform is needed, or it starts in the wrong folder"
    if "output" in words and words[-1] not in declared("output"):
        yield f"terraform output {words[-1]}: no such output"
    names = [words[i + 1].partition("=")[0] for i, word in enumerate(words) if word == "-var"]
    yield from (
        f"terraform -var {name}: no such variable" for name in names if name not in declared("variable")
    )
    target = value(words, "-target")
    if target and target not in resources():
        yield f"terraform -target={target}: no such resource"


def _docker(words: Words) -> Iterator[str]:
    target, file = value(words, "--target"), ROOT / "Dockerfile"
    if words[1] == "build" and not file.is_file():
        yield "docker build: there is no Dockerfile"
    elif target and not re.search(
        rf"^FROM .* AS {re.escape(target)}\s*$",
        file.read_text(encoding="utf-8"),
        re.MULTILINE | re.IGNORECASE,
    ):
        yield f"docker build --target {target}: no such target in the Dockerfile"


def _kubectl(words: Words) -> Iterator[str]:
    """Secrets by the name and key that the manifests read, and kustomizations that are there."""
    if "secret" in words and "generic" in words:
        name, literal = (
            words[words.index("generic") + 1],
            (value(words, "--from-literal") or "").partition("=")[0],
        )
        if SECRETS.get(name, ("",))[0] != literal:
            yield f"secret {name} with key {literal}: the manifests read another"
    folder = value(words, "-k") or (
        words[words.index("kustomize") + 1] if "kustomize" in words[:-1] else None
    )
    if folder and not (ROOT / folder / "kustomization.yaml").is_file():
        yield f"{folder}: no kustomization there"


PROGRAMS: dict[str, Callable[[Words], Iterator[str]]] = {
    ".venv/bin/inv": _inv,
    ".venv/bin/python": _python,
    "make": _make,
    "terraform": _terraform,
    "docker": _docker,
    "kubectl": _kubectl,
}


def _paths(text: str, folder: Path) -> Iterator[str]:
    """Relative links, and in backticks and commands whatever looks like a file of this repository."""
    for target in re.findall(r"\]\((?!https?:)([^)#\s]+)", text):
        if not (folder / target).exists():
            yield f"link {target}: not there"
    for path in sorted(
        set(
            re.findall(
                r"(?<![\w./$-])((?:cluster|configs|docs|serve|ray_jobs|tests|scripts|\.github)/[\w./-]*\w)",
                text,
            )
        )
    ):
        # terraform.tfvars is the reader's own copy of the example.
        if not (ROOT / path).exists() and not (ROOT / f"{path}.example").exists():
            yield f"{path}: not there"


def faults(page: Path = PAGE) -> list[str]:
    """A line for each thing that is named and is not there."""
    text = page.read_text(encoding="utf-8")
    needed = set(re.findall(r"`([a-z-]+)`|\b(git|make)\b", text.partition("\n## ")[0]))
    programs = (
        {name for pair in needed for name in pair if name} | BUILTINS | {".venv/bin/inv", ".venv/bin/python"}
    )
    lines, known = list(_paths(text, page.parent)), set()
    for line in (line for block in blocks(text) for line in split(block)):
        commands = list(simple(line))
        for name in re.findall(r"\$\{?([A-Za-z_]\w*)", line):
            if name not in known:
                lines.append(f"${name}: used in `{line[:60]}` and not set before")
        for words in commands:
            if words[0] not in programs:
                lines.append(f"{words[0]}: not among what the page says is needed")
            if words[0] in PROGRAMS:
                lines += PROGRAMS[words[0]](words)
            if words[0] == "export":
                known |= {word.partition("=")[0] for word in words[1:]}
    return lines


def order(page: Path = PAGE) -> list[str]:
    """A line for the first command that comes before what it needs."""
    text = page.read_text(encoding="utf-8")
    return list(
        readme_walk.walk([words for block in blocks(text) for line in split(block) for words in simple(line)])
    )


def main() -> int:
    """Prints one line per fault; returns a `clickbait.cli.Code`: 1 if there are faults."""
    return cli.exit_code(_run)


def _run() -> None:
    page = Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE
    all_faults = [*faults(page), *order(page)]
    for line in all_faults:
        print(f"{page.name}: {line}", file=sys.stderr)
    commands = sum(
        len(list(simple(line))) for block in blocks(page.read_text(encoding="utf-8")) for line in split(block)
    )
    print(f"{page.name}: {commands} commands, {len(all_faults)} faults")
    if all_faults:
        raise Refused(f"{page.name}: {len(all_faults)} faults: the lines above say which")


if __name__ == "__main__":
    sys.exit(main())
