"""What every chore does: print the command, run it in the checkout's root, end with its exit code."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from invoke.context import Context
from invoke.exceptions import Exit
from invoke.tasks import task as invoke_task

from clickbait import cli
from clickbait.errors import ConfigError

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
UV = [str(ROOT / "cluster" / "with_pip_settings.sh"), str(BIN / "uv")]
"""uv as `make` runs it: pip's index and links are its own."""


def task(*args: Any, **kwargs: Any) -> Callable[..., Any]:
    """invoke's `task`, for a body whose errors end in one line and an exit code of `clickbait.cli.Code`."""
    if args and not kwargs and callable(args[0]):
        made: Callable[..., Any] = invoke_task(_one_line(args[0]))
        return made
    return lambda body: invoke_task(*args, **kwargs)(_one_line(body))


def _one_line(body: Callable[..., None]) -> Callable[..., None]:
    @wraps(body)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            body(*args, **kwargs)
        except Exit:  # of a command that `run` ran, and which has said why
            raise
        except KeyboardInterrupt:
            raise Exit("stopped", code=cli.Code.INTERRUPTED) from None
        except Exception as error:
            code, line = cli.explained(error)
            raise Exit(line, code=code) from None

    return wrapped


def run(
    context: Context,
    command: list[str],
    args: str = "",
    env: dict[str, str] | None = None,
    *,
    dry_run: bool = False,
) -> None:
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
        raise ConfigError(
            f"{name}: not installed: {' '.join(UV)} pip install --constraint constraints.txt --editable "
            f"'.[{extra}]'"
        )
    return str(BIN / name)


def module_file(module: str) -> Path | None:
    """The file that `python -m module` runs: a module's, or a package's `__main__.py`; None where there is none."""
    path = ROOT / module.replace(".", "/")
    return next((file for file in (path.with_suffix(".py"), path / "__main__.py") if file.is_file()), None)
