"""What a benchmark starts, and the end of all that it started in turn: by pid, and whatever became of its
parents.

with started(["ray", "start", ...], environment, folder / "log") as process:
    ...
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from serve import ports
from tests.performance.results import ROOT

MARK = (
    "BENCH_PROCESSES"  # in the environment of all that is started, HAProxy among it: it outlives a killed Ray
)
_GRACE_S = 10.0  # to end by itself
_END_S = 5.0  # to be gone once it was killed


@dataclass(frozen=True)
class Started:
    """A process, its log, and the mark of all that it starts."""

    process: subprocess.Popen[bytes]
    log: Path
    mark: str

    @property
    def pid(self) -> int:
        """Of the process itself."""
        return self.process.pid

    def ended(self) -> bool:
        """Whether it ended by itself."""
        return self.process.poll() is not None

    def pids(self) -> list[int]:
        """Of it and of all that it started."""
        return sorted({*marked(self.mark), *_session(self.process.pid)})

    def told(self, characters: int = 1500) -> str:
        """The end of its log, in one line."""
        return " ".join(self.log.read_text(encoding="utf-8", errors="replace").split())[-characters:]


@contextlib.contextmanager
def started(
    command: Sequence[str],
    environment: Mapping[str, str],
    log: Path,
    mark: str | None = None,
    cwd: Path = ROOT,
) -> Iterator[Started]:
    """The process, which runs in the folder `cwd` and in a session of its own: a Ctrl-C comes to us alone,
    and we end it in order.
    """
    mark = mark or secrets.token_hex(16)
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, cwd=cwd, env={**environment, MARK: mark}, start_new_session=True
        )
        try:
            yield Started(process, log, mark)
        finally:
            _end(process, mark)


def marked(mark: str) -> list[int]:
    """The processes that carry the mark in their environment: children, and theirs that have lost their
    parents.
    """
    wanted = f"{MARK}={mark}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # gone, or another user's
            if wanted in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found


def _session(leader: int) -> list[int]:
    """The living processes of its session: one that gives itself a title (Ray's agents) has written over its
    environment.
    """
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, session = (
                path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[:4]
            )
            if int(session) == leader and state != "Z":
                found.append(int(path.parent.name))
    return found


def free_port() -> int:
    """A port nobody listens on just now."""
    with ports.bind("127.0.0.1", 0) as probe:
        return int(probe.getsockname()[1])


def _end(process: subprocess.Popen[bytes], mark: str) -> None:
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=_GRACE_S)
    end = time.monotonic() + _END_S
    how = signal.SIGTERM
    while (left := {*marked(mark), *_session(process.pid)}) and time.monotonic() < end:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, how)
        how = signal.SIGKILL
        time.sleep(0.5)
    process.wait(timeout=_GRACE_S)
