"""The machines that the cluster's tests stand on: they reach each other, see their own folder, and end with
whoever made them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.namespaces import ROOT, Machine, Network, Unable, ip, machines

PATIENCE_S = 120.0
SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]
# Says who it is, then waits; a child of its child has left its session, as daemons do.
OWNER = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a parent in the background of a shell would have left it ignored
from tests.cluster.namespaces import machines
with machines() as network:
    machine = network.add()
    machine.start(["setsid", "sleep", "600"], dict(os.environ), "log")
    print(network.name, network.folder, flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root: not run")
    try:
        with machines() as found:
            yield found
    except Unable as error:
        pytest.fail(f"no network namespaces here: {error}")


@pytest.fixture(scope="module")
def pair(network: Network) -> tuple[Machine, Machine]:
    return network.add(), network.add()


def soon(what: Callable[[], object]) -> bool:
    """Whether it comes true, looked for over and over."""
    end = time.monotonic() + PATIENCE_S
    while not what():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def read(machine: Machine, *command: str) -> str:
    """What the command prints on the machine."""
    process = machine.start(command, dict(os.environ), "read.log")
    assert process.wait(timeout=PATIENCE_S) == 0
    return machine.told("read.log")


def test_a_machine_reaches_another_at_its_address_and_no_loopback_but_its_own(
    pair: tuple[Machine, Machine],
) -> None:
    client, server = pair
    code = (
        "import socket, sys; s = socket.create_server((sys.argv[1], 9000)); print(s.accept()[1][0], "
        "flush=True)"
    )
    server.start([sys.executable, "-c", code, server.address], dict(os.environ), "server.log")
    ask = "import socket, sys; sys.exit(socket.socket().connect_ex((sys.argv[1], 9000)))"
    assert (
        client.start([sys.executable, "-c", ask, "127.0.0.1"], dict(os.environ), "loopback.log").wait(
            timeout=PATIENCE_S
        )
        != 0
    )
    assert soon(
        lambda: (
            client.start([sys.executable, "-c", ask, server.address], dict(os.environ), "ask.log").wait(
                timeout=PATIENCE_S
            )
            == 0
        )
    )
    assert soon(lambda: server.told("server.log"))
    assert server.told("server.log").strip() == client.address


def test_each_sees_its_own_folder_and_the_shared_one(network: Network, pair: tuple[Machine, Machine]) -> None:
    (network.shared / "both").touch()
    for machine in pair:
        read(machine, "touch", f"{network.own}/{machine.address}")
    for machine in pair:
        told = read(machine, "ls", str(network.own), str(network.shared))
        assert [other.address in told for other in pair] == [other is machine for other in pair]
        assert "both" in told
    assert list(network.own.iterdir()) == []


def test_a_kill_ends_one_machine_s_processes_and_no_other_s(pair: tuple[Machine, Machine]) -> None:
    for machine in pair:
        machine.start(SLEEPER, dict(os.environ), "sleeper.log")
    assert soon(lambda: all(machine.pids("time.sleep(600)") for machine in pair))
    pair[0].kill()
    assert pair[0].pids() == []
    assert pair[1].pids("time.sleep(600)")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_all_of_it_ends_with_its_owner(network: Network, how: signal.Signals) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT
    )
    assert owner.stdout is not None
    name, folder = owner.stdout.readline().split()
    (namespace,) = [
        line.split()[0] for line in ip("netns", "list").splitlines() if line.startswith(f"{name}-1")
    ]
    assert soon(lambda: ip("netns", "pids", namespace).split())
    pids = ip("netns", "pids", namespace).split()
    owner.send_signal(how)
    owner.wait(timeout=PATIENCE_S)
    owner.stdout.close()
    assert soon(lambda: name not in ip("netns", "list"))
    assert soon(lambda: not Path(folder).exists())
    assert soon(
        lambda: not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    )  # dead at once, and collected by init in its own time
    assert soon(
        lambda: f"cb{owner.pid}" not in ip("link", "show")
    )  # the kernel takes a namespace's links away in its own time


def test_without_ip_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(Unable, match="apt-get install iproute2"):
        ip("link")
