"""Hands a replica's figures to Ray, whose agent on each machine Prometheus scrapes: a replica's own port is random.

Every sample of `serve.metrics` becomes a gauge of the same name (Ray puts `ray_` before it) with the replica's id among its tags; counters
keep their `_total` and may be given to rate().
"""

from __future__ import annotations

import asyncio

from prometheus_client import CollectorRegistry
from ray.util.metrics import Gauge

EVERY_S = 5.0


async def mirror(registry: CollectorRegistry, replica: str) -> None:
    """Until it is cancelled."""
    gauges: dict[str, Gauge] = {}
    while True:
        copy(registry, replica, gauges)
        await asyncio.sleep(EVERY_S)


def copy(registry: CollectorRegistry, replica: str, gauges: dict[str, Gauge]) -> None:
    """Sets one gauge a sample; those made before are in `gauges`, by name."""
    for family in registry.collect():
        for sample in family.samples:
            if sample.name.endswith("_created"):  # when a counter was made
                continue
            if sample.name not in gauges:
                gauges[sample.name] = Gauge(sample.name, family.documentation, ("replica", *sample.labels))
            gauges[sample.name].set(sample.value, {"replica": replica, **sample.labels})
