"""Machines for a test: network namespaces with an address each, on a switch of their own.

    with machines() as network:
        machine = network.add()
        machine.start(["python", "-m", "http.server"], dict(os.environ), "http.log")
        machine.kill()

    python -m tests.cluster.namespaces            says whether this machine can do that

A machine has its own interfaces, addresses, ports and firewall, and its own folder at `network.own`;
processor, memory and the rest of the disk are the host's, so `network.shared` is what NFS or a bucket is
elsewhere. A process of its own, the keeper, waits for us to be gone, however we went, then kills by pid what
runs in the namespaces and removes them. Needs Linux, root and `ip`.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
NETWORK = "198.18"  # RFC 2544: for tests of networks, so nobody's own
_END_S = 15.0  # to be gone after SIGKILL


class Unable(RuntimeError):
    """This machine makes no network namespaces; the message says what is missing."""


def ip(*words: str) -> str:
    """`ip words`, and what it printed.

    Raises:
        Unable: there is no `ip`, or the kernel or the container says no.
    """
    try:
        return subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=30).stdout
    except FileNotFoundError:
        raise Unable("ip: not installed: apt-get install iproute2") from None
    except subprocess.CalledProcessError as error:
        raise Unable(
            f"ip {' '.join(words)}: {error.stderr.strip()}: root with CAP_NET_ADMIN and CAP_SYS_ADMIN is "
            f"needed"
        ) from None


class Machine:
    """A network namespace that runs processes."""

    def __init__(self, network: Network, number: int, cores: set[int] | None) -> None:
        self.network, self.address = network, network.address(number)
        self.namespace, self.folder = f"{network.name}-{number}", network.folder / str(number)
        self._cores, self._started = cores, list[subprocess.Popen[bytes]]()
        self.folder.mkdir()
        network.plug(self.namespace, "eth0", self.address, f"port{number}")

    def start(self, command: Sequence[str], environment: dict[str, str], log: str) -> subprocess.Popen[bytes]:
        """Starts a process on it, in a session of its own; its output goes to the file `log` of the machine's
        folder.
        """
        # Of the mounts too `ip netns exec` makes a namespace: no other process sees this one.
        mount = [
            "sh",
            "-c",
            'mount --bind "$0" "$1" && shift && exec "$@"',
            str(self.folder),
            str(self.network.own),
        ]
        pin = ["taskset", "--cpu-list", ",".join(map(str, sorted(self._cores)))] if self._cores else []
        whole = ["ip", "netns", "exec", self.namespace, *mount, *pin, *command]
        with (self.folder / log).open("wb") as out:
            process = subprocess.Popen(
                whole,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=ROOT,
                env=environment,
                start_new_session=True,
            )
        self._started.append(process)
        return process

    def running(self) -> dict[int, str]:
        """Its processes' command lines, by pid."""
        return {pid: _title(pid) for pid in _pids(self.namespace)}

    def pids(self, title: str = "") -> list[int]:
        """Its processes with `title` in their command line."""
        return [pid for pid, line in self.running().items() if title in line]

    def kill(self) -> None:
        """`kill -9` of every process on it, and no other; it returns when none is left."""
        _kill(self.namespace)
        self.reap()

    def reap(self) -> None:
        """Waits for what `start` started, which is at its end."""
        for process in self._started:
            process.wait(timeout=_END_S)
        self._started.clear()

    def told(self, log: str, characters: int = 3000) -> str:
        """The end of a log."""
        return (self.folder / log).read_text(encoding="utf-8", errors="replace")[-characters:]


