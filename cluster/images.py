"""The images by invoke: build them, run the jobs and the api in them, see what they weigh. Each task prints
the command it runs.

inv build-images --tag 4f2a91c            # every target; --only serve for one
inv docker-train --args "--epochs 3"
inv build-api && inv run-api-docker
inv image-sizes
"""

from __future__ import annotations

import os
import shutil
import subprocess

from invoke.context import Context

from clickbait.config import did_you_mean
from clickbait.errors import ConfigError
from cluster.build_with_buildah import DOCKERFILE, targets
from cluster.shell import ROOT, run, task

PORT = 8000
# The seed's images, in MB: with PyTorch, and with ONNX in its place.
SEED = {"PyTorch": 4270, "ONNX": 568}


def docker(context: Context, command: list[str], args: str = "", *, dry_run: bool = False) -> None:
    """Runs a docker command; one line where there is no docker."""
    if not dry_run and shutil.which("docker") is None:
        raise ConfigError(
            "docker: not installed: the same task without docker runs here, and buildah builds "
            "(docs/images.md)"
        )
    run(context, ["docker", *command], args, dry_run=dry_run)


def build(context: Context, target: str, tag: str, args: str = "", *, dry_run: bool = False) -> None:
    """Builds a target as clickbait-<target>:<tag>, with what the environment says of wheels and the commit of
    the checkout.
    """
    command = [
        "build",
        "--target",
        target,
        "--tag",
        f"clickbait-{target}:{tag}",
        "--build-arg",
        f"GIT_COMMIT={commit()}",
    ]
    for name in ("PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        if os.environ.get(name, "").startswith(
            ("http://", "https://")
        ):  # a folder of this machine is not in the build
            command += [
                "--build-arg",
                name,
            ]  # docker reads its value from the environment, so it is in no process list
    docker(context, [*command, "."], args, dry_run=dry_run)


def commit() -> str:
    """The commit of the checkout; empty where it is none."""
    if shutil.which("git") is None:
        return ""
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def docker_job(context: Context, name: str, args: str, *, dry_run: bool = False) -> None:
    """Builds the image of the jobs and runs one in it, on this checkout's artifacts and as this user."""
    build(context, "train", "latest", dry_run=dry_run)
    (ROOT / "artifacts").mkdir(exist_ok=True)
    who = [
        "--user",
        f"{os.getuid()}:{os.getgid()}",
        "--env",
        "HOME=/tmp",
    ]  # so that what it writes is ours, and its home is writable
    shared = [
        "--volume",
        f"{ROOT}/artifacts:/app/artifacts",
        "--shm-size",
        "2g",
    ]  # Ray's object store; the default 64 MB is on disk then
    inside = ["clickbait-train", "python", "-m", f"ray_jobs.{name}", "--config", f"configs/{name}.yaml"]
    docker(context, ["run", "--rm", "--init", *who, *shared, *inside], args, dry_run=dry_run)


@task
def docker_train(context: Context, args: str = "", dry_run: bool = False) -> None:
    """`train` in a container."""
    docker_job(context, "train", args, dry_run=dry_run)


@task
def docker_evaluate(context: Context, args: str = "", dry_run: bool = False) -> None:
    """`evaluate` in a container."""
    docker_job(context, "evaluate", args, dry_run=dry_run)


@task
def build_api(context: Context, args: str = "", dry_run: bool = False) -> None:
    """The image of the HTTP api, without Ray."""
    build(context, "standalone", "latest", args, dry_run=dry_run)


@task
def run_api_docker(context: Context, args: str = "", dry_run: bool = False) -> None:
    """The image of `build-api`, on this machine's port 8000 and this checkout's registry."""
    if (
        not dry_run and not (ROOT / "artifacts" / "registry").is_dir()
    ):  # docker would make an empty one that belongs to root
        raise ConfigError("artifacts/registry: no model is published yet: make demo, or inv promote")
    shared = [
        "--publish",
        f"127.0.0.1:{PORT}:{PORT}",
        "--volume",
        f"{ROOT}/artifacts/registry:/app/artifacts/registry:ro",
    ]
    docker(context, ["run", "--rm", "--init", *shared, "clickbait-standalone"], args, dry_run=dry_run)


@task
def build_images(context: Context, tag: str = "latest", only: str = "", dry_run: bool = False) -> None:
    """Every image (or --only one), as clickbait-<target>:<tag>."""
    known = targets(DOCKERFILE.read_text(encoding="utf-8"))
    if only and only not in known:
        raise ConfigError(
            f"--only {only}: no such target{did_you_mean(only, known)}; known: {', '.join(known)}"
        )
    for target in [only] if only else known:
        build(context, target, tag, dry_run=dry_run)


@task
def image_sizes(context: Context, tag: str = "latest", dry_run: bool = False) -> None:
    """What the images weigh, unpacked, beside the seed's."""
    docker(
        context,
        ["image", "ls", "--filter", f"reference=clickbait-*:{tag}", "--format", "{{.Repository}} {{.Size}}"],
        dry_run=dry_run,
    )
    print("the seed's: " + ", ".join(f"{size} MB with {name}" for name, size in SEED.items()))
