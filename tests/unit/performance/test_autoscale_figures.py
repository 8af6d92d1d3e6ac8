"""The figures of bench_autoscale, from samples made by hand."""

from __future__ import annotations

import pytest

from tests.performance import autoscale_figures as figures
from tests.performance.autoscale_figures import Look
from tests.performance.openloop import Sample


def sample(at: float, ms: float = 10.0, status: int = 200, error: str = "") -> Sample:
    return Sample(at, ms / 1000, status, "v1", error)


def test_only_200_and_429_with_retry_after_are_right() -> None:
    samples = [
        sample(0),
        sample(0, status=429, error="Overloaded"),
        sample(0, status=429, error="no Retry-After"),
    ]
    samples += [sample(0, status=0, error="Closed"), sample(0, status=500)]
    assert figures.failed(samples) == 3
    assert figures.server_errors(samples) == 1


def test_a_second_without_a_request_is_in_the_timeline() -> None:
    steps = figures.timeline([sample(0.1), sample(0.2, status=429), sample(2.5, ms=40)])
    assert [(step["load"], step["good"], step["refused"], step["p99_ms"]) for step in steps] == [
        (2, 1, 1, 10),
        (0, 0, 0, 0),
        (1, 1, 0, 40),
    ]


def test_recovered_is_when_the_replicas_are_back_and_the_latency_as_well() -> None:
    slow = {5: 500.0, 6: 500.0, 7: 500.0, 8: 500.0}
    samples = [
        sample(second + tenth / 10, ms=slow.get(second, 10.0)) for second in range(20) for tenth in range(10)
    ]
    looks = [Look(1, ("a", "b"), 0), Look(5.5, ("a", "b"), 0), Look(6, ("b",), 1), Look(7, ("b", "c"), 0)]
    assert figures.recovery_s(samples, looks, "a", 5.0, 2) == (2.0, 4.0)
    fast = [sample(second + tenth / 10) for second in range(20) for tenth in range(10)]
    assert figures.recovery_s(fast, looks, "a", 5.0, 2) == (2.0, 2.0)


def test_who_never_recovers_took_the_whole_run() -> None:
    samples = [sample(float(second), ms=10 if second < 5 else 500) for second in range(20)]
    assert figures.recovery_s(samples, [Look(6, ("b",), 0)], "a", 5.0, 2) == (14.0, 14.0)


def test_the_plot_stands_by_itself() -> None:
    svg = figures.plot(
        [sample(second / 10) for second in range(50)], [Look(0, ("a",), 0), Look(3, ("a", "b"), 0)]
    )
    assert svg.startswith("<svg")
    assert "prefers-color-scheme:dark" in svg
    assert not [name for name in ("var(--ink)", "var(--news)", "var(--clickbait)") if name not in svg]
    assert "#00000" not in svg


@pytest.mark.parametrize("samples", [[], [sample(0, status=500)]])
def test_no_good_answer_has_no_latency(samples: list[Sample]) -> None:
    assert figures.p99_ms(samples) == 0.0
