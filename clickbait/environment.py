"""Checks and fixes of the process environment before Ray starts: proxy, encoding, socket paths, HOME.

A problem that the program can work around is worked around. Any other problem is a `ConfigError`.
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

LOOPBACK = ("localhost", "127.0.0.1", "::1", "[::1]")  # urllib needs the brackets, other libraries do not
SHORT = "/tmp"  # noqa: S108 - Ray's default. The user's folder in it is private.
_MAX_SOCKET_PATH = 107  # bytes, limit of Linux
# Length of the path that Ray adds below RAY_TMPDIR.
_RAY_SOCKET_PATH = len("/ray/session_2026-11-26_21-12-20_123456_1234567/sockets/plasma_store_0.sock")


def bypass_proxy_for_loopback() -> None:
    """Adds the loopback addresses to `no_proxy`, because a proxy cannot reach its client's loopback.

    Ray's dashboard, the health check, the pipeline's requests and W&B's local service use the loopback.
    """
    if not any(
        os.environ.get(name)
        for scheme in ("http", "https", "all")
        for name in (f"{scheme}_proxy", f"{scheme}_proxy".upper())
    ):
        return
    for name in ("no_proxy", "NO_PROXY"):  # some libraries read only one of the two
        hosts = [host.strip() for host in os.environ.get(name, "").split(",") if host.strip()]
        if "*" not in hosts:
            os.environ[name] = ",".join([*hosts, *(host for host in LOOPBACK if host not in hosts)])


def replace_unencodable(*streams: TextIO) -> None:
    """Makes the streams write `?` for a character that their encoding lacks, instead of raising."""
    for stream in streams:
        if (stream.encoding or "").lower().replace("-", "") != "utf8" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def prepare_for_ray() -> None:
    """Prepares this process to join or start Ray.

    Raises:
        ConfigError: RAY_ADDRESS is not the address of a cluster, RAY_TMPDIR is too long for Ray's sockets, or
            HOME is not writable.
    """
    address = os.environ.get("RAY_ADDRESS", "")
    if urlsplit(address).scheme in ("http", "https"):
        raise ConfigError(
            f"RAY_ADDRESS is {address}, which is the address for submitting jobs: set it to HOST:6379, unset "
            f"it, or submit the job: inv submit --address {address}"
        )
    if address and address != "local":
        return  # the cluster runs on other machines, which have their own folders
    _shorten_socket_paths()
    _avoid_spaces_in_executable()
    home = Path.home()
    if not os.access(home, os.W_OK | os.X_OK):
        raise ConfigError(
            f"HOME is {home}, which this user may not write to, but Ray stores its token there: set HOME to "
            f"a folder of this user"
        )


def short_folder() -> Path:
    """Creates a private folder of this user with a short path, for sockets.

    Raises:
        ConfigError: the folder cannot be created, or belongs to another user.
    """
    folder = Path(SHORT) / f"clickbait-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        return user_cache.own(folder / "short").parent
    except OSError as error:
        raise ConfigError(
            f"{folder}: {error.strerror or error}: set RAY_TMPDIR to a folder with a short path, for sockets"
        ) from None


def _shorten_socket_paths() -> None:
    """Sets RAY_TMPDIR to a short folder if Ray's sockets would have too long a path in TMPDIR."""
    ray_tmpdir = os.environ.get("RAY_TMPDIR")
    folder = ray_tmpdir or tempfile.gettempdir()
    if len(os.fsencode(folder)) + _RAY_SOCKET_PATH <= _MAX_SOCKET_PATH:
        return
    if ray_tmpdir:
        raise ConfigError(
            f"RAY_TMPDIR is {ray_tmpdir}, so the paths of Ray's sockets would be too long: set it to a "
            f"folder with a short path, like /tmp"
        )
    os.environ["RAY_TMPDIR"] = str(short_folder())


def _avoid_spaces_in_executable() -> None:
    """Replaces `sys.executable` by a link if its path contains a space.

    Ray does not quote the interpreter in the shell command that starts a worker, so no worker would start.
    """
    if not any(character.isspace() for character in sys.executable):
        return
    environment = Path(sys.executable).parent.parent
    link = short_folder() / f"python-{hashlib.sha256(os.fsencode(environment)).hexdigest()[:16]}"
    if not link.is_symlink():
        temporary = link.with_name(f"{link.name}.{os.getpid()}")
        temporary.symlink_to(environment)
        temporary.replace(link)
    sys.executable = str(link / "bin" / Path(sys.executable).name)
