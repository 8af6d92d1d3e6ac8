"""The cache of versions of a remote registry, and of prepared graphs: bounded, whole whenever it is used, and
nothing in use is removed.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from clickbait import storage
from clickbait.errors import BundleError, ClickbaitError, ConfigError, DiskFull
from clickbait.inference import graph_cache
from clickbait.inference.scorer import Scorer
from clickbait.registry import bundle, registry
from clickbait.registry.registry import Registry
from clickbait.scoring.config import ScoreConfig
from ray_jobs import scoring
from serve.core.engine import Engine
from serve.settings import Settings
from tests.contracts import draft, killed_at, on_disk
from tests.tiny import tiny_bundle


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """A registry on this disk that is treated as a remote one: its versions are fetched into the cache. It
    has v1 to v6.
    """
    monkeypatch.setattr(registry, "is_local", lambda uri: False)
    monkeypatch.setenv("CLICKBAIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CLICKBAIT_CACHE_VERSIONS", raising=False)
    publisher = Registry(str(tmp_path / "registry"))
    for number in range(1, 7):
        publisher.publish(draft(tmp_path / "draft", text=f"weight{number}"))
    yield publisher
    for leases in registry._leases.values():
        while leases:
            leases.pop().close()


def fetch(remote: Registry, version: str, runtime: str | None = None) -> Path:
    """Fetches a version and lets go of it, as a process does that ends or has loaded it."""
    folder = remote.fetch(version, runtime)
    remote.release(folder)
    os.utime(folder, (int(version[1:]), int(version[1:])))  # the clock of a fast test is too coarse
    return folder


def cached(tmp_path: Path) -> list[str]:
    return sorted(path.name.partition("-")[0] for path in (tmp_path / "cache").glob("*/*"))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_only_what_a_runtime_reads_is_fetched_and_the_rest_when_it_is_asked_for(remote: Registry) -> None:
    folder = fetch(remote, "v1", "int8")
    assert names(folder) == ["manifest.json", "model.onnx", "tokenizer.json"]
    before = (folder / "model.onnx").stat().st_ino
    assert fetch(remote, "v1") == folder
    assert bundle.verify(folder).version == "v1"
    assert (folder / "model.onnx").stat().st_ino == before, "what was there is not fetched again"
    with pytest.raises(BundleError, match='no runtime "fp61" in v1, which has int8'):
        remote.fetch("v1", "fp61")


def test_so_many_versions_are_kept_the_last_used(
    remote: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(1, 7):
        fetch(remote, f"v{number}")
    assert cached(tmp_path) == ["v3", "v4", "v5", "v6"]
    fetch(remote, "v1")
    assert cached(tmp_path) == ["v1", "v4", "v5", "v6"]
    monkeypatch.setenv("CLICKBAIT_CACHE_VERSIONS", "2")
    fetch(Registry(remote.uri.rpartition("/")[0]), "v6")
    assert cached(tmp_path) == ["v5", "v6"]


@pytest.mark.parametrize("number", ["0", "-1", "many", "1.5"])
def test_a_wrong_number_of_versions_is_one_line(number: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLICKBAIT_CACHE_VERSIONS", number)
    with pytest.raises(ConfigError, match=r"CLICKBAIT_CACHE_VERSIONS: .* is no number of versions"):
        Registry("gs://bucket/registry")


def test_a_version_in_use_stays(remote: Registry, tmp_path: Path) -> None:
    """In use by this process, and by another one, which is then killed."""
    mine = remote.fetch("v1")
    program = (
        "import sys, clickbait.registry.registry as r; r.is_local = lambda uri: False;"
        "print(r.Registry(sys.argv[1]).fetch('v2'), flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "registry")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        theirs = Path(other.stdout.readline().strip())
        os.utime(mine, (0, 0))
        os.utime(theirs, (0, 0))
        for number in range(3, 7):
            fetch(remote, f"v{number}")
        assert cached(tmp_path) == ["v1", "v2", "v3", "v4", "v5", "v6"]
        bundle.verify(mine)
        bundle.verify(theirs)
        other.kill()
    remote.release(mine)
    fetch(remote, "v6")
    assert cached(tmp_path) == ["v3", "v4", "v5", "v6"]


def test_what_else_is_in_the_folder_is_not_touched(remote: Registry, tmp_path: Path) -> None:
    kept = [tmp_path / "cache" / name for name in ("mine/v1", "0123456789abcdef/notes", "v1")]
    earlier = tmp_path / "cache" / "0123456789abcdef" / "v9"  # as an earlier release named versions
    for folder in (*kept, earlier):
        folder.mkdir(parents=True)
        os.utime(folder, (0, 0))
    for number in range(1, 7):
        fetch(remote, f"v{number}")
    assert all(folder.exists() for folder in kept)
    assert not earlier.exists(), "versions of earlier releases go too"


def truncated(path: Path) -> None:
    os.truncate(path, 10)


def altered(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def gone(path: Path) -> None:
    path.unlink()


def linked(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def foldered(path: Path) -> None:
    path.unlink()
    (path / "below").mkdir(parents=True)


@pytest.mark.parametrize("name", ["model.onnx", "manifest.json", "plots/curve.html"])
@pytest.mark.parametrize("damage", [truncated, altered, gone, linked, foldered])
def test_what_is_torn_or_altered_is_fetched_again_and_nothing_else(
    remote: Registry, name: str, damage: Callable[[Path], None]
) -> None:
    folder = fetch(remote, "v1")
    before = {key: (folder / key).stat().st_ino for key in bundle.read_manifest(folder).files if key != name}
    damage(folder / name)
    assert fetch(remote, "v1") == folder
    bundle.verify(folder)
    assert {key: (folder / key).stat().st_ino for key in before} == before


def test_what_does_not_belong_there_is_removed(remote: Registry) -> None:
    folder = fetch(remote, "v1")
    (folder / "evil.py").write_text("")
    (folder / ".part-0123").write_bytes(b"half")
    os.mkfifo(folder / "plots" / "more.html")
    fetch(remote, "v1")
    bundle.verify(folder)
    assert not list(folder.rglob(".part-*"))


def test_bytes_that_are_wrong_in_the_registry_are_refused_each_time_until_they_are_right(
    remote: Registry, tmp_path: Path
) -> None:
    model = tmp_path / "registry" / "clickbait-model" / "versions" / "v1" / "model.onnx"
    altered(model)
    for _ in range(2):
        with pytest.raises(BundleError, match=r"versions/v1/model\.onnx: its SHA-256 is not the manifest's"):
            remote.fetch("v1", "int8")
    altered(model)  # back
    bundle.verify(fetch(remote, "v1"))


def test_killed_at_any_step_the_next_fetch_goes_through(remote: Registry, tmp_path: Path) -> None:
    def work(begin: Callable[[], None]) -> None:
        begin()
        remote.fetch("v1")

    died, step = True, 0
    while died:
        step += 1
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        died = killed_at(step, work, on_disk)
        folder = fetch(remote, "v1")
        bundle.verify(folder)
        assert not list(folder.rglob(".part-*"))
    assert step > 8


def disk(capacity: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that holds so many bytes of the cache."""

    def usage(_: object) -> SimpleNamespace:
        used = sum(path.lstat().st_size for path in (tmp_path / "cache").rglob("*") if path.is_file())
        return SimpleNamespace(free=max(capacity - used, 0))

    monkeypatch.setattr(shutil, "disk_usage", usage)


