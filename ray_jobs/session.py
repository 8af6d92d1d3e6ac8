"""Join the Ray that is there, or start one in this process's machine. Every job calls `connect` once."""

from __future__ import annotations

import os
import sys

import ray

from clickbait import environment, telemetry


def connect() -> None:
    """`ray.init()` once: `RAY_ADDRESS`, else the cluster that runs on this machine, else a new one that ends
    with the process.

    Raises:
        ConfigError: an environment in which Ray cannot work (`clickbait.environment.prepare_for_ray`).
    """
    if not ray.is_initialized():
        os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
        telemetry.off()
        environment.bypass_proxy_for_loopback()
        environment.prepare_for_ray()
        os.environ.setdefault(
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0"
        )  # Ray's coming default; unset, every worker warns
        ray.init(log_to_driver=True, logging_level="warning")
        if not sys.stderr.isatty():  # Ray Data's bars become pages of log
            from ray.data import DataContext

            DataContext.get_current().enable_progress_bars = False
