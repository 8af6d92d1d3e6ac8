"""Only the modules that are there for it use private parts of a library."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.conftest import ROOT

ALLOWED = {"serve/on_ray/ray_private.py", "serve/http/uvicorn_private.py"}
LOADERS = {
    "serve.on_ray.ray_private": {"serve/on_ray/ingress.py"},
    "serve.http.uvicorn_private": {"serve/http/protocol.py"},
}
"""The one module that may import each of them."""
UNDOCUMENTED = ("uvicorn.protocols",)
"""Modules without an underscore that are no public API all the same."""


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def private_names(source: str) -> set[str]:
    """The private names in `source` that it does not define itself, and private imports.

    A name that is assigned, defined, annotated or listed in `__slots__` in the file is the file's own.
    """
    tree = ast.parse(source)
    own, used = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None) or ""
            for alias in node.names:
                path = f"{module}.{alias.name}" if module else alias.name
                if any(map(is_private, path.split("."))) or path.startswith(UNDOCUMENTED):
                    used.add(path)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            own.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            own.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            own.add(node.attr)
        elif isinstance(node, ast.Attribute) and is_private(node.attr):
            used.add(node.attr)
    return {name for name in used if name not in own}


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


FILES = sorted((ROOT / "serve").rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_private_names_are_in_their_modules_only(path: Path) -> None:
    file = path.relative_to(ROOT).as_posix()
    private = private_names(path.read_text(encoding="utf-8")) - {"_exit"}  # os._exit is documented
    assert bool(private) == (file in ALLOWED), private


@pytest.mark.parametrize(
    "source",
    [
        "from ray.serve._private.common import RequestMetadata",
        "import ray._private.worker",
        "from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol",
        "server._serve([])",
        "class A(B):\n    def f(self):\n        self._start_asgi_task()",
    ],
)
def test_a_private_name_is_noticed(source: str) -> None:
    assert private_names(source)


def test_only_its_loader_imports_a_private_module() -> None:
    for module, loaders in LOADERS.items():
        importers = {
            path.relative_to(ROOT).as_posix()
            for folder in ("serve", "clickbait", "ray_jobs", "tuning", "cluster")
            for path in (ROOT / folder).rglob("*.py")
            if module in imports_of(path)
        }
        assert importers == loaders


def test_private_modules_are_not_imported_with_the_application() -> None:
    """Their imports are inside functions, and so are those of Ray's private parts."""
    for file in ("serve/on_ray/ray_private.py", "serve/on_ray/ingress.py", "serve/http/protocol.py"):
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [str(getattr(node, "module", "")), *(alias.name for alias in node.names)]
                assert not [name for name in names if "_private" in name], file
