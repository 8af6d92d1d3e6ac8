"""A draft at a URI is the old one or the new one, whole, whenever a writer dies, and the next writer goes on
from there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from clickbait.errors import BundleError
from clickbait.registry import bundle, workspace
from clickbait.storage import folder_locks, is_local, open_storage
from tests.contracts import draft, killed_at, on_disk
from tests.gcs_server import empty_uri, serving


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with serving() as url:
        yield url


@pytest.fixture(params=["disk", "bucket"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "disk":
        return str(tmp_path / "work" / "bundle")
    request.getfixturevalue("server")
    return empty_uri()


def export(uri: str, text: str, *more: str, built: Callable[[], None] = lambda: None) -> None:
    with workspace.new(uri) as folder:
        for name in more:
            (folder / name).write_text(text)
        draft(folder, text=text)
        built()


def evaluate(uri: str, built: Callable[[], None] = lambda: None) -> None:
    """Adds report.html and changes README.md, as `ray_jobs.evaluate` does."""
    with workspace.existing(uri, change=True) as folder:
        text = bundle.verify(folder).base_model
        (folder / "report.html").write_text(text)
        (folder / "README.md").write_text("evaluated")
        bundle.amend(folder, verdict={"decision": "promoted"})
        built()


def state(uri: str) -> tuple[str, bool]:
    """What the draft's model says, and whether it is evaluated; the draft is whole."""
    with workspace.existing(uri) as folder:
        manifest = bundle.verify(folder)
        return (folder / "model.onnx").read_text()[:3], "report.html" in manifest.files


def keys(uri: str) -> list[str]:
    """What lies at the URI, and beside it on a disk, without folders of their own."""
    if is_local(uri):
        return sorted(path.name for path in (*Path(uri).iterdir(), *Path(uri).parent.iterdir()))
    return [key.partition("/")[2] or key for key in open_storage(uri).list() if not key.endswith("/.claim")]


def test_exported_and_evaluated_again_and_again(uri: str) -> None:
    for text in ("one", "two"):
        export(uri, text, "README.md", "only-here.json")
        assert state(uri) == (text, False)
        evaluate(uri)
        assert state(uri) == (text, True)
        evaluate(uri)
        assert state(uri) == (text, True)
    export(uri, "six")
    assert state(uri) == ("six", False)
    assert not [key for key in keys(uri) if key in ("report.html", "README.md", "only-here.json")], (
        "of the draft before, nothing is left"
    )
    assert len(keys(uri)) == 5, "four files, and the bundle's own folder or its pointer"


def test_no_bundle_there(uri: str) -> None:
    for call in (
        lambda: workspace.existing(uri).__enter__(),
        lambda: evaluate(uri),
        lambda: workspace.address(f"{uri}/x", "report.html"),
    ):
        if is_local(uri) and "address" in call.__code__.co_names:
            continue  # a path needs no look
        with pytest.raises(BundleError, match="no bundle there") as raised:
            call()
        assert "\n" not in str(raised.value)


def test_a_block_that_fails_changes_nothing(uri: str) -> None:
    export(uri, "old")

    def fails() -> None:
        raise RuntimeError("cut off")

    for work in (lambda: export(uri, "new", built=fails), lambda: evaluate(uri, fails)):
        with pytest.raises(RuntimeError):
            work()
        assert state(uri) == ("old", False)
    before = keys(uri)
    with pytest.raises(BundleError, match="No such file"), workspace.new(uri) as folder:
        (folder / "model.onnx").write_text("not sealed")
    assert keys(uri) == before
    assert state(uri) == ("old", False)


def test_evaluate_says_that_the_draft_was_replaced_meanwhile(uri: str) -> None:
    export(uri, "old")
    with pytest.raises(
        BundleError,
        match="another bundle was put there while this one was worked on; nothing was written: run this step",
    ):
        evaluate(uri, lambda: export(uri, "new"))
    assert state(uri) == ("new", False)
    evaluate(uri)
    assert state(uri) == ("new", True)


def test_the_last_of_two_exports_at_once_counts(uri: str) -> None:
    export(uri, "old")
    export(uri, "one", built=lambda: export(uri, "two"))
    assert state(uri) == ("one", False)
    export(uri, "six")
    assert state(uri) == ("six", False)
    assert len(keys(uri)) == 5


