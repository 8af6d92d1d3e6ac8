"""`gs://` keeps the contracts: google-cloud-storage, the real client, against fake-gcs-server."""

from __future__ import annotations

import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from clickbait.errors import NotFound, PreconditionFailed, StorageError
from clickbait.registry.bundle import verify
from clickbait.registry.registry import Registry
from clickbait.storage import expand, open_storage
from tests.contracts import RegistryContract, StorageContract, draft
from tests.gcs_server import empty_uri, serving


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with serving() as url:
        yield url


@pytest.fixture
def root(server: str) -> str:
    return empty_uri()


class TestStorage(StorageContract):
    pass


class TestRegistry(RegistryContract):
    def test_the_cache_is_used_and_mended(self, registry: Registry, tmp_path: Path) -> None:
        registry.publish(draft(tmp_path / "draft"))
        folder = registry.fetch("v1")
        assert folder.is_relative_to(tmp_path / "cache")
        first = (folder / "model.onnx").stat().st_ino
        assert registry.fetch("latest") == folder
        assert (folder / "model.onnx").stat().st_ino == first, "fetched once"
        (folder / "model.onnx").write_bytes(b"changed")
        assert registry.fetch("v1") == folder
        assert (folder / "model.onnx").read_bytes() == (tmp_path / "draft" / "model.onnx").read_bytes()
        assert list(folder.parent.iterdir()) == [folder]

    def test_only_what_a_runtime_reads_is_fetched(self, registry: Registry, tmp_path: Path) -> None:
        registry.publish(draft(tmp_path / "draft"))
        folder = registry.fetch("v1", "int8")
        assert sorted(path.name for path in folder.iterdir()) == [
            ".lock",
            "manifest.json",
            "model.onnx",
            "tokenizer.json",
        ]
        assert registry.fetch("v1") == folder
        verify(folder)

    def test_a_registry_made_anew_is_not_answered_from_the_cache(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        registry.publish(draft(tmp_path / "old", text="old"))
        registry.fetch("v1")
        store = open_storage(registry.uri)
        for key in store.list():
            store.delete(key)
        registry.publish(draft(tmp_path / "new", text="new"))
        assert (registry.fetch("v1") / "model.onnx").read_bytes().startswith(b"new")

    def test_processes_that_fetch_at_once_share_one_folder(
        self, root: str, registry: Registry, tmp_path: Path
    ) -> None:
        registry.publish(draft(tmp_path / "draft"))
        fetch = (
            "import sys; from clickbait.registry.registry import Registry; "
            "print(Registry(sys.argv[1]).fetch('v1'))"
        )
        command = [sys.executable, "-c", fetch, root]
        environment = {**os.environ, "CLICKBAIT_CACHE": str(tmp_path / "cache")}
        running = [
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(2)
        ]
        folders = {process.communicate(timeout=60)[0].strip() for process in running}
        assert [process.returncode for process in running] == [0, 0]
        (folder,) = folders
        assert verify(Path(folder)).version == "v1"


def test_no_bucket(server: str, tmp_path: Path) -> None:
    store = open_storage("gs://no-such-bucket/prefix")
    (tmp_path / "file").write_bytes(b"")
    for call in (
        lambda: store.write("key", b""),
        store.list,
        lambda: store.upload(tmp_path / "file", "key"),
        lambda: expand("gs://no-such-bucket/*"),
    ):
        with pytest.raises(
            NotFound, match="there is no bucket no-such-bucket; create it, or check the name"
        ) as raised:
            call()
        assert "\n" not in str(raised.value)


def answer_lost(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The next upload arrives, but its answer does not: the client sees a 503 and sends again. Gives the
    methods sent.
    """
    sent: list[str] = []
    send = requests.Session.request

    def flaky(self: requests.Session, method: str, url: str, *args: Any, **kwargs: Any) -> requests.Response:
        answer = send(self, method, url, *args, **kwargs)
        if "/upload/" in url:
            sent.append(method)
            if len(sent) == 1:
                assert answer.status_code == 200
                answer.status_code = 503
        return answer

    monkeypatch.setattr(requests.Session, "request", flaky)
    return sent


def test_a_write_whose_answer_is_lost_counts_once(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_storage(root)
    sent = answer_lost(monkeypatch)
    generation = store.write("alias", b"1", expect="")
    assert len(sent) == 2, "it was sent again, and refused, for the first had got through"
    assert store.read_versioned("alias") == (b"1", generation)
    with pytest.raises(PreconditionFailed):
        store.write("alias", b"2", expect="")


def test_a_claim_whose_answer_is_lost_is_ours(
    root: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sent = answer_lost(monkeypatch)
    assert Registry(root).publish(draft(tmp_path / "draft")) == "v1"
    assert len(sent) > 2


def test_a_stream_stays_in_its_generation(root: str) -> None:
    store = open_storage(root)
    old = b"old" * 5_000_000  # more than one request
    store.write("rows", old)
    with store.open("rows") as stream:
        stream.read(10)
        store.write("rows", b"new" * 5_000_000)
        with pytest.raises(
            PreconditionFailed, match="changed since it was read"
        ):  # the new one's bytes would be wrong
            stream.read()


class Refusing(http.server.BaseHTTPRequestHandler):
    """Answers as Google does to credentials without the right: 403 and a JSON body."""

    def do_GET(self) -> None:
        body = b'{"error": {"code": 403, "message": "somebody does not have storage.objects.get access"}}'
        self.send_response(403)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_forbidden_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_port}")
        store = open_storage("gs://bucket")
        for call in (store.list, lambda: store.read("key"), lambda: store.exists("key")):
            with pytest.raises(
                StorageError, match=r"gs://bucket.*refuses these credentials \(403\).*gcloud auth"
            ) as raised:
                call()
            assert "\n" not in str(raised.value)
        server.shutdown()


@pytest.mark.parametrize("key_file", ["missing.json", "torn.json", None])
def test_no_credentials_is_one_line(
    key_file: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")  # or it asks the network for a metadata server
    (tmp_path / "torn.json").write_text("{")
    if key_file:
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / key_file))
    with pytest.raises(
        StorageError, match=r"gcloud auth application-default login.*GOOGLE_APPLICATION_CREDENTIALS"
    ) as raised:
        open_storage("gs://bucket").read("key")
    assert "\n" not in str(raised.value)
