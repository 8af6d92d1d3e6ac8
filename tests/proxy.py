"""An HAProxy as Ray Serve would start it, without Ray: the installed Ray's configuration, and something for
its proxy actor.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray.serve._private import haproxy as ray_haproxy
from ray.serve.config import HTTPOptions

from serve.on_ray import haproxy, haproxy_process
from tests.conftest import free_port

# Ray's proxy actor, as the launcher sees it: a Python that has Ray's library in its memory, starts HAProxy
# and lives on without it.
_ACTOR = """
import importlib.util, mmap, os, subprocess, sys, time
library = open(os.path.join(os.path.dirname(importlib.util.find_spec("ray").origin), "_raylet.so"), "rb")
mapped = mmap.mmap(library.fileno(), 4096, access=mmap.ACCESS_READ)
child = subprocess.Popen(sys.argv[2:], stdout=open(sys.argv[1], "ab"), stderr=subprocess.STDOUT)
print(child.pid, flush=True)
child.wait()
time.sleep(600)
"""


class Proxy:
    """The files and ports of one HAProxy, and the actor that started it."""

    def __init__(self, folder: Path, servers: Sequence[int]) -> None:
        self.port, self.stats, self.metrics = free_port(), free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "haproxy.log"
        self._config = ray_haproxy.HAProxyConfig(
            http_options=HTTPOptions(host="127.0.0.1", port=self.port),
            is_head=True,
            has_received_routes=True,
            socket_path=str(folder / "admin.sock"),
            server_state_base=str(folder),
            server_state_file=str(folder / "server-state"),
            metrics_socket_path=str(folder / "metrics.sock"),
            metrics_port=self.metrics,
            stats_port=self.stats,
            retry_on=haproxy.ENVIRONMENT["RAY_SERVE_HAPROXY_RETRY_ON"],
            health_check_inter="300ms",
            health_check_fall=2,
            timeout_server_s=5,
        )
        self._servers = [
            ray_haproxy.ServerConfig(name=f"replica-{port}", host="127.0.0.1", port=port) for port in servers
        ]
        self.path = folder / "haproxy.cfg"
        self.write("news")
        self.place = haproxy_process.Place(str(self.path))

    def write(self, *applications: str) -> str:
        """What Ray writes, with these applications; "" is its own proxy, which Ray puts in their place where
        there are none.
        """
        backends = {
            f"http-{name}": ray_haproxy.BackendConfig(
                name=f"http-{name}", path_prefix=f"/{name}", app_name=name, servers=self._servers
            )
            for name in applications
        }
        api = ray_haproxy.HAProxyApi(
            cfg=self._config, backend_configs=backends, config_file_path=str(self.path)
        )
        api._generate_config_file_internal()
        return self.path.read_text(encoding="utf-8")

    def start(self) -> tuple[subprocess.Popen[str], int]:
        """The actor, and HAProxy's process id once it answers."""
        command = [
            sys.executable,
            "-c",
            _ACTOR,
            str(self.log),
            str(haproxy.LAUNCHER),
            "-db",
            "-f",
            str(self.path),
            "-dR",
        ]
        actor = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert actor.stdout is not None
        started = int(actor.stdout.readline())
        actor.stdout.close()
        wait_until(lambda: haproxy_process.answering(self.place.socket) == started, self.log)
        return actor, started


def wait_until(is_so: Any, log: Path) -> None:
    """A generous bound: this is no timing."""
    end = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < end, log.read_text(encoding="utf-8")[-3000:]
        time.sleep(0.02)
