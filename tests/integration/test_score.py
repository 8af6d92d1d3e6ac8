"""`ray_jobs.score` on a real cluster: the Scorer's own scores, every row accounted for, and a run that was
killed goes on where it was.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clickbait import sample, storage
from clickbait.errors import DataError
from clickbait.inference.scorer import Scorer
from clickbait.registry.registry import Registry
from clickbait.scoring.config import ScoreConfig
from ray_jobs.score import score
from tests.conftest import ROOT, Cluster
from tests.gcs_server import empty_uri, serving
from tests.integration.test_jobs import submit
from tests.tiny import tiny_bundle

pytestmark = pytest.mark.usefixtures("ray_cluster")
TEXTS = [text for text, _ in sample.generate(3000)]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two Parquet files; every hundredth headline of the second is null."""
    folder = tmp_path_factory.mktemp("lake")
    for name, texts in (
        ("a", TEXTS[:2000]),
        ("b", [None if at % 100 == 0 else text for at, text in enumerate(TEXTS[2000:])]),
    ):
        (folder / "day").mkdir(exist_ok=True)
        pq.write_table(
            pa.table({"id": [f"{name}{at}" for at in range(len(texts))], "headline": texts}),
            folder / "day" / f"{name}.parquet",
        )
    return folder


def tree(uri: str) -> dict[str, str]:
    """Every file below `uri` with its SHA-256."""
    store = storage.open_storage(uri)
    return {key: hashlib.sha256(store.read(key)).hexdigest() for key in store.list()}


def rows(output: str, folder: str = "scores") -> list[dict[str, Any]]:
    tables = [pq.read_table(path) for path in sorted(Path(output, folder).glob("*.parquet"))]
    return list(pa.concat_tables(tables).to_pylist())


def test_the_scores_are_the_scorers_own_and_every_row_is_accounted_for(
    lake: Path, bundle: Path, tmp_path: Path
) -> None:
    config = ScoreConfig(
        source=str(lake), output=str(tmp_path), bundle=str(bundle), part_rows=300, num_workers=2
    )
    manifest = score(config)
    assert manifest["counts"]["in"] == 3000
    assert (manifest["counts"]["scored"], manifest["counts"]["reasons"]) == (2990, {"empty": 10})
    found = rows(config.output)
    assert [row["headline"] for row in found] == [
        text for at, text in enumerate(TEXTS) if at < 2000 or at % 100
    ]
    scorer = Scorer(bundle)
    np.testing.assert_allclose(
        [row["score"] for row in found], scorer.score([row["headline"] for row in found]), atol=1e-6
    )
    assert [row["label"] for row in found] == [scorer.label(row["score"]) for row in found]
    assert {row["model"] for row in found} == {"draft"}
    assert [(row["file"], row["row"]) for row in rows(config.output, "quarantine")] == [
        ("b.parquet", at) for at in range(1, 1000, 100)
    ]


