"""What this machine's environment does to the programs: looked at first, worked around where that is
possible, one line where it is not.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from pathlib import Path
from typing import TextIO
from urllib.parse import urlsplit

from clickbait.errors import ConfigError
from clickbait.storage import user_cache

LOOPBACK = ("localhost", "127.0.0.1", "::1", "[::1]")  # urllib wants the brackets, others do not
SHORT = "/tmp"  # noqa: S108 - where Ray itself goes by default; a folder of this user below it is private
_SOCKET_PATH = 107  # bytes that the kernel takes
_RAYS_OWN = len(
    "/ray/session_2026-11-26_21-12-20_123456_1234567/sockets/plasma_store_0.sock"
)  # below RAY_TMPDIR


def past_the_proxy() -> None:
    """Keeps requests to this machine itself away from a proxy: no proxy reaches its client's loopback.

    Ray's dashboard, the health check, the pipeline's own requests and W&B's local service are on the
    loopback.
    """
    if not any(
        os.environ.get(name)
        for scheme in ("http", "https", "all")
        for name in (f"{scheme}_proxy", f"{scheme}_proxy".upper())
    ):
        return
    for name in ("no_proxy", "NO_PROXY"):  # libraries read one or the other
        hosts = [host.strip() for host in os.environ.get(name, "").split(",") if host.strip()]
        if "*" not in hosts:
            os.environ[name] = ",".join([*hosts, *(host for host in LOOPBACK if host not in hosts)])


def printable(*streams: TextIO) -> None:
    """Lets a stream whose encoding lacks a character print `?` in its place, instead of ending the
    program.
    """
    for stream in streams:
        if (stream.encoding or "").lower().replace("-", "") != "utf8" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def ready_for_ray() -> None:
    """Makes ready for a Ray that this process joins or starts.

    Raises:
        ConfigError: RAY_ADDRESS is no address of a cluster, no folder is short enough for Ray's sockets, or
            HOME cannot be written.
    """
    address = os.environ.get("RAY_ADDRESS", "")
    if urlsplit(address).scheme in ("http", "https"):
        raise ConfigError(
            f"RAY_ADDRESS is {address}, where jobs are sent: set it to HOST:6379, unset it, or send the job: "
            f"inv submit --address {address}"
        )
    if address and address != "local":
        return  # the cluster is there; its machines have folders of their own
    _short_sockets()
    _executable_without_blanks()
    home = Path.home()
    if not os.access(home, os.W_OK | os.X_OK):
        raise ConfigError(
            f"HOME is {home}, where this user may not write, and Ray keeps its token there: set HOME to a "
            f"folder of this user"
        )


def short_folder() -> Path:
    """A private folder of this user with a short path, for sockets.

    Raises:
        ConfigError: there is none.
    """
    folder = Path(SHORT) / f"clickbait-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        return user_cache.own(folder / "short").parent
    except OSError as error:
        raise ConfigError(
            f"{folder}: {error.strerror or error}: set RAY_TMPDIR to a folder with a short path, for sockets"
        ) from None


def _short_sockets() -> None:
    """Ray's sockets lie below RAY_TMPDIR, else TMPDIR: where that is too long, below a short folder."""
    named = os.environ.get("RAY_TMPDIR")
    if len(os.fsencode(named or tempfile.gettempdir())) + _RAYS_OWN <= _SOCKET_PATH:
        return
    if named:
        raise ConfigError(
            f"RAY_TMPDIR is {named}: the paths of Ray's sockets below it would be too long: set it to a "
            f"folder like /tmp"
        )
    os.environ["RAY_TMPDIR"] = str(short_folder())


def _executable_without_blanks() -> None:
    """Ray starts workers by a shell line in which it does not quote the interpreter: a blank in its path, and
    none ever starts.
    """
    if not any(character.isspace() for character in sys.executable):
        return
    environment = Path(sys.executable).parent.parent
    link = short_folder() / f"python-{hashlib.sha256(os.fsencode(environment)).hexdigest()[:16]}"
    if not link.is_symlink():
        fresh = link.with_name(f"{link.name}.{os.getpid()}")
        fresh.symlink_to(environment)
        fresh.replace(link)
    sys.executable = str(link / "bin" / Path(sys.executable).name)
