"""Is a manifest what the API server takes? Each document against the schema of its kind, unknown fields
refused.

Ray's kinds: the operator's CRDs, from KUBERAY_CRDS_DIR or ../shared/kuberay/crds-v1.7.0 beside the checkout;
without them their pod templates alone, as Kubernetes' own. Built-in kinds: kubernetes-validate. GKE's,
Kueue's and Prometheus' kinds have no schema here: for the fields that the manifests use, the shapes below,
from their documentation, and nothing else passes.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

from cluster.shell import ROOT

KUBERNETES = "1.36"
CRDS_VARIABLE = "KUBERAY_CRDS_DIR"
RAY_KINDS = ("RayCluster", "RayJob", "RayService")

# kind: its apiVersion and the shape of its spec. A shape is a type; a tuple of types or values to choose
# from; a dictionary (an object with those fields and no others); [shape] (a list of it); {"*": shape} (an
# object with keys of its own). A name that ends in ! must be there.
_LABELS = {"*": str}
_SELECTOR = {"matchLabels": _LABELS, "matchExpressions": [{"key!": str, "operator!": str, "values": [str]}]}
_RULE = {"alert!": str, "expr!": str, "for": str, "labels": _LABELS, "annotations": _LABELS}
_GROUPS = {"groups!": [{"name!": str, "interval": str, "rules!": [_RULE]}]}
_RESOURCE = {"name!": str, "nominalQuota!": str, "borrowingLimit": str, "lendingLimit": str}
_RELABEL = {"action": str, "sourceLabels": [str], "targetLabel": str, "regex": str, "replacement": str}
_TOLERATION = {
    "key": str,
    "operator": ("Exists", "Equal"),
    "value": str,
    "effect": ("NoSchedule", "PreferNoSchedule", "NoExecute"),
}
_HTTP_CHECK = {
    "portSpecification": ("USE_FIXED_PORT", "USE_SERVING_PORT"),
    "port": int,
    "requestPath": str,
    "host": str,
    "response": str,
}
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "HealthCheckPolicy": (
        "networking.gke.io/v1",
        {
            "default!": {
                "checkIntervalSec": int,
                "timeoutSec": int,
                "healthyThreshold": int,
                "unhealthyThreshold": int,
                "logConfig": {"enabled": bool},
                "config!": {
                    "type!": ("HTTP", "HTTPS", "HTTP2", "GRPC", "TCP"),
                    "httpHealthCheck": _HTTP_CHECK,
                },
            },
            "targetRef!": {"group!": str, "kind!": ("Service", "ServiceImport"), "name!": str},
        },
    ),
    "PodMonitoring": (
        "monitoring.googleapis.com/v1",
        {
            "selector!": _SELECTOR,
            "endpoints!": [{"port!": (str, int), "interval!": str, "path": str, "timeout": str}],
            "targetLabels": {
                "metadata": [("pod", "container", "node", "top_level_controller_name")],
                "fromPod": [{"from!": str, "to": str}],
            },
        },
    ),
    "ClusterPodMonitoring": (
        "monitoring.googleapis.com/v1",
        {
            "selector!": _SELECTOR,
            "endpoints!": [{"port!": (str, int), "interval!": str, "path": str, "timeout": str}],
            "targetLabels": {
                "metadata": [("namespace", "pod", "container", "node", "top_level_controller_name")],
                "fromPod": [{"from!": str, "to": str}],
            },
        },
    ),
    "PrometheusRule": ("monitoring.coreos.com/v1", _GROUPS),
    "PodMonitor": (
        "monitoring.coreos.com/v1",
        {
            "jobLabel": str,
            "namespaceSelector": {"matchNames": [str], "any": bool},
            "selector!": _SELECTOR,
            "podMetricsEndpoints!": [{"port!": str, "interval": str, "path": str, "relabelings": [_RELABEL]}],
        },
    ),
    "ResourceFlavor": ("kueue.x-k8s.io/v1beta1", {"nodeLabels": _LABELS, "tolerations": [_TOLERATION]}),
    "ClusterQueue": (
        "kueue.x-k8s.io/v1beta1",
        {
            "namespaceSelector!": _SELECTOR,
            "resourceGroups!": [
                {"coveredResources!": [str], "flavors!": [{"name!": str, "resources!": [_RESOURCE]}]}
            ],
        },
    ),
    "GatewayClass": (
        "gateway.networking.k8s.io/v1",
        {
            "controllerName!": str,
            "parametersRef": {"group!": str, "kind!": str, "name!": str, "namespace": str},
            "description": str,
        },
    ),
    "EnvoyProxy": (
        "gateway.envoyproxy.io/v1alpha1",
        {
            "provider!": {
                "type!": ("Kubernetes",),
                "kubernetes": {"envoyService": {"type": ("ClusterIP", "NodePort", "LoadBalancer")}},
            }
        },
    ),
    "LocalQueue": ("kueue.x-k8s.io/v1beta1", {"clusterQueue!": str}),
}


def crds() -> Path | None:
    """The folder of the operator's CRDs; None where there is none (a public clone)."""
    given = os.environ.get(CRDS_VARIABLE)
    folder = Path(given) if given else ROOT.parent / "shared" / "kuberay" / "crds-v1.7.0"
    return folder if (folder / "ray.io_rayservices.yaml").is_file() else None


