"""What every chore does: print the command, run it in the checkout's root, end with its exit code."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from invoke.context import Context
from invoke.exceptions import Exit

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent


def run(context: Context, command: list[str], args: str = "", env: dict[str, str] | None = None, *, dry_run: bool = False) -> None:
    """Prints the command, runs it in the checkout's root, and ends with its exit code where that is not 0.

    Args:
        context: Invoke's.
        command: program and arguments, each one word.
        args: what the user adds, as a shell reads it.
        env: variables beside this process's.
        dry_run: print only.
    """
    os.chdir(ROOT)
    line = f"{shlex.join(command)} {args}".strip()
    if dry_run:
        print(line)
        return
    done = context.run(line, echo=True, warn=True, env=env or {}, pty=sys.stdout.isatty(), in_stream=False)
    if done is not None and done.exited:
        raise Exit(code=done.exited)


def tool(name: str, extra: str) -> str:
    """The program's path in this environment; one line where the extra that brings it is not installed."""
    if not (BIN / name).is_file():
        raise Exit(f"error: {name}: not installed: {BIN / 'uv'} pip install --constraint constraints.txt --editable '.[{extra}]'", code=2)
    return str(BIN / name)
