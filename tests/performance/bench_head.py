"""A Ray head that is killed and started again, with its state in Redis and without.

    make bench-head

Three machines (network namespaces, `tests.cluster.namespaces`): Redis with the settings of
cluster/kuberay/base/redis.yaml, a head that computes nothing, and a node with a replica and HAProxy, which
four clients ask all the while. The head is killed with SIGKILL, stays away for ten seconds, and is started
again with an empty temporary folder. Then the same without Redis. The command fails unless the first head has
everything back and the second one nothing. Needs Linux, root, `ip` and `redis-server`, and an idle machine:
where other programs take the processor, Ray's head does not come up. Takes some five minutes on two cores.
Writes artifacts/bench/head.json; the figures are in docs/cluster-tests.md.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import asdict

from tests.cluster.lost_head import LostHead, lose_the_head
from tests.cluster.namespaces import Unable
from tests.performance import results


def main() -> None:
    """Measures, prints and writes the figures."""
    if os.geteuid() != 0 or shutil.which("redis-server") is None:
        sys.exit(
            "error: root and redis-server are needed: apt-get install redis-server, then sudo make bench-head"
        )
    try:
        kept = lose_the_head(with_redis=True)
        print(f"with Redis: {kept}", flush=True)
        gone = lose_the_head(with_redis=False)
        print(f"without Redis: {gone}", flush=True)
    except (Unable, RuntimeError) as error:
        sys.exit(f"error: {error}")
    assert kept.recovered_s is not None  # or `lose_the_head` had raised
    assert kept.replaced_s is not None
    shows = {
        "head_s": round(kept.head_s, 1),
        "recovered_s": round(kept.recovered_s, 1),
        "replica_replaced_s": round(kept.replaced_s, 1),
        "requests_asked_without_head": kept.asked_without_head,
        "requests_asked": kept.asked,
        "requests_lost": sum(kept.lost.values()),
        "without_redis_requests_asked": gone.asked,
        "without_redis_requests_lost": sum(gone.lost.values()),
    }
    results.save(
        "head", shows, with_redis=asdict(kept), without_redis=asdict(gone), load_average=os.getloadavg()[0]
    )
    if wrong := differences(kept, gone):
        sys.exit("error: " + "; ".join(wrong))


def differences(kept: LostHead, gone: LostHead) -> list[str]:
    """What differs from the expected: with Redis all is kept, without it node and application are gone."""
    expected = {
        "with Redis: the node has another id": kept.same_node,
        "with Redis: the replica is another one": kept.same_replica,
        "with Redis: the application was deployed again": kept.same_deployment,
        "with Redis: another version answers": kept.versions[0] == kept.versions[1],
        "with Redis: more than one request in a thousand was lost": sum(kept.lost.values())
        <= kept.asked / 1000,
        "without Redis: the application is still there": gone.recovered_s is None and not gone.same_replica,
        "without Redis: the node is still there": not gone.same_node,
    }
    return [message for message, holds in expected.items() if not holds]


if __name__ == "__main__":
    main()
