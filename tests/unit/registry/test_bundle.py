"""A bundle is whole or refused: every byte, every file, no pickle, nothing outside the folder."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clickbait.errors import BundleError
from clickbait.registry import bundle
from tests.contracts import draft, within


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return draft(tmp_path / "bundle")


def rewrite(folder: Path, **changes: Any) -> None:
    """Changes the manifest behind the library's back."""
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def refused(folder: Path, match: str) -> None:
    with pytest.raises(BundleError, match=match) as raised:
        bundle.verify(folder)
    assert "\n" not in str(raised.value)
    assert str(folder) in str(raised.value)


def test_sealed_is_verified(folder: Path) -> None:
    manifest = bundle.verify(folder)
    assert set(manifest.files) == {"model.onnx", "tokenizer.json", "plots/curve.html"}
    assert manifest.version is None
    assert manifest.labels == ("news", "clickbait")
    assert manifest == bundle.read_manifest(folder)
    assert not list(folder.rglob(".part-*"))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), data=st.data())
def test_any_flipped_bit_is_found(folder: Path, place: float, bit: int, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(bundle.read_manifest(folder).files)))
    whole = (folder / name).read_bytes()
    changed = bytearray(whole)
    changed[int(place * len(whole))] ^= 1 << bit
    (folder / name).write_bytes(changed)
    try:
        refused(folder, name)
    finally:
        (folder / name).write_bytes(whole)


def test_missing_cut_and_extra_files(folder: Path) -> None:
    whole = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(whole[:-1])
    refused(folder, r"model\.onnx: 6999 bytes where the manifest says 7000; fetch the version again")
    (folder / "model.onnx").unlink()
    refused(folder, r"model\.onnx: missing")
    (folder / "model.onnx").write_bytes(whole)
    (folder / "plots" / "more.html").write_text("")
    refused(folder, r"plots/more\.html: not in the manifest")


def test_hidden_files_are_no_part_of_it(folder: Path) -> None:
    (folder / ".DS_Store").write_bytes(b"x")
    assert bundle.verify(folder) == bundle.amend(folder)


def fifo(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def link_out(path: Path) -> None:
    """A link to a file outside whose bytes are those of the bundle's own, so that its hash is the right
    one.
    """
    outside = path.parent.parent / f"outside-{path.name}"
    outside.write_bytes((path.parent / f".{path.name}").read_bytes())
    path.symlink_to(outside)


def sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 100 << 30)


@pytest.mark.parametrize("name", ["model.onnx", "manifest.json"])
@pytest.mark.parametrize(
    ("replace", "reason"),
    [
        (fifo, "is a FIFO"),
        (endless, "is a link"),
        (link_out, "is a link"),
        (sparse, r"bytes where the manifest says 7000|not a bundle's manifest: more than"),
    ],
)
def test_what_is_no_regular_file_of_its_size_is_not_read(
    folder: Path, name: str, replace: Callable[[Path], None], reason: str
) -> None:
    os.rename(folder / name, folder / f".{name}")
    replace(folder / name)
    with within(20):
        refused(folder, rf"{name}: .*({reason})")


@pytest.mark.parametrize(
    ("replace", "reason"), [(fifo, "is a FIFO"), (endless, "is a link"), (sparse, "has at most")]
)
def test_what_is_no_regular_file_is_not_sealed(
    folder: Path, replace: Callable[[Path], None], reason: str
) -> None:
    replace(folder / "more.html")
    with within(20), pytest.raises(BundleError, match=rf"more\.html: .*{reason}"):
        bundle.amend(folder)


def test_a_folder_that_is_a_link_is_not_followed(folder: Path) -> None:
    os.rename(folder / "plots", folder.parent / "elsewhere")
    (folder / "plots").symlink_to(folder.parent / "elsewhere")
    refused(folder, "plots: is a link")
    with pytest.raises(BundleError, match="plots: is a link"):
        bundle.amend(folder)


@pytest.mark.parametrize("name", ["evil.py", "evil.so", "a.dill", "a.npy", "weights", "plots/x.onnx.exe"])
def test_a_kind_of_file_that_no_bundle_has(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"harmless")
    with pytest.raises(BundleError, match=f"{name}: a bundle has no .* files"):
        bundle.amend(folder)
    refused(folder, f"{name}: a bundle has no .* files")
    (folder / name).unlink()
    entry = {"size": 8, "sha256": hashlib.sha256(b"harmless").hexdigest()}
    rewrite(folder, files={**json.loads((folder / "manifest.json").read_text())["files"], name: entry})
    refused(folder, f"{name}.*a bundle has no .* files")  # the manifest alone: before the file is fetched


def test_only_the_files_of_a_runtime_are_asked_for(folder: Path) -> None:
    manifest = bundle.read_manifest(folder)
    assert manifest.needed("int8") == ["model.onnx", "tokenizer.json"]
    assert manifest.needed(None) == sorted(manifest.files)
    shutil.rmtree(folder / "plots")
    assert bundle.verify(folder, manifest.needed("int8")) == manifest
    refused(folder, r"plots/curve\.html: missing")
    (folder / "tokenizer.json").write_text("[]")
    with pytest.raises(BundleError, match=r"tokenizer\.json: its SHA-256"):
        bundle.verify(folder, manifest.needed("int8"))


