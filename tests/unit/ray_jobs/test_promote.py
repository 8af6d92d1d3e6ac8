"""Promotion against versions that are there: the floor holds over many promotions, whatever each of them
loses.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from clickbait.cli import exit_code
from clickbait.config import PromoteConfig
from clickbait.errors import AliasConflict, BundleError, ConfigError, RegistryError
from clickbait.registry import bundle
from clickbait.registry.registry import Registry
from ray_jobs import promote
from ray_jobs.promote import Outcome
from tests.tiny import tiny_bundle
from tests.unit.evaluation.test_gate import GOOD

ROWS = 1000
LABELS = np.arange(ROWS) % 2
SPLIT = "0" * 16  # the dataset that a tiny bundle names

DOCUMENT: dict[str, Any] = {
    **GOOD,
    "behaviour": {**GOOD["behaviour"], "cases": 150, "passed": 147, "groups": {}, "failed": []},
    "export": {"int8": {"agreement": 0.999, "max_difference": 0.01, "per_second": 500.0}},
    "latency": {"single_p50_ms": 3.0, "single_p95_ms": 4.0},
    "transfer": None,
}


class FakeScorer:
    """A scorer in what judging asks: its manifest, and one score per text. A bundle's config says which test
    rows it judges wrong.
    """

    def __init__(self, folder: Path, **_: Any) -> None:
        self.manifest = bundle.read_manifest(folder)

    @classmethod
    def of(cls, registry: Registry, version: str) -> FakeScorer:
        return cls(registry.fetch(version))

    def score(self, texts: list[str]) -> np.ndarray:
        rows = np.array([int(text) for text in texts])
        wrong = np.isin(rows, self.manifest.config["wrong"])
        return np.where((LABELS[rows] == 1) ^ wrong, 0.9, 0.1).astype(np.float32)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(str(tmp_path / "registry"))


@pytest.fixture
def submit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """Promotes a candidate that judges the given test rows wrong."""
    test = pa.table({"headline": [str(row) for row in range(ROWS)], "label": LABELS})
    monkeypatch.setattr(
        promote,
        "open_dataset",
        lambda uri: SimpleNamespace(fingerprint=uri[-16:], table=lambda split, columns: test.select(columns)),
    )
    monkeypatch.setattr(promote, "Scorer", FakeScorer)
    monkeypatch.setattr(
        promote.gate,
        "latency_ratio",
        lambda one, other, _: one.manifest.config["ms"] / other.manifest.config["ms"],
    )
    monkeypatch.setattr(
        promote.report, "write", lambda *_, **__: None
    )  # tests/unit/reports/test_report.py holds the page
    (tmp_path / "gate.yaml").write_text("min_accuracy: 0.0")
    template = tiny_bundle(tmp_path / "template", metrics={}, verdict=None)

    def run(
        wrong: Any, *, ms: float = 3.0, dataset: str = SPLIT, split: str | None = None, **changes: Any
    ) -> Outcome:
        folder = tmp_path / "draft"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(template, folder)
        accuracy = 1.0 - len(wrong) / ROWS
        document = {
            **DOCUMENT,
            "test": {**GOOD["test"], "accuracy": accuracy},
            "test_split": split and {"sha256": split},
        }
        document["latency"] = {**DOCUMENT["latency"], "single_p50_ms": ms}
        (folder / "metrics.json").write_text(json.dumps(document))
        bundle.amend(
            folder,
            config={"wrong": [int(row) for row in wrong], "ms": ms},
            metrics={"accuracy": accuracy},
            dataset=dataset,
        )
        settings = {
            "bundle": str(folder),
            "registry": str(tmp_path / "registry"),
            "gate_file": str(tmp_path / "gate.yaml"),
        }
        return promote.promote(PromoteConfig(**{**settings, "dataset": str(tmp_path / dataset), **changes}))

    return run


def errors(count: int, seed: int) -> np.ndarray:
    """So many rows, at random: two such models disagree on many headlines, and a pair of them tells little
    apart.
    """
    return np.random.default_rng(seed).choice(ROWS, count, replace=False)


def check(outcome: Outcome, name: str) -> dict[str, Any]:
    (found,) = [item for item in (outcome.verdict or {})["checks"] if item["name"] == name]
    return dict(found)


def test_fifty_promotions_that_each_lose_two_in_a_thousand_end_at_the_floor(
    submit: Callable[..., Outcome], registry: Registry
) -> None:
    promoted = [step for step in range(51) if submit(errors(10 + 2 * step, seed=step)).decision == "promoted"]
    accuracies = [registry.manifest(version).metrics["accuracy"] or 0.0 for version in registry.versions()]
    assert accuracies[0] == 0.99
    assert min(accuracies) >= 0.99 - 0.005, "the champion's accuracy went down step by step"
    assert promoted == [0, 1, 2]


def test_promotions_that_are_each_a_fifth_slower_end_too(
    submit: Callable[..., Outcome], registry: Registry
) -> None:
    promoted = [step for step in range(13) if submit([], ms=3.0 * 1.2**step).decision == "promoted"]
    assert promoted == [0, 1, 2], "3.0 ms, 3.6 and 4.3; 5.2 is more than 1.5 times 3.0"
    slower = submit([], ms=5.0)
    assert check(slower, "latency_vs_champion")["passed"]
    assert check(slower, "latency_vs_fastest")["value"] == pytest.approx(5.0 / 3.0)
    (Path(registry.uri) / "versions" / "v1" / "model.onnx").write_bytes(b"torn")
    assert "v2 is the fastest of 3" in check(submit([], ms=5.0), "latency_vs_fastest")["note"]


def test_the_floor_outlives_a_rollback_and_an_alias_moved_by_hand(
    submit: Callable[..., Outcome], registry: Registry
) -> None:
    submit(range(10))
    submit(range(4))
    submit(range(6))
    registry.rollback("production")
    for version in ("v1", "v3", "v1"):
        registry.set_alias(version, "production")
    outcome = submit(range(10))
    assert outcome.decision == "refused"
    assert check(outcome, "champion_p_value")["value"] == 1.0, "it is the champion"
    floor = check(outcome, "accuracy_vs_best")
    assert (floor["value"], floor["bound"]) == (pytest.approx(0.990), pytest.approx(0.996 - 0.005))
    assert "v2 is the best of 3" in floor["note"]


def test_a_version_that_the_alias_never_named_sets_no_floor(submit: Callable[..., Outcome]) -> None:
    submit(range(10))
    submit([], publish_only=True)
    submit([], alias="staging")
    outcome = submit(range(10))
    assert outcome.decision == "promoted"
    assert "v1 is the best of 1" in check(outcome, "accuracy_vs_best")["note"]


def test_a_candidate_for_the_canary_is_held_against_production(
    submit: Callable[..., Outcome], registry: Registry
) -> None:
    submit(range(10))
    better = submit(range(4), alias="canary", champion="production")
    assert (better.decision, better.version) == ("promoted", "v2")
    assert "v1 is the best of 1" in check(better, "accuracy_vs_best")["note"], "the floor is production's"
    # v3 is worse than the canary and no worse than production: the canary may move to it.
    assert submit(range(10), alias="canary", champion="production").decision == "promoted"
    assert submit(range(60), alias="canary", champion="production").decision == "refused"
    assert (registry.resolve("canary"), registry.resolve("production")) == ("v3", "v1")


def test_the_canary_moves_to_production(submit: Callable[..., Outcome], registry: Registry) -> None:
    submit(range(10))
    submit(range(4), alias="canary", champion="production")
    moved = submit([], version="canary")
    assert (moved.decision, moved.version, registry.resolve("production")) == ("promoted", "v2", "v2")
    assert registry.rollback("production") == "v1"


def test_the_canary_that_moved_meanwhile_is_not_overwritten(
    submit: Callable[..., Outcome], registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The alias that moves is guarded, and not the champion's, which somebody may move while the candidate is
    judged.
    """
    for wrong in (range(10), range(8), range(6)):
        submit(wrong)
    registry.set_alias("v1", "canary")
    judged = promote.judge

    def meanwhile(alias: str) -> None:
        def judge(*args: Any) -> Any:
            verdict = judged(*args)
            registry.set_alias("v2", alias)
            return verdict

        monkeypatch.setattr(promote, "judge", judge)

    meanwhile("production")
    assert submit([], alias="canary", champion="production").decision == "promoted"
    meanwhile("canary")
    with pytest.raises(AliasConflict):
        submit([], alias="canary", champion="production")
    assert registry.resolve("canary") == "v2"


