"""Connect to a running Ray cluster, or start one on this machine. Every job calls `connect` once."""

from __future__ import annotations

import os
import sys

import ray

from clickbait import environment, telemetry


def connect() -> None:
    """Calls `ray.init()` once.

    Connects to `RAY_ADDRESS`, else to the cluster that runs on this machine, else to a new cluster that ends
    with this process.

    Raises:
        ConfigError: Ray cannot work in this environment (`clickbait.environment.prepare_for_ray`).
    """
    if not ray.is_initialized():
        os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
        telemetry.off()
        environment.bypass_proxy_for_loopback()
        environment.prepare_for_ray()
        # Ray's future default. If it is not set, every worker prints a warning.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        ray.init(log_to_driver=True, logging_level="warning")
        if not sys.stderr.isatty():  # without a terminal, Ray Data's progress bars fill the log
            from ray.data import DataContext

            DataContext.get_current().enable_progress_bars = False
