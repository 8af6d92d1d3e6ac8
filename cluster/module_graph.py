"""Which libraries a program needs before its first line runs, and which only later, by the import statements
of its modules.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from cluster.shell import ROOT

OURS = ("clickbait", "cluster", "ray_jobs", "serve", "tests", "tuning")


@dataclass
class Needs:
    """What a program imports."""

    files: set[Path] = field(default_factory=set)
    """Modules of this checkout, relative to its root."""
    at_start: dict[str, str] = field(default_factory=dict)
    """Top-level names of libraries, and the module that imports each at its top level."""
    later: dict[str, str] = field(default_factory=dict)
    """The same, imported inside a function or by a module that is itself imported there."""


def needs(*modules: str) -> Needs:
    """What the modules import, through this checkout's modules; libraries are named, not followed."""
    result = Needs()
    waiting = [(module, True) for module in modules]
    seen: dict[str, bool] = {}
    while waiting:
        module, at_start = waiting.pop()
        if seen.get(module, False) or (module in seen and not at_start):
            continue
        seen[module] = at_start
        file = _file(module)
        if file is None:
            continue
        result.files.add(file)
        for name, top in _imports(file):
            first = name.partition(".")[0]
            if first in OURS:
                waiting += [(part, at_start and top) for part in _parents(name)]
            elif first not in sys.stdlib_module_names:
                (result.at_start if at_start and top else result.later).setdefault(first, module)
    for name in result.at_start:
        result.later.pop(name, None)
    return result


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts) + 1)]


def _file(module: str) -> Path | None:
    path = Path(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if (ROOT / candidate).is_file():
            return candidate
    return None  # `from module import name`: a function or a class


@cache
def _imports(file: Path) -> tuple[tuple[str, bool], ...]:
    return tuple(_walked(file))


def _walked(file: Path) -> Iterator[tuple[str, bool]]:
    """Each imported name, and whether the import runs when the module is loaded."""
    waiting: list[tuple[ast.AST, bool]] = [(ast.parse((ROOT / file).read_text(encoding="utf-8")), True)]
    while waiting:
        node, top = waiting.pop()
        if isinstance(node, ast.Import):
            yield from ((alias.name, top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((f"{node.module}.{alias.name}", top) for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        elif isinstance(node, ast.If) and "__main__" in ast.unparse(node.test):
            waiting += [(child, top) for child in node.body]  # the program's own start
        else:
            inside = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            waiting += [(child, top and not inside) for child in ast.iter_child_nodes(node)]