def test_a_runtime_reads_its_optimised_graph_and_the_plain_one(folder: Path) -> None:
    (folder / "fast.onnx").write_bytes(b"graph")
    manifest = bundle.amend(folder, optimized={"int8": {"file": "fast.onnx", "onnxruntime": "1.2.3"}})
    assert manifest.needed("int8") == ["fast.onnx", "model.onnx", "tokenizer.json"]
    (folder / "fast.onnx").write_bytes(b"other")
    refused(folder, r"fast\.onnx: its SHA-256")


def test_torn_or_missing_manifest(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_bytes(path.read_bytes()[:-20])
    refused(folder, r"manifest\.json: not a bundle's manifest")
    path.unlink()
    refused(folder, r"manifest\.json: No such file")


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../b", "a//b", "", ".", "a\\..\\b"])
def test_a_name_that_leaves_the_folder(folder: Path, name: str) -> None:
    rewrite(
        folder,
        files={
            **json.loads((folder / "manifest.json").read_text())["files"],
            name: {"size": 0, "sha256": "0" * 64},
        },
    )
    refused(folder, "leaves the folder")


@pytest.mark.parametrize(
    "changes",
    [
        {"schema_version": 2},
        {"unknown": 1},
        {"version": "3"},
        {"threshold": 1.5},
        {"temperature": 0.0},
        {"default_runtime": "fp16"},
        {"runtimes": {"int8": "other.onnx"}},
        {"optimized": {"int8": {"file": "other.onnx", "onnxruntime": "1.2.3"}}},
        {"optimized": {"fp16": {"file": "model.onnx", "onnxruntime": "1.2.3"}}},
        {"files": {}},
    ],
)
def test_a_field_that_does_not_fit(folder: Path, changes: dict[str, Any]) -> None:
    rewrite(folder, **changes)
    refused(folder, r"manifest\.json: not a bundle's manifest")
    with pytest.raises(BundleError):
        draft(folder, **{key: value for key, value in changes.items() if key != "files"} or {"name": None})


@pytest.mark.parametrize("name", ["a.bin", "a.pt", "a.PTH", "a.pkl", "a.pickle", "a.joblib", "a.ckpt"])
def test_pickle_by_name(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"harmless")
    with pytest.raises(BundleError, match="a pickle can run code"):
        bundle.amend(folder)


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("data.pkl", b"x")
    return file.getvalue()


@pytest.mark.parametrize(
    "data", [*(pickle.dumps([1.0], protocol=protocol) for protocol in (2, 3, 4, 5)), zipped()]
)
def test_pickle_under_the_name_of_safetensors(folder: Path, data: bytes) -> None:
    (folder / "model.safetensors").write_bytes(data)
    assert bundle.is_pickle(folder / "model.safetensors")
    with pytest.raises(BundleError, match="a pickle can run code"):
        bundle.amend(folder)
    # A manifest that lists it, hash and all, does not make it welcome.
    files = json.loads((folder / "manifest.json").read_text())["files"]
    entry = {"size": len(data), "sha256": bundle.sha256(folder / "model.safetensors")}
    rewrite(folder, files={**files, "model.safetensors": entry})
    refused(folder, "a pickle can run code")


@pytest.mark.parametrize("length", [2, 0x280, 0x380, 0x480, 0x580, 0x4B50])
def test_safetensors_of_any_header_length_is_welcome(tmp_path: Path, length: int) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + b"{".ljust(length - 1) + b"}")
    assert not bundle.is_pickle(path)


def test_amend_changes_a_draft(folder: Path) -> None:
    (folder / "report.html").write_text("<html>")
    manifest = bundle.amend(folder, verdict={"promoted": True}, metrics={"auc": 0.99, "transfer_auc": None})
    assert "report.html" in manifest.files
    assert manifest.verdict == {"promoted": True}
    assert manifest.config == {"epochs": 2}
    assert bundle.verify(folder) == manifest


def test_a_metric_that_is_no_number_is_none(folder: Path) -> None:
    bundle.amend(folder, metrics={"auc": math.nan})
    assert bundle.verify(folder).metrics == {"auc": None}


def test_amend_refuses_a_version(folder: Path) -> None:
    rewrite(folder, version="v3")
    before = (folder / "manifest.json").read_bytes()
    with pytest.raises(BundleError, match="v3 is published and does not change"):
        bundle.amend(folder, threshold=0.4)
    assert (folder / "manifest.json").read_bytes() == before


def test_amend_refuses_an_unknown_field(folder: Path) -> None:
    with pytest.raises(BundleError, match="treshold"):
        bundle.amend(folder, treshold=0.4)
    bundle.verify(folder)
