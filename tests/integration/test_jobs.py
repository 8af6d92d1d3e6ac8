"""`ray job submit`: every job of the path, one after the other, on a cluster with token authentication, from
the checkout's files.
"""

from __future__ import annotations

import json
import os
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from clickbait.registry.registry import Registry
from tests.conftest import ROOT, Cluster

GATE = (
    "{min_accuracy: 0.5, min_auc: 0.5, max_ece: 0.5, max_flip_lower: 0.5, max_flip_upper: 0.5, "
    "max_flip_title: 0.5, "
)
GATE += "max_flip_punctuation: 0.5, max_flip_spaces: 0.5, min_transfer_auc: 0.0, min_int8_agreement: 0.5, "
GATE += (
    "min_minimum_functionality: 0.0, min_invariance: 0.0, min_direction: 0.0, max_latency_vs_fastest: "
    "1000.0}\n"
)


def submit(cluster: Cluster, job: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """`ray job submit --working-dir . -- python -m ray_jobs.<job> --config configs/<job>.yaml <flags>`,
    waited for.
    """
    command = ["ray", "job", "submit", "--address", cluster.dashboard, "--working-dir", ".", "--"]
    command += ["python", "-m", f"ray_jobs.{job}", "--config", f"configs/{job}.yaml", *flags]
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300, env=environment)


def test_the_whole_path_by_ray_job_submit(ray_cluster: Cluster, tmp_path: Path, tiny_encoder: Path) -> None:
    """URIs are absolute: a job's working directory is a copy of the checkout on the head."""
    datasets, runs, bundle, registry = (
        str(tmp_path / name) for name in ("datasets", "runs", "bundle", "registry")
    )
    gate = tmp_path / "gate.yaml"
    gate.write_text(GATE)
    sets = ["--dataset", f"{datasets}/latest"]
    steps = {
        "preprocess": ["--output", datasets, "--sample-size", "600", "--partitions", "2"],
        "train": [
            *sets,
            "--output",
            runs,
            "--model",
            str(tiny_encoder),
            "--epochs",
            "8",
            "--lr",
            "2e-3",
            "--cpus-per-worker",
            "0.5",
        ],
        "export": [*sets, "--run", f"{runs}/clickbait", "--output", bundle],
        "evaluate": [*sets, "--bundle", bundle, "--num-workers", "1"],
        "promote": [*sets, "--bundle", bundle, "--registry", registry, "--gate-file", str(gate)],
    }
    for job, flags in steps.items():
        done = submit(ray_cluster, job, *flags)
        assert done.returncode == 0, f"{job}:\n{done.stdout[-4000:]}\n{done.stderr[-2000:]}"
    folder = Registry(registry).fetch("production")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["test"]["auc"] > 0.8
    assert metrics["verdict"]["decision"] == "promoted"
    assert "promoted: v1" in done.stdout


def test_a_job_that_fails_says_why_and_fails_the_submission(ray_cluster: Cluster, tmp_path: Path) -> None:
    done = submit(
        ray_cluster,
        "preprocess",
        "--source",
        str(tmp_path / "nowhere.csv"),
        "--output",
        str(tmp_path / "datasets"),
    )
    assert done.returncode != 0
    assert "error: source: " in done.stdout + done.stderr
    assert "Traceback" not in done.stdout
    assert not (tmp_path / "datasets").exists()


@pytest.mark.parametrize("token", [None, "wrong"])
def test_the_jobs_api_refuses_who_has_no_token(ray_cluster: Cluster, token: str | None) -> None:
    request = urllib.request.Request(f"{ray_cluster.dashboard}/api/jobs/")
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=10)
    refused.value.close()
    assert refused.value.code in (401, 403)