def test_a_champion_that_is_not_there_is_an_error_and_promotes_nothing(
    submit: Callable[..., Outcome], registry: Registry
) -> None:
    with pytest.raises(RegistryError, match='no alias "production" to compare with'):
        submit([], alias="canary", champion="production")
    assert registry.aliases() == {}


def test_what_the_alerts_read_in_the_retraining_s_log(
    submit: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """cluster/terraform/alerts.tf looks for the line of a refusal by its beginning."""
    submit(range(10))
    refused = submit(range(60), alias="canary", champion="production")
    monkeypatch.setattr(promote, "promote", lambda _: refused)
    assert exit_code(lambda: promote.main(PromoteConfig(alias="canary"))) == 1
    alerts = (Path(promote.__file__).parents[1] / "cluster" / "terraform" / "alerts.tf").read_text(
        encoding="utf-8"
    )
    (beginning,) = re.findall(
        r'ClickbaitCandidateRefused = \{.*?textPayload=~\\"(\^[^"\\]+)\\"', alerts, re.DOTALL
    )
    assert [line for line in capsys.readouterr().err.splitlines() if re.search(beginning, line)]


def test_the_floor_holds_when_every_dataset_has_a_test_split_of_its_own(
    submit: Callable[..., Outcome], registry: Registry
) -> None:
    """A retraining a week, each on more headlines, each a little worse."""
    for week in range(12):
        submit(errors(10 + 2 * week, seed=week), dataset=f"{week:016}", split=str(week))
    accuracies = [registry.manifest(version).metrics["accuracy"] or 0.0 for version in registry.versions()]
    assert 1 < len(accuracies) < 12
    assert min(accuracies) >= 0.99 - 0.005


def test_the_floor_is_the_better_of_the_best_here_and_the_best_elsewhere(
    submit: Callable[..., Outcome], registry: Registry
) -> None:
    """A dataset has another name when its headlines are cut elsewhere; the test split tells itself."""
    submit(range(2), split="b")
    submit(range(3), split="a", dataset="1" * 16)
    outcome = submit(range(6), split="a", dataset="2" * 16)
    floor = check(outcome, "accuracy_vs_best")
    assert floor["bound"] == pytest.approx(0.998 - 0.005)
    assert "v1 is the best of 2" in floor["note"]
    assert "v1 was trained on 0000000000000000, perhaps on some of these" in floor["note"]
    assert "v2 was trained on 1111111111111111" in check(outcome, "champion_p_value")["note"]
    (Path(registry.uri) / "versions" / "v1" / "model.onnx").write_bytes(b"torn")
    floor = check(submit(range(6), split="a", dataset="2" * 16), "accuracy_vs_best")
    assert floor["bound"] == pytest.approx(0.997 - 0.005), "what v1 had was of other headlines"


def test_a_best_version_that_is_torn_or_gone(
    submit: Callable[..., Outcome], registry: Registry, tmp_path: Path
) -> None:
    submit([])
    submit(range(3))
    submit(range(5))
    best = Path(registry.uri) / "versions" / "v1"
    (best / "model.onnx").write_bytes(b"torn")
    outcome = submit(range(6))
    floor = check(outcome, "accuracy_vs_best")
    assert (outcome.decision, floor["bound"]) == ("refused", pytest.approx(0.995))
    assert "its accuracy is from its manifest" in floor["note"]
    shutil.rmtree(best)
    assert "v2 is the best of 2" in check(submit(range(6)), "accuracy_vs_best")["note"]


def test_every_moved_alias_is_mirrored(
    submit: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(
        promote.tracking, "mirror", lambda _, version, aliases, __: calls.append((version, list(aliases)))
    )
    for changes in ({}, {"publish_only": True}, {"version": "v2"}, {"rollback": True}):
        submit([], **changes)
    assert calls == [("v1", ["production"]), ("v2", []), ("v2", ["production"]), ("v1", ["production"])]


class Away:
    """W&B that cannot be reached: its `init` raises what its client raises."""

    Settings = SimpleNamespace

    def __init__(self, error: Exception) -> None:
        self.error = error

    def init(self, **_: Any) -> Any:
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("no route to api.wandb.ai"),
        ValueError("api_key not configured\n(no-tty)"),
        RuntimeError(),
    ],
)
@pytest.mark.parametrize("publish_only", [True, False])
def test_wandb_away_after_the_alias_moved_is_a_warning(
    submit: Callable[..., Outcome],
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    publish_only: bool,
) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setitem(sys.modules, "wandb", Away(error))
    outcome = submit([], publish_only=publish_only)
    assert (outcome.decision, outcome.version) == ("published" if publish_only else "promoted", "v1")
    assert (registry.alias("production") is None) == publish_only
    (warning,) = [
        record.getMessage() for record in caplog.records if record.name == "clickbait.training.tracking"
    ]
    assert warning.startswith("W&B does not mirror v1: ")
    assert "\n" not in warning


