"""Our application on a Ray of its own, for benchmarks: `configs/serve.yaml` deployed as a user deploys it, on
free ports.

with running() as server:
    server.deploy({"registry": "artifacts/registry"}, num_replicas=2)
    urllib.request.urlopen(f"{server.url}/readyz")
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from clickbait.errors import ClickbaitError
from serve.on_ray import haproxy
from tests.performance.processes import Started, free_port, started
from tests.performance.results import ROOT

_UP_S = 120.0


@dataclass(frozen=True)
class Replica:
    """A replica as Ray Serve's status tells of it."""

    id: str
    state: str
    pid: int | None


class RayServer:
    """A running head."""

    def __init__(self, folder: Path, dashboard: str, token: str, head: Started) -> None:
        self._dashboard, self._token, self._head = dashboard, token, head
        self._port = free_port()
        self._variables = {
            **haproxy.controller_variables(str(folder / "haproxy")),
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
            "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
        }
        self.url = f"http://127.0.0.1:{self._port}"

    def deploy(self, args: dict[str, str], **deployment: Any) -> None:
        """Deploys configs/serve.yaml with these arguments and these fields of its deployment; returns when
        the replicas run.

        `num_replicas` takes the place of the file's `autoscaling_config`. What runs already is changed in
        place.

        Raises:
            ClickbaitError: it does not come up.
        """
        config = serve_config()
        config["http_options"]["port"] = self._port
        config["controller_options"]["runtime_env"]["env_vars"].update(self._variables)
        (application,) = config["applications"]
        application["args"].update(args)
        (found,) = application["deployments"]
        if "num_replicas" in deployment:
            found.pop("autoscaling_config", None)
        found.update(deployment)
        wanted = found.get("num_replicas") or found["autoscaling_config"]["min_replicas"]
        self._ask("PUT", config)
        end = time.monotonic() + _UP_S
        while time.monotonic() < end:
            running = [replica for replica in self.replicas() if replica.state == "RUNNING"]
            if len(running) == wanted == len(self.replicas()) and _is_200(f"{self.url}/readyz"):
                return
            time.sleep(0.5)
        raise ClickbaitError(f"the application did not come up in {_UP_S:.0f} s: {self._told()}")

    def replicas(self) -> list[Replica]:
        """The replicas of our deployment, those that start or stop among them."""
        application = self._ask("GET")["applications"].get("clickbait", {})
        found = application.get("deployments", {}).get("Classifier", {}).get("replicas", [])
        return [Replica(each["replica_id"], each["state"], each.get("pid")) for each in found]

    def kill(self, replica: Replica) -> None:
        """`kill -9`, of a process that this session started."""
        assert replica.pid is not None
        assert replica.pid in self._head.pids()
        os.kill(replica.pid, signal.SIGKILL)

    def up(self) -> bool:
        """Whether the dashboard answers. Serve's own page is not asked: while the head comes up, it hangs."""
        return _is_200(
            urllib.request.Request(
                f"{self._dashboard}/api/version", headers={"authorization": f"Bearer {self._token}"}
            )
        )

    def _ask(self, method: str, body: Any = None) -> Any:
        headers = {"authorization": f"Bearer {self._token}", "content-type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self._dashboard}/api/serve/applications/", data=data, method=method, headers=headers
        )
        try:
            with urllib.request.urlopen(request, timeout=_UP_S) as answer:
                return json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as error:
            with error:
                told = " ".join(error.read().decode(errors="replace").split())
            raise OSError(f"Ray's dashboard answered {error.code}: {told[-800:]}") from None

    def _told(self) -> str:
        application = self._ask("GET")["applications"].get("clickbait", {})
        return " ".join(str(application.get("message", "no message")).split())[-500:]


def serve_config() -> dict[str, Any]:
    """configs/serve.yaml."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "configs" / "serve.yaml").read_text(encoding="utf-8"))
    return config


@contextlib.contextmanager
def running(num_cpus: int = 4) -> Iterator[RayServer]:
    """A head with `num_cpus` logical CPUs and token authentication. On leaving, all that it started is ended,
    by pid.
    """
    dashboard, client = free_port(), free_port()
    more = (
        f"--dashboard-port={dashboard}",
        "--dashboard-host=127.0.0.1",
        f"--ray-client-server-port={client}",
    )
    with ray_head(num_cpus, 200_000_000, *more) as (head, token, _):
        server = RayServer(head.log.parent, f"http://127.0.0.1:{dashboard}", token, head)
        _wait_for(server, head)
        yield server


@contextlib.contextmanager
def ray_head(num_cpus: int, object_store_bytes: int, *more: str) -> Iterator[tuple[Started, str, str]]:
    """`ray start --head` with token authentication: the process, its token and its address. It may not be up
    yet.
    """
    token, port, programs = secrets.token_hex(32), free_port(), Path(sys.executable).parent
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        command = [
            str(programs / "ray"),
            "start",
            "--head",
            "--block",
            f"--port={port}",
            "--node-ip-address=127.0.0.1",
        ]
        command += [
            f"--num-cpus={num_cpus}",
            "--disable-usage-stats",
            f"--object-store-memory={object_store_bytes}",
            f"--temp-dir={folder}",
        ]
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        environment |= {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": token,
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        }
        environment["PATH"] = f"{programs}{os.pathsep}{environment['PATH']}"
        with started([*command, *more], environment, Path(folder) / "start.log") as head:
            yield head, token, f"127.0.0.1:{port}"


def _is_200(page: str | urllib.request.Request) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(page, timeout=5) as answer:
        return bool(answer.status == 200)
    return False


def _wait_for(server: RayServer, head: Started) -> None:
    end = time.monotonic() + _UP_S
    while not head.ended() and time.monotonic() < end:
        if server.up():
            return
        time.sleep(0.5)
    raise ClickbaitError(f"the Ray head did not come up: {head.told()}")
