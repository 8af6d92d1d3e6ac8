"""The Ray Serve application: one deployment, one process a replica from bytes to score.

    serve run serve.app:build registry=artifacts/registry model=production
    serve deploy configs/serve.yaml

Every setting of `serve.settings` is an argument; the environment gives the rest. Both are read once, by
`build`, so that a replica on another machine has the same limits. Each replica follows the alias by itself
(`serve.core.following`): a promotion needs no deployment.
"""

from __future__ import annotations

import contextlib
import http.client
import math
import shutil
import signal
import sys
import tempfile
import threading
import time
import urllib.request
from typing import Any, NoReturn

import click
import ray
from ray import serve as ray_serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.schema import LoggingConfig

from clickbait import cli, environment
from clickbait.errors import ClickbaitError
from clickbait.inference import backends
from clickbait.registry.registry import Registry
from clickbait.storage import is_local
from serve import ports, settings
from serve.core.service import Service
from serve.http.api import Api, create_app
from serve.http.keys import Keys
from serve.on_ray import haproxy, ingress, ray_metrics, scaling
from serve.settings import Settings

APP = "clickbait"
_folders: list[str] = []  # HAProxy's files, of servers that `serve_on_ray` started
_SHORT_TMP = 18  # characters of a temporary folder that leave room for "/ha-xxxxxxxx" and Ray's
_ROUTE_S = 60  # how long the proxy may take to learn of a route; usually well under a second


