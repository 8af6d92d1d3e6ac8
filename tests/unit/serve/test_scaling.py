"""Replicas follow the work that waits; Ray takes the policy and the figure that it reads."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ray.serve._private.autoscaling_state import _apply_autoscaling_config, _resolve_policy_callable
from ray.serve._private.common import DeploymentID, ReplicaID
from ray.serve.config import AutoscalingConfig, AutoscalingContext

from serve.on_ray.scaling import WORK_S, QueuedWork
from tests.conftest import ROOT


def context(work_s: list[float], requests: float, target: int = 1) -> Any:
    metrics = {WORK_S: dict(enumerate(work_s))} if work_s else {}
    return SimpleNamespace(
        aggregated_metrics=metrics, total_num_requests=requests, target_num_replicas=target
    )


@pytest.mark.parametrize(
    ("work_s", "requests", "replicas"),
    [
        ([0.0], 0.0, 0.0),
        ([0.01], 8.0, 0.5),  # single headlines
        ([0.02, 0.03], 40.0, 2.5),
        (
            [2.5],
            9.0,
            9.0,
        ),  # 9 requests of 256 texts: no count of requests would say that one replica is too few
        ([0.25], 1.0, 1.0),  # one bulk client
        ([0.25], 0.2, 1.0),
    ],
)
def test_replicas_follow_the_work_that_waits(work_s: list[float], requests: float, replicas: float) -> None:
    assert QueuedWork(target_s=0.02)(context(work_s, requests))[0] == pytest.approx(replicas)


def test_where_no_replica_has_told_its_work_nothing_changes() -> None:
    assert QueuedWork(target_s=0.02)(context([], 100.0, target=3)) == (3, {})


def test_ray_takes_the_policy_of_the_configuration_and_applies_its_delays() -> None:
    configuration = yaml.safe_load((ROOT / "configs" / "serve.yaml").read_text(encoding="utf-8"))
    (deployment,) = configuration["applications"][0]["deployments"]
    config = AutoscalingConfig(**deployment["autoscaling_config"])
    policy = _apply_autoscaling_config(_resolve_policy_callable(config.policy))
    replica = DeploymentID("Classifier", "clickbait")
    rays = AutoscalingContext(
        deployment_id=replica,
        deployment_name=replica.name,
        app_name=replica.app_name,
        current_num_replicas=1,
        target_num_replicas=1,
        running_replicas=[],
        total_num_requests=lambda: 9.0,
        total_queued_requests=0.0,
        aggregated_metrics=lambda: {WORK_S: {ReplicaID("one", replica): 2.5}},
        raw_metrics={},
        capacity_adjusted_min_replicas=1,
        capacity_adjusted_max_replicas=2,
        policy_state={},
        last_scale_up_time=None,
        last_scale_down_time=None,
        current_time=None,
        config=config,
    )
    wanted, rays.policy_state = policy(rays)
    assert wanted == 1  # for upscale_delay_s
    rays.config = config.model_copy(update={"upscale_delay_s": 0.0})
    assert policy(rays)[0] == 9


def test_a_replica_tells_its_work() -> None:
    from serve.app import Classifier

    replica = SimpleNamespace(_service=SimpleNamespace(work_s=1.5))
    told = Classifier.func_or_class.record_autoscaling_stats(replica)  # type: ignore[attr-defined]
    assert asyncio.run(told) == {WORK_S: 1.5}
