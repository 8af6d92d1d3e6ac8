"""A service and a training on two machines, and what becomes of both when one of the machines dies: for the
test and for the benchmark.

`deploy` serves on every node, `Clients` ask one of them and count what they lose, `lose_a_node` kills the
other one in mid-training, gives the cluster a new one, and says what went on from where.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from clickbait.registry.registry import Registry
from clickbait.sample import generate
from clickbait.training.runs import Run
from tests.cluster.namespaces import ROOT, Machine
from tests.cluster.nodes import UP_S, Cluster, Job
from tests.tiny import tiny_bundle

PORT = 8000
CLIENTS, PAUSE_S = (
    4,
    0.05,
)  # at most 80 requests a second: far below what a replica answers, and many in a second
# In the command lines of processes.
WORKER, RAYLET, HAPROXY = "ray::RayTrainWorker", "/raylet/raylet ", "haproxy"


def wait_for(what: Callable[[], Any], why: str, seconds: float = UP_S, job: Job | None = None) -> Any:
    """The first true value of `what`, asked for over and over; what cannot be reached meanwhile is asked
    again.

    Raises:
        RuntimeError: none in time, or `job` failed meanwhile.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError, KeyError):
            if found := what():
                return found
        if job is not None:
            job.over()
        time.sleep(0.2)
    raise RuntimeError(f"waited {seconds:.0f} s in vain: {why}" + (f":\n{job.told()[-3000:]}" if job else ""))


def url(machine: Machine) -> str:
    """Where the machine serves."""
    return f"http://{machine.address}:{PORT}"


def classify(base: str, text: str = "You won't believe this trick") -> dict[str, Any]:
    """The answer to one headline.

    Raises:
        OSError: there is none, or it is no 200.
    """
    request = urllib.request.Request(
        f"{base}/classify", json.dumps({"text": text}).encode(), {"content-type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            found: dict[str, Any] = json.loads(answer.read())
            return found
    except urllib.error.HTTPError as error:
        error.close()
        raise OSError(f"status {error.code}") from None
    except http.client.HTTPException as error:  # an answer cut off
        raise OSError(repr(error)) from None


def replicas(ray: Cluster) -> list[dict[str, Any]]:
    """The replicas that run, as Ray Serve's status has them."""
    application = ray.ask("/api/serve/applications/")["applications"].get("clickbait", {})
    found = application.get("deployments", {}).get("Classifier", {}).get("replicas", [])
    return [replica for replica in found if replica["state"] == "RUNNING"]


def deploy(ray: Cluster, proxies: str = "EveryNode", **deployment: Any) -> None:
    """Deploys configs/serve.yaml as a client does, with a small model, on all addresses of the machines; does
    not wait.
    """
    folder = ray.network.shared / "registry"
    registry = Registry(str(folder))
    registry.set_alias(registry.publish(tiny_bundle(ray.network.shared / "bundle")), "production")
    config = yaml.safe_load((ROOT / "configs" / "serve.yaml").read_text(encoding="utf-8"))
    config["proxy_location"] = proxies
    config["http_options"] |= {"host": "0.0.0.0", "port": PORT}
    (application,) = config["applications"]
    application["args"]["registry"] = str(folder)
    (found,) = application["deployments"]
    if "num_replicas" in deployment:
        found.pop("autoscaling_config")
    found |= deployment

    def taken() -> bool:
        ray.ask("/api/serve/applications/", config)
        return True

    # A head that has just started closes the connection: its server for this route comes up after the one
    # that is asked about nodes.
    wait_for(taken, "the head takes no deployment", 60.0)


def serving(ray: Cluster, machines: list[Machine]) -> bool:
    """Whether each of the machines has a replica, and answers.

    Raises:
        OSError: one does not answer.
    """
    there = {replica["node_ip"] for replica in replicas(ray)}
    return there >= {machine.address for machine in machines} and all(
        classify(url(machine)) for machine in machines
    )


class Clients:
    """Clients that ask a URL over and over, each on a new connection; none asks twice for an answer that it
    lost.
    """

    def __init__(self, base: str, pause_s: float = PAUSE_S) -> None:
        self._base, self._pause_s, self._ended = base, pause_s, threading.Event()
        self._texts = [headline for headline, _ in generate(100, seed=0)]
        self.outcomes: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._ask, args=(number,), daemon=True) for number in range(CLIENTS)
        ]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    @property
    def asked(self) -> int:
        """Requests that are over."""
        return self.outcomes.total()

    @property
    def lost(self) -> dict[str, int]:
        """How many got anything but 200, by what they got."""
        return {outcome: count for outcome, count in self.outcomes.items() if outcome != "200"}

    def _ask(self, number: int) -> None:
        while not self._ended.wait(self._pause_s):
            number += 1
            try:
                classify(self._base, self._texts[number % len(self._texts)])
                outcome = "200"
            except OSError as error:
                outcome = str(error)
            with self._lock:
                self.outcomes[outcome] += 1