def test_address_is_of_a_file_that_is_there(uri: str) -> None:
    export(uri, "old")
    evaluate(uri)
    evaluate(uri)
    folder, _, name = workspace.address(uri, "report.html").rpartition("/")
    assert open_storage(folder).read(name)


def in_bucket(count: Callable[[], None]) -> None:
    """A step is a request: killed before it is sent, which is as good as after the answer to the one
    before.
    """
    send = requests.Session.request

    def counted(self: requests.Session, *args: Any, **kwargs: Any) -> requests.Response:
        count()
        return send(self, *args, **kwargs)

    requests.Session.request = counted  # type: ignore[method-assign]  # of the child alone


@pytest.mark.parametrize("step", ["export", "evaluate", "first"])
def test_killed_between_any_two_steps(uri: str, step: str) -> None:
    arm = on_disk if is_local(uri) else in_bucket
    after = {"export": ("new", False), "evaluate": ("old", True), "first": ("new", False)}[step]
    seen = set()
    for number in range(1, 500):
        if step != "first":
            export(uri, "old")
        place = f"{uri}-{number}" if step == "first" else uri
        work = (
            (lambda begin, at=place: evaluate(at, begin))
            if step == "evaluate"
            else (lambda begin, at=place: export(at, "new", built=begin))
        )
        died = killed_at(number, work, arm)
        try:
            found = state(place)
        except BundleError as error:
            if step != "first" or "no bundle there" not in str(error):
                raise
        else:
            assert found in ({after} if step == "first" else {("old", False), after})
            seen.add(found)
        if not died:
            break
        # Tried again, it gets through, and leaves nothing of the dead writer behind.
        if step == "evaluate":
            evaluate(place)
        else:
            export(place, "new")
        assert state(place) == after
        assert not [key for key in keys(place) if "-draft-" in key]
        assert keys(place).count("manifest.json") == 1
    else:
        raise AssertionError("it never came to its end")
    assert after in seen
    assert number > 8, "the steps were counted"


def test_whoever_reads_while_drafts_are_replaced_sees_a_whole_one(uri: str) -> None:
    """No moment without a bundle, and no file of one beside a file of another."""
    export(uri, "one", "only.json")
    stop, wrong, seen = threading.Event(), [], set()

    def read() -> None:
        while not stop.is_set():
            try:
                with workspace.existing(uri) as folder:
                    model = (folder / "model.onnx").read_text()[:3]
                    seen.add(model)
                    assert (folder / "only.json").read_text() == model
                    bundle.verify(folder)
            except Exception as error:  # told below
                wrong.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(12):
        export(uri, "one" if number % 2 else "two", "only.json")
    stop.set()
    for reader in readers:
        reader.join()
    assert not wrong, wrong[0]
    assert seen == {"one", "two"}


def test_where_folders_cannot_be_exchanged_in_one_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        folder_locks, "_RENAME_EXCHANGE", 1 << 30
    )  # a flag that the kernel refuses, as NFS refuses the real one
    uri = str(tmp_path / "bundle")
    export(uri, "old", "only-here.json")
    export(uri, "new")
    evaluate(uri)
    assert state(uri) == ("new", True)
    assert not (tmp_path / "bundle" / "only-here.json").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize("there", ["file", "folder", "dataset"])
def test_what_is_no_bundle_is_not_replaced(tmp_path: Path, there: str) -> None:
    place = tmp_path / "place"
    if there == "file":
        place.write_text("mine")
    else:
        place.mkdir()
        (place / "manifest.json" if there == "dataset" else place / "mine").write_text("{}")
    with pytest.raises(
        BundleError,
        match="holds something else than a bundle, which would be removed: choose another --output",
    ):
        export(str(place), "new")
    assert place.exists()


def test_an_empty_folder_and_a_link_are_taken(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "bundle").symlink_to("disk")
    for text in ("one", "two"):
        export(str(tmp_path / "bundle"), text)
        assert state(str(tmp_path / "bundle")) == (text, False)
    assert (tmp_path / "bundle").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "disk"]
