"""The parts of the manifests that repeat something else, written from it: `python -m cluster.manifests
--write`.

Serve's configuration in a RayService is configs/serve.yaml but for the differences named here. The
PrometheusRule of the Prometheus operator is the rule files of cluster/monitoring in an envelope. A test holds
the files against what this module would write.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml

from cluster.shell import ROOT

KUBERAY = ROOT / "cluster" / "kuberay"
MONITORING = ROOT / "cluster" / "monitoring"
RULES = (MONITORING / "rules.yaml", MONITORING / "rules-kubernetes.yaml")
# The overlay's own numbers: a replica a core of the worker groups, so replicas of a pod times pods.
SCALE: dict[Path, dict[str, int]] = {
    KUBERAY / "base" / "serve-config.yaml": {},
    KUBERAY / "overlays" / "gke" / "serve-config.yaml": {"min_replicas": 2, "max_replicas": 12},
}
KEEP_ALIVE_S = 620
_HEAD = "# Written by `python -m cluster.manifests --write` from {source}: change that.\n"


def serve_config(scale: dict[str, int]) -> dict[str, Any]:
    """configs/serve.yaml as a RayService has it."""
    config: dict[str, Any] = copy.deepcopy(
        yaml.safe_load((ROOT / "configs" / "serve.yaml").read_text(encoding="utf-8"))
    )
    # Google's load balancer keeps a connection for 600 s and would send a request into one that was just
    # closed.
    config["http_options"]["keep_alive_timeout_s"] = KEEP_ALIVE_S
    config["http_options"]["host"] = "0.0.0.0"  # noqa: S104 - a pod; the NetworkPolicies say who reaches it
    # The operator hands Serve its configuration by Ray's REST api, which takes no variables for the
    # controller: the pods have them.
    config.pop("controller_options")
    (application,) = config["applications"]
    for name in (
        "registry",
        "model",
    ):  # CLICKBAIT_REGISTRY and CLICKBAIT_MODEL, of the ConfigMap clickbait-settings
        application["args"].pop(name)
    application["args"].pop("shared_port")  # a pod's clients come by its Service, and so by HAProxy
    if not application["args"]:
        del application["args"]
    (deployment,) = application["deployments"]
    deployment["autoscaling_config"].update(scale)
    return config


def serve_patch(scale: dict[str, int]) -> str:
    """The kustomize patch that puts the configuration into the RayService."""
    text = yaml.safe_dump(serve_config(scale), sort_keys=False)
    patch = {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": "clickbait"},
        "spec": {"serveConfigV2": _Block(text)},
    }
    return _HEAD.format(source="configs/serve.yaml") + yaml.dump(patch, Dumper=_Dumper, sort_keys=False)


def rule_groups() -> list[dict[str, Any]]:
    """The groups of alert rules, of both files."""
    return [group for path in RULES for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]]


def prometheus_rule() -> str:
    """The alert rules as the Prometheus operator takes them."""
    document = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {
            "name": "clickbait",
            "namespace": "clickbait",
            "labels": {"app.kubernetes.io/part-of": "clickbait"},
        },
        "spec": {"groups": rule_groups()},
    }
    source = " and ".join(str(path.relative_to(ROOT)) for path in RULES)
    return _HEAD.format(source=source) + yaml.safe_dump(document, sort_keys=False, width=140)


def files() -> dict[Path, str]:
    """Every generated file with its text."""
    written = {path: serve_patch(scale) for path, scale in SCALE.items()}
    written[MONITORING / "operator" / "rules.yaml"] = prometheus_rule()
    return written


class _Block(str):
    """A string that is written as a block."""


class _Dumper(yaml.SafeDumper):
    """Knows blocks."""


def _block(dumper: yaml.SafeDumper, data: _Block) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", str(data), style="|")


_Dumper.add_representer(_Block, _block)
