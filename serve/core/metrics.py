"""What the server counts, in Prometheus' text format, each server with a registry of its own.

`serve.on_ray.ray_metrics` hands the same figures to Ray, whose agent on each machine is what a cluster
scrapes: a replica's own port is random.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from serve.core.batching import Batch

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_SCORES = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
_DIFFERENCE = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0)
ROLES = ("main", "canary", "shadow")
TASKS = (*(f"follow {role}" for role in ROLES), "beside", "shadow", "close")
CLIENT_GONE, CANCELLED = "client_gone", "cancelled"
UNANSWERED = (CLIENT_GONE, CANCELLED)


class Metrics:
    """Counters, gauges and histograms; every name begins with `clickbait_`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own: Any = {"registry": self.registry, "namespace": "clickbait"}
        self._answers = Counter(
            "answers", "Requests answered, by route and status", ("route", "status"), **own
        )
        self._seconds = Histogram(
            "answer_seconds", "From a request's first byte to its answer", ("route",), buckets=_SECONDS, **own
        )
        self._unanswered = Counter(
            "unanswered",
            "Requests that ended without an answer: their client had gone, or the server ended",
            ("route", "outcome"),
            **own,
        )
        self._texts = Counter("texts", "Texts scored, by the version that did", ("version",), **own)
        self._scores = Histogram(
            "score", "Scores given, by the version that did", ("version",), buckets=_SCORES, **own
        )
        self._items = Histogram("batch_texts", "Texts computed at once", buckets=_ITEMS, **own)
        self._tokens = Counter(
            "batch_tokens",
            "Tokens computed: of the texts, and with padding to the longest of a batch",
            ("kind",),
            **own,
        )
        self._batch_seconds = Histogram(
            "batch_seconds", "Seconds a batch takes the engine", buckets=_SECONDS, **own
        )
        self._waited = Histogram(
            "batch_wait_seconds", "The longest wait of a batch's requests", buckets=_SECONDS, **own
        )
        self._waiting = Gauge("waiting_requests", "Requests that wait for the engine", **own)
        self._work = Gauge(
            "waiting_work_seconds", "Seconds of work that wait for the engine, estimated", **own
        )
        self._version = Gauge(
            "version", "1 for the version that is served, by its role", ("role", "version"), **own
        )
        self._swaps = Counter(
            "swaps", "Versions taken over or refused while serving", ("role", "result"), **own
        )
        self._reachable = Gauge(
            "registry_reachable",
            "1 where the last reading of the alias succeeded, else 0, by role",
            ("role",),
            **own,
        )
        self._read = Gauge(
            "registry_read_timestamp_seconds",
            "When the alias was last read, in Unix time, by role",
            ("role",),
            **own,
        )
        self._read_failures = Counter(
            "registry_read_failures", "Readings of the alias that failed, by role", ("role",), **own
        )
        self._task_failures = Counter(
            "task_failures", "Background tasks that raised an exception, by task", ("task",), **own
        )
        self._compared = Counter(
            "shadow_texts",
            "Texts that the shadow scored too: with the same verdict or another",
            ("verdict",),
            **own,
        )
        self._difference = Histogram(
            "shadow_difference", "Difference of the shadow's score", buckets=_DIFFERENCE, **own
        )
        # labels() costs more than counting
        self._by_route: dict[tuple[str, int], tuple[Counter, Histogram]] = {}
        self._by_version: dict[str, tuple[Counter, Histogram]] = {}

    def render(self) -> bytes:
        """All of it, as `GET /metrics` gives it."""
        return generate_latest(self.registry)

    def count_answer(self, route: str, status: int, seconds: float) -> None:
        """An answered request."""
        found = self._by_route.get((route, status))
        if found is None:
            found = self._answers.labels(route, str(status)), self._seconds.labels(route)
            self._by_route[route, status] = found
        found[0].inc()
        found[1].observe(seconds)

    def count_unanswered(self, route: str, outcome: str) -> None:
        """A request that ended without an answer; `outcome` is one of `UNANSWERED`."""
        assert outcome in UNANSWERED
        self._unanswered.labels(route, outcome).inc()

    def count_texts(self, version: str, scores: Sequence[float]) -> None:
        """Texts that a version scored for somebody."""
        found = self._by_version.get(version)
        if found is None:
            found = self._by_version[version] = self._texts.labels(version), self._scores.labels(version)
        for score in scores:
            found[1].observe(score)
        found[0].inc(len(scores))

    def count_batch(self, batch: Batch) -> None:
        """A batch of any engine of this server."""
        self._items.observe(batch.items)
        self._tokens.labels("text").inc(batch.tokens)
        self._tokens.labels("padded").inc(batch.padded)
        self._batch_seconds.observe(batch.seconds)
        self._waited.observe(batch.waited_s)
        self._waiting.set(batch.waiting)
        self._work.set(batch.work_s)

    def serves(self, role: str, version: str, before: str | None) -> None:
        """A role has a version; `before` was the one until now."""
        if before is not None:
            self._version.remove(role, before)
            self._swaps.labels(role, "taken").inc()
        self._version.labels(role, version).set(1)

    def refused(self, role: str) -> None:
        """A newer version was not taken."""
        self._swaps.labels(role, "refused").inc()

    def registry_read(self, role: str, at: float | None) -> None:
        """A role's alias was read at the Unix time `at`, or could not be read (None)."""
        self._reachable.labels(role).set(at is not None)
        if at is None:
            self._read_failures.labels(role).inc()
        else:
            self._read.labels(role).set(at)

    def task_failed(self, task: str) -> None:
        """A background task raised an exception; `task` is one of `TASKS`."""
        assert task in TASKS
        self._task_failures.labels(task).inc()

    def compared(self, same: bool, difference: float) -> None:
        """A text that the shadow scored too."""
        self._compared.labels("same" if same else "other").inc()
        self._difference.observe(difference)
