"""Local storage keeps the contract, between processes too; a URI is understood or refused in one line."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clickbait.errors import NotFound, StorageError
from clickbait.storage import absolute, expand, is_local, join, open_storage, replacing
from tests.contracts import StorageContract, within


class TestLocal(StorageContract):
    @pytest.fixture
    def root(self, tmp_path: Path) -> str:
        return str(tmp_path / "root")


def test_no_update_is_lost_between_processes(tmp_path: Path) -> None:
    store = open_storage(str(tmp_path))
    store.write("counter", b"0")
    command = [
        sys.executable,
        "-c",
        f"from tests.contracts import increment; increment({str(tmp_path)!r}, 50)",
    ]
    running = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    assert store.read("counter") == b"150"


def test_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert absolute("artifacts/../data/") == f"{tmp_path}/data"
    assert absolute("~/data") == "/home/somebody/data"
    assert absolute("file:///a%20b/c") == "/a b/c"
    assert absolute("file://localhost/a") == "/a"
    assert absolute("gs://bucket/prefix/") == "gs://bucket/prefix"
    assert absolute("GS://bucket") == "gs://bucket"
    for uri in ("data", "~", "gs://b/c", "file:///x"):
        assert absolute(absolute(uri)) == absolute(uri)


@pytest.mark.parametrize(
    "uri", ["", "s3://bucket/x", "https://host/x", "gs://", "gs:///x", "gs://buck*/x", "file://relative"]
)
def test_uri_that_does_not_fit(uri: str) -> None:
    with pytest.raises(StorageError) as raised:
        absolute(uri)
    assert uri in str(raised.value)
    assert "\n" not in str(raised.value)


def test_join_and_is_local() -> None:
    assert join("gs://bucket/", "a", "b/c") == "gs://bucket/a/b/c"
    assert join("/data", "a", "", "b/") == "/data/a/b"
    assert join("/", "a") == "/a"
    assert is_local("data")
    assert is_local("file:///data")
    assert not is_local("gs://bucket/data")


def test_a_write_that_fails_leaves_the_old_bytes_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with contextlib.suppress(RuntimeError), replacing(path) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError("cut off")
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    "call", ["store.write('key', b'new' * 1000)", "store.upload(Path(sys.argv[2]), 'key')"]
)
def test_a_writer_killed_after_ten_bytes_changes_nothing(tmp_path: Path, call: str) -> None:
    store = open_storage(str(tmp_path / "root"))
    store.write("key", b"old")
    (tmp_path / "new").write_bytes(b"new" * 1000)
    # The kernel kills a process at the byte that goes beyond its file size limit.
    code = f"""if True:
        import resource, signal, sys
        from pathlib import Path
        from clickbait.storage import open_storage
        store = open_storage(sys.argv[1])
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
        {call}"""
    died = subprocess.run([sys.executable, "-c", code, store.uri, str(tmp_path / "new")])
    assert died.returncode == -signal.SIGXFSZ
    assert store.read("key") == b"old"
    assert store.list() == ["key"]
    store.write("key", b"newer")
    assert store.read("key") == b"newer"


def test_list_hides_locks_and_what_a_dead_writer_left(tmp_path: Path) -> None:
    store = open_storage(str(tmp_path))
    store.write("key", b"", expect="")
    (tmp_path / ".part-0123").write_bytes(b"half")
    assert len(os.listdir(tmp_path)) > 1
    assert store.list() == ["key"]


def test_what_the_disk_refuses_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    store = open_storage(str(tmp_path))
    for call in (
        lambda: store.read("folder"),
        lambda: store.write("file/below", b""),
        lambda: store.write("folder", b""),
    ):
        with pytest.raises(StorageError) as raised:
            call()
        assert str(tmp_path) in str(raised.value)
        assert "\n" not in str(raised.value)
    assert not list(tmp_path.glob("**/.part-*"))


def test_what_may_never_end_is_not_read(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "whole").write_bytes(b"1")
    (root / "link").symlink_to("whole")
    os.mkfifo(root / "fifo")
    (root / "zero").symlink_to("/dev/zero")
    store = open_storage(str(root))
    assert store.read("link") == b"1"
    for key, kind in (("fifo", "a FIFO"), ("zero", "a device")):
        for call in (
            lambda key: store.read(key),
            lambda key: store.open(key),
            lambda key: store.download(key, tmp_path / "copy"),
            lambda key: store.upload(root / key, "other"),
            lambda key: store.write(key, b"", expect="0"),
        ):
            with within(20), pytest.raises(StorageError, match=f"{key}: is {kind}, not a regular file"):
                call(key)
    assert not (tmp_path / "copy").exists()
    store.write("fifo", b"2")  # a write replaces whatever is there
    assert store.read("fifo") == b"2"


def test_a_lock_that_is_a_fifo_or_a_link_holds_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".lock")
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / ".lock").symlink_to(tmp_path / "outside")
    store = open_storage(str(tmp_path))
    for key in ("key", "below/key"):
        with within(20), contextlib.suppress(StorageError):
            store.write(key, b"")
    assert not (tmp_path / "outside").exists()


def test_expand_takes_names_as_they_are(tmp_path: Path) -> None:
    odd = tmp_path / "100% [a] (b)*"
    odd.mkdir()
    (odd / "x+y.csv").write_bytes(b"")
    assert expand(str(odd)) == [str(odd / "x+y.csv")]
    assert expand(str(odd / "x+y.csv")) == [str(odd / "x+y.csv")]
    assert expand(str(tmp_path / "100% [a]*" / "x+?.csv")) == [str(odd / "x+y.csv")]
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFound, match="empty: no file there"):
        expand(str(tmp_path / "empty"))


def test_local_storage_needs_no_google_library() -> None:
    code = (
        "import sys, clickbait.registry.registry as r; r.Registry('x'); assert not "
        "any(m.startswith('google') for m in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
