"""A head that is killed and started again as KubeRay does it, with its state in Redis or without.

With Redis, the new head has to find the node, its replica and the deployment. Without, it knows none of them:
a benchmark that finds the same in both has measured nothing.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import time
from dataclasses import dataclass
from typing import Any

import yaml

from tests.cluster import recovery
from tests.cluster.namespaces import ROOT, Machine, Network, machines
from tests.cluster.nodes import NOTHING, Cluster, cluster

AWAY_S = 10.0  # before the head is started again: Kubernetes takes about as long for a new pod
AFTER_S = 10.0  # more requests, once the new head has what it is to have
WITHOUT_S = 30.0  # how long a new head without Redis is asked; one with Redis has the application sooner
REDIS_PORT = 6379
PATHS = ("dir", "include")  # redis.yaml's settings that name a path of the pod
REPLICA = "ServeReplica"
# KubeRay sets it on workers of a cluster with gcsFaultToleranceOptions (`configureGCSFaultTolerance`,
# v1.7.0); Ray's default is 60.
WORKER_ENVIRONMENT = {"RAY_gcs_rpc_server_reconnect_timeout_s": "600"}


@dataclass(frozen=True)
class LostHead:
    """What there was before and after the head died. Seconds count from the kill."""

    head_s: float
    """Until a new head counted itself as alive."""
    recovered_s: float | None
    """Until the head said RUNNING of the application, and listed a replica; None: not in `WITHOUT_S`."""
    same_node: bool
    """Whether the node is alive under the id that it had."""
    same_replica: bool
    """Whether the replica that is listed is the same actor."""
    same_deployment: bool
    """Whether the application's time of deployment is the same: nobody deployed it again."""
    versions: tuple[str, str | None]
    """The model that answered before and after; None: there was no answer."""
    replaced_s: float | None
    """From the kill of the replica, after all that, until another one answers; None: not tried."""
    asked_without_head: int
    """Requests to the node until the new head counted itself as alive."""
    asked: int
    """Requests to the node in all."""
    lost: dict[str, int]
    """Those that were not answered by 200, by what came instead."""


def redis_settings(text: str) -> list[str]:
    """A redis.conf as arguments of redis-server, without the paths of the pod."""
    pairs = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    return [word for name, value in pairs if name not in PATHS for word in (f"--{name}", value)]


def redis_configuration() -> str:
    """The redis.conf of cluster/kuberay/base/redis.yaml."""
    documents = yaml.safe_load_all((ROOT / "cluster/kuberay/base/redis.yaml").read_text(encoding="utf-8"))
    (text,) = [document["data"]["redis.conf"] for document in documents if document["kind"] == "ConfigMap"]
    return str(text)


def start_redis(network: Network, password: str) -> Machine:
    """Redis on a machine of its own, with the settings of cluster/kuberay/base/redis.yaml."""
    machine, folder = network.add(), network.shared / "redis"
    folder.mkdir()
    own = [
        "--bind",
        machine.address,
        "--port",
        str(REDIS_PORT),
        "--requirepass",
        password,
        "--dir",
        str(folder),
    ]
    machine.start(
        ["redis-server", *redis_settings(redis_configuration()), *own], dict(os.environ), "redis.log"
    )
    return machine


def lose_the_head(with_redis: bool) -> LostHead:
    """A head and a node that serves: the head is killed and started again while clients ask the node.

    Raises:
        Unable: no namespaces here.
        RuntimeError: something does not come up.
    """
    flags, environment = list[str](), dict(NOTHING)
    with machines() as network:
        if with_redis:
            password = secrets.token_hex(16)
            redis = start_redis(network, password)
            # As KubeRay starts a head that has gcsFaultToleranceOptions (`configureRedisFT`, v1.7.0).
            flags = [f"--redis-password={password}"]
            environment = {"RAY_REDIS_ADDRESS": f"{redis.address}:{REDIS_PORT}", "REDIS_PASSWORD": password}
            environment["RAY_external_storage_namespace"] = "clickbait"
        with cluster(network, *flags, num_cpus=0, more=environment) as ray:
            ray.join(num_cpus=2, more=WORKER_ENVIRONMENT)
            recovery.deploy(ray, num_replicas=1)
            recovery.wait_for(lambda: recovery.serving(ray, ray.nodes[1:]), "the node serves")
            return _kill_and_start(ray, flags, environment, with_redis)


def _kill_and_start(
    ray: Cluster, flags: list[str], environment: dict[str, str], with_redis: bool
) -> LostHead:
    head, node = ray.nodes
    before, replica, node_id = _application(ray), _replicas(ray), _id(ray, node)
    version = recovery.classify(recovery.url(node))["model"]
    with recovery.Clients(recovery.url(node)) as clients:
        recovery.wait_for(lambda: clients.asked >= 20, "20 answers")
        head.kill()
        start = time.monotonic()
        time.sleep(AWAY_S)
        shutil.rmtree(head.folder / "ray")  # a new pod has an empty /tmp
        ray.start(head, *flags, num_cpus=0, more=environment)
        head_s, asked_without_head = time.monotonic() - start, clients.asked
        recovered_s = None
        try:
            seconds = 300.0 if with_redis else WITHOUT_S
            recovery.wait_for(
                lambda: _application(ray)["status"] == "RUNNING" and _replicas(ray), "no application", seconds
            )
            recovered_s = time.monotonic() - start
        except RuntimeError:
            if with_redis:
                raise
        time.sleep(AFTER_S)
    found = _application(ray)
    same_replica = _replicas(ray) == replica
    try:
        after = recovery.classify(recovery.url(node))["model"]
    except OSError:
        after = None
    return LostHead(
        head_s=head_s,
        recovered_s=recovered_s,
        same_node=_id(ray, node) == node_id,
        same_replica=same_replica,
        same_deployment=found["last_deployed_time_s"] == before["last_deployed_time_s"],
        versions=(version, after),
        replaced_s=_replace_replica(ray, node) if with_redis else None,
        asked_without_head=asked_without_head,
        asked=clients.asked,
        lost=clients.lost,
    )


def _replace_replica(ray: Cluster, node: Machine) -> float:
    """Kills the replica, which the old head started; the seconds until another one answers."""
    dead = _replicas(ray)
    for pid in node.pids(REPLICA):
        os.kill(pid, signal.SIGKILL)
    start = time.monotonic()
    recovery.wait_for(
        lambda: _replicas(ray) - dead and recovery.serving(ray, [node]), "the replica is not replaced"
    )
    return time.monotonic() - start


def _application(ray: Cluster) -> dict[str, Any]:
    """The application as the head knows it; one that it does not know has no status."""
    unknown = {"status": None, "last_deployed_time_s": None}
    try:
        found: dict[str, Any] = ray.ask("/api/serve/applications/")["applications"].get("clickbait", unknown)
    except OSError:  # a head that has just started, or no Serve on it
        return unknown
    return found


def _replicas(ray: Cluster) -> set[str]:
    try:
        return {replica["actor_id"] for replica in recovery.replicas(ray)}
    except OSError:
        return set()


def _id(ray: Cluster, machine: Machine) -> str | None:
    """The id of the node that is alive there."""
    return next((node["node_id"] for node in ray.alive() if node["node_ip"] == machine.address), None)
