"""The clouds without Kubernetes by invoke: Vertex AI and Cloud Run, and the benchmark of either. Each task
prints the command it runs.

    inv vertex-train --project my-project-123456 --region europe-west4 --tag 4f2a91c --gpu --dry-run
    inv deploy-cloudrun --service api --project my-project-123456 --region europe-west4 --tag 4f2a91c
    inv cloud-bench --url https://clickbait-api-123456789012.europe-west4.run.app
    inv cloud-check --project my-project-123456 --region europe-west4 --tag 4f2a91c

What can be mended is said in one line, before anything is changed: first what can be seen here (the project's
id, the region, the tag), then what gcloud must say (logged in, the project is there, the image was pushed).
`--dry-run` looks at the first half and prints.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from invoke.context import Context

from clickbait.config import did_you_mean
from clickbait.errors import ConfigError
from cluster.places import Place
from cluster.shell import ROOT, run, task
from cluster.vertex import job

FOLDER = Path(__file__).parent / "cloudrun"
IMAGES = {
    "api": "clickbait-standalone",
    "onnx": "clickbait-standalone",
    "bento": "clickbait-bento",
    "frontend": "clickbait-frontend",
}
_ASK_S = 60  # gcloud answers in two or three; where it hangs, it waits for a network


def ask(command: list[str], fix: str) -> str:
    """What a gcloud command that changes nothing says; its output is never printed, as one of them is a
    token.

    Raises:
        ConfigError: `fix`, with the last line of what gcloud said.
    """
    try:
        # No standard input: a login that has ended must end here, not ask for a password.
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_ASK_S, stdin=subprocess.DEVNULL, check=False
        )
    except subprocess.TimeoutExpired:
        raise ConfigError(f"{' '.join(command[:4])}: no answer in {_ASK_S} s: is there a network?") from None
    if done.returncode:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise ConfigError(f"{fix} (gcloud: {said[0] if said else 'no reason given'})")
    return done.stdout.strip()


def check(place: Place, images: list[str]) -> None:
    """That gcloud is there and logged in, the project is one that it may see, and each image was pushed.

    Raises:
        ConfigError: what to set or run.
    """
    if shutil.which("gcloud") is None:
        raise ConfigError("gcloud: not installed: https://cloud.google.com/sdk/docs/install")
    ask(
        ["gcloud", "auth", "print-access-token"], "no valid login (the token has expired?): gcloud auth login"
    )
    ask(
        ["gcloud", "projects", "describe", place.project, "--format=value(projectId)"],
        f"--project {place.project}: not there, or not yours: gcloud projects list",
    )
    for image in images:
        describe = [
            "gcloud",
            "artifacts",
            "docker",
            "images",
            "describe",
            image,
            "--format=value(image_summary.digest)",
        ]
        ask(
            [*describe, f"--project={place.project}"],
            f"{image}: not in the registry: push it first (cluster/README.md), or set --tag to one that was",
        )


def _project(given: str) -> str:
    return given or os.environ.get("GOOGLE_CLOUD_PROJECT", "")


@task
def cloud_check(_: Context, project: str = "", region: str = "", tag: str = "", gpu: bool = False) -> None:
    """Whether the other tasks could start: project, region (L4 with --gpu), login, and the images with --tag.
    Changes nothing.
    """
    place = Place.of(_project(project), region, gpu=gpu)
    names = sorted({"clickbait-train", "clickbait-serve", *IMAGES.values()}) if tag else []
    check(place, [place.image(name, tag) for name in names])
    print(
        f"{place.project} in {place.region}: login and project are there"
        + (f", and {', '.join(names)} with {tag}" if tag else "")
    )


@task
def vertex_train(
    context: Context,
    project: str = "",
    region: str = "",
    tag: str = "",
    dataset: str = "",
    name: str = "clickbait",
    gpu: bool = False,
    dry_run: bool = False,
) -> None:
    """Trains on Vertex AI in one container, on 8 cores or with --gpu on an L4: --tag 4f2a91c --dataset
    gs://.../datasets/latest.
    """
    place = Place.of(_project(project), region, gpu=gpu)
    text = job.spec(place, tag, dataset or f"{place.data}/datasets/latest", name, gpu=gpu)
    if not dry_run:
        check(place, [place.image("clickbait-train", tag)])
    run(context, job.command(place, name, job.write(name, text)), dry_run=dry_run)


def service_yaml(place: Place, name: str, tag: str, api: str) -> str:
    """The Cloud Run service as YAML, with every word filled in.

    Raises:
        ConfigError: no such service, no tag, or a frontend without the api that it asks.
    """
    if name not in IMAGES:
        raise ConfigError(
            f"--service {name or '(none)'}: no such service{did_you_mean(name, list(IMAGES))}; known: "
            f"{', '.join(IMAGES)}"
        )
    if name == "frontend" and not api.startswith("https://"):
        raise ConfigError(
            "--api: set it to the https:// address that the frontend asks (gcloud run services describe "
            "clickbait-api)"
        )
    words = {
        "IMAGE": place.image(IMAGES[name], tag),
        "REGISTRY": f"{place.models}/registry",
        "SERVICE_ACCOUNT": place.account("clickbait-cloudrun"),
        "API": api.rstrip("/"),
    }
    document = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    return yaml.safe_dump(place.fill(document, words), sort_keys=False)


@task
def deploy_cloudrun(
    context: Context,
    service: str = "",
    project: str = "",
    region: str = "",
    tag: str = "",
    api: str = "",
    dry_run: bool = False,
) -> None:
    """Deploys one of api, onnx, bento, frontend to Cloud Run; the frontend needs --api https://...."""
    place = Place.of(_project(project), region)
    text = service_yaml(place, service, tag, api)
    if not dry_run:
        check(place, [place.image(IMAGES[service], tag)])
    path = ROOT / "artifacts" / "cloudrun" / f"{service}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    where = [f"--project={place.project}", f"--region={place.region}"]
    run(
        context,
        ["gcloud", "run", "services", "replace", str(path.relative_to(ROOT)), *where],
        dry_run=dry_run,
    )


@task
def cloud_bench(
    context: Context,
    url: str = "",
    requests: int = 1000,
    concurrency: int = 16,
    path: str = "/classify",
    output: str = "",
    dry_run: bool = False,
) -> None:
    """Sends 1,000 generated headlines to a server and prints mean, median, p95, max and requests a second:
    --url https://....
    """
    if not url.startswith(("http://", "https://")):
        raise ConfigError(
            f"--url {url or '(none)'}: set it to the server's address, with http:// or https://"
        )
    command = [
        sys.executable,
        "-m",
        "cluster.benchmark",
        "--url",
        url,
        "--path",
        path,
        "--requests",
        str(requests),
    ]
    command += ["--concurrency", str(concurrency), *(["--output", output] if output else [])]
    run(context, command, dry_run=dry_run)
