"""Decides how many replicas Ray Serve runs, by the seconds of waiting work.

The number of requests would not do: a request has 1 to 256 texts. Each replica reports its `WORK_S` to Ray
(`serve.app.Classifier.record_autoscaling_stats`). Ray's controller averages it over `look_back_period_s`, asks
`QueuedWork`, and applies the delays and bounds of `autoscaling_config`. The controller gets this module by
value, so it imports nothing of ours.
https://docs.ray.io/en/latest/serve/advanced-guides/advanced-autoscaling.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray.serve.config import AutoscalingContext

WORK_S = "work_s"
"""Seconds of work that a replica has accepted and not computed yet, estimated (`serve.core.batching`)."""


class QueuedWork:
    """So many replicas that each has `target_s` seconds of work before it."""

    def __init__(self, target_s: float) -> None:
        self._target_s = target_s

    def __call__(self, context: AutoscalingContext) -> tuple[float, dict[str, Any]]:
        """Replicas, before delays and bounds; no state."""
        by_replica = (context.aggregated_metrics or {}).get(WORK_S)
        if not by_replica:  # nobody has told yet
            return context.target_num_replicas, {}
        # One replica computes a request, so more replicas than requests would have nothing to do: one bulk
        # client keeps one replica busy.
        return min(sum(by_replica.values()) / self._target_s, max(context.total_num_requests, 1.0)), {}