class Network:
    """The switch, this process's plug in it, and the machines."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder, self.shared, self.own = name, folder, folder / "shared", folder / "own"
        self.shared.mkdir()
        self.own.mkdir()
        self.prefix = _free_network()
        self.machines: list[Machine] = []
        # The switch has a namespace too: there no firewall of the host's (Docker's drops what is bridged)
        # comes between the machines.
        ip("netns", "add", self._switch)
        ip("-n", self._switch, "link", "add", "switch", "type", "bridge")
        ip("-n", self._switch, "link", "set", "switch", "up")
        self.plug(None, f"cb{os.getpid()}", f"{self.prefix}.1", "port0")

    @property
    def _switch(self) -> str:
        return f"{self.name}-switch"

    def plug(self, namespace: str | None, interface: str, address: str, port: str) -> None:
        """Gives a new namespace, or this process's own where it is None, an address on the network."""
        ip("-n", self._switch, "link", "add", port, "type", "veth", "peer", "name", interface)
        where = str(os.getpid())
        if namespace is not None:
            ip("netns", "add", namespace)
            ip("-n", namespace, "link", "set", "lo", "up")
            where = namespace
        ip("-n", self._switch, "link", "set", interface, "netns", where)
        ip("-n", self._switch, "link", "set", port, "master", "switch", "up")
        at = [] if namespace is None else ["-n", namespace]
        ip(*at, "addr", "add", f"{address}/24", "dev", interface)
        ip(*at, "link", "set", interface, "up")

    def address(self, number: int) -> str:
        """Of the machine that `add` makes as its first, second and so on."""
        return f"{self.prefix}.{10 + number}"

    def add(self, cores: set[int] | None = None) -> Machine:
        """One machine more; what runs on it keeps to `cores`."""
        self.machines.append(Machine(self, len(self.machines) + 1, cores))
        return self.machines[-1]


@contextlib.contextmanager
def machines() -> Iterator[Network]:
    """A network without machines. On leaving, or when this process is gone, all of it ends.

    Raises:
        Unable: no namespaces here.
    """
    name = f"clickbait-{secrets.token_hex(4)}"
    folder = Path(
        tempfile.mkdtemp(prefix="cb-")
    )  # short: Ray's sockets lie below, and a socket's path has 107 characters
    command = [sys.executable, "-m", "tests.cluster.namespaces", "keep", name, str(folder)]
    keeper = subprocess.Popen(
        command, stdin=subprocess.PIPE, cwd=ROOT, start_new_session=True
    )  # a Ctrl-C does not reach it
    network = None
    try:
        network = Network(name, folder)
        yield network
    finally:
        assert keeper.stdin is not None
        keeper.stdin.close()
        keeper.wait(timeout=60)
        for machine in network.machines if network else ():
            machine.reap()


def keep(name: str, folder: Path) -> None:
    """Waits for the end of stdin, which is the end of who started us; then ends all that runs in namespaces
    of that name, and them.
    """
    sys.stdin.buffer.read()
    with contextlib.suppress(Unable):  # then there are none
        for namespace in [
            words.split()[0] for words in ip("netns", "list").splitlines() if words.startswith(f"{name}-")
        ]:
            with contextlib.suppress(TimeoutError):
                _kill(namespace)
            ip("netns", "del", namespace)  # its interfaces go with it, and the other ends of their wires
    shutil.rmtree(folder, ignore_errors=True)


def _pids(namespace: str) -> list[int]:
    return [int(pid) for pid in ip("netns", "pids", namespace).split()]


def _title(pid: int) -> str:
    with contextlib.suppress(OSError):  # gone
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def _kill(namespace: str) -> None:
    end = time.monotonic() + _END_S
    while left := _pids(namespace):
        if time.monotonic() > end:
            raise TimeoutError(f"{namespace}: still there after SIGKILL: {left}")
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def _free_network() -> str:
    """The first three bytes of a /24 that this machine has no route to but the default one."""
    there = ip("-4", "route", "show")
    start = os.getpid()
    free = (
        prefix
        for prefix in (f"{NETWORK}.{(start + n) % 256}" for n in range(256))
        if f"{prefix}." not in there
    )
    return next(free)


def main() -> None:
    """Says whether there can be machines here."""
    with machines() as network:
        print(f"network namespaces: yes ({network.prefix}.0/24)")


if __name__ == "__main__":
    if sys.argv[1:2] == ["keep"]:
        keep(sys.argv[2], Path(sys.argv[3]))
    else:
        try:
            main()
        except Unable as error:
            sys.exit(f"error: {error}")
