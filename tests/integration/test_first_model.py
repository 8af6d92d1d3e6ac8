"""The kind overlay's first model passes the gate: the very commands of its Job, one after the other, in this
process.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from clickbait import cli
from clickbait.config import EvaluateConfig, ExportConfig, PreprocessConfig, PromoteConfig, TrainConfig
from clickbait.registry.registry import Registry
from ray_jobs.evaluate import evaluate
from ray_jobs.export import export
from ray_jobs.preprocess import preprocess
from ray_jobs.promote import promote
from ray_jobs.train import train
from tests.cluster.test_manifests import built, one
from tests.conftest import ROOT, Cluster

JOBS = {
    "preprocess": (PreprocessConfig, preprocess),
    "train": (TrainConfig, train),
    "export": (ExportConfig, export),
    "evaluate": (EvaluateConfig, evaluate),
    "promote": (PromoteConfig, promote),
}


def test_the_first_model_passes_the_gate(ray_cluster: Cluster, tmp_path: Path) -> None:
    (script,) = one(built("kind"), "Job")["spec"]["template"]["spec"]["containers"][0]["args"]
    done = []
    for job, flags in re.findall(r"^python -m ray_jobs\.(\w+) (.*)$", script, re.MULTILINE):
        model, run = JOBS[job]
        words = shlex.split(flags.replace("configs/", f"{ROOT}/configs/").replace("/data/", f"{tmp_path}/"))
        result = run(cli.parse(model, words))  # type: ignore[operator]
        done.append(job)
    assert done == list(JOBS)
    assert result.version == "v1", result
    assert Registry(str(tmp_path / "registry")).resolve("production") == "v1"
