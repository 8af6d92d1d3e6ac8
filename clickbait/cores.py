"""How many cores this process may use: the machine's, less what its affinity and its cgroup's CPU quota leave
out.

A container on a machine of 64 cores that may use two of them must not start 64 threads. `os.cpu_count` gives
the machine's cores.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from clickbait.config import TrainConfig

ROOT = Path("/")


def available(root: Path = ROOT) -> int:
    """Cores that this process may use, at least 1.

    Args:
        root: where `proc` and `sys` are.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(int(min([float(affinity), *_quotas(root)])), 1)


def bounded(threads: int) -> int:
    """`threads`, and no more than the cores that this process may use."""
    return min(threads, available())


def worker_threads(config: TrainConfig, workers_here: int) -> int:
    """Torch threads of a training worker.

    `threads` where it is set; else what Ray reserves for the worker (`cpus_per_worker`), and without Ray
    workers all cores. Never more than the worker's share of the cores that it may use.

    Args:
        config: threads, cpus_per_worker and num_workers are read.
        workers_here: workers of this run on this machine.
    """
    share = max(available() // workers_here, 1)
    reserved = max(int(config.cpus_per_worker), 1) if config.num_workers else share
    return min(config.threads or reserved, share)


def _quotas(root: Path) -> Iterator[float]:
    """The CPU quota, in cores, of this process's cgroup and of each one above it that has one."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:  # no Linux
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
            # A container often sees its own group as the mount's root, whatever its name says.
            for folder in (PurePosixPath(group), *PurePosixPath(group).parents):
                quota = read(mount / str(folder).lstrip("/"))
                if quota is not None:
                    yield quota


def _quota_v2(folder: Path) -> float | None:
    """Of cpu.max: "200000 100000" or "max 100000", microseconds of each period."""
    try:
        quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _quota_v1(folder: Path) -> float | None:
    """Of cpu.cfs_quota_us, -1 for none, and cpu.cfs_period_us."""
    try:
        quota, period = (
            int((folder / f"cpu.cfs_{name}_us").read_text(encoding="utf-8")) for name in ("quota", "period")
        )
        return None if quota <= 0 else quota / period
    except (OSError, ValueError, ZeroDivisionError):
        return None
