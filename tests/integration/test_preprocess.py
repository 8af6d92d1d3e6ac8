"""`ray_jobs.preprocess` on a real cluster: the same bytes whatever the workers, every row accounted for, and
nothing half-written.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clickbait import storage
from clickbait.config import PreprocessConfig
from clickbait.data.dataset import open_dataset
from clickbait.data.headlines import SPLITS
from clickbait.errors import DataError
from ray_jobs import preprocess as job
from ray_jobs.preprocess import preprocess
from tests.gcs_server import empty_uri, serving

ROOT = Path(__file__).parent.parent.parent

pytestmark = pytest.mark.usefixtures("ray_cluster")


def tree(uri: str) -> dict[str, str]:
    """Every file below `uri` with its SHA-256."""
    store = storage.open_storage(uri)
    return {key: hashlib.sha256(store.read(key)).hexdigest() for key in store.list()}


@pytest.fixture(scope="module")
def dirty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of four formats with something wrong in each. Beside 120 good headlines: what `CAUSES`
    says.
    """
    folder = tmp_path_factory.mktemp("dirty")
    good = [f"Good headline number {at}" for at in range(120)]
    csv = "".join(f"{text},{at % 2}\n" for at, text in enumerate(good[:40]))
    (folder / "a.csv").write_bytes(
        b"headline,clickbait\nbad \xff\xfe bytes,1\none,too,many\n  ,1\nBoth ways,1\n" + csv.encode()
    )
    values: list[Any] = [{"headline": text, "clickbait": bool(at % 2)} for at, text in enumerate(good[40:80])]
    values += [
        {"headline": 7, "clickbait": 1},
        {"headline": "Both WAYS!", "clickbait": "news"},
        {"headline": good[0].upper(), "clickbait": 0},
    ]
    lines = "\n".join(json.dumps(value) for value in values) + '\n{"headline": "cut o'
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(lines.encode(), mtime=0))
    sink = io.BytesIO()
    table = {"headline": [*good[80:110], "x" * 2000, None], "clickbait": [at % 2 for at in range(32)]}
    pq.write_table(pa.table(table), sink)
    (folder / "c.parquet").write_bytes(sink.getvalue())
    tsv = "".join(f"{text}\t{at % 2}\n" for at, text in enumerate(good[110:]))
    (folder / "d.tsv").write_text(f"headline\tclickbait\n{tsv}A label nobody knows\tperhaps\n{good[1]}\t1\n")
    (folder / "README.md").write_text("not a source")
    return folder


CAUSES = {
    ("a.csv", 1): "undecodable",
    ("a.csv", 2): "malformed_row",
    ("a.csv", 3): "empty",
    ("a.csv", 4): "conflicting_labels",
    ("b.jsonl.gz", 41): "not_text",
    ("b.jsonl.gz", 42): "conflicting_labels",
    ("b.jsonl.gz", 44): "malformed_row",
    ("c.parquet", 31): "too_long",
    ("c.parquet", 32): "empty",
    ("d.tsv", 11): "unknown_label",
}
DUPLICATES = 2


def test_every_bad_row_is_in_quarantine_with_its_reason(dirty: Path, tmp_path: Path) -> None:
    found = open_dataset(preprocess(PreprocessConfig(source=str(dirty), output=str(tmp_path))))
    rows = found.table("quarantine").to_pylist()
    assert {(row["source"], row["row"]): row["reason"] for row in rows} == CAUSES
    counts = found.manifest["counts"]
    assert (counts["kept"], counts["quarantined"], counts["duplicates"]) == (120, len(CAUSES), DUPLICATES)
    assert counts["in"] == 120 + len(CAUSES) + DUPLICATES
    assert {reason: rows for reason, rows in counts["reasons"].items() if rows}.keys() == set(CAUSES.values())
    kept = [text for name in SPLITS for text in found.table(name)["headline"].to_pylist()]
    assert sorted(kept) == sorted(f"Good headline number {at}" for at in range(120))
    assert all(rows["clickbait"] and rows["news"] for rows in counts["splits"].values())


def test_one_and_three_workers_write_the_same_bytes(dirty: Path, tmp_path: Path) -> None:
    uris = [
        preprocess(PreprocessConfig(source=str(dirty), output=str(tmp_path / str(n)), num_workers=n))
        for n in (1, 3)
    ]
    one, three = (tree(str(tmp_path / str(n))) for n in (1, 3))
    assert one == three
    assert len(one) > 2 * len(SPLITS)
    assert uris[0] == str(tmp_path / "1" / open_dataset(uris[0]).fingerprint)


def no_ray() -> None:
    pytest.fail("Ray was started")


