"""Ray's autoscaler (v2) under a Serve load: the service asks for a replica more, the cluster for a node, and
both go after it.

    make test ARGS=tests/cluster/test_autoscaler.py

The autoscaler, its scheduler and its instance manager are real; so are the nodes' raylets. Fake is the cloud:
Ray's own FakeMultiNodeProvider starts a node as processes beside the head, in the head's network namespace.
(Ray's AutoscalingCluster would do the same, but begins with `ray stop --force`, which ends every Ray on the
machine.)
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

import pytest

from tests.cluster import recovery
from tests.cluster.namespaces import Network, Unable, machines
from tests.cluster.nodes import Cluster, cluster

pytestmark = pytest.mark.timeout(1200)

PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
# A headline takes the small model a millisecond or two, so a target far below 1 stands for the load that a
# real one has. The delays follow configs/serve.yaml's rule: none below the look-back.
SCALING = {
    "min_replicas": 1,
    "max_replicas": 2,
    "target_ongoing_requests": 0.1,
    "metrics_interval_s": 0.5,
    "look_back_period_s": 2,
}
SCALING |= {"upscale_delay_s": 2, "downscale_delay_s": 5}
IDLE_MINUTES = 0.1  # until a node that nobody uses goes


@dataclass(frozen=True)
class Seen:
    """Nodes by id, and replicas by the node they are on."""

    nodes: set[str]
    replicas: list[str]


@dataclass(frozen=True)
class Story:
    """What was seen, and what the clients got."""

    monitors: list[str]
    before: Seen
    during: Seen
    after: Seen
    asked: int
    lost: dict[str, int]


def config(network: Network, head_id: str) -> dict[str, Any]:
    """What `ray up` would be given; of the type external, since the wheel leaves out the fake provider's own
    example.yaml.
    """
    kind: dict[str, Any] = {"resources": {"CPU": 1}, "node_config": {}}
    return {
        "cluster_name": "fake",
        "max_workers": 1,
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": IDLE_MINUTES,
        "provider": {
            "type": "external",
            "module": PROVIDER,
            "gcs_address": f"{network.address(1)}:6379",
            "head_node_id": head_id,
            "launch_multiple": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": kind | {"max_workers": 0},
            "ray.worker.cpu": kind | {"min_workers": 0, "max_workers": 1},
        },
        **{f"{part}setup_commands": [] for part in ("", "head_", "worker_")},
        # What `ray up` would fill in; Ray asks for them by name.
        **{f"{part}_start_ray_commands": [] for part in ("head", "worker")},
        **{
            name: []
            for name in ("initialization_commands", "cluster_synced_files", "rsync_exclude", "rsync_filter")
        },
        **{name: {} for name in ("auth", "docker", "file_mounts")},
        "file_mounts_sync_continuously": False,
    }


@pytest.fixture(scope="module")
def story() -> Story:
    """Up and down."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root: not run, so nothing is shown about the autoscaler here")
    from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

    try:
        with machines() as network:
            file = network.shared / "autoscaling.yaml"  # JSON is YAML
            file.write_text(json.dumps(config(network, FAKE_HEAD_NODE_ID)), encoding="utf-8")
            environment = {
                "RAY_enable_autoscaler_v2": "1",
                "RAY_FAKE_CLUSTER": "1",
                "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            }
            environment |= {
                "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
                "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
            }
            with cluster(network, f"--autoscaling-config={file}", num_cpus=1, more=environment) as ray:
                return _live(ray)
    except Unable as error:
        pytest.fail(f"no network namespaces here, so nothing is shown about the autoscaler: {error}")


def _live(ray: Cluster) -> Story:
    # One proxy: the fake nodes have one address between them.
    recovery.deploy(ray, "HeadOnly", autoscaling_config=SCALING)
    base = recovery.url(ray.nodes[0])
    recovery.wait_for(lambda: recovery.classify(base), "it serves")
    monitors = [
        title for title in ray.nodes[0].running().values() if "monitor.py" in title and "autoscaler" in title
    ]
    before = _see(ray)
    with recovery.Clients(base, pause_s=0.0) as load:
        recovery.wait_for(
            lambda: len(_see(ray).nodes) == len(_see(ray).replicas) == 2,
            "no second node with a replica under load",
        )
        during = _see(ray)
    with recovery.Clients(base, pause_s=2.0) as trickle:  # somebody always asks while it shrinks
        recovery.wait_for(
            lambda: len(_see(ray).nodes) == len(_see(ray).replicas) == 1,
            "the second node stays after the load",
        )
    return Story(monitors, before, during, _see(ray), load.asked + trickle.asked, load.lost | trickle.lost)


def _see(ray: Cluster) -> Seen:
    return Seen(
        {node["node_id"] for node in ray.alive()}, [replica["node_id"] for replica in recovery.replicas(ray)]
    )


def test_the_autoscaler_is_the_second_one(story: Story) -> None:
    assert story.monitors
    assert all("autoscaler/v2/monitor.py" in title for title in story.monitors)


def test_without_a_load_there_is_the_head_alone(story: Story) -> None:
    assert len(story.before.nodes) == 1
    assert set(story.before.replicas) == story.before.nodes


def test_under_load_a_node_comes_and_has_the_second_replica(story: Story) -> None:
    assert len(story.during.nodes) == 2
    assert set(story.during.replicas) == story.during.nodes


def test_after_the_load_the_node_goes(story: Story) -> None:
    assert story.after.nodes == story.before.nodes
    assert set(story.after.replicas) == story.after.nodes


def test_no_request_is_lost_while_nodes_come_and_go(story: Story) -> None:
    assert story.asked >= 20
    assert story.lost == {}
