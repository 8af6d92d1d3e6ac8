"""Turns off the telemetry of every dependency. CLICKBAIT_TELEMETRY=1 leaves it on.

A library reads its environment variable when it is imported, so every command calls `off` first
(`clickbait.cli`). A Ray worker has the environment of the Ray process on its machine, not that of the
command. So each function that imports such a library also calls `off`.
"""

from __future__ import annotations

import os

SWITCH = "CLICKBAIT_TELEMETRY"
# The environment variable of each library, and the value that turns its telemetry off.
VARIABLES = {
    # onnxruntime stores a device id when it is imported, and later sends facts about each session. Calling
    # its disable_telemetry_events() would be too late.
    "ORT_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",  # huggingface_hub, transformers, datasets
    "WANDB_ERROR_REPORTING": "false",  # only wandb's crash reports; WANDB_MODE decides about runs
    "BENTOML_DO_NOT_TRACK": "true",  # it must be "true": BentoML ignores "1"
    "STREAMLIT_BROWSER_GATHER_USAGE_STATS": "false",
}


def off() -> None:
    """Sets the variables that turn telemetry off, for this process and its children.

    With CLICKBAIT_TELEMETRY=1 it removes them instead, because a container image may have set them. A
    variable that the user has set to another value does not change.
    """
    on = os.environ.get(SWITCH) == "1"
    for name, value in VARIABLES.items():
        if not on:
            os.environ.setdefault(name, value)
        elif os.environ.get(name) == value:
            del os.environ[name]
