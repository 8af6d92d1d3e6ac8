"""Nothing reports home: what dependencies ask of the network when they are used, recorded where every address
is the recorder.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from clickbait import telemetry
from cluster import dockerfile
from tests.conftest import ROOT
from tests.tiny import tiny_bundle

# What a day with the project imports and does, apart from Ray: onnxruntime computes, W&B keeps a run offline,
# the others are imported.
PROGRAM = """
import pathlib, sys, time
from clickbait import telemetry
telemetry.off()
from clickbait.inference.scorer import Scorer
start = time.monotonic()
Scorer(pathlib.Path(sys.argv[1])).score(["you won"])
import datasets, huggingface_hub, kagglehub, optuna, tokenizers, tyro, wandb
with wandb.init(mode="offline", dir=sys.argv[2], settings=wandb.Settings(silent=True)) as run:
    run.log({"loss": 1.0})
time.sleep(max(0, 14 + start - time.monotonic()))  # onnxruntime sends some seconds after the first session
"""


def recorded(folder: Path, **variables: str) -> tuple[list[str], bool]:
    """The names that the program asked for, and whether onnxruntime has written its device id."""
    home = folder / "home"
    home.mkdir(parents=True)
    bundle = tiny_bundle(folder / "bundle")
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(ROOT), **variables}
    command = ["unshare", "--map-root-user", "--net", sys.executable, "-m", "tests.recorder", "120"]
    command += [sys.executable, "-c", PROGRAM, str(bundle), str(folder)]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=180, check=False
    )
    if not done.stdout:
        pytest.fail(done.stderr[-2000:])
    told = json.loads(done.stdout)
    assert told["code"] == 0, done.stderr[-2000:]
    assert len(told["addresses"]) <= len(told["names"])  # no address was known without a name
    return told["names"], (home / ".cache" / "Microsoft").exists()


def _no_namespaces() -> bool:
    probe = ["unshare", "--map-root-user", "--net", "ip", "link", "set", "lo", "up"]
    return (
        not (shutil.which("unshare") and shutil.which("ip"))
        or subprocess.run(probe, capture_output=True, check=False).returncode != 0
    )


@pytest.mark.skipif(_no_namespaces(), reason="needs Linux, unshare, iproute2 and user namespaces or root")
def test_nothing_is_sent_and_with_the_switch_the_recorder_sees_it(tmp_path: Path) -> None:
    with ThreadPoolExecutor() as pool:  # both mostly sleep
        quiet = pool.submit(recorded, tmp_path / "off")
        loud = pool.submit(recorded, tmp_path / "on", CLICKBAIT_TELEMETRY="1")
    assert quiet.result() == ([], False)
    names, device = loud.result()
    assert any(name.endswith("microsoft.com") for name in names)  # or the recorder is blind
    assert device


def test_the_switch_and_a_user_s_own_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in telemetry.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    monkeypatch.delenv(telemetry.SWITCH, raising=False)
    telemetry.off()
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "1"
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
    monkeypatch.setenv(telemetry.SWITCH, "1")
    telemetry.off()
    assert "ORT_DISABLE_TELEMETRY" not in os.environ


def test_each_library_takes_the_value_for_off(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in telemetry.VARIABLES.items():
        monkeypatch.setenv(name, value)
    from ray._common.usage import usage_lib

    assert not usage_lib.usage_stats_enabled()
    told = "from huggingface_hub import constants as c; import wandb, sys; from wandb import env; "
    told += "sys.exit(0 if c.HF_HUB_DISABLE_TELEMETRY and not env.error_reporting_enabled() else 1)"
    assert subprocess.run([sys.executable, "-c", told], cwd=ROOT, check=False).returncode == 0


def test_every_import_of_such_a_library_comes_after_the_switch() -> None:
    """In a Ray worker nobody else has set it: its environment is that of the machine's Ray."""
    late = {"onnxruntime", "wandb", "huggingface_hub", "kagglehub", "datasets"}
    for path in [
        path
        for folder in ("clickbait", "ray_jobs", "serve", "tuning", "cluster")
        for path in (ROOT / folder).rglob("*.py")
    ]:
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            body = getattr(function, "body", None)
            for number, node in enumerate(body if isinstance(body, list) else []):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                if late & {name.partition(".")[0] for name in names}:
                    assert isinstance(function, ast.FunctionDef), f"{path}: {names} at its top level"
                    before = ast.unparse(ast.Module(function.body[:number], []))
                    assert "telemetry.off()" in before, f"{path}:{node.lineno}"


def test_every_image_sets_the_variables() -> None:
    for target in ("standalone", "serve", "train", "bento", "frontend", "dev"):
        assert telemetry.VARIABLES.items() <= dockerfile.variables(target).items(), target
