"""A Ray cluster with token authentication whose nodes are machines of `tests.cluster.namespaces`.

    with machines() as network, cluster(network) as ray:
        node = ray.join()
        ray.submit("preprocess", "--output", f"{network.shared}/datasets").wait()
        node.kill()

What ends the machines ends the cluster.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serve.on_ray import haproxy
from tests.cluster.namespaces import ROOT, Machine, Network

PROGRAMS = Path(sys.executable).parent
OBJECT_STORE_BYTES = 200_000_000
# a head takes 11 s on two idle cores; many times that on busy ones, where Ray's own bounds are too short:
UP_S = 300.0
PATIENCE = {
    "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "300",
    "RAY_DASHBOARD_SUBPROCESS_MODULE_WAIT_READY_TIMEOUT": "300",
    "RAY_worker_register_timeout_seconds": "300",
    "RAY_agent_register_timeout_ms": "300000",
    "RAY_gcs_server_request_timeout_seconds": "120",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300",
}
# A raylet gives up after 15 s, whatever it was told, on an agent that is slow to say which ports it took
# (ray-project/ray#65983): ports that are told spare it all but one of those waits, and a node that gave up is
# started again.
AGENT_PORTS = [
    "--metrics-export-port=8080",
    "--dashboard-agent-listen-port=52365",
    "--dashboard-agent-grpc-port=52366",
]
AGENT_PORTS += ["--runtime-env-agent-port=52367"]
STARTS = 3
NOTHING: Mapping[str, str] = {}


class Cluster:
    """A Ray cluster with token authentication, on machines; Ray's ports are its defaults, for each machine
    has all of them.
    """

    def __init__(self, network: Network, token: str) -> None:
        self.network, self.token = network, token
        self.nodes: list[Machine] = []
        self.jobs: list[Job] = []
        self._ids: set[str] = set()  # of nodes that `start` has seen

    @property
    def dashboard(self) -> str:
        """The head's URL for jobs, Serve and state."""
        return f"http://{self.nodes[0].address}:8265"

    def environment(self, more: Mapping[str, str]) -> dict[str, str]:
        """For nodes and clients: the token, and nothing that this process knows of another Ray."""
        found = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        found |= {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.network.shared / "token"),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        found |= {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "WANDB_MODE": "disabled", "HF_HUB_OFFLINE": "1"}
        # Where a machine's name resolves to an address of its own, gloo finds it by itself; these have the
        # host's name.
        found |= {"GLOO_SOCKET_IFNAME": "eth0", "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}"}
        return found | haproxy.controller_variables(str(self.network.own / "haproxy")) | PATIENCE | dict(more)

    def join(
        self, *flags: str, num_cpus: int = 2, cores: set[int] | None = None, more: Mapping[str, str] = NOTHING
    ) -> Machine:
        """Starts a node, the first one as the head, on a new machine, and waits until the cluster counts it
        as alive.

        `flags` are more of `ray start`'s, `more` more of its environment; `cores` are those that the
        machine's processes keep to.

        Raises:
            RuntimeError: it does not come up.
        """
        machine = self.network.add(cores)
        self.nodes.append(machine)
        self.start(machine, *flags, num_cpus=num_cpus, more=more)
        return machine

    def start(
        self, machine: Machine, *flags: str, num_cpus: int = 2, more: Mapping[str, str] = NOTHING
    ) -> None:
        """Starts a node on one of the machines, or starts it again where it was killed. Arguments and errors
        as of `join`.
        """
        head = self.nodes[0].address
        command = [
            "ray",
            "start",
            "--block",
            f"--node-ip-address={machine.address}",
            f"--num-cpus={num_cpus}",
            *AGENT_PORTS,
        ]
        command += [
            f"--temp-dir={self.network.own}/ray",
            f"--object-store-memory={OBJECT_STORE_BYTES}",
            "--disable-usage-stats",
        ]
        command += (
            ["--head", "--port=6379", f"--dashboard-host={head}"]
            if machine.address == head
            else [f"--address={head}:6379"]
        )
        for _ in range(STARTS):
            process = machine.start([*command, *flags], self.environment(more), "start.log")
            end = time.monotonic() + UP_S
            while process.poll() is None and time.monotonic() < end:
                with contextlib.suppress(OSError, KeyError):
                    # A new head with its state in Redis counts the old one as alive for some seconds.
                    ids = {node["node_id"] for node in self.alive() if node["node_ip"] == machine.address}
                    if new := ids - self._ids:
                        self._ids |= new
                        return
                time.sleep(0.3)
            machine.kill()
        raise RuntimeError(
            f"the node did not come up, {STARTS} times:\n{machine.told('start.log')}\n{_why(machine)}"
        )

    def alive(self) -> list[dict[str, Any]]:
        """The nodes that Ray counts as alive: `node_ip`, `node_id`, `is_head_node` and so on."""
        found = self.ask("/api/v0/nodes")["data"]["result"]["result"]
        return [node for node in found if node["state"] == "ALIVE"]

    def addresses(self) -> set[str]:
        """Theirs."""
        return {node["node_ip"] for node in self.alive()}

    def ask(self, path: str, body: Any = None, method: str | None = None) -> Any:
        """The dashboard's answer to a request with the token, a PUT of `body` where there is one."""
        request = urllib.request.Request(
            self.dashboard + path, method=method or ("GET" if body is None else "PUT")
        )
        request.add_header("authorization", f"Bearer {self.token}")
        request.add_header("content-type", "application/json")
        with urllib.request.urlopen(
            request, None if body is None else json.dumps(body).encode(), timeout=60
        ) as answer:
            return json.loads(answer.read() or b"{}")

    def submit(self, job: str, *flags: str) -> Job:
        """`ray job submit --working-dir . -- python -m ray_jobs.<job> ...`, from outside the cluster's
        machines; follows the job's log.
        """
        command = ["ray", "job", "submit", "--address", self.dashboard, "--working-dir", ".", "--"]
        command += ["python", "-m", f"ray_jobs.{job}", "--config", f"configs/{job}.yaml", *flags]
        log = self.network.folder / f"{job}-{secrets.token_hex(2)}.log"
        with log.open("wb") as out:
            environment = self.environment(NOTHING)
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=ROOT, env=environment
            )
        self.jobs.append(Job(process, log))
        return self.jobs[-1]


