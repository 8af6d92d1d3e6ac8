"""Nothing is sent anywhere unless the user asks for it: the telemetry of every dependency is off.
CLICKBAIT_TELEMETRY=1 turns it on.

A library reads its variable when it is imported. So every command calls `off` first (`clickbait.cli`). A Ray
worker has the environment of the machine's Ray, not the command's, so each function that imports such a
library calls `off` too.
"""

from __future__ import annotations

import os

SWITCH = "CLICKBAIT_TELEMETRY"
# What each library reads, and the value that turns its reports off.
VARIABLES = {
    # onnxruntime writes a device id when it is imported, and sends what a session is; its
    # disable_telemetry_events() comes too late.
    "ORT_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",  # huggingface_hub, transformers, datasets
    "WANDB_ERROR_REPORTING": "false",  # wandb's crash reports; runs go where WANDB_MODE says
    "BENTOML_DO_NOT_TRACK": "true",  # "true" and nothing else: BentoML takes "1" for a no
    "STREAMLIT_BROWSER_GATHER_USAGE_STATS": "false",
}


def off() -> None:
    """Sets the variables of this process and of what it starts; with CLICKBAIT_TELEMETRY=1 it takes away what
    an image has set.

    A variable that the user has set to another value stays as it is.
    """
    on = os.environ.get(SWITCH) == "1"
    for name, value in VARIABLES.items():
        if not on:
            os.environ.setdefault(name, value)
        elif os.environ.get(name) == value:
            del os.environ[name]
