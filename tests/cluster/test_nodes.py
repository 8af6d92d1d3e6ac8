"""Two machines: jobs by `ray job submit`, a service on both, and what is lost and what goes on when one of
them dies.

    make test ARGS=tests/cluster/test_nodes.py

One cluster lives for all of it, since its start is most of the cost. The tests read what happened.
"""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from clickbait.training.runs import Run
from tests.cluster import recovery
from tests.cluster.namespaces import Unable, machines
from tests.cluster.nodes import Cluster, cluster

EPOCHS = 30  # half a second each at least, of which two or three are over when the machine dies
# Above the bounds in it, so that a machine too busy for it says at which step.
pytestmark = pytest.mark.timeout(1800)


@dataclass(frozen=True)
class Story:
    """What happened, in order."""

    addresses: list[str]
    raylets: list[int]
    """On each machine."""
    alive: set[str]
    """What Ray counts, before the kill."""
    refused: dict[str, int]
    """What a machine of the network without the token is answered, with none and with a wrong one."""
    replicas: set[str]
    """Addresses with a replica."""
    answers: list[dict[str, Any]]
    """Of each machine to one headline."""
    haproxies: list[int]
    """On each machine."""
    lost: recovery.Lost
    history: list[dict[str, float]]
    """Of the training, when it was over."""
    told: str
    """By `ray job submit` of the training."""


@pytest.fixture(scope="module")
def story(tiny_encoder: Path) -> Story:
    """The whole of it."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root: not run, so nothing is shown about two machines here")
    try:
        with machines() as network, cluster(network) as ray:
            ray.join()
            return _live(ray, tiny_encoder)
    except Unable as error:
        pytest.fail(f"no network namespaces here, so nothing is shown about two machines: {error}")


def _live(ray: Cluster, encoder: Path) -> Story:
    shared, nodes = ray.network.shared, list(ray.nodes)
    recovery.deploy(ray, num_replicas=2, max_replicas_per_node=1)
    ray.submit(
        "preprocess", "--output", f"{shared}/datasets", "--sample-size", "800", "--partitions", "2"
    ).wait()
    recovery.wait_for(lambda: recovery.serving(ray, nodes), "both machines serve")
    seen: dict[str, Any] = {
        "addresses": [node.address for node in nodes],
        "raylets": [len(node.pids(recovery.RAYLET)) for node in nodes],
        "alive": ray.addresses(),
        "refused": {token: _status(ray, token) for token in ("", "wrong")},
        "replicas": {replica["node_ip"] for replica in recovery.replicas(ray)},
        "answers": [recovery.classify(recovery.url(node)) for node in nodes],
        "haproxies": [len(node.pids(recovery.HAPROXY)) for node in nodes],
    }
    flags = [
        "--dataset",
        f"{shared}/datasets/latest",
        "--output",
        f"{shared}/runs",
        "--model",
        str(encoder),
        "--num-workers",
        "2",
    ]
    flags += [
        "--epochs",
        str(EPOCHS),
        "--patience",
        str(EPOCHS),
        "--checkpoint-steps",
        "10",
        "--threads",
        "1",
        "--lr",
        "1e-3",
    ]
    job, run = ray.submit("train", *flags), Run(f"{shared}/runs/clickbait")
    lost = recovery.lose_a_node(ray, job, run, epochs=2)
    told = job.wait()
    return Story(**seen, lost=lost, history=recovery.history(run), told=told)


def _status(ray: Cluster, token: str) -> int:
    request = urllib.request.Request(
        f"{ray.dashboard}/api/jobs/", headers={"authorization": f"Bearer {token}"} if token else {}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_each_node_is_a_machine_with_an_address_of_its_own(story: Story) -> None:
    assert len(set(story.addresses)) == 2
    assert story.alive == set(story.addresses)
    assert story.raylets == [1, 1]


def test_another_machine_without_the_token_runs_nothing(story: Story) -> None:
    assert story.refused == {"": 401, "wrong": 403}


def test_both_machines_serve(story: Story) -> None:
    assert story.replicas == set(story.addresses)
    assert all(count >= 1 for count in story.haproxies)
    assert [(answer["label"], answer["model"]) for answer in story.answers] == [("clickbait", "v1")] * 2


def test_training_has_a_worker_on_each_machine_and_two_again_after(story: Story) -> None:
    """A replica has the other core of each. The new machine has two until its replica comes, and may get both
    workers.
    """
    assert story.lost.workers == (1, 1)
    assert story.lost.workers_after in {(1, 1), (0, 2)}


def test_training_goes_on_where_the_newest_checkpoint_stood(story: Story) -> None:
    """An epoch that is trained again has other seconds: so none that was done is."""
    done = story.lost.history
    assert 2 <= len(done) < EPOCHS
    assert story.history[: len(done)] == done
    steps = [entry["step"] for entry in story.history]
    assert steps == [steps[0] * epoch for epoch in range(1, EPOCHS + 1)]
    assert story.lost.step >= done[-1]["step"]
    assert "best checkpoint: " in story.told


def test_the_machine_that_stays_answers_every_request(story: Story) -> None:
    """Its HAProxy sends to the replicas of both machines, and tries again where one is gone.

    Each time that Ray tells it of other replicas it starts anew, and a connection that comes in that moment
    may be closed, unanswered: one in thousands was (docs/cluster-tests.md). An answer that is an error is
    never due to that.
    """
    assert story.lost.asked >= 20
    assert not [outcome for outcome in story.lost.lost if outcome.startswith("status")]
    assert sum(story.lost.lost.values()) <= 1 + story.lost.asked / 1000
