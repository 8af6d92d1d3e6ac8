"""Imports point one way: `make lint` holds the contracts of pyproject.toml, and here each is seen to fail."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT

PACKAGES = ("clickbait", "ray_jobs", "serve", "tuning", "cluster")
BROKEN = {
    "Imports point one way": ("clickbait/registry/bundle.py", "import clickbait.data.dataset"),
    "The serving half knows nothing of training": ("serve/core/engine.py", "import clickbait.training.loop"),
    "serve: core without HTTP or Ray": ("serve/core/batching.py", "import serve.http.routes"),
    "reports imports nothing of ours": ("clickbait/reports/page.py", "import clickbait.text"),
    "ray: ray_jobs, tuning": ("clickbait/scoring/rows.py", "import ray"),
    "torch: models and training only": ("clickbait/evaluation/gate.py", "import torch"),
    "pyarrow: data, scoring": ("clickbait/registry/registry.py", "import pyarrow"),
}
"""The beginning of each contract's name, a file, and an import there that breaks it."""


def lint_imports(folder: Path) -> dict[str, str]:
    """KEPT or BROKEN for each contract, by its name."""
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache", "--config", "pyproject.toml"]
    environment = {**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "200"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    verdicts = dict(re.findall(r"^(\S.*?) (KEPT|BROKEN)\b", done.stdout, re.MULTILINE))
    assert done.returncode == int("BROKEN" in verdicts.values()), done.stdout + done.stderr
    return verdicts


def test_each_contract_is_kept_and_can_be_broken(tmp_path: Path) -> None:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    kept = lint_imports(tmp_path)
    assert len(kept) == len(BROKEN)
    assert set(kept.values()) == {"KEPT"}
    for file, line in BROKEN.values():
        path = tmp_path / file
        path.write_text(f"{path.read_text(encoding='utf-8')}\n{line}\n", encoding="utf-8")
    broken = lint_imports(tmp_path)
    for name in BROKEN:
        assert [verdict for contract, verdict in broken.items() if contract.startswith(name)] == ["BROKEN"], (
            name
        )
