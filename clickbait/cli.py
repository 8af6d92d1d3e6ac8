"""From a command line to a configuration, and from an error to one line and exit code 2. Every job's `main` is `run`.

python -m ray_jobs.train --config configs/train.yaml --epochs 5 --lr 1e-4
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import sys
from collections.abc import Callable, Sequence

import tyro

from clickbait.config import C, did_you_mean, keys, load
from clickbait.errors import ClickbaitError, ConfigError


def parse(model: type[C], args: Sequence[str], description: str = "") -> C:
    """`--config file.yaml`, then flags over it.

    Raises:
        ConfigError: an unknown flag (the message names the one meant) or a value that does not fit.
    """
    path, flags = _take_config(list(args))
    default = load(model, path)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            config, unknown = tyro.cli(model, args=flags, default=default, description=description, return_unknown_args=True)
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


def run(model: type[C], job: Callable[[C], int | None], doc: str | None) -> None:
    """Parse the command line, run `job`, exit: 0, what the job returns, 2 for a user's error, 130 for Ctrl-C."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S")
    try:
        code = job(parse(model, sys.argv[1:], doc or ""))
    except ClickbaitError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on where it can", file=sys.stderr)
        code = 130
    sys.exit(code or 0)


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
