"""What the Dockerfile says of each target: its extras, what it copies, its variables, its start command. Read
without Docker.
"""

from __future__ import annotations

import json
import re
import shlex

from cluster.shell import ROOT

DOCKERFILE = ROOT / "Dockerfile"


def stages(text: str) -> dict[str, tuple[str, str]]:
    """Each stage's parent and lines, continued lines joined, in the file's order."""
    joined = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE))
    parts = re.split(r"^FROM (\S+) AS (\S+)$", joined, flags=re.MULTILINE)[1:]
    return {
        name: (parent, body) for parent, name, body in zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    }


STAGES = stages(DOCKERFILE.read_text(encoding="utf-8"))


def lineage(target: str) -> list[str]:
    """The bodies of the target and of the stages that it stands on, the first one last."""
    bodies = []
    while target in STAGES:
        target, body = STAGES[target]
        bodies.append(body)
    return bodies


def extras(target: str) -> set[str]:
    """The extras that the target's environment has."""
    environment = re.search(r"COPY --from=(\S+) /opt/venv", STAGES[target][1])
    assert environment, f"{target}: no environment is copied"
    return {
        name
        for body in lineage(environment[1])
        for words in re.findall(r"install-extras (\S+)", body)
        for name in words.split(",")
    }


def copied(target: str) -> list[tuple[list[str], str]]:
    """Sources in the checkout and destination below /app, of each COPY."""
    lines = [line.split() for line in re.findall(r"^COPY (?!--from)(.+)$", STAGES[target][1], re.MULTILINE)]
    return [(words[:-1], words[-1]) for words in lines]


def variables(target: str) -> dict[str, str]:
    """What ENV sets, the target's own over those of the stages below it; PATH and what stands for a build
    argument are left out.
    """
    found: dict[str, str] = {}
    for body in reversed(lineage(target)):
        for line in re.findall(r"^ENV (.+)$", body, re.MULTILINE):
            found |= dict(pair.split("=", 1) for pair in shlex.split(line))
    return {name: value for name, value in found.items() if "$" not in value}


def command(target: str) -> list[str]:
    """The words of CMD."""
    (line,) = re.findall(r"^CMD (\[.+\])$", STAGES[target][1], re.MULTILINE)
    words: list[str] = json.loads(line)
    return words
