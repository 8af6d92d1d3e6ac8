"""Dashboards and alerts name metrics that are there: ours, those of the Ray that is installed, KubeRay's and
kube-state-metrics'.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import hcl2
import pytest
import yaml
from prometheus_client import CollectorRegistry

from cluster import manifests
from cluster.kuberay import generate, schemas
from ray_jobs.trainer import GAUGES
from serve.core.batching import Batch
from serve.core.metrics import Metrics
from tests.cluster.test_manifests import built, one
from tests.conftest import ROOT

# KubeRay's operator is not at hand: its metrics with their labels, from
# ray-operator/controllers/ray/metrics/ray_service_metrics.go and ray_job_metrics.go (kuberay's repository,
# commits 617c0c8 and 262a7a1), and what the label may be, from apis/ray/v1/rayjob_types.go.
KUBERAY = {
    "kuberay_service_info": {"name", "namespace"},
    "kuberay_service_condition_upgrade_in_progress": {"name", "namespace", "condition"},
    "kuberay_job_deployment_status": {"name", "namespace", "deployment_status"},
}
# What GKE's managed kube-state-metrics has, by the component of Terraform's `monitoring_config` that brings
# it (https://cloud.google.com/kubernetes-engine/docs/how-to/kube-state-metrics); a Job's figures are not
# among them.
KUBE_STATE = {
    "kube_pod_container_status_ready": ("POD", {"container", "pod", "uid"}),
    "kube_statefulset_status_replicas_ready": ("STATEFULSET", {"statefulset"}),
}
DEPLOYMENT_STATUS = {
    "Failed",
    "ValidationFailed",
    "Complete",
    "Running",
    "Initializing",
    "Suspended",
    "Suspending",
    "Retrying",
    "Waiting",
}


def ray_sources() -> Path:
    import ray

    return Path(ray.__file__).parent


def known_metrics() -> set[str]:
    """Names as Prometheus has them: what a replica hands to Ray, and the metrics in the source of the Ray
    that is installed.
    """
    own = {f"ray_{sample.name}" for sample in samples()} | {f"ray_clickbait_train_{name}" for name in GAUGES}
    source = ray_sources()
    found: set[str] = set()
    for folder in ("serve/_private", "train/v2/_internal", "data/_internal", "dashboard/modules/reporter"):
        for path in (source / folder).rglob("*.py"):
            text = path.read_text(encoding="utf-8").replace(
                "{protocol_name}", "http"
            )  # in request_ingress_metrics.py
            found |= set(re.findall(r'"((?:serve|train|data|node)_[a-z0-9_]+)"', text))
            if path.name == "op_runtime_metrics.py":  # each field is a gauge, data_<name>
                found |= {
                    f"data_{name}"
                    for name in re.findall(r"^    (\w+): (?:int|float) = metric_field", text, re.MULTILINE)
                }
    with_suffixes = {
        f"ray_{name}{suffix}" for name in found for suffix in ("", "_total", "_bucket", "_sum", "_count")
    }
    return own | with_suffixes | KUBERAY.keys() | KUBE_STATE.keys()


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
            found += [
                (f"{path.name}: {panel['title']}", target["expr"]) for target in panel.get("targets", [])
            ]
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                found.append(
                    (
                        f"{path.name}: {variable['name']}",
                        variable["query"]["query"].split(",")[0].partition("(")[2],
                    )
                )
    return found + [(rule["alert"], rule["expr"]) for rule in rules()]


def rules() -> list[dict[str, Any]]:
    """Every alert of the rule files."""
    return [rule for group in generate.rule_groups() for rule in group["rules"]]


def log_alerts() -> dict[str, str]:
    """The alerts that Terraform makes of logs, with the regular expression that each looks for there (or the
    events' reasons).
    """
    with (ROOT / "cluster" / "terraform" / "alerts.tf").open(encoding="utf-8") as file:
        blocks = hcl2.load(file)["locals"]
    (alerts,) = [block["log_alerts"] for block in blocks if "log_alerts" in block]
    return {
        name: alert["filter"].replace('\\"', '"')
        for name, alert in alerts.items()
        if not name.startswith("__")
    }


def test_every_metric_of_a_dashboard_or_an_alert_exists() -> None:
    known, seen = known_metrics(), set()
    for where, expression in expressions():
        bare = re.sub(r'\{[^{}]*\}|"[^"]*"', "", expression)
        bare = re.sub(r"\b(by|without)\s*\([^)]*\)", "", bare)
        names = set(re.findall(r"\b((?:ray|clickbait|kuberay|kube)_[a-z0-9_]+)\b", bare))
        assert names, where
        assert names <= known, f"{where}: {names - known}"
        seen |= names
    assert "ray_clickbait_batch_texts_bucket" in seen
    assert "ray_serve_not_a_metric" not in known


def test_every_label_of_our_metrics_in_an_expression_is_one_that_they_have() -> None:
    labels = {f"ray_{sample.name}": {*sample.labels, "replica"} for sample in samples()}
    labels |= KUBERAY | {name: own for name, (_, own) in KUBE_STATE.items()}
    for where, expression in expressions():
        for name, chosen in re.findall(r"((?:ray_clickbait|kuberay|kube)_\w+)\{([^}]*)\}", expression):
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
            assert all(
                target["datasource"]["uid"] == "${datasource}" for target in panel.get("targets", [])
            ), panel["title"]
    assert len(uids) == 3


def test_alerts_say_what_to_do() -> None:
    names = [rule["alert"] for rule in rules()] + list(log_alerts())
    assert len(set(names)) == len(names)
    for rule in rules():
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert {"summary", "action"} <= rule["annotations"].keys(), rule["alert"]


def test_every_alert_is_on_the_page_for_the_person_on_call() -> None:
    page = (ROOT / "docs" / "on-call.md").read_text(encoding="utf-8")
    listed = re.findall(
        r"`(Clickbait\w+)`",
        "".join(line.split("|")[1] for line in page.splitlines() if line.startswith("| `Clickbait")),
    )
    assert sorted(listed) == sorted([*(rule["alert"] for rule in rules()), *log_alerts()])
    woken = {
        name
        for line in page.splitlines()
        if line.startswith("| `Clickbait") and "(page)" in line
        for name in re.findall(r"`(\w+)`", line)[:1]
    }
    assert woken == {rule["alert"] for rule in rules() if rule["labels"]["severity"] == "page"}


def test_the_alerts_fire_when_they_should_and_only_then() -> None:
    """Prometheus' own check of the rules' syntax, and its evaluation of them on made-up series."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip(
            "promtool is not on PATH (Debian's package prometheus has it): the alerts were not evaluated"
        )
    for words in (
        ["check", "rules", *map(str, generate.RULES)],
        ["test", "rules", "tests/cluster/alerts.test.yaml"],
    ):
        done = subprocess.run(
            [promtool, *words], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_compose_reads_only_rules_that_need_no_kubernetes() -> None:
    """There, an alert about a head's pod that is away would fire for ever."""
    alone = yaml.safe_load(generate.RULES[0].read_text(encoding="utf-8"))
    assert not re.search(r"\bkube(ray)?_", json.dumps(alone))
    assert f"./{generate.RULES[0].relative_to(ROOT)}:" in (ROOT / "compose.yaml").read_text(encoding="utf-8")


def test_the_cluster_collects_what_the_alerts_read() -> None:
    text = (ROOT / "cluster" / "terraform" / "cluster.tf").read_text(encoding="utf-8")
    (components,) = re.findall(r"monitoring_config \{\s+enable_components = \[(.*?)\]", text)
    used = {name for name in KUBE_STATE for _, expression in expressions() if name in expression}
    assert used == KUBE_STATE.keys()
    assert {component for component, _ in KUBE_STATE.values()} <= set(re.findall(r"\w+", components))


@pytest.mark.parametrize("folder", ["kuberay/overlays/gke", "monitoring/operator"])
def test_ray_s_nodes_and_the_operator_are_scraped_and_the_policies_let_the_collector_in(folder: str) -> None:
    documents = manifests.build(ROOT / "cluster" / folder)
    monitors = [
        document
        for document in documents
        if document["kind"] in ("PodMonitoring", "ClusterPodMonitoring", "PodMonitor")
    ]
    scraped = {
        name: value
        for document in monitors
        for name, value in document["spec"]["selector"]["matchLabels"].items()
    }
    assert scraped == {"ray.io/is-ray-node": "yes", "app.kubernetes.io/name": "kuberay-operator"}
    (policy,) = [
        document for document in documents if document["metadata"]["name"].startswith("metrics-from-")
    ]
    (ingress,) = policy["spec"]["ingress"]
    assert ingress["ports"] == [{"protocol": "TCP", "port": 8080}], "the operator's namespace has no policy"
    if folder.endswith("gke"):
        assert "gke-gmp-system" in json.dumps(ingress["from"]), (
            "else no figure arrives where GKE has its collectors there"
        )


def test_the_alerts_about_pods_name_pods_and_containers_that_are_there() -> None:
    documents = built("gke")
    service = one(documents, "RayService")["spec"]["rayClusterConfig"]
    containers = {each["name"] for each in service["headGroupSpec"]["template"]["spec"]["containers"]} | {
        "autoscaler"
    }  # KubeRay's own name
    sets = {each["metadata"]["name"] for each in documents if each["kind"] == "StatefulSet"}
    text = generate.RULES[1].read_text(encoding="utf-8")
    assert set(re.findall(r'container="([\w-]+)"', text)) <= containers
    assert set(re.findall(r'statefulset="([\w-]+)"', text)) <= sets
    (pods,) = set(re.findall(r'pod=~"([^"]+)"', text))
    assert re.fullmatch(pods, "clickbait-x7k2p-head-4mzqd")
    assert not re.fullmatch(pods, "train-20261126-x7k2p-head-4mzqd"), "a job's head is not the service's"
    assert set(re.findall(r'kuberay_service_\w+\{name="(\w+)"', text)) == {
        one(documents, "RayService")["metadata"]["name"]
    }
    statuses = "|".join(re.findall(r'deployment_status=~"([^"]+)"', text)).split("|")
    assert set(statuses) == {"Failed", "ValidationFailed"} <= DEPLOYMENT_STATUS


def test_the_alerts_about_logs_look_for_what_is_printed() -> None:
    """The line of a refusal is held by tests/unit/ray_jobs/test_promote.py."""
    alerts = log_alerts()
    job = one(built("gke", "retrain"), "CronJob")
    (container,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert f'container_name="{container["name"]}"' in alerts["ClickbaitCandidateRefused"]
    (prefix,) = re.findall(r'involvedObject.name=~"\^([^"]+)"', alerts["ClickbaitRetrainFailed"])
    assert prefix == f"{job['metadata']['name']}-", "Kubernetes names a CronJob's job by it and the time"
    (script,) = one(built("gke"), "RayService")["spec"]["rayClusterConfig"]["autoscalerOptions"]["args"]
    (printed,) = re.findall(r'echo "([^"]+)"', script)
    (pattern,) = re.findall(r'textPayload=~"([^"]+)"', alerts["ClickbaitAutoscalerRestarts"])
    assert re.search(pattern, printed.replace("$?", "1"))


@pytest.mark.parametrize(
    ("route", "status", "counted"),
    [
        ("/", "503", True),
        ("", "503", True),
        ("/", "504", True),
        ("/", "200", False),
        ("/-/healthz", "503", False),
    ],
)
def test_the_alert_about_5xx_counts_what_clients_get(route: str, status: str, counted: bool) -> None:
    """tests/unit/serve/test_haproxy_process.py shows that HAProxy reports its own 503 with such labels."""
    (rule,) = [rule for rule in rules() if rule["alert"] == "ClickbaitServerErrors"]
    (selector,) = re.findall(r"ray_serve_num_http_requests_total\{(status_code[^}]*)\}", rule["expr"])
    (codes,) = re.findall(r'status_code=~"([^"]+)"', selector)
    (not_routes,) = re.findall(r'route!~"([^"]+)"', selector)
    assert bool(re.fullmatch(codes, status) and not re.fullmatch(not_routes, route)) == counted


def test_the_manifests_of_the_prometheus_operator_are_taken() -> None:
    documents = manifests.build(ROOT / "cluster" / "monitoring" / "operator")
    assert {document["kind"] for document in documents} == {"PodMonitor", "NetworkPolicy", "PrometheusRule"}
    assert not [line for document in documents for line in schemas.faults(document)]
    rule = one(documents, "PrometheusRule")
    rule["spec"]["groups"][0]["rules"][0].pop("expr")
    assert [line for line in schemas.faults(rule) if "expr: is missing" in line]


def test_alerts_of_a_cluster_on_google_cloud_are_terraform_s() -> None:
    """A `Rules` of managed Prometheus needs an Alertmanager that nobody configured, so it would be heard by
    nobody.
    """
    assert "Rules" not in {document["kind"] for document in built("gke")}