def test_a_killed_run_goes_on_where_it_was_and_ends_with_the_same_bytes(
    lake: Path, bundle: Path, tmp_path: Path
) -> None:
    undisturbed, killed = (str(tmp_path / name) for name in ("undisturbed", "killed"))
    config = ScoreConfig(
        source=str(lake), output=undisturbed, bundle=str(bundle), part_rows=10, num_workers=1
    )
    parts = len(score(config)["files"]) - 10  # the others are quarantine
    flags = [
        "--source",
        str(lake),
        "--bundle",
        str(bundle),
        "--output",
        killed,
        "--part-rows",
        "10",
        "--num-workers",
        "1",
    ]
    driver = subprocess.Popen(
        [sys.executable, "-m", "ray_jobs.score", *flags],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        before = _done_of(killed, at_least=5, driver=driver)
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    before = _done_of(killed, at_least=5)
    assert len(before) < parts == 300
    assert not Path(killed, "_SUCCESS").exists()
    scores = {
        name: Path(killed, "scores", name.replace(".json", ".parquet")).stat().st_mtime_ns for name in before
    }
    score(config.model_copy(update={"output": killed, "num_workers": 2}))
    after = _done_of(killed, at_least=parts)
    assert before.items() <= after.items(), "no part that was done is scored again"
    assert scores == {
        name: Path(killed, "scores", name.replace(".json", ".parquet")).stat().st_mtime_ns for name in before
    }
    assert tree(killed) == tree(undisturbed)


def _done_of(output: str, at_least: int, driver: subprocess.Popen[bytes] | None = None) -> dict[str, int]:
    """The parts that are done with the time they were, once there are so many; without a driver, once no more
    come.
    """
    found: dict[str, int] = {}
    for _ in range(6000):
        now = {path.name: path.stat().st_mtime_ns for path in Path(output, "done").glob("*.json")}
        if len(now) >= at_least and (driver is not None or now == found):
            return now
        assert driver is None or driver.poll() is None, "it ended by itself"
        found = now
        time.sleep(0.01 if driver is not None else 2.0)  # an actor ends its part after its driver has died
    raise AssertionError(f"{len(found)} of {at_least} parts")


def test_an_error_in_mid_run_is_one_line_and_the_output_is_not_called_whole(
    bundle: Path, tmp_path: Path
) -> None:
    text = "headline\n" + "".join(
        f"Headline {at} {hashlib.sha256(bytes(at)).hexdigest()}\n" for at in range(25_000)
    )
    (tmp_path / "h.csv.gz").write_bytes(
        gzip.compress(text.encode())[:-1000]
    )  # its header reads well: only an actor finds the end missing
    config = ScoreConfig(source=str(tmp_path / "h.csv.gz"), output=str(tmp_path / "out"), bundle=str(bundle))
    with pytest.raises(DataError, match=r"h\.csv\.gz: cannot be read to its end") as caught:
        score(config)
    assert "\n" not in str(caught.value)
    assert list(tree(config.output)) == ["plan.json"]


def test_a_submitted_job_takes_the_version_that_an_alias_names(
    ray_cluster: Cluster, bundle: Path, lake: Path, tmp_path: Path
) -> None:
    registry = Registry(str(tmp_path / "registry"))
    registry.set_alias(registry.publish(bundle), "staging")
    output = str(tmp_path / "scores")
    flags = [
        "--registry",
        str(tmp_path / "registry"),
        "--model",
        "staging",
        "--source",
        f"{lake}/**/a.parquet",
        "--output",
        output,
    ]
    done = submit(ray_cluster, "score", *flags)
    assert done.returncode == 0, done.stdout[-4000:]
    assert "2000 rows in" in done.stdout
    assert {row["model"] for row in rows(output)} == {"v1"}
    registry.set_alias(registry.publish(tiny_bundle(tmp_path / "next", threshold=0.7)), "staging")
    config = ScoreConfig(
        source=f"{lake}/**/a.parquet", output=output, registry=str(tmp_path / "registry"), model="staging"
    )
    with pytest.raises(DataError, match=r"scores of another model \(v1; now v2\)"):
        score(config)
    assert score(config.model_copy(update={"model": "v1"}))["counts"]["scored"] == 2000


def test_the_command_over_gs_gives_the_same_bytes_as_over_disk(
    lake: Path, bundle: Path, tmp_path: Path
) -> None:
    config = ScoreConfig(source=str(lake), output=str(tmp_path), bundle=str(bundle), part_rows=900)
    score(config)
    with serving() as server:
        bucket = empty_uri()
        for path in lake.rglob("*.parquet"):
            storage.open_storage(bucket).upload(path, f"lake/{path.relative_to(lake)}")
        command = [
            sys.executable,
            "-m",
            "ray_jobs.score",
            "--config",
            "configs/score.yaml",
            "--bundle",
            str(bundle),
            "--part-rows",
            "900",
        ]
        command += ["--source", f"{bucket}/lake", "--output", f"{bucket}/out"]
        job_config = json.dumps(
            {"runtime_env": {"env_vars": {"STORAGE_EMULATOR_HOST": server}}}
        )  # as `ray job submit` hands it on
        environment = {**os.environ, "RAY_JOB_CONFIG_JSON_ENV_VAR": job_config}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "quarantined             10" in done.stdout
        assert tree(f"{bucket}/out") == tree(config.output)