def test_a_version_that_cannot_be_read_back_for_the_mirror_is_a_warning_too(
    submit: Callable[..., Outcome], registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setattr(Registry, "fetch", lambda *_: (_ for _ in ()).throw(BundleError("torn")))
    assert submit([]).decision == "promoted"
    assert registry.resolve("production") == "v1"


def test_a_rollback_does_not_wait_for_wandb_s_settings(
    submit: Callable[..., Outcome], registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(range(3))
    submit(range(2))
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_API_KEY", "no key")
    monkeypatch.setitem(sys.modules, "wandb", Away(ValueError("no such key")))
    with pytest.raises(ConfigError, match="WANDB_API_KEY"):
        submit(range(1))
    assert submit([], rollback=True).version == registry.resolve("production") == "v1"


def test_the_exit_code_is_one_for_a_refusal_alone(
    submit: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each outcome as the command ends with it."""
    for decision, code in (("promoted", 0), ("published", 0), ("rolled back", 0), ("refused", 1)):
        monkeypatch.setattr(promote, "promote", lambda _, decision=decision: Outcome(decision, "v1", None))
        assert exit_code(lambda: promote.main(PromoteConfig())) == code
    monkeypatch.undo()
    assert exit_code(lambda: promote.main(PromoteConfig(bundle=str(tmp_path / "nowhere" / "bundle")))) == 2
