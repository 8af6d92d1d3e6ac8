"""The same api under uvicorn, without Ray: for a laptop, a container, Cloud Run.

    python -m serve.standalone --registry artifacts/registry --model production --port 8000

Settings come from flags, then `CLICKBAIT_<NAME>` (`serve.settings`), then `PORT`, which Cloud Run sets.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import math
import os
import socket
import sys
from collections.abc import Sequence
from typing import Any

import uvicorn

from clickbait import cli
from clickbait.config import did_you_mean
from clickbait.errors import ConfigError
from serve import ports, settings
from serve.core.service import Service
from serve.http.api import create_app
from serve.http.keys import Keys
from serve.http.protocol import http_protocol
from serve.settings import Settings

_FLAGS = ("registry", "model", "host", "port")


def parse(args: Sequence[str]) -> Settings:
    """The settings with the flags over them.

    Raises:
        ConfigError: an unknown flag (the message names the one meant) or a value that does not fit.
    """
    parser = cli.Parser(prog="python -m serve.standalone", description=__doc__, allow_abbrev=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    for name in _FLAGS:
        parser.add_argument(f"--{name}", help=Settings.model_fields[name].description)
    known, unknown = parser.parse_known_args(args)
    if unknown:
        raise ConfigError(
            f"{unknown[0]}: unknown flag{did_you_mean(unknown[0].lstrip('-').split('=')[0], list(_FLAGS))}"
        )
    given: dict[str, Any] = {name: value for name, value in vars(known).items() if value is not None}
    port = os.environ.get("PORT")
    ours = any(
        name.upper() == "CLICKBAIT_PORT" and not value.startswith(settings.SERVICE_LINK)
        for name, value in os.environ.items()
    )
    if port is not None and "port" not in given and not ours:
        given["port"] = port
    return settings.load(**given)


def run(chosen: Settings, bound: socket.socket) -> None:
    """Loads the model and serves on the bound socket until SIGTERM or Ctrl-C.

    Accepted requests are answered before it ends.

    Raises:
        ClickbaitError: the version cannot be served.
    """
    Keys(chosen)  # before a model is loaded for nothing
    service = Service(chosen)
    service.load()
    address = bound.getsockname()
    keys = "clients send a key" if chosen.keyed else "no keys: open to whoever reaches it"
    print(
        f"serving {service.version} at {ports.url(chosen.host, address[1])} ({keys}; /docs shows how; Ctrl-C "
        f"stops it)",
        flush=True,
    )
    config = uvicorn.Config(
        create_app(service, chosen),
        http=http_protocol(),
        proxy_headers=False,  # nothing here needs the client's address
        access_log=False,  # one log line per request costs more than parsing the request
        log_level="warning",
        server_header=False,
        ws="none",
        timeout_keep_alive=chosen.keep_alive_s,
        timeout_graceful_shutdown=math.ceil(chosen.timeout_s) + 1,
    )
    with contextlib.suppress(
        KeyboardInterrupt
    ):  # uvicorn passes Ctrl-C on once every request is answered: how a server ends
        uvicorn.Server(config).run(sockets=[bound])


def main(args: Sequence[str] | None = None) -> int:
    """Serves until it is stopped; the exit code is `clickbait.cli.Code`."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S")
    return cli.exit_code(lambda: _serve(sys.argv[1:] if args is None else args))


def _serve(args: Sequence[str]) -> None:
    chosen = parse(args)
    with ports.bind(chosen.host, chosen.port) as bound:
        run(chosen, bound)


if __name__ == "__main__":
    sys.exit(main())
