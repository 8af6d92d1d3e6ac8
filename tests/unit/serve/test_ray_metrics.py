"""A replica's figures in Ray's gauges: all of them, and none of what is over."""

from __future__ import annotations

from typing import Any

import pytest

from serve.core.metrics import Metrics
from serve.on_ray import ray_metrics


class Gauge:
    """Ray's, as far as it is used: it keeps the last value for each set of tags, and refuses tags that it was
    not made for.
    """

    values: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}  # noqa: RUF012  # of the process, as Ray's

    def __init__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> None:
        self._name, self._keys = name, set(tag_keys)

    def set(self, value: float, tags: dict[str, Any]) -> None:
        assert set(tags) == self._keys
        self.values[self._name, tuple(sorted(tags.items()))] = value


def test_a_version_that_is_no_longer_served_is_0(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_metrics, "Gauge", Gauge)
    monkeypatch.setattr(Gauge, "values", {})
    metrics, gauges = Metrics(), {}  # type: ignore[var-annotated]
    metrics.serves("production", "v1", None)
    shown = ray_metrics.copy(metrics.registry, "r1", gauges, set())
    metrics.serves("production", "v2", "v1")
    ray_metrics.copy(metrics.registry, "r1", gauges, shown)
    versions = {
        dict(tags)["version"]: value
        for (name, tags), value in Gauge.values.items()
        if name == "clickbait_version"
    }
    assert versions == {"v1": 0, "v2": 1}
