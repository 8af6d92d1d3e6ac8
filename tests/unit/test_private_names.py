"""No module uses a private name (`_name`) of another module of the project.

KNOWN lists the uses that are allowed: it may only shrink, and it is empty.
"""

from __future__ import annotations

import ast
import subprocess
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("clickbait", "cluster", "ray_jobs", "serve", "tuning")
# Uses of a private name that are allowed, by file and name: none since the plots' helpers are public.
KNOWN: Counter[tuple[str, str]] = Counter()


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def is_ours(module: str | None, level: int = 0) -> bool:
    return level > 0 or (module or "").split(".")[0] in PACKAGES


def private_uses(source: str) -> list[str]:
    """The private names that a module imports from the project's modules, or reads from what it imported."""
    tree = ast.parse(source)
    imported: set[str] = set()
    uses: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {
                alias.asname or alias.name.split(".")[0] for alias in node.names if is_ours(alias.name)
            }
        elif isinstance(node, ast.ImportFrom) and is_ours(node.module, node.level):
            imported |= {alias.asname or alias.name for alias in node.names}
            path = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            uses += [f"import {part}" for part in path if is_private(part)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            owner: ast.expr = node.value
            while isinstance(owner, ast.Attribute | ast.Call):
                owner = owner.value if isinstance(owner, ast.Attribute) else owner.func
            if isinstance(owner, ast.Name) and owner.id in imported:
                uses.append(ast.unparse(node))
    return uses


def test_no_module_uses_a_private_name_of_another() -> None:
    listed = subprocess.run(
        ["git", "ls-files", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=True
    )
    files = [name for name in listed.stdout.split() if name.endswith(".py") and (ROOT / name).is_file()]
    assert len(files) > 50, "the files of the project are listed"
    uses = Counter((name, use) for name in files for use in private_uses((ROOT / name).read_text()))
    assert not uses - KNOWN, "a private name of another module: make it public there, or move the code there"
    assert not KNOWN - uses, "these uses are gone: delete them from KNOWN"


@pytest.mark.parametrize(
    ("source", "uses"),
    [
        ("from clickbait.reports import plots\nplots._svg(1)", ["plots._svg"]),
        ("import clickbait.text\nclickbait.text._MARKS", ["clickbait.text._MARKS"]),
        ("from clickbait.text import _MARKS", ["import _MARKS"]),
        ("from serve._hidden import name", ["import _hidden"]),
        ("from clickbait.registry.registry import Registry\nRegistry('x')._key", ["Registry('x')._key"]),
        ("from clickbait.text import clean\nself._x = clean.__name__", []),
        ("import os\nos._exit(1)", []),  # private names of libraries are judged one by one (docs, STYLE)
    ],
)
def test_a_private_use_is_found(source: str, uses: list[str]) -> None:
    assert private_uses(source) == uses
