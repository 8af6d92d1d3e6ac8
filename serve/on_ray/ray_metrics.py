"""Passes a replica's metrics to Ray, because a replica's own port is random.

Prometheus scrapes Ray's agent on each machine. Every sample of `serve.core.metrics` becomes a gauge of the
same name (Ray adds the prefix `ray_`) with the replica's id among its tags. Counters keep their `_total`, and
rate() works on them.
"""

from __future__ import annotations

import asyncio

from prometheus_client import CollectorRegistry
from ray.util.metrics import Gauge

EVERY_S = 5.0


Tags = tuple[str, tuple[tuple[str, str], ...]]
"""The name and the labels of a sample."""


async def mirror(registry: CollectorRegistry, replica: str) -> None:
    """Until it is cancelled."""
    gauges: dict[str, Gauge] = {}
    shown: set[Tags] = set()
    while True:
        shown = copy(registry, replica, gauges, shown)
        await asyncio.sleep(EVERY_S)


def copy(registry: CollectorRegistry, replica: str, gauges: dict[str, Gauge], shown: set[Tags]) -> set[Tags]:
    """Sets one gauge per sample; those made before are in `gauges`, by name.

    A gauge of Ray keeps its value for ever. So a sample in `shown` that has left the registry (a version that
    is not served now) becomes 0. Returns the samples of the registry, for the next call.
    """
    samples: set[Tags] = set()
    for family in registry.collect():
        for sample in family.samples:
            if sample.name.endswith("_created"):  # when a counter was made
                continue
            if sample.name not in gauges:
                gauges[sample.name] = Gauge(sample.name, family.documentation, ("replica", *sample.labels))
            gauges[sample.name].set(sample.value, {"replica": replica, **sample.labels})
            samples.add((sample.name, tuple(sample.labels.items())))
    for name, labels in shown - samples:
        gauges[name].set(0, {"replica": replica, **dict(labels)})
    return samples
