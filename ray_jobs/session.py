"""Join the Ray that is there, or start one in this process's machine. Every job calls `connect` once."""

from __future__ import annotations

import os

import ray


def connect() -> None:
    """`ray.init()` once: `RAY_ADDRESS`, else the cluster that runs on this machine, else a new one that ends with the process."""
    if not ray.is_initialized():
        os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
        ray.init(log_to_driver=True)