def _why(machine: Machine) -> str:
    """What the raylets died of, which `ray start` leaves out."""
    lines = [
        line
        for log in machine.folder.glob("ray/session_2*/logs/raylet*.out")
        for line in log.read_text(errors="replace").splitlines()
    ]
    return "\n".join(line for line in lines if "Check failed" in line)


@dataclass(frozen=True)
class Job:
    """A `ray job submit` that follows its job."""

    process: subprocess.Popen[bytes]
    log: Path

    def told(self) -> str:
        """What it printed so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def over(self) -> bool:
        """Whether the job is over.

        Raises:
            RuntimeError: it failed.
        """
        if self.process.poll():
            raise RuntimeError(f"the job failed:\n{self.told()[-4000:]}")
        return self.process.returncode == 0

    def wait(self, timeout_s: float = UP_S) -> str:
        """Until it is over; what it printed.

        Raises:
            RuntimeError: it failed, or is not over in time.
        """
        end = time.monotonic() + timeout_s
        while not self.over():
            if time.monotonic() > end:
                raise RuntimeError(f"the job was not over after {timeout_s:.0f} s:\n{self.told()[-4000:]}")
            time.sleep(0.2)
        return self.told()


@contextlib.contextmanager
def cluster(
    network: Network,
    *flags: str,
    num_cpus: int = 2,
    cores: set[int] | None = None,
    more: Mapping[str, str] = NOTHING,
) -> Iterator[Cluster]:
    """A head on a machine of the network; `join` adds to it. The network's end is its end."""
    token = secrets.token_hex(32)
    path = network.shared / "token"
    path.touch(mode=0o600)
    path.write_text(token, encoding="utf-8")
    found = Cluster(network, token)
    found.join(*flags, num_cpus=num_cpus, cores=cores, more=more)
    try:
        yield found
    finally:
        for job in found.jobs:
            job.process.kill()
            job.process.wait()
