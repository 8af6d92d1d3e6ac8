"""A sweep's report: hostile text stays text, nothing is fetched, stopped and failed trials are told, few
trials are said to be too few.
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.unit.reports.test_report import HOSTILE, Page
from tuning.sweep import report

SPACE = {
    "lr": {"type": "log_uniform", "low": 1e-4, "high": 1e-2},
    "dropout": {"type": "uniform", "low": 0.0, "high": 0.5},
    "hidden": {"type": "int", "low": 32, "high": 96, "step": 32, "log": False},
    "model": {"type": "choice", "values": [HOSTILE, "$x^2$ \u4e2d", None]},
}


def trial(number: int, status: str = "finished", epochs: int = 3, **changes: Any) -> dict[str, Any]:
    """A trial whose log loss hangs on its learning rate."""
    rate = 1e-4 * 100 ** ((number % 7) / 6)
    history = [
        {"epoch": float(epoch), "log_loss": 100 * rate / epoch + 0.1} for epoch in range(1, epochs + 1)
    ]
    values = {
        "lr": rate,
        "dropout": 0.1 * (number % 5),
        "hidden": 32 * (number % 3 + 1),
        "model": SPACE["model"]["values"][number % 3],
    }  # type: ignore[index]
    figures = {
        "log_loss": history[-1]["log_loss"] if history else None,
        "flip_rate": 0.01 * number,
        "latency_ms": 5.0 - 0.1 * number,
    }
    if status != "finished":
        figures |= {"flip_rate": None, "latency_ms": None}
    return {
        "name": f"trial-{number}",
        "runs": [f"trial-{number}"],
        "config": values,
        "metrics": figures,
        "status": status,
        "epochs": epochs,
        "seconds": 4.0,
        "pareto": status == "finished" and number < 3,
        "error": None,
        "history": history,
        **changes,
    }


def document(trials: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    finished = [one["name"] for one in trials if one["status"] == "finished"]
    return {
        "name": HOSTILE,
        "dataset": "0123abcd",
        "synthetic": True,
        "objectives": ["log_loss", "flip_rate", "latency_ms"],
        "epochs": 3,
        "scheduler": "asha",
        "searcher": "optuna",
        "space": SPACE,
        "best": finished[0] if finished else None,
        "trials": trials,
        **changes,
    }


def many() -> list[dict[str, Any]]:
    hostile = trial(9, "failed", 0, error=f"ModelError: {HOSTILE}", seconds=None, name=f"trial-9 {HOSTILE}")
    unborn = trial(10, "failed", 0, config={}, error="it died", seconds=None)
    return [
        *(trial(number) for number in range(7)),
        trial(7, "stopped early", 1),
        trial(8, "stopped early", 2),
        hostile,
        unborn,
    ]


@pytest.fixture(scope="module")
def html() -> str:
    return report.render(document(many()))


def test_hostile_text_stays_text(html: str) -> None:
    page = Page(html)
    assert "script" not in page.tags
    assert "<script" not in html
    assert page.text.count(HOSTILE) > 5  # title, heading, values, name, error: shown, to the letter
    assert page.open == []
    assert "$x^2$ \u4e2d" in page.text
    assert not re.search(r"@\d+\.\d+@", html)


def test_the_page_asks_for_nothing(html: str) -> None:
    page = Page(html)
    assert all(address.startswith("#") for address in page.addresses)
    assert not set(page.tags) & {"link", "img", "iframe", "object", "embed", "base", "form"}
    assert not re.search(r"@import|url\((?!#)", html)
    assert "default-src 'none'" in html
    assert len(page.ids) == len(set(page.ids))


def test_every_trial_has_its_row_and_each_picture_is_there(html: str) -> None:
    page = Page(html)
    for number in range(11):
        assert f"trial-{number}" in page.text
    assert (page.text.count("stopped early"), page.text.count("Pareto")) >= (3, 3)
    assert (
        html.count("<svg") == 1 + 1 + 1 + 3
    )  # parallel coordinates, curves, importance, each pair of objectives
    assert "7 finished, 2 stopped early, 2 failed" in page.text
    assert report.render(document(many())) == html


def test_importance_finds_what_the_loss_hangs_on() -> None:
    space = {name: SPACE[name] for name in ("lr", "dropout")}
    shares, why = report.importance(many(), space)
    assert not why
    assert shares["lr"] > 0.6 > shares["dropout"]
    assert sum(shares.values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    "trials", [[trial(1)], [trial(1), trial(2, "failed", 0, config={})], [trial(1, "stopped early", 1)]]
)
def test_few_trials_are_said_to_be_too_few(trials: list[dict[str, Any]]) -> None:
    html = report.render(document(trials, objectives=["log_loss"]))
    assert "Too few trials to tell: 1; 4 searched keys need 8 or more." in html
    assert html.count("<svg") == 2


def test_equal_losses_share_nothing_out() -> None:
    same = [trial(number, metrics={"log_loss": 0.5}) for number in range(9)]
    assert report.importance(same, {"lr": SPACE["lr"]}) == (
        {},
        "All trials have the same log loss: there is no variance to explain.",
    )
    report.render(document(same, objectives=["log_loss"]))
