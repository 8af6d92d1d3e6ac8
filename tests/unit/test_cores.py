"""The cores that a process may use: affinity and cgroup quota, in a faked /proc and /sys that keep the
kernel's file formats.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clickbait import cores
from clickbait.config import TrainConfig
from clickbait.inference import backends
from clickbait.inference.scorer import Scorer
from tests.tiny import tiny_bundle


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(os, "cpu_count", lambda: 64)


def system(root: Path, cgroup: str, files: dict[str, str]) -> Path:
    for name, text in {
        "proc/self/cgroup": cgroup,
        **{f"sys/fs/cgroup/{name}": text for name, text in files.items()},
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        pytest.param("0::/\n", {}, 8, id="no quota: the affinity, not the machine's 64"),
        pytest.param("0::/\n", {"cpu.max": "max 100000\n"}, 8, id="v2: no limit"),
        pytest.param("0::/\n", {"cpu.max": "200000 100000\n"}, 2, id="v2: a container"),
        pytest.param("0::/\n", {"cpu.max": "350000 100000\n"}, 3, id="v2: three and a half cores"),
        pytest.param("0::/\n", {"cpu.max": "50000 100000\n"}, 1, id="v2: half a core"),
        pytest.param("0::/\n", {"cpu.max": "1600000 100000\n"}, 8, id="v2: more than the affinity"),
        pytest.param(
            "0::/a/b\n",
            {"a/cpu.max": "300000 100000\n", "a/b/cpu.max": "max 100000\n"},
            3,
            id="v2: a group above has the limit",
        ),
        pytest.param(
            "0::/a/b\n", {"cpu.max": "400000 100000\n"}, 4, id="v2: the mount is the container's own group"
        ),
        pytest.param("0::/\n", {"cpu.max": "nonsense\n"}, 8, id="v2: cannot be read"),
        pytest.param(
            "5:cpu,cpuacct:/docker/1\n0::/\n",
            {"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"},
            2,
            id="v1: a container",
        ),
        pytest.param(
            "5:cpu,cpuacct:/\n1:memory:/\n",
            {"cpu,cpuacct/cpu.cfs_quota_us": "-1\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"},
            8,
            id="v1: no limit",
        ),
    ],
)
def test_available(tmp_path: Path, cgroup: str, files: dict[str, str], expected: int) -> None:
    assert cores.available(system(tmp_path, cgroup, files)) == expected


def test_a_system_without_proc_has_its_affinity(tmp_path: Path) -> None:
    assert cores.available(tmp_path) == 8


@pytest.mark.parametrize(
    ("config", "workers_here", "expected"),
    [
        ({"num_workers": 0}, 1, 4),
        ({"num_workers": 1}, 1, 1),
        ({"num_workers": 1, "cpus_per_worker": 3.0}, 1, 3),
        ({"num_workers": 1, "cpus_per_worker": 0.5}, 1, 1),
        ({"num_workers": 1, "cpus_per_worker": 16.0}, 1, 4),
        ({"num_workers": 2, "cpus_per_worker": 4.0}, 2, 2),
        ({"num_workers": 1, "threads": 2}, 1, 2),
        ({"num_workers": 1, "threads": 64}, 1, 4),
        ({"num_workers": 8, "threads": 64}, 8, 1),
    ],
)
def test_a_workers_threads(
    monkeypatch: pytest.MonkeyPatch, config: dict[str, float], workers_here: int, expected: int
) -> None:
    monkeypatch.setattr(cores, "available", lambda: 4)
    assert cores.worker_threads(TrainConfig(**config), workers_here) == expected


def test_a_scorer_computes_on_no_more_threads_than_there_are_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cores, "available", lambda: 2)
    threads: list[int] = []
    onnx = backends._Onnx

    def noted(path: Path, device: str, count: int, **more: object) -> object:
        threads.append(count)
        return onnx(path, device, count, **more)

    monkeypatch.setattr(backends, "_Onnx", noted)
    folder = tiny_bundle(tmp_path)
    for asked in (1, 2, 64):
        Scorer(folder, threads=asked)
    assert threads == [1, 2, 2]
