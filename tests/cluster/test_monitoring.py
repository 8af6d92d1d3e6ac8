"""Dashboards and alerts name metrics that are there: ours, or those of the Ray that is installed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml
from prometheus_client import CollectorRegistry

from cluster import manifests
from cluster.kuberay import generate, schemas
from ray_jobs.trainer import GAUGES
from serve.batching import Batch
from serve.metrics import Metrics
from tests.conftest import ROOT


def ray_sources() -> Path:
    import ray

    return Path(ray.__file__).parent


def known_metrics() -> set[str]:
    """Names as Prometheus has them: what a replica hands to Ray, and the metrics in the source of the Ray that is installed."""
    own = {f"ray_{sample.name}" for sample in samples()} | {f"ray_clickbait_train_{name}" for name in GAUGES}
    source = ray_sources()
    found: set[str] = set()
    for folder in ("serve/_private", "train/v2/_internal", "data/_internal", "dashboard/modules/reporter"):
        for path in (source / folder).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            found |= set(re.findall(r'"((?:serve|train|data|node)_[a-z0-9_]+)"', text))
            if path.name == "op_runtime_metrics.py":  # each field is a gauge, data_<name>
                found |= {f"data_{name}" for name in re.findall(r"^    (\w+): (?:int|float) = metric_field", text, re.MULTILINE)}
    with_suffixes = {f"ray_{name}{suffix}" for name in found for suffix in ("", "_total", "_bucket", "_sum", "_count")}
    return own | with_suffixes


def samples() -> list[Any]:
    """Every sample of a server that did a bit of everything."""
    metrics = Metrics()
    metrics.count_answer("/classify", 200, 0.01)
    metrics.count_texts("v1", [0.5])
    metrics.count_batch(Batch(items=1, tokens=8, padded=8, seconds=0.01, waited_s=0.0, waiting=0, work_s=0.0))
    metrics.serves("main", "v2", "v1")
    metrics.refused("main")
    metrics.registry_read("main", 1.0)
    metrics.registry_read("main", None)
    metrics.task_failed("beside")
    metrics.count_unanswered("/classify", "client_gone")
    metrics.compared(True, 0.01)
    registry: CollectorRegistry = metrics.registry
    return [sample for family in registry.collect() for sample in family.samples]


def expressions() -> list[tuple[str, str]]:
    """Every PromQL expression with where it stands."""
    found = []
    for path in sorted((ROOT / "cluster" / "monitoring" / "dashboards").glob("*.json")):
        dashboard = json.loads(path.read_text(encoding="utf-8"))
        for panel in dashboard["panels"]:
            found += [(f"{path.name}: {panel['title']}", target["expr"]) for target in panel.get("targets", [])]
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                found.append((f"{path.name}: {variable['name']}", variable["query"]["query"].split(",")[0].partition("(")[2]))
    for group in yaml.safe_load(generate.RULES.read_text(encoding="utf-8"))["groups"]:
        found += [(f"rules.yaml: {rule['alert']}", rule["expr"]) for rule in group["rules"]]
    return found


def test_every_metric_of_a_dashboard_or_an_alert_exists() -> None:
    known, seen = known_metrics(), set()
    for where, expression in expressions():
        bare = re.sub(r'\{[^{}]*\}|"[^"]*"', "", expression)
        bare = re.sub(r"\b(by|without)\s*\([^)]*\)", "", bare)
        names = set(re.findall(r"\b(ray_[a-z0-9_]+|clickbait_[a-z0-9_]+)\b", bare))
        assert names, where
        assert names <= known, f"{where}: {names - known}"
        seen |= names
    assert "ray_clickbait_batch_texts_bucket" in seen
    assert "ray_serve_not_a_metric" not in known


def test_every_label_of_our_metrics_in_an_expression_is_one_that_they_have() -> None:
    labels = {f"ray_{sample.name}": {*sample.labels, "replica"} for sample in samples()}
    for where, expression in expressions():
        for name, chosen in re.findall(r"(ray_clickbait_\w+)\{([^}]*)\}", expression):
            assert set(re.findall(r"(\w+)\s*(?:=|!=|=~|!~)\s*\"", chosen)) <= labels[name], where


def test_dashboards_are_whole() -> None:
    paths = sorted((ROOT / "cluster" / "monitoring" / "dashboards").glob("*.json"))
    assert [path.stem for path in paths] == ["drift", "serving", "training"]
    uids = set()
    for path in paths:
        dashboard = json.loads(path.read_text(encoding="utf-8"))
        uids.add(dashboard["uid"])
        spaces = [panel["gridPos"] for panel in dashboard["panels"]]
        assert len({panel["id"] for panel in dashboard["panels"]}) == len(spaces)
        assert all(space["x"] + space["w"] <= 24 for space in spaces)
        assert len({(space["x"], space["y"]) for space in spaces}) == len(spaces)
        for panel in dashboard["panels"]:
            assert all(target["datasource"]["uid"] == "${datasource}" for target in panel.get("targets", [])), panel["title"]
    assert len(uids) == 3


def test_alerts_say_what_to_do() -> None:
    for group in yaml.safe_load(generate.RULES.read_text(encoding="utf-8"))["groups"]:
        for rule in group["rules"]:
            assert rule["labels"]["severity"] in ("page", "ticket")
            assert {"summary", "action"} <= rule["annotations"].keys(), rule["alert"]


def test_the_manifests_of_the_prometheus_operator_are_taken() -> None:
    documents = manifests.build(ROOT / "cluster" / "monitoring" / "operator")
    assert {document["kind"] for document in documents} == {"PodMonitor", "PrometheusRule"}
    assert not [line for document in documents for line in schemas.faults(document)]
