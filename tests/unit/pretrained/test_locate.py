"""Base models from the hub are pinned to a commit; a base model must have the tokenizer that cut the dataset.

The hub's client is the real one; the hub is a small server that keeps what the client leans on: files by
revision, `X-Repo-Commit`, `ETag`, and `X-Error-Code` of what is not there.
"""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from clickbait.data.dataset import Dataset
from clickbait.errors import DataError, ModelError
from clickbait.pretrained import locate, tokenizer
from clickbait.training.runs import Run

OLD, NEW = "a" * 40, "b" * 40
SAFETENSORS = (2).to_bytes(8, "little") + b"{}"


class Hub:
    """One repository, `owner/name`, with two commits; `main` is the second."""

    def __init__(self) -> None:
        self.branches = {"main": NEW, "v1.0": OLD}
        self.files = {
            commit: {
                "config.json": f'{{"commit": "{commit}"}}'.encode(),
                locate.WEIGHTS: SAFETENSORS,
                "tokenizer.json": commit.encode(),
            }
            for commit in (OLD, NEW)
        }
        self.requests: list[str] = []


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    from huggingface_hub import constants

    there = Hub()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            there.requests.append(self.path)
            repository, _, rest = self.path.lstrip("/").partition("/resolve/")
            revision, _, name = rest.partition("/")
            commit = there.branches.get(revision, revision)
            error = (
                "RepoNotFound"
                if repository != "owner/name"
                else "RevisionNotFound"
                if commit not in there.files
                else None
            )
            data = b"" if error else there.files[commit].get(name)
            if data is None:
                error, data = "EntryNotFound", b""
            self.send_response(404 if error else 200)
            if error:
                self.send_header("X-Error-Code", error)
            self.send_header("X-Repo-Commit", commit)
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        def log_message(self, *_: object) -> None: ...

    listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listener.serve_forever, args=(0.02,), daemon=True).start()
    url = f"http://127.0.0.1:{listener.server_port}"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name, value in (
        ("ENDPOINT", url),
        ("HF_HUB_OFFLINE", False),
        ("HF_HUB_CACHE", str(tmp_path / "cache")),
    ):
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        url + "/{repo_id}/resolve/{revision}/{filename}",
        raising=False,
    )
    yield there
    listener.shutdown()
    listener.server_close()


def test_a_name_is_pinned_to_the_commit_it_stands_for(server: Hub) -> None:
    assert locate.pin("owner/name") == f"owner/name@{NEW}"
    assert locate.pin("owner/name@v1.0") == f"owner/name@{OLD}"
    assert locate.pin(f"owner/name@{OLD}") == f"owner/name@{OLD}"
    assert locate.pin(locate.NGRAMS) == locate.NGRAMS
    assert locate.pin(locate.OFFLINE) == locate.OFFLINE
    assert locate.pin("scratch:ngram") == "scratch:ngram"


def test_a_pinned_model_stays_what_it_was_when_the_hub_moves_on(server: Hub) -> None:
    name = locate.pin("owner/name@v1.0")
    server.branches["v1.0"] = NEW
    folder = locate.locate(name)
    assert isinstance(folder, Path)
    assert OLD in (folder / "config.json").read_text()
    assert tokenizer.tokenizer_bytes(name) == OLD.encode()
    requests = len(server.requests)
    assert locate.locate(name) == folder
    assert len(server.requests) == requests, "what is cached is not asked for again"


def test_a_run_goes_on_with_its_own_commit(server: Hub) -> None:
    before = f"owner/name@{OLD}"
    assert locate.pin("owner/name", before) == before
    assert locate.pin(f"owner/name@{NEW}", before) == f"owner/name@{NEW}"
    assert locate.pin("scratch:ngrams", before) == "scratch:ngrams"
    assert locate.pin("owner/name", "owner/name") == "owner/name", "a run of an older version"


def test_what_the_hub_does_not_have_is_one_line(server: Hub) -> None:
    del server.files[OLD][locate.WEIGHTS]
    cases = {
        "owner/name@v9": 'the hub has no revision "v9" of this model',
        "nobody/name": "the hub has no such model, or it is private",
        "owner/name@v1.0": "the hub has no model.safetensors of this model",
    }
    for model, message in cases.items():
        with pytest.raises(ModelError, match=message) as told:
            locate.locate(model)
        assert "\n" not in str(told.value)


def cut_by(model: str, data: bytes) -> Dataset:
    return Dataset(
        "artifacts/datasets/f00d", {"tokenizer": {"model": model, "sha256": hashlib.sha256(data).hexdigest()}}
    )


def test_another_tokenizer_than_the_datasets_is_refused(tmp_path: Path) -> None:
    model = tmp_path / "encoder"
    model.mkdir()
    (model / "tokenizer.json").write_bytes(b"{}")
    cut_by("package:other", b"{}").check_model(str(model))
    with pytest.raises(ModelError) as told:
        cut_by("package:other", b"{ }").check_model(str(model))
    assert f'model "{model}": artifacts/datasets/f00d was cut by the tokenizer of "package:other"' in str(
        told.value
    )
    assert f"preprocess again with --model {model}" in str(told.value)
    assert "\n" not in str(told.value)


def test_a_model_without_a_tokenizer_takes_the_datasets(tmp_path: Path) -> None:
    for model in (*locate.SCRATCH, str(tmp_path)):
        cut_by("package:other", b"{}").check_model(model)


def test_a_hub_models_tokenizer_is_compared(server: Hub) -> None:
    cut_by("owner/name", NEW.encode()).check_model("owner/name")
    with pytest.raises(ModelError, match=r"preprocess again with --model owner/name@v1\.0"):
        cut_by("owner/name", NEW.encode()).check_model("owner/name@v1.0")


def test_a_run_that_is_not_over_is_not_exported_by_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from clickbait.training.runs import State, open_run

    run = Run(str(tmp_path / "run"))
    with pytest.raises(DataError, match="no trained run there"):
        open_run(run.uri)
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "model.safetensors").write_bytes(SAFETENSORS)
    name = run.save(
        tmp_path / "files", State(step=9, epoch=1, position=0, loss_sum=0.0, history=[{"epoch": 1.0}])
    )
    run.write_json("run.json", {"config": {"epochs": 3}})
    run.write_json("best.json", {"checkpoint": name})
    with pytest.raises(
        DataError,
        match=r"the training is not over: 1 of 3 epochs are done: .* or --unfinished to take the best epoch so far",
    ):
        open_run(run.uri)
    assert open_run(run.uri, unfinished=True).best() == name
    assert "1 of 3 epochs are done; taking the best of them" in caplog.text
    run.write_json("done.json", {"step": 9, "history": []})
    assert open_run(run.uri).best() == name
