"""What KubeRay 1.7 and the API server do with the manifests, as far as the tests need it: no cluster, no Go.

Each part keeps one property of the real thing, read in KubeRay's source (ray-operator/controllers/ray, 1.7.0)
or seen on an API server 1.36 with that operator, and is named for it.
"""

from __future__ import annotations

import copy
from typing import Any

Document = dict[str, Any]
# Every way in which a RayJob ends, as .status.jobStatus and .status.jobDeploymentStatus. In
# rayjob_controller.go a stopped job is Complete, and one past its deadline is Failed, whatever status it had.
ENDS = {
    "done": ("SUCCEEDED", "Complete"),
    "failed": ("FAILED", "Failed"),
    "stopped": ("STOPPED", "Complete"),
    "past its deadline": ("RUNNING", "Failed"),
    "never started": ("", "Failed"),
}


def cluster_goes(spec: Document, job_status: str, deployment_status: str) -> bool:
    """Whether the operator removes the Ray cluster of a job that has ended so, sooner or later."""
    if strategy := spec.get("deletionStrategy"):
        conditions = [
            rule["condition"]
            for rule in strategy.get("deletionRules", [])
            if rule["policy"] in ("DeleteCluster", "DeleteSelf")
        ]
        return any(
            job_status == one.get("jobStatus") or deployment_status == one.get("jobDeploymentStatus")
            for one in conditions
        )
    return bool(spec.get("shutdownAfterJobFinishes"))


class Conflict(Exception):
    """409: another manager owns a field that would change."""


class ApiServer:
    """Server-side apply of one object: a field has owners, and an apply that changes another's field needs
    force.

    Lists of a custom resource without `x-kubernetes-list-type` are atomic, so a list has owners as a whole;
    Ray's are such.
    """

    def __init__(self) -> None:
        self.fields: dict[str, Any] = {}
        self.owners: dict[str, set[str]] = {}

    def apply(self, manager: str, document: Document, *, force: bool = False) -> None:
        """`kubectl apply --server-side`, with `--force-conflicts` or without.

        Raises:
            Conflict: with the fields, and nothing has changed.
        """
        wanted = _leaves(document)
        clash = [
            path
            for path, value in wanted.items()
            if self.owners.get(path, set()) - {manager} and self.fields[path] != value
        ]
        if clash and not force:
            raise Conflict(", ".join(sorted(clash)))
        for path, value in wanted.items():
            self.owners[path] = (
                {manager} if path in clash or path not in self.owners else self.owners[path] | {manager}
            )
            self.fields[path] = value

    def update(self, manager: str, document: Document) -> None:
        """A controller's PUT: it owns what it changes, alone."""
        for path, value in _leaves(document).items():
            if self.fields.get(path) != value:
                self.fields[path], self.owners[path] = value, {manager}


def reconciled(service: Document) -> Document:
    """The RayService as the operator writes it back: with a `scaleStrategy` in every worker group."""
    service = copy.deepcopy(service)
    spec = service["spec"].get("rayClusterConfig") or service["spec"]["rayClusterSpec"]
    for group in spec["workerGroupSpecs"]:
        group.setdefault("scaleStrategy", {})
    return service


def _leaves(node: Any, path: str = "") -> dict[str, Any]:
    if isinstance(node, dict) and node:
        return {
            key: value
            for name, inner in node.items()
            for key, value in _leaves(inner, f"{path}.{name}").items()
        }
    return {path: node}
