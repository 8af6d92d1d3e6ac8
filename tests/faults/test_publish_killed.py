"""A publisher that is killed at any of its writes leaves a registry whose readers see the old version or the
new one, each whole.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from clickbait.registry import bundle
from clickbait.registry.registry import Registry
from tests.contracts import draft
from tests.gcs_server import empty_uri, serving


@pytest.fixture(params=["disk", "gs"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "disk":
        yield str(tmp_path / "registries")
    else:
        with serving():
            yield empty_uri()


def killed(action: str, root: str, folder: Path, cache: Path) -> list[Registry]:
    """The registries in which `action` died at its first write, its second, and so on; in the last it came to
    its end.
    """
    command = [sys.executable, str(Path(__file__).with_name("publish_and_die.py")), action, root, str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    last = int(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    return [Registry(f"{root}/{number}", cache=cache) for number in range(last + 1)]


def is_whole(registry: Registry, version: str, folder: Path) -> bool:
    manifest = bundle.verify(registry.fetch(version))
    return manifest.version == version and manifest.files == bundle.read_manifest(folder).files


def test_publish_killed_at_each_write(root: str, tmp_path: Path) -> None:
    folder = draft(tmp_path / "draft")
    registries = killed("publish", root, folder, tmp_path / "cache")
    assert len(registries) > 2 * (1 + 3 + 1), "the claim, three files and the manifest, each before and after"
    seen = []
    for registry in registries:
        versions = registry.versions()
        assert all(is_whole(registry, version, folder) for version in versions)
        assert registry.resolve("latest") == versions[-1]
        assert registry.resolve("production") == "v1"
        seen.append(versions)
        later = registry.publish(folder)
        assert later not in versions
        assert registry.versions() == [*versions, later], "what was half there stays unseen"
        assert is_whole(registry, later, folder)
    # v2 comes at one write and stays: never seen earlier, never gone later.
    assert seen == sorted(seen)
    assert seen[0] == ["v1"]
    assert seen[-1] == ["v1", "v2"]


def test_alias_killed_at_each_write(root: str, tmp_path: Path) -> None:
    registries = killed("alias", root, draft(tmp_path / "draft"), tmp_path / "cache")
    assert len(registries) > 2
    seen = []
    for registry in registries:
        alias = registry.alias("production")
        assert alias is not None
        assert (alias.version, alias.previous) in {("v1", None), ("v2", "v1")}
        bundle.verify(registry.fetch("production"))
        seen.append(alias.version)
        assert registry.set_alias("v2", "production").previous == "v1"
        assert registry.rollback("production") == "v1"
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == ("v1", "v2")