@ray_serve.deployment(
    name="Classifier",
    num_replicas=1,
    ray_actor_options={"num_cpus": 1, "runtime_env": {"env_vars": ingress.ENVIRONMENT}},
    health_check_period_s=5,
    health_check_timeout_s=10,
    graceful_shutdown_wait_loop_s=0.5,
    max_constructor_retry_count=3,  # a version that does not load thrice does not load
    logging_config=LoggingConfig(
        enable_access_log=False, log_level="WARNING"
    ),  # at INFO Ray logs one line per request, even for one that it drops
)
@ray_serve.ingress()
class Classifier:
    """A replica: the api over one loaded model."""

    def __init__(self, chosen: dict[str, Any]) -> None:
        self._settings = settings.load(**chosen)
        Keys(self._settings)  # before a model is loaded for nothing, and before anybody listens
        context = ray_serve.get_replica_context()
        replica = context.replica_id.unique_id
        if self._settings.shared_port:
            owner = f"{ray.get_runtime_context().gcs_address} {context.app_name}"
            ingress.share(self._settings.host, self._settings.shared_port, owner, self._settings.keep_alive_s)
        self._service = Service(
            self._settings, beside=lambda metrics: ray_metrics.mirror(metrics.registry, replica)
        )
        self._service.load()

    def __serve_build_asgi_app__(self) -> Api:  # Ray Serve calls it after __init__
        return create_app(self._service, self._settings, under_ray=True)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Ray Serve hands it to `scaling.QueuedWork`."""
        return {scaling.WORK_S: self._service.work_s}

    async def check_health(self) -> None:
        """Ray Serve replaces a replica for which this raises."""
        if not self._service.ready:
            raise RuntimeError("no model is loaded")


def build(args: dict[str, str] | None) -> ray_serve.Application:
    """Builds the application; fails here, before a replica starts, if there is no version to serve.

    Raises:
        ClickbaitError: an argument, a variable or the version is not valid. `serve run` prints only its line.
    """
    context = click.get_current_context(silent=True)
    if context is None:  # not the command line
        return _bound(settings.load(**(args or {})))
    built: list[ray_serve.Application] = []

    def from_command_line() -> None:
        environment.prepare_for_ray()
        chosen = settings.load(**(args or {}))
        built.append(_bound(chosen))
        haproxy.set_variables(chosen.timeout_s)  # `serve run` starts its Ray after this

    if code := cli.exit_code(from_command_line):
        sys.exit(code)  # `serve run` passes it on
    _answer_before_the_end(context.params.get("name") or APP)
    return built[0]


def serve_on_ray(chosen: Settings, port: int) -> str:
    """Starts Ray Serve's HTTP server and the application; returns the base URL once it is ready.

    Ray is initialised already. A Ray session has one server: call `stop` before you start the next one.

    Args:
        chosen: the settings.
        port: the port; 0 takes a free one.

    Raises:
        PortInUse: another process listens on the port.
        ClickbaitError: the version cannot be served, or Ray Serve runs already on another port.
    """
    app = _bound(chosen)
    with ports.bind(chosen.host, port) as probe:
        port = probe.getsockname()[1]
    # Short: a socket's path may have 97 characters, and Ray puts 68 of its own below it.
    short = None if len(tempfile.gettempdir()) < _SHORT_TMP else environment.short_folder()
    _folders.append(tempfile.mkdtemp(prefix="ha-", dir=short))
    variables = haproxy.controller_variables(_folders[-1], chosen.timeout_s)
    ray_serve.start(
        proxy_location="HeadOnly",
        http_options={
            "host": chosen.host,
            "port": port,
            "request_timeout_s": 2 * chosen.timeout_s,
            "keep_alive_timeout_s": chosen.keep_alive_s,
        },
        logging_config=LoggingConfig(
            enable_access_log=False, log_level="WARNING"
        ),  # Ray Serve's start and stop messages are not useful here
        controller_options={"runtime_env": {"env_vars": variables}},
    )
    try:
        ray_serve.run(app, name=APP)
    except RuntimeError as error:
        raise ClickbaitError(
            f"Ray Serve could not start the application: {' '.join(str(error).split())[:500]}"
        ) from None
    base = ports.url(chosen.host, port)
    _wait_for(f"{base}/readyz")
    return base


def stop() -> None:
    """Ends the application and Ray Serve; requests under way are answered first."""
    _delete(APP)
    ray_serve.shutdown()
    while _folders:
        shutil.rmtree(_folders.pop(), ignore_errors=True)


def _delete(name: str) -> None:
    """Deletes an application before Ray Serve shuts down.

    A shutdown kills HAProxy at once, with the requests that replicas still compute.
    """
    # No Ray Serve runs; its controller died; or a replica hangs, and is ended with the rest.
    with contextlib.suppress(RayServeException, RayError, TimeoutError):
        if ray.is_initialized():
            ray_serve.delete(name)


def _answer_before_the_end(name: str) -> None:
    """On Ctrl-C of `serve run`, lets the replicas answer accepted requests before Ray Serve stops.

    A second Ctrl-C stops at once.
    """
    if threading.current_thread() is not threading.main_thread():
        return

    def leave(_number: int, _frame: object) -> NoReturn:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        print("answering the requests that were accepted (Ctrl-C again stops at once)", flush=True)
        _delete(name)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, leave)


def _bound(chosen: Settings) -> ray_serve.Application:
    Keys(chosen)  # refuses here, in one line, and not in a replica's log
    registry = Registry(chosen.registry)
    version = registry.resolve(chosen.model)
    if is_local(chosen.registry):
        runtime = backends.choose(registry.manifest(version), chosen.runtime, chosen.device)
        registry.fetch(version, runtime)  # a wrong byte shows here, in one line, and not in a replica's log
    return Classifier.options(  # type: ignore[attr-defined]  # a Deployment since it was decorated
        # The batcher refuses first, with our own body: it takes max_waiting and what is being computed. What
        # comes beyond that waits in the proxy, and is refused there.
        max_ongoing_requests=2 * chosen.max_waiting,
        max_queued_requests=chosen.max_waiting,
        backpressure_config={"status_code": 429, "retry_after_s": chosen.retry_after_s},
        graceful_shutdown_timeout_s=math.ceil(chosen.timeout_s)
        + 5,  # every accepted request is answered or late by then
    ).bind(chosen.for_replica())


def _wait_for(url: str) -> None:
    """Until `url` answers 200: the proxy learns of a new route a little after the replicas are up."""
    end = time.monotonic() + _ROUTE_S
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):  # noqa: S310
                return
        except (OSError, http.client.HTTPException):
            if time.monotonic() > end:
                raise ClickbaitError(
                    f"{url} does not answer: does Ray Serve run already, on another port? `serve shutdown` "
                    f"ends it"
                ) from None
            time.sleep(0.1)
