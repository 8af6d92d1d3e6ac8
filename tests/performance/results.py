"""Where a benchmark puts its figures: artifacts/bench/<name>.json, with `shows` from figure name to
number.
"""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from clickbait.training.export import git_commit

ROOT = Path(__file__).parents[2]


def save(name: str, shows: dict[str, float], **details: Any) -> Path:
    """Writes the figures with what they were measured on, and prints them."""
    path = ROOT / "artifacts" / "bench" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "shows": shows,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": git_commit(),
        "machine": machine(),
        **details,
    }
    path.write_text(json.dumps(document, indent=2), encoding="utf-8")
    for key, value in shows.items():
        print(f"{key:<28} {value:.4g}")
    print(f"written to {path.relative_to(ROOT)}")
    return path


def machine() -> str:
    """Processor, cores and Python."""
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}"
