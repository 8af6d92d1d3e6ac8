"""A head that dies and comes back: with its state in Redis, the new one finds the old one's replicas, and nobody is left without an answer.

    make bench-head

Three machines (network namespaces with addresses of their own, `tests.cluster.namespaces`): Redis, configured as the one of
cluster/kuberay/base/redis.yaml; a head that computes nothing; a node with a replica and HAProxy, which clients ask all the while. The
head is killed, stays away for some seconds, and is started again. Needs Linux, root, `ip` and `redis-server`. Writes
artifacts/bench/head.json.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import time
from typing import Any

import yaml

from tests.cluster import recovery
from tests.cluster.namespaces import ROOT, Machine, Unable, machines
from tests.cluster.nodes import Cluster, cluster
from tests.performance import results

AWAY_S = 10.0  # before the head is started again: Kubernetes takes about as long for a new pod
AFTER_S = 10.0  # of answers, once the head is back
LOCAL = ("dir", "include")  # of redis.yaml's settings: paths of the pod


def main() -> None:
    """Measures, prints and writes the figures."""
    if os.geteuid() != 0 or shutil.which("redis-server") is None:
        sys.exit(
            "error: root (for network namespaces) and redis-server are needed: apt-get install redis-server, then sudo make bench-head"
        )
    password = secrets.token_hex(16)
    try:
        with machines() as network:
            redis = network.add()
            folder = network.shared / "redis"
            folder.mkdir()
            settings = [*_settings(), "--bind", redis.address, "--port", "6379", "--requirepass", password, "--dir", str(folder)]
            redis.start(["redis-server", *settings], dict(os.environ), "redis.log")
            # As KubeRay starts a head with gcsFaultToleranceOptions: the address, a namespace for this cluster, and the password.
            state = {"RAY_REDIS_ADDRESS": f"{redis.address}:6379", "RAY_external_storage_namespace": "clickbait"}
            head = [f"--redis-password={password}"]
            with cluster(network, *head, num_cpus=0, more=state) as ray:
                node = ray.join(num_cpus=2)
                recovery.deploy(ray, num_replicas=1)
                recovery.wait_for(lambda: recovery.serving(ray, [node]), "the node serves")
                shows = _lose_the_head(ray, node, head, state)
    except (Unable, RuntimeError) as error:
        sys.exit(f"error: {error}")
    results.save("head", shows, load_average=os.getloadavg()[0])


def _lose_the_head(ray: Cluster, node: Machine, flags: list[str], state: dict[str, str]) -> dict[str, float]:
    before = _actors(ray)
    with recovery.Clients(recovery.url(node)) as clients:
        recovery.wait_for(lambda: clients.asked >= 20, "20 answers")
        ray.nodes[0].kill()
        start = time.monotonic()
        time.sleep(AWAY_S)
        meanwhile = clients.asked
        ray.start(ray.nodes[0], *flags, num_cpus=0, more=state)
        counted = time.monotonic() - start
        recovery.wait_for(lambda: _actors(ray), "the new head knows no replica")
        known = time.monotonic() - start
        time.sleep(AFTER_S)
        shows = {
            "head_away_s": round(counted, 1),
            "replicas_known_again_s": round(known, 1),
            "replicas_that_stayed": len(before & _actors(ray)),
            "requests_asked": clients.asked,
            "requests_asked_without_head": meanwhile,
            "requests_lost": sum(clients.lost.values()),
        }
    print(f"requests that were not answered by 200: {clients.lost or 'none'}", flush=True)
    return shows


def _actors(ray: Cluster) -> set[str]:
    return {replica["actor_id"] for replica in recovery.replicas(ray)}


def _settings() -> list[str]:
    """redis.yaml's own settings, as arguments."""
    documents: list[dict[str, Any]] = list(yaml.safe_load_all((ROOT / "cluster/kuberay/base/redis.yaml").read_text(encoding="utf-8")))
    (text,) = [document["data"]["redis.conf"] for document in documents if document["kind"] == "ConfigMap"]
    pairs = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    return [word for name, value in pairs if name not in LOCAL for word in (f"--{name}", value)]


if __name__ == "__main__":
    main()
