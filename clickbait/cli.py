"""From a command line to a configuration, and from an error to one line and an exit code. Every command of
the project ends here.

    python -m ray_jobs.train --config configs/train.yaml --epochs 5 --lr 1e-4

Exit codes: 0 done, 1 refused by the gate or by a check, 2 what the user can fix, 3 a fault of this program,
130 interrupted. Each but 0 is one line on standard error. The line of a fault names a file with the
traceback.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import platform
import re
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import NoReturn

from clickbait import environment, library_errors, telemetry
from clickbait.config import C, did_you_mean, keys, load
from clickbait.errors import ClickbaitError, ConfigError, Refused
from clickbait.storage import user_cache


class Code(IntEnum):
    """What a command ends with. docs/jobs.md has the same table."""

    DONE = 0
    REFUSED = 1
    """The gate, or a check, said no: a result, not a failure."""
    USER = 2
    """A flag, a file, a network: the user can fix it."""
    FAULT = 3
    """A fault of this program."""
    INTERRUPTED = 130
    """Ctrl-C."""


def parse(model: type[C], args: Sequence[str], description: str = "") -> C:
    """`--config file.yaml`, then flags over it.

    Raises:
        ConfigError: an unknown flag (the message names the one meant) or a value that does not fit.
    """
    import tyro  # of the `train` extra; the server's commands end here too, and have none

    path, flags = _take_config(list(args))
    default = load(model, path)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            config, unknown = tyro.cli(
                model, args=flags, default=default, description=description, return_unknown_args=True
            )
    except SystemExit as stop:
        if not stop.code:  # --help
            raise
        raise ConfigError(_one_line(said.getvalue())) from None
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
    """Runs `job` and returns its exit code. Every error becomes one line on standard error; none goes on.

    `job` returns its code, or None for 0. Only `Refused` gives 1: Python's own 1, of a crash or a
    `sys.exit(1)`, is a fault here.
    """
    telemetry.off()
    environment.bypass_proxy_for_loopback()
    environment.replace_unencodable(sys.stdout, sys.stderr)
    try:
        return job() or Code.DONE
    except BrokenPipeError:  # `... | head`: who reads the output has gone
        with contextlib.suppress(OSError):
            os.dup2(
                os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
            )  # or Python complains when it flushes at its end
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
    """argparse for the commands without a configuration file: what does not fit is a ConfigError, not a usage
    text and an exit.
    """

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see --help")


def explained(error: BaseException) -> tuple[Code, str]:
    """The exit code that an error ends a command with, and the one line that says why."""
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
    """Writes the traceback to a file of this user, and says where; prints it where no file can be written."""
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


def _one_line(box: str) -> str:
    """Tyro's boxed message as one line: the part above its first rule, without the frame."""
    inner = [line.strip(" │╭╮╰╯") for line in box.splitlines()]
    told: list[str] = []
    for line in inner[1:]:
        if line and not line.strip("─"):
            break
        told.append(line)
    text = re.sub(r"\s*\[type=.*", "", " ".join(" ".join(told).split()))
    return text or " ".join(" ".join(inner).split()) or "the command line does not fit; see --help"
