"""What the tests share: one real Ray cluster a session (with token authentication), a tiny encoder, a small
dataset, real headlines.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).parent.parent
HIDDEN = 32  # of the tiny encoder: a training step takes milliseconds

# Before ray or wandb is imported by anything.
os.environ["WANDB_MODE"] = "disabled"  # a test of tracking sets it back to offline
os.environ["HF_HUB_OFFLINE"] = "1"  # a closed network answers slowly
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAY_TRAIN_V2_ENABLED"] = "1"
os.environ["RAY_AUTH_MODE"] = "token"  # read once, on import
os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"  # Ray's own coming default; unset, it warns
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


@dataclass(frozen=True)
class Cluster:
    """A running head: what `ray job submit` needs."""

    address: str
    dashboard: str
    token: str


def free_port() -> int:
    """A port nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@cache
def needs_ray(path: Path) -> bool:
    """Whether a file has tests that need the session's Ray cluster."""
    return re.search(r"\b(ray_cluster|small_dataset)\b", path.read_text(encoding="utf-8")) is not None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the tests that need Ray first, so that they do not run alone at the end."""
    items.sort(key=lambda item: not needs_ray(item.path))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Files are handed to two processes one by one; all files that need Ray go to the same one.

    A session has one Ray cluster. `--dist loadgroup` would do the same, but pytest-xdist 3.8 does not see
    its marks under pytest 9.
    """
    return Scheduler(config, log)


class Scheduler(LoadScopeScheduling):
    """A scope is a file, or all files that need Ray."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "ray" if needs_ray(ROOT / file) else file


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Cluster]:
    """`ray start --head` with 4 logical CPUs and token authentication; this process is connected to it."""
    import ray

    token = os.environ["RAY_AUTH_TOKEN"]
    port, dashboard, client = free_port(), free_port(), free_port()
    with (
        tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder,
        (Path(folder) / "start.log").open("w") as log,
    ):
        command = [
            "ray",
            "start",
            "--head",
            "--block",
            f"--port={port}",
            "--node-ip-address=127.0.0.1",
            "--num-cpus=4",
        ]
        command += [
            f"--dashboard-port={dashboard}",
            "--dashboard-host=127.0.0.1",
            f"--ray-client-server-port={client}",
        ]
        # Another Ray on the machine has the agent's default port, and without an agent the head takes no job.
        command += [f"--dashboard-agent-listen-port={free_port()}"]
        command += ["--object-store-memory=500000000", f"--temp-dir={folder}", "--disable-usage-stats"]
        head = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, start_new_session=True)
        try:
            address = f"127.0.0.1:{port}"
            _wait_for(f"http://127.0.0.1:{dashboard}/api/version", token, head, Path(folder) / "start.log")
            ray.init(address=address, log_to_driver=True, logging_level="warning")
            os.environ["RAY_ADDRESS"] = address
            yield Cluster(address, f"http://127.0.0.1:{dashboard}", token)
            ray.shutdown()
        finally:
            os.environ.pop("RAY_ADDRESS", None)
            with contextlib.suppress(ProcessLookupError):  # --block: the head's processes are its own group
                os.killpg(head.pid, signal.SIGTERM)
            try:
                head.wait(timeout=5)
            except subprocess.TimeoutExpired:
                os.killpg(head.pid, signal.SIGKILL)
                head.wait()


def _wait_for(url: str, token: str, head: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(240):
        if head.poll() is not None:
            break
        try:
            with urllib.request.urlopen(
                urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"}), timeout=5
            ):
                return
        except OSError:
            time.sleep(0.5)
    raise RuntimeError(f"the Ray head did not come up:\n{log.read_text()}")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with the real headlines, or a skip that says why."""
    folder = os.environ.get("CLICKBAIT_DATA_DIR")
    if not folder:
        pytest.skip("CLICKBAIT_DATA_DIR is unset: no real headlines here")
    return Path(folder).resolve()


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two layers with random weights and the real tokenizer: everything of a real encoder but the
    size.
    """
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    from clickbait.pretrained import locate

    folder = tmp_path_factory.mktemp("tiny-encoder")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30522,
        hidden_size=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        num_labels=2,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes(locate.file(locate.OFFLINE, "tokenizer.json").read_bytes())
    return folder


@pytest.fixture(scope="session")
def small_dataset(ray_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URI of a dataset of 800 synthetic headlines."""
    from clickbait.config import PreprocessConfig
    from ray_jobs.preprocess import preprocess

    output = tmp_path_factory.mktemp("datasets")
    return preprocess(PreprocessConfig(sample_size=800, output=str(output), partitions=2))