def test_a_full_disk_loses_old_versions_first(
    remote: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk(30_000, tmp_path, monkeypatch)  # three versions
    for number in (1, 2, 3):
        fetch(remote, f"v{number}")
    assert cached(tmp_path) == ["v1", "v2", "v3"]
    fetch(remote, "v4")
    assert cached(tmp_path) == ["v2", "v3", "v4"]


def test_a_disk_full_of_versions_in_use_is_one_line(
    remote: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk(14_000, tmp_path, monkeypatch)
    remote.fetch("v1")
    with pytest.raises(
        DiskFull, match=r"MB are needed, 0\.0 MB are free.*set CLICKBAIT_CACHE to a folder on a larger disk"
    ) as raised:
        remote.fetch("v2")
    assert str(tmp_path / "cache") in str(raised.value)
    assert "\n" not in str(raised.value)
    bundle.verify(remote.fetch("v1"))


@pytest.mark.parametrize("times", [1, 100])
def test_a_quota_that_shows_only_in_the_writing(
    remote: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    for number in (1, 2):
        fetch(remote, f"v{number}")
    sync, failures = storage.sync, iter(range(times))

    def refuse(path: Path) -> None:
        if next(failures, None) is not None:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), str(path))
        sync(path)

    monkeypatch.setattr(storage, "sync", refuse)
    if times == 1:
        bundle.verify(fetch(remote, "v3"))
        assert cached(tmp_path) == ["v3"], "the others made room"
        return
    with pytest.raises(DiskFull, match="free some space, or set CLICKBAIT_CACHE"):
        remote.fetch("v3")
    monkeypatch.setattr(storage, "sync", sync)
    bundle.verify(fetch(remote, "v3"))


def test_a_cache_that_cannot_be_written_is_one_line(
    remote: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CLICKBAIT_CACHE", str(tmp_path / "file"))
    with pytest.raises(ClickbaitError, match="file") as raised:
        Registry(str(tmp_path / "registry")).fetch("v1")
    assert "\n" not in str(raised.value)


def test_what_serves_and_what_scores_fetch_only_what_they_read_and_let_go(
    remote: Registry, tmp_path: Path
) -> None:
    remote.publish(tiny_bundle(tmp_path / "tiny"))
    uri = str(tmp_path / "registry")
    Engine.load(remote, "v7", Settings(registry=uri, share_weights=False), lambda batch: None)
    (folder,) = (tmp_path / "cache").glob("*/v7-*")
    assert names(folder) == ["manifest.json", "model.onnx", "tokenizer.json"]
    shutil.rmtree(folder)
    scoring.load(ScoreConfig(source="none", output="none", registry=uri, model="v7"))
    assert (
        scoring.manifest(ScoreConfig(source="none", output="none", registry=uri, model="v7")).version == "v7"
    )
    assert names(folder) == ["manifest.json", "model.onnx", "tokenizer.json"]
    assert not any(registry._leases.values())


def score(folder: Path, where: Path) -> np.ndarray:
    return Scorer(folder, shared=where).score(["you won", "council"])


@pytest.mark.parametrize("name", [graph_cache.GRAPH, graph_cache.WEIGHTS, "sums.json"])
@pytest.mark.parametrize("damage", [truncated, altered, gone])
def test_a_prepared_graph_that_is_torn_or_altered_is_made_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, damage: Callable[[Path], None]
) -> None:
    folder, where = tiny_bundle(tmp_path / "bundle"), tmp_path / "prepared"
    before = score(folder, where)
    (made,) = where.iterdir()
    if (made / name).stat().st_size == 0:
        (made / name).write_bytes(b"something")
    else:
        damage(made / name)
    np.testing.assert_array_equal(score(folder, where), before)
    assert not caplog.records
    assert {path.name: path.stat().st_size > 0 for path in made.iterdir()}.keys() >= {
        graph_cache.GRAPH,
        graph_cache.WEIGHTS,
        "sums.json",
    }
    assert not list(made.rglob(".part-*"))


def test_a_prepared_graph_in_use_stays(tmp_path: Path) -> None:
    where = tmp_path / "prepared"
    folder = tiny_bundle(tmp_path / "bundle")
    with graph_cache.graph(folder / "model.onnx", "first", where) as (graph, ready):
        assert ready
        os.utime(graph.parent, (0, 0))
        for number in range(graph_cache._KEPT + 2):
            with graph_cache.graph(folder / "model.onnx", f"{number}", where):
                pass
        assert graph.exists()
    with graph_cache.graph(folder / "model.onnx", "last", where):
        pass
    assert not graph.exists()
