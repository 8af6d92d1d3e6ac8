"""Parses command lines into configurations, and turns errors into one line and an exit code.

    python -m ray_jobs.train --config configs/train.yaml --epochs 5 --lr 1e-4

Exit codes: 0 done, 1 refused by the gate or by a check, 2 the user can fix it, 3 a bug in this program,
130 interrupted. Each but 0 comes with one line on standard error. The line of a bug names a file with the
traceback. Every command of the project uses this module.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any, NoReturn

from pydantic import BaseModel, ValidationError

from clickbait import environment, library_errors, telemetry
from clickbait.config import C, did_you_mean, explain, keys, load
from clickbait.errors import ClickbaitError, ConfigError, Refused
from clickbait.storage import user_cache

TYRO = "1.0.17"
"""The version whose private error hook `_structured_errors` uses."""


class Code(IntEnum):
    """Exit code of a command. docs/jobs.md has the same table."""

    DONE = 0
    REFUSED = 1
    """The gate, or a check, refused: a result, not a failure."""
    USER = 2
    """The user can fix it: a flag, a file, the network."""
    FAULT = 3
    """A bug in this program."""
    INTERRUPTED = 130
    """Ctrl-C."""


def parse(model: type[C], args: Sequence[str], description: str = "") -> C:
    """Reads `--config file.yaml`; flags override its values.

    Raises:
        ConfigError: an unknown flag (the message suggests the nearest one) or a value that is not valid.
    """
    import tyro  # of the `train` extra; the server's commands use this module without it

    path, flags = _take_config(list(args))
    default = load(model, path)
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed), _structured_errors():
            config, unknown = tyro.cli(
                model, args=flags, default=default, description=description, return_unknown_args=True
            )
    except SystemExit as stop:
        if not stop.code:  # --help
            raise
        raise ConfigError("a flag has no valid value; see --help") from None
    if unknown:
        name = unknown[0].lstrip("-").split("=")[0].replace("-", "_")
        if not unknown[0].startswith("-"):
            raise ConfigError(f'"{unknown[0]}" belongs to no flag; see --help')
        raise ConfigError(f"{unknown[0]}: unknown flag{did_you_mean(name, keys(model)).replace('_', '-')}")
    return config


def run(model: type[C], job: Callable[[C], int | None], doc: str | None) -> NoReturn:
    """Parses the command line, runs `job` and exits with its code (`exit_code`)."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S")
    sys.exit(exit_code(lambda: job(parse(model, sys.argv[1:], doc or ""))))


def exit_code(job: Callable[[], int | None]) -> int:
    """Runs `job` and returns its exit code. Every error becomes one line on standard error; none propagates.

    `job` returns its code, or None for 0. Only `Refused` gives 1: Python's own 1, of a crash or a
    `sys.exit(1)`, counts as a bug.
    """
    telemetry.off()
    environment.bypass_proxy_for_loopback()
    environment.replace_unencodable(sys.stdout, sys.stderr)
    try:
        return job() or Code.DONE
    except BrokenPipeError:  # `... | head`: the reader of the output has closed it
        with contextlib.suppress(OSError):
            # Otherwise Python complains when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Code.INTERRUPTED
    except KeyboardInterrupt:
        print("stopped; the same command goes on where it can", file=sys.stderr)
        return Code.INTERRUPTED
    except SystemExit as stop:
        if not stop.code:  # --help
            return Code.DONE
        return _print(stop)
    except BaseException as error:  # pyo3's PanicException is no Exception
        return _print(error)


class Parser(argparse.ArgumentParser):
    """argparse for commands without a configuration file. An invalid argument raises ConfigError."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see --help")


def explained(error: BaseException) -> tuple[Code, str]:
    """The exit code for an error, and one line that explains it."""
    cause = library_errors.unwrap(error)
    if isinstance(cause, Refused):
        return Code.REFUSED, f"refused: {library_errors.text(cause)}"
    if isinstance(cause, ClickbaitError):
        return Code.USER, f"error: {library_errors.text(cause)}"
    where = _note(error)
    if (advice := library_errors.fix(cause)) is not None:
        return Code.USER, f"error: {library_errors.line(cause)}: {advice} (the traceback is {where})"
    return (
        Code.FAULT,
        f"error: a fault of this program: {library_errors.line(cause)}; the traceback is {where}: please "
        f"report it",
    )


def _print(error: BaseException) -> Code:
    code, line = explained(error)
    print(line, file=sys.stderr)
    return code


def _note(error: BaseException) -> str:
    """Writes the traceback to a file of this user and returns where; prints it if no file can be written."""
    lines = traceback.format_exception(error)
    head = f"{' '.join(sys.argv)}\nPython {platform.python_version()} on {platform.platform()}\n\n"
    try:
        path = (
            user_cache.own(user_cache.path("faults")) / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
        )
        path.write_text(head + "".join(lines), encoding="utf-8", errors="backslashreplace")
    except OSError:
        print("".join(lines), file=sys.stderr)
        return "above"
    return f"in {path}"


def _take_config(args: list[str]) -> tuple[str | None, list[str]]:
    """Splits `--config FILE` (or `--config=FILE`) off."""
    rest: list[str] = []
    path: str | None = None
    words = iter(args)
    for word in words:
        if word == "--config":
            path = next(words, None)
            if path is None:
                raise ConfigError("--config: name a YAML file, for example configs/train.yaml")
        elif word.startswith("--config="):
            path = word.removeprefix("--config=")
        else:
            rest.append(word)
    return path, rest


def _structured_errors() -> contextlib.AbstractContextManager[None]:
    """Raises tyro's parse errors as ConfigError, in place of its printed boxes.

    The hook is private to tyro, so it is used with the one version that it was checked with. With another
    version, errors have a message without the flag's name.
    """
    import tyro

    if tyro.__version__ != TYRO:
        return contextlib.nullcontext()
    from tyro import _errors

    return _errors.on_parse_error(_refuse)


def _refuse(event: Any) -> NoReturn:
    """Raises a ConfigError for a `tyro._errors.ParseErrorEvent`."""
    error: BaseException | None = sys.exception()
    while error is not None and not isinstance(error, ValidationError):
        error = error.__cause__ or error.__context__
    argument = getattr(event, "argument", None)
    flag = f"{argument.display_name()}: " if argument else ""
    if error is not None:
        reason = explain(BaseModel, error)
    elif choices := getattr(event, "choices", None):
        reason = f'"{event.value}" is not one of {", ".join(choices)}'
    elif getattr(event, "reason", None) == "too_few_values":
        reason = "a value is missing"
    else:
        reason = str(getattr(event, "message", "not valid; see --help"))
    raise ConfigError(flag + " ".join(reason.split())) from None
