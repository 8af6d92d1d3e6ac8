"""The number of cores that this process may use, by its affinity and its cgroup's CPU quota.

`os.cpu_count` counts all cores of the machine. A container that may use 2 of 64 cores must not start 64
threads.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from clickbait.config import TrainConfig

ROOT = Path("/")


def available(root: Path = ROOT) -> int:
    """The number of cores that this process may use, at least 1.

    Args:
        root: the folder that contains `proc` and `sys`.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(int(min([float(affinity), *_quotas(root)])), 1)


def bounded(threads: int) -> int:
    """`threads`, or the number of cores that this process may use if that is smaller."""
    return min(threads, available())


def worker_threads(config: TrainConfig, workers_here: int) -> int:
    """The number of torch threads of a training worker.

    This is `threads` if it is set, else the CPUs that Ray reserves for the worker (`cpus_per_worker`), or all
    cores without Ray workers. The upper limit is the worker's share of the cores that the process may use.

    Args:
        config: uses threads, cpus_per_worker and num_workers.
        workers_here: number of workers of this run on this machine.
    """
    share = max(available() // workers_here, 1)
    reserved = max(int(config.cpus_per_worker), 1) if config.num_workers else share
    return min(config.threads or reserved, share)


def _quotas(root: Path) -> Iterator[float]:
    """The CPU quotas, in cores, of this process's cgroup and its parents. A cgroup may have no quota."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if not controllers:
            mounts, read = [root / "sys/fs/cgroup"], _quota_v2
        elif "cpu" in controllers.split(","):
            mounts, read = [root / "sys/fs/cgroup/cpu", root / "sys/fs/cgroup/cpu,cpuacct"], _quota_v1
        else:
            continue
        for mount in mounts:
            # In a container, the process's cgroup is often the root of the mount, whatever its path says.
            for folder in (PurePosixPath(group), *PurePosixPath(group).parents):
                quota = read(mount / str(folder).lstrip("/"))
                if quota is not None:
                    yield quota


def _quota_v2(folder: Path) -> float | None:
    """The quota in cpu.max, in cores. The file has quota and period in µs: "200000 100000", "max 100000"."""
    try:
        quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _quota_v1(folder: Path) -> float | None:
    """The quota in cpu.cfs_quota_us and cpu.cfs_period_us, in cores. A quota of -1 means no limit."""
    try:
        quota, period = (
            int((folder / f"cpu.cfs_{name}_us").read_text(encoding="utf-8")) for name in ("quota", "period")
        )
        return None if quota <= 0 else quota / period
    except (OSError, ValueError, ZeroDivisionError):
        return None
