"""Builds the images where there is no Docker: Debian 12's buildah in a chroot, on a base that debootstrap
makes.

    python -m cluster.build_with_buildah standalone serve train

It wants root, and `apt-get install buildah debootstrap`. The base gets the name that the Dockerfile pins and
is what Debian calls Python 3.11, so a build here pulls nothing; it is a stand-in, not that image. The package
index is the host's: pip's configuration and the certificates are mounted while it builds, and nothing of them
stays in an image. Prints each image's size as JSON.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from clickbait import cli
from clickbait.errors import ConfigError
from cluster.shell import ROOT

DOCKERFILE = ROOT / "Dockerfile"
PACKAGES = "ca-certificates,python3,python3-venv"
# Read by pip and uv; set on the host where wheels or an index are to be had nearby.
PASSED_ON = ("PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def targets(text: str) -> list[str]:
    """The stages of a Dockerfile that are images: those that say what runs in them."""
    stages = re.split(r"^FROM \S+ AS (\S+)$", text, flags=re.MULTILINE)[1:]
    return [
        name
        for name, body in zip(stages[::2], stages[1::2], strict=True)
        if re.search(r"^CMD ", body, re.MULTILINE)
    ]


def base_image(text: str) -> str:
    """The base that a Dockerfile pins."""
    found = re.search(r"^FROM (\S+) AS base$", text, re.MULTILINE)
    assert found is not None, "the Dockerfile names no base"
    return found[1]


def buildah(*words: str, capture: bool = False) -> str:
    """Runs buildah; returns what it printed with `capture`.

    Raises:
        ConfigError: it failed; its own last words are above.
    """
    command = ["buildah", *words]
    print(shlex.join(command), file=sys.stderr, flush=True)
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE if capture else sys.stderr, check=False)
    if done.returncode:
        raise ConfigError(f"buildah {words[0]} ended with {done.returncode}: what it says is above")
    return (done.stdout or "").strip()


def make_base(name: str) -> None:
    """A Debian 12 with Python 3.11, tagged as `name`. Where there is one already, it is kept."""
    there = subprocess.run(["buildah", "inspect", "--type", "image", name], capture_output=True, check=False)
    if there.returncode == 0:
        return
    with tempfile.TemporaryDirectory(prefix="clickbait-base-") as folder:
        root = Path(folder) / "root"
        command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(root)]
        print(shlex.join(command), file=sys.stderr, flush=True)
        done = subprocess.run(command, stdout=sys.stderr, check=False)
        if done.returncode:
            raise ConfigError(f"debootstrap ended with {done.returncode}: is a Debian mirror reachable?")
        tag_base(root, name)


def tag_base(root: Path, name: str) -> None:
    """Makes an image of a root file system: no package lists, and `python` where the real base has it."""
    for folder in (root / "var/cache/apt/archives", root / "var/lib/apt/lists"):
        shutil.rmtree(folder, ignore_errors=True)
    python = root / "usr/local/bin/python"
    if not python.is_symlink():
        python.symlink_to("/usr/bin/python3")
    container = buildah("from", "--pull-never", "scratch", capture=True)
    try:
        buildah("add", "--quiet", container, str(root), "/")
        buildah(
            "config", "--env", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", container
        )
        buildah("commit", "--quiet", "--format", "docker", container, name)
    finally:
        buildah("rm", container, capture=True)


def build(target: str) -> None:
    """Builds one target as clickbait-<target>."""
    arguments = [
        word
        for name in PASSED_ON
        if (value := os.environ.get(name))
        for word in ("--build-arg", f"{name}={value}")
    ]
    buildah(
        *[
            "build",
            "--isolation",
            "chroot",
            "--pull-never",
            "--layers",
            "--format",
            "docker",
            "--target",
            target,
        ],
        *arguments,
        *mounts(),
        *["--tag", f"clickbait-{target}", "--file", str(DOCKERFILE), str(ROOT)],
    )


def mounts() -> list[str]:
    """The host's pip configuration, certificates and folders of wheels, for the time of a build."""
    local = [word for word in os.environ.get("PIP_FIND_LINKS", "").split() if word.startswith("/")]
    wanted = [Path("/etc/pip.conf"), CERTIFICATES, *map(Path, local)]
    return [word for path in wanted if path.exists() for word in ("--volume", f"{path}:{path}:ro")]


def megabytes(image: str) -> int:
    """What an image's files take: 10^6 bytes, layers unpacked."""
    container = buildah("from", "--pull-never", image, capture=True)
    try:
        folder = buildah("mount", container, capture=True)
        told = subprocess.run(
            ["du", "--summarize", "--block-size=1", "--one-file-system", folder],
            capture_output=True,
            text=True,
            check=True,
        )
    finally:
        buildah("rm", container, capture=True)
    return round(int(told.stdout.split()[0]) / 1e6)


def main(args: Sequence[str] | None = None) -> int:
    """Builds the targets and prints their sizes; the exit code is `clickbait.cli.Code`."""
    return cli.exit_code(lambda: _run(args))


def _run(args: Sequence[str] | None) -> None:
    text = DOCKERFILE.read_text(encoding="utf-8")
    known = targets(text)
    parser = cli.Parser(
        prog="python -m cluster.build_with_buildah", description=__doc__.splitlines()[0] if __doc__ else None
    )
    parser.add_argument("targets", nargs="+", metavar="target", help=", ".join(known))
    wanted = parser.parse_args(args).targets
    if unknown := [target for target in wanted if target not in known]:
        raise ConfigError(f"{unknown[0]}: no such target; known: {', '.join(known)}")
    for program in ("buildah", "debootstrap"):
        if shutil.which(program) is None:
            raise ConfigError(f"{program}: not installed: apt-get install buildah debootstrap")
    if os.geteuid() != 0:
        raise ConfigError("a chroot wants root: run it as root, or build with docker (inv build-images)")
    make_base(base_image(text))
    sizes = {"base": megabytes(base_image(text))}
    for target in wanted:
        build(target)
        sizes[target] = megabytes(f"clickbait-{target}")
    print(json.dumps({"megabytes": sizes}))


if __name__ == "__main__":
    sys.exit(main())
