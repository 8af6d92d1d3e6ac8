"""What each account may do in the buckets is enough for its work, and no more: fake-gcs-server behind a proxy
with iam.tf's roles.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.train import Checkpoint
from ray.train._internal.storage import StorageContext as TuneStorage
from ray.train.v2._internal.execution.storage import StorageContext

from clickbait.errors import StorageError
from clickbait.registry.registry import Registry
from clickbait.storage import open_storage
from clickbait.training.runs import Run
from ray_jobs.ray_storage import run_storage
from tests.conftest import ROOT, Cluster
from tests.contracts import draft
from tests.gcs_proxy import PRODUCTION, VERSIONS, Grant, Proxy, grants, guarding
from tests.gcs_server import BUCKET, empty_uri, serving

REGISTRY = f"gs://{BUCKET}/registry"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with serving() as url:
        yield url


@pytest.fixture
def training(server: str) -> Iterator[Proxy]:
    with guarding(server, grants("train", "models")) as proxy:
        yield proxy


def test_the_proxy_refuses_as_google_does(server: str) -> None:
    with guarding(server, [Grant("roles/storage.objectViewer", "everywhere")]) as proxy:
        with pytest.raises(StorageError, match="refuses these credentials"):
            open_storage(empty_uri()).write("key", b"1")
        assert proxy.refused[0].startswith("storage.objects.create")
        assert open_storage(empty_uri()).list() == []


def test_pyarrow_asks_for_the_bucket_and_ours_does_not(training: Proxy) -> None:
    """The fault that this test is kept for: Ray Train and Ray Tune make a directory, and pyarrow asks for the
    bucket first.
    """
    kept = run_storage(f"{empty_uri()}/runs")
    with pytest.raises(OSError, match=r"storage\.buckets\.get"):
        kept["storage_filesystem"].handler.filesystem.create_dir(f"{kept['storage_path']}/x")
    training.refused.clear()
    kept["storage_filesystem"].create_dir(f"{kept['storage_path']}/x")
    assert training.refused == []


@pytest.mark.parametrize("kind", [StorageContext, TuneStorage])
def test_rays_own_state_can_be_kept_in_the_bucket(training: Proxy, tmp_path: Path, kind: Any) -> None:
    """Ray's own class for it, as Ray Train's controller and Ray Tune's driver make it: the marker, a
    checkpoint, and read again.
    """
    kept = run_storage(f"{empty_uri()}/runs/ray")
    (tmp_path / "pointer.json").write_text('{"uri": "x"}')
    context = kind(experiment_dir_name="run", **kept)
    if kind is TuneStorage:
        context.trial_dir_name = "trial"
        context.current_checkpoint_index = 0
        checkpoint = context.persist_current_checkpoint(Checkpoint.from_directory(tmp_path))
    else:
        checkpoint = context.persist_current_checkpoint(Checkpoint.from_directory(tmp_path), "first")
    with checkpoint.as_directory() as folder:
        assert (Path(folder) / "pointer.json").read_text() == '{"uri": "x"}'
    assert training.refused == []


def test_training_by_a_job_of_the_cluster_needs_no_more(
    ray_cluster: Cluster, small_dataset: str, tiny_encoder: Path, training: Proxy
) -> None:
    """The whole of `ray_jobs.train` with a worker, its run and Ray Train's state in the bucket: train,
    retrain and Vertex AI's command.
    """
    output = f"{empty_uri()}/runs"
    command = ["ray", "job", "submit", "--address", ray_cluster.dashboard, "--working-dir", "."]
    command += ["--runtime-env-json", f'{{"env_vars": {{"STORAGE_EMULATOR_HOST": "{training.url}"}}}}', "--"]
    command += [
        "python",
        "-m",
        "ray_jobs.train",
        "--config",
        "configs/train.yaml",
        "--dataset",
        small_dataset,
        "--output",
        output,
    ]
    command += [
        "--model",
        str(tiny_encoder),
        "--epochs",
        "1",
        "--num-workers",
        "1",
        "--cpus-per-worker",
        "0.5",
    ]
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, timeout=300, env=environment, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert training.refused == []
    assert Run(f"{output}/clickbait").read_json("done.json") is not None


def test_a_version_is_published_and_can_never_be_replaced_or_deleted(training: Proxy, tmp_path: Path) -> None:
    registry = Registry(REGISTRY, cache=tmp_path / "cache")
    first = registry.publish(draft(tmp_path / "first"))
    second = registry.publish(draft(tmp_path / "second"))
    registry.set_alias(first, "canary")
    registry.set_alias(second, "canary", expect=first)
    registry.rollback("canary")
    assert registry.fetch("canary")
    assert training.refused == []
    store = open_storage(f"gs://{BUCKET}/{VERSIONS.rstrip('/')}")
    with pytest.raises(StorageError):
        store.write(f"{first}/model.onnx", b"another")
    with pytest.raises(StorageError):
        store.delete(f"{first}/manifest.json")
    assert [line.split()[0] for line in training.refused] == ["storage.objects.delete"] * 2
    with pytest.raises(StorageError):
        registry.set_alias(first, "production")
    assert training.refused[2:] == [f"storage.objects.create {PRODUCTION}"]


def test_serving_reads_and_writes_nothing(server: str, tmp_path: Path) -> None:
    with guarding(server, grants("train", "models")):
        registry = Registry(REGISTRY)
        version = registry.publish(draft(tmp_path / "draft"))
        registry.set_alias(version, "serving")
    with guarding(server, grants("serve", "models")) as proxy:
        registry = Registry(REGISTRY, cache=tmp_path / "cache")
        assert registry.fetch("serving")
        assert proxy.refused == []
        assert proxy.used <= {"storage.objects.get", "storage.objects.list"}
        with pytest.raises(StorageError):
            registry.set_alias(version, "another")


def test_the_judge_moves_an_alias_and_touches_no_version(server: str, tmp_path: Path) -> None:
    with guarding(server, grants("train", "models")):
        version = Registry(REGISTRY).publish(draft(tmp_path / "draft"))
    with guarding(server, grants("judge", "models")) as proxy:
        registry = Registry(REGISTRY, cache=tmp_path / "cache")
        registry.set_alias(version, "production")
        assert proxy.refused == []
        with pytest.raises(StorageError):
            registry.publish(draft(tmp_path / "other"))