@dataclass(frozen=True)
class Lost:
    """What there was before and after a machine died."""

    history: list[dict[str, float]]
    """The epochs that were done when it died, as the newest checkpoint has them."""
    step: int
    """Of that checkpoint."""
    workers: tuple[int, int]
    """Training workers on the machine that stayed and on the one that died, just before."""
    workers_after: tuple[int, int]
    """Training workers on the machine that stayed and on the new one, once training went on."""
    noticed_s: float
    """From the kill until Ray no longer counted the machine as alive."""
    joined_s: float
    """From the kill until the new one was counted."""
    recovered_s: float
    """From the kill until there was a checkpoint beyond the last one."""
    asked: int
    """Requests to the machine that stayed, meanwhile."""
    lost: dict[str, int]
    """Those that were not answered by 200, by what came instead."""


def lose_a_node(ray: Cluster, job: Job, run: Run, epochs: int, cores: set[int] | None = None) -> Lost:
    """Kills the last machine once `epochs` epochs are done, adds a new one, and returns when training goes on
    and both serve.

    Raises:
        RuntimeError: the training ended or failed before, or does not go on.
    """
    stays, dies = ray.nodes[0], ray.nodes[-1]
    wait_for(lambda: len(_newest(run).history) >= epochs, f"{epochs} epochs", job=job)
    with Clients(url(stays)) as clients:
        wait_for(lambda: clients.asked >= 20, "20 answers", job=job)
        workers = len(stays.pids(WORKER)), len(dies.pids(WORKER))
        dies.kill()
        start = time.monotonic()
        # The other worker may be in the middle of a checkpoint; another step it cannot take alone.
        time.sleep(1.0)
        last = wait_for(lambda: _newest(run), "a checkpoint", job=job)
        if run.read_json("done.json") is not None:
            raise RuntimeError("the training was over before the machine died: give it more epochs")
        wait_for(lambda: dies.address not in ray.addresses(), "the dead machine is still counted", job=job)
        noticed = time.monotonic() - start
        new = ray.join(cores=cores)
        joined = time.monotonic() - start
        wait_for(lambda: _newest(run).step > last.step, "no checkpoint after the kill", job=job)
        recovered = time.monotonic() - start
        after = len(stays.pids(WORKER)), len(new.pids(WORKER))
        wait_for(lambda: serving(ray, [stays, new]), "the new machine does not serve")
    return Lost(
        last.history, last.step, workers, after, noticed, joined, recovered, clients.asked, clients.lost
    )


def history(run: Run) -> list[dict[str, float]]:
    """The epochs of a run that is over."""
    found: list[dict[str, float]] = json.loads((Path(run.uri) / "done.json").read_text(encoding="utf-8"))[
        "history"
    ]
    return found


def _newest(run: Run) -> Any:
    """The newest whole checkpoint's state; a KeyError while there is none, or it is just being pruned."""
    names = run.complete()
    if not names:
        raise KeyError("no checkpoint yet")
    try:
        return run.state(names[-1])
    except ValueError:
        raise KeyError(names[-1]) from None