def test_a_second_run_returns_at_once_and_is_the_latest(
    dirty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = PreprocessConfig(source=str(dirty), output=str(tmp_path))
    uri = preprocess(config)
    before = tree(str(tmp_path))
    preprocess(PreprocessConfig(sample_size=100, output=str(tmp_path), partitions=1))
    assert open_dataset(str(tmp_path / "latest")).synthetic
    monkeypatch.setattr(job, "connect", no_ray)
    assert preprocess(config.model_copy(update={"num_workers": 5})) == uri
    assert before.items() <= tree(str(tmp_path)).items()
    assert open_dataset(str(tmp_path / "latest")).uri == uri


def test_a_run_that_died_half_way_is_written_anew(dirty: Path, tmp_path: Path) -> None:
    config = PreprocessConfig(source=str(dirty), output=str(tmp_path))
    uri = preprocess(config)
    before = tree(uri)
    (Path(uri) / "_SUCCESS").unlink()
    (Path(uri) / "manifest.json").write_bytes(b"{")
    part = next(Path(uri).glob("train/*.parquet"))
    part.write_bytes(part.read_bytes()[:100])
    (Path(uri) / "test" / "part-00099.parquet").write_bytes(b"left")
    with pytest.raises(DataError):
        open_dataset(uri)
    assert preprocess(config) == uri
    assert tree(uri) == before


def test_very_few_headlines_reach_every_split(tmp_path: Path) -> None:
    source = tmp_path / "h.csv"
    source.write_text("headline,clickbait\n" + "".join(f"Headline {at},{at % 2}\n" for at in range(8)))
    counts = open_dataset(
        preprocess(PreprocessConfig(source=str(source), output=str(tmp_path / "out")))
    ).manifest["counts"]
    assert counts["kept"] == 8
    assert all(rows["clickbait"] and rows["news"] for rows in counts["splits"].values())


def cut_gzip(folder: Path) -> Path:
    """Its first block reads well: only a worker finds the end missing."""
    rows = "".join(
        f"Headline number {at} {hashlib.sha256(bytes(at)).hexdigest()},{at % 2}\n" for at in range(25_000)
    )
    (folder / "h.csv.gz").write_bytes(gzip.compress(f"headline,clickbait\n{rows}".encode())[:-1000])
    return folder / "h.csv.gz"


def one_label(folder: Path) -> Path:
    (folder / "h.csv").write_text("headline,clickbait\n" + "".join(f"Headline {at},1\n" for at in range(50)))
    return folder / "h.csv"


@pytest.mark.parametrize(
    ("make", "message"),
    [(cut_gzip, r"h\.csv\.gz: cannot be read to its end"), (one_label, "0 headlines of label news")],
)
def test_an_error_in_mid_run_is_one_line_and_leaves_nothing(
    tmp_path: Path, make: Callable[[Path], Path], message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        preprocess(PreprocessConfig(source=str(make(tmp_path)), output=str(tmp_path / "out")))
    assert "\n" not in str(caught.value)
    assert tree(str(tmp_path / "out")) == {}


def test_a_wrong_column_is_told_before_ray_starts(
    dirty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "connect", no_ray)
    with pytest.raises(DataError, match='no column "headlines"; did you mean "headline"'):
        preprocess(
            PreprocessConfig(source=str(dirty), headline_column="headlines", output=str(tmp_path / "out"))
        )
    assert not (tmp_path / "out").exists()


def run(*flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ray_jobs.preprocess", "--config", "configs/preprocess.yaml", *flags]
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_the_command_over_gs_gives_the_same_bytes_as_over_disk(dirty: Path, tmp_path: Path) -> None:
    uri = preprocess(PreprocessConfig(source=str(dirty), output=str(tmp_path)))
    with serving() as server:
        bucket = empty_uri()
        source = storage.open_storage(f"{bucket}/{dirty.name}")
        for path in dirty.iterdir():
            source.upload(path, path.name)
        job_config = json.dumps(
            {"runtime_env": {"env_vars": {"STORAGE_EMULATOR_HOST": server}}}
        )  # as `ray job submit` hands it on
        done = run(
            "--source",
            f"{bucket}/{dirty.name}",
            "--output",
            f"{bucket}/out",
            RAY_JOB_CONFIG_JSON_ENV_VAR=job_config,
        )
        assert done.returncode == 0, done.stderr
        assert "quarantined           10" in done.stdout
        assert tree(open_dataset(f"{bucket}/out/latest").uri) == tree(uri)


def test_the_command_ends_with_one_line_and_code_2(tmp_path: Path) -> None:
    done = run("--source", str(tmp_path / "nope.csv"))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "nope.csv" in done.stderr


def test_the_real_headlines(data_dir: Path, tmp_path: Path) -> None:
    source = data_dir / "stop-clickbait" / "clickbait_data.csv"
    found = open_dataset(preprocess(PreprocessConfig(source=str(source), output=str(tmp_path))))
    counts = found.manifest["counts"]
    assert (counts["in"], counts["kept"], counts["quarantined"], counts["duplicates"]) == (
        32_000,
        31_998,
        0,
        2,
    )
    for name, share in (("train", 0.8), ("validation", 0.1), ("test", 0.1)):
        assert counts["splits"][name]["rows"] == pytest.approx(32_000 * share, abs=10)
        assert found.manifest["label_balance"][name] == pytest.approx(0.5, abs=0.01)
    assert max(map(int, found.manifest["token_length_histogram"])) == 38  # measured: shared/data/README.md
