"""Compiles pyproject.toml to constraints.txt, and writes the hashes that the images install by: `inv lock`.

constraints.txt has versions for every platform and Python that the project takes. `make` installs by it,
without hashes: those of all platforms are 500 KB. The images are Linux and one Python, so their hashes are
few (cluster/pins):

    packages.txt    each package of constraints.txt: its wheels for the images' Python, on x86-64 and on Arm
    torch-cpu.txt   torch's CPU build. It is a version of its own (2.13.0+cpu), from PIP_FIND_LINKS or a second index
    uv.txt          uv itself, which pip installs

cluster/install_extras.sh reads them. The hashes are of wheels only: to build a source distribution runs its
code, and what the build needs has no hashes.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

from clickbait.errors import ConfigError
from cluster.build_with_buildah import DOCKERFILE, base_image
from cluster.shell import ROOT, UV

PINS = ROOT / "cluster" / "pins"
CONSTRAINTS = ROOT / "constraints.txt"
GLIBC = "manylinux_2_36"  # Debian 12's, the images' base
PLATFORMS = (f"x86_64-{GLIBC}", f"aarch64-{GLIBC}")
_COMPILE = ["pip", "compile", "--quiet", "--no-header", "--no-annotate", "--no-emit-index-url"]

Hashes = dict[str, set[str]]
"""From `name==version` to the SHA-256 of its wheels."""


def lock(args: Sequence[str] = ()) -> None:
    """Writes constraints.txt and the three files of cluster/pins.

    Args:
        args: more words for uv, such as --upgrade.

    Raises:
        ConfigError: uv found no versions, or no wheels; its own last words are in the message.
    """
    # Without the find-links: the lock names torch's plain version, which a CPU build fits too.
    universal = ["--universal", "--python-version", "3.11", "--all-extras", *args, "pyproject.toml"]
    _uv([*_COMPILE, *universal, "--output-file", "constraints.txt"], find_links=False)
    _write("packages.txt", wheels(CONSTRAINTS, find_links=False))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (uv,) = re.findall(r"^UV_VERSION := (\S+)", makefile, re.MULTILINE)
    _write("uv.txt", wheels_of(f"uv=={uv}", find_links=False))
    (torch,) = re.findall(r"^torch==([^\s;]+)", CONSTRAINTS.read_text(encoding="utf-8"), re.MULTILINE)
    cpu = f"torch=={torch}+cpu"
    try:
        _write("torch-cpu.txt", wheels_of(cpu, PLATFORMS[:1], find_links=True))
    except ConfigError as error:
        path = PINS / "torch-cpu.txt"
        if path.is_file() and f"{cpu} " in path.read_text(encoding="utf-8"):
            print(f"note: {cpu} is not at hand (PIP_FIND_LINKS): its hash stays what it was", file=sys.stderr)
        else:
            raise ConfigError(
                f"{cpu}: no hash is known: set PIP_FIND_LINKS to where that wheel is: {error}"
            ) from None


def wheels(requirements: Path, platforms: Sequence[str] = PLATFORMS, *, find_links: bool) -> Hashes:
    """The wheels of what the file names, for the images' Python and each platform.

    Args:
        requirements: a file of requirements; what those need is not added.
        platforms: as uv names them.
        find_links: whether PIP_FIND_LINKS counts.

    Raises:
        ConfigError: a package has no version or no wheel.
    """
    python = re.match(r"python:(\d+\.\d+\.\d+)-", base_image(DOCKERFILE.read_text(encoding="utf-8")))
    assert python, "the Dockerfile's base is a Python"
    found: Hashes = {}
    for platform in platforms:
        words = ["--no-deps", "--python-version", python[1], "--python-platform", platform]
        pylock = _uv([*_COMPILE, *words, "--format", "pylock.toml", str(requirements)], find_links=find_links)
        for package in tomllib.loads(pylock)["packages"]:
            name = f"{package['name']}=={package['version']}"
            hashes = {wheel["hashes"]["sha256"] for wheel in package.get("wheels", [])}
            if not hashes:
                raise ConfigError(f"{name}: no wheel for {platform}")
            found.setdefault(name, set()).update(hashes)
    return found


def wheels_of(requirement: str, platforms: Sequence[str] = PLATFORMS, *, find_links: bool) -> Hashes:
    """The same of one requirement."""
    with tempfile.TemporaryDirectory(prefix="clickbait-lock-") as folder:
        path = Path(folder) / "requirements.txt"
        path.write_text(f"{requirement}\n", encoding="utf-8")
        return wheels(path, platforms, find_links=find_links)


def _write(name: str, found: Hashes) -> None:
    lines = ["# Written by `inv lock` (cluster/lock.py)."]
    for package, hashes in sorted(found.items()):
        lines.append(" \\\n".join([package, *(f"    --hash=sha256:{one}" for one in sorted(hashes))]))
    (PINS / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _uv(words: list[str], *, find_links: bool) -> str:
    command = [*([] if find_links else ["env", "UV_FIND_LINKS="]), *UV, *words]
    print(shlex.join(command), file=sys.stderr, flush=True)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigError(f"uv: {' '.join(done.stderr.split())[-400:]}")
    return done.stdout
