"""What a client sees when HAProxy is killed, when a replica hangs, and when the server is stopped, each under
load.

    python -m tests.performance.bench_proxy

Starts a Ray of its own with two replicas of a tiny model, and writes artifacts/bench/proxy.json.
docs/serving.md has the figures.
"""

from __future__ import annotations

import argparse
import http.client
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import ray

from clickbait.registry.registry import Registry
from serve import app, settings
from serve.on_ray import haproxy_process
from tests.performance import results
from tests.tiny import tiny_bundle

REFUSED, BROKEN = "refused", "broken"
_BODY = b'{"text": "You won the secret trick"}'


@dataclass
class Clients:
    """Threads that each ask again at once; every second one keeps its connection."""

    port: int
    count: int = 8
    started: float = field(default_factory=time.monotonic)
    answers: list[tuple[float, str, float]] = field(
        default_factory=list
    )  # when it was asked, what came, seconds that it took

    def __post_init__(self) -> None:
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(number % 2 == 0,)) for number in range(self.count)
        ]
        for thread in self._threads:
            thread.start()

    def _ask(self, keep: bool) -> None:
        connection: http.client.HTTPConnection | None = None
        while not self._over.is_set():
            began = time.monotonic()
            if connection is None:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
            try:
                connection.request("POST", "/classify", _BODY, {"content-type": "application/json"})
                answer = connection.getresponse()
                answer.read()
                outcome = str(answer.status)
                if not keep:
                    connection.close()
            except ConnectionRefusedError:
                outcome = REFUSED
                time.sleep(0.01)
            except (OSError, http.client.HTTPException):
                outcome = BROKEN
                connection.close()
            self.answers.append((began - self.started, outcome, time.monotonic() - began))

    def end(self) -> None:
        """Stops asking."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def counts(self) -> dict[str, int]:
        """Requests by status, `refused` or `broken`."""
        return dict(Counter(outcome for _, outcome, _ in self.answers))

    def span(self, outcome: str) -> float:
        """Seconds from the first request with this outcome to the last one; 0 where there is none."""
        times = [at for at, outcome_, _ in self.answers if outcome_ == outcome]
        return max(times) - min(times) if times else 0.0

    def slowest(self) -> float:
        """Seconds of the slowest 200."""
        return max(seconds for _, outcome, seconds in self.answers if outcome == "200")


def _replicas(raylet: int) -> list[int]:
    """The process ids of this Ray's replicas."""
    told = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(raylet)], capture_output=True, text=True, check=True
    ).stdout
    return [int(line.split()[0]) for line in told.splitlines() if "ServeReplica" in line]


def _haproxy() -> haproxy_process.Place:
    (config,) = Path(app._folders[-1]).glob("*/haproxy.cfg")
    return haproxy_process.Place(str(config))


def main(args: Sequence[str] | None = None) -> None:
    """Runs the three parts."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args(args)
    shows: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        registry = Registry(f"{folder}/registry")
        registry.set_alias(registry.publish(tiny_bundle(Path(folder) / "draft")), "production")
        ray.init(
            num_cpus=4,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="warning",
            _temp_dir=f"{folder}/ray",
            object_store_memory=200_000_000,
        )
        app.Classifier = app.Classifier.options(num_replicas=2)  # type: ignore[attr-defined]
        url = app.serve_on_ray(settings.load(registry=f"{folder}/registry"), 0)
        port, place = int(url.rsplit(":", 1)[1]), _haproxy()
        time.sleep(5)  # HAProxy has learnt of both

        clients = Clients(port)
        time.sleep(3)
        before = place.newest()[0]
        os.kill(before, signal.SIGKILL)
        end = time.monotonic() + 90
        while haproxy_process.answering(place.socket) is None and time.monotonic() < end:
            time.sleep(0.1)
        shows["killed_replaced_s"] = time.monotonic() - clients.started - 3
        time.sleep(5)
        clients.end()
        shows |= {"killed_refused_s": clients.span(REFUSED), "killed_broken": clients.counts().get(BROKEN, 0)}
        shows["killed_other"] = sum(
            count for outcome, count in clients.counts().items() if outcome not in ("200", REFUSED, BROKEN)
        )
        print("HAProxy killed:", clients.counts())

        time.sleep(10)  # the stand-in answers what it had
        clients = Clients(port)
        time.sleep(3)
        hangs = _replicas(place.newest()[2])[0]
        os.kill(hangs, signal.SIGSTOP)
        time.sleep(20)
        os.kill(hangs, signal.SIGCONT)
        time.sleep(5)
        clients.end()
        shows |= {
            "hung_failed": len(clients.answers) - clients.counts()["200"],
            "hung_slowest_s": clients.slowest(),
        }
        print("replica stopped for 20 s:", clients.counts())

        clients = Clients(port)
        time.sleep(3)
        app.stop()
        time.sleep(1)
        clients.end()
        shows |= {
            "stop_broken": clients.counts().get(BROKEN, 0),
            "stop_answered_503": clients.counts().get("503", 0),
        }
        print("server stopped:", clients.counts())
        ray.shutdown()
    results.save("proxy", shows)


if __name__ == "__main__":
    main()
