"""A base model's folder: what would never end, or is no such file, is one line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clickbait import hub, tokenizer
from clickbait.errors import ModelError
from tests.contracts import within


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    return tmp_path


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "generation_config.json"])
@pytest.mark.parametrize("kind", ["fifo", "zero", "sparse"])
def test_a_file_that_never_ends(folder: Path, name: str, kind: str) -> None:
    hub.check_folder(folder)
    path = folder / name
    path.unlink(missing_ok=True)
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "zero":
        path.symlink_to("/dev/zero")
    else:
        path.touch()
        os.truncate(path, 100 << 30)
    with within(20), pytest.raises(ModelError, match=name) as raised:
        hub.check_folder(folder)
    assert "\n" not in str(raised.value)
    if name == tokenizer.FILE:
        with within(20), pytest.raises(ModelError, match=name):
            tokenizer.tokenizer_bytes(str(folder))


def test_links_are_followed(folder: Path) -> None:
    """The hub's own cache is made of links."""
    os.rename(folder / "config.json", folder / "blob")
    (folder / "config.json").symlink_to("blob")
    hub.check_folder(folder)