def faults(document: dict[str, Any]) -> tuple[str, ...]:
    """What the API server would refuse in the document, a line each."""
    return _faults(json.dumps(document, sort_keys=True), crds())


# kubernetes-validate reads two megabytes for each document, and most are looked at again: a job's overlay, a
# test's
@functools.cache
def _faults(text: str, folder: Path | None) -> tuple[str, ...]:
    return tuple(_found(json.loads(text), folder))


def _found(document: dict[str, Any], folder: Path | None) -> Iterator[str]:
    kind = document.get("kind", "")
    if kind in RAY_KINDS:
        yield from _ray(document, folder)
    elif kind in SHAPES:
        api_version, shape = SHAPES[kind]
        if document.get("apiVersion") != api_version:
            yield f"apiVersion: {document.get('apiVersion')}, where {kind} is {api_version}"
        yield from _shaped(document.get("spec", {}), shape, "spec")
    else:
        try:
            kubernetes_validate.validate(document, KUBERNETES, strict=True)
        except kubernetes_validate.SchemaNotFoundError:
            yield f"kind: {kind} of {document.get('apiVersion')} is not known to any check here"
        except kubernetes_validate.ValidationError as error:
            yield _line(error)


def pod_templates(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every pod template in the document, whatever its kind, with its path."""

    def walk(node: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
        if isinstance(node, dict):
            if isinstance(node.get("spec"), dict) and "containers" in node["spec"]:
                yield path, node
            for key, value in node.items():
                yield from walk(value, f"{path}.{key}".lstrip("."))
        elif isinstance(node, list):
            for index, value in enumerate(node):
                yield from walk(value, f"{path}.{index}")

    yield from walk(document, "")


def _ray(document: dict[str, Any], folder: Path | None) -> Iterator[str]:
    if folder is not None:
        for error in sorted(
            _validator(document["kind"], folder).iter_errors(document), key=lambda each: each.json_path
        ):
            yield _line(error)
        return
    for path, template in pod_templates(document):
        try:
            whole = {
                "apiVersion": "v1",
                "kind": "PodTemplate",
                "metadata": {"name": "a"},
                "template": template,
            }
            kubernetes_validate.validate(whole, KUBERNETES, strict=True)
        except kubernetes_validate.ValidationError as error:
            yield f"{path}: {_line(error)}"


@functools.cache
def _validator(kind: str, folder: Path) -> Any:
    """The kind's v1, with unknown fields refused as the API server's strict mode does."""
    text = (folder / f"ray.io_{kind.lower()}s.yaml").read_text(encoding="utf-8")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a megabyte each
    definition = yaml.load(text, Loader=loader)  # noqa: S506 - both are safe loaders
    (version,) = [one for one in definition["spec"]["versions"] if one["name"] == "v1"]
    schema = version["schema"]["openAPIV3Schema"]
    schema["properties"]["metadata"] = {"type": "object"}
    _close(schema, top=True)
    return jsonschema.Draft202012Validator(schema)


def _close(schema: Any, *, top: bool = False) -> None:
    """Refuses, in place, fields that the schema does not name."""
    if isinstance(schema, dict):
        open_ended = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
        if isinstance(schema.get("properties"), dict) and not open_ended:
            schema["additionalProperties"] = False
        for key, value in schema.items():
            if key == "metadata" and not top:
                continue
            _close(value)
    elif isinstance(schema, list):
        for value in schema:
            _close(value)


def _line(error: Any) -> str:
    """A schema's complaint as a path and a line; the value itself may be a page long."""
    path = ".".join(str(part) for part in error.absolute_path) or "document"
    return f"{path}: {' '.join(str(error.message).split())[-200:]}"


def _shaped(value: Any, shape: Any, path: str) -> Iterator[str]:
    """Where the value differs from a shape of SHAPES."""
    if isinstance(shape, dict) and set(shape) == {"*"}:
        if not isinstance(value, dict):
            yield f"{path}: an object is needed"
            return
        for key, inner in value.items():
            yield from _shaped(inner, shape["*"], f"{path}.{key}")
    elif isinstance(shape, dict):
        if not isinstance(value, dict):
            yield f"{path}: an object is needed"
            return
        known = {name.rstrip("!"): inner for name, inner in shape.items()}
        yield from (f"{path}.{name}: no such field" for name in value if name not in known)
        yield from (
            f"{path}.{name[:-1]}: is missing"
            for name in shape
            if name.endswith("!") and name[:-1] not in value
        )
        for name in value.keys() & known.keys():
            yield from _shaped(value[name], known[name], f"{path}.{name}")
    elif isinstance(shape, list):
        if not isinstance(value, list):
            yield f"{path}: a list is needed"
            return
        for index, inner in enumerate(value):
            yield from _shaped(inner, shape[0], f"{path}.{index}")
    elif isinstance(shape, tuple):
        if value not in shape and type(value) not in shape:
            yield (
                f"{path}: {value} is none of {', '.join(str(getattr(one, '__name__', one)) for one in shape)}"
            )
    elif type(value) is not shape:
        yield f"{path}: {value} is no {shape.__name__}"
