"""Where the manifests have to agree with each other and with the rest of the repository: each function yields
a line for each fault.

`documents` are those of one build. `platform` are those of the overlay that it lives beside: a job's accounts
and settings are there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import yaml

from cluster.kuberay.rules import Document, cluster_spec, containers, operator_services
from cluster.kuberay.schemas import RAY_KINDS, pod_templates
from cluster.shell import ROOT, module_file
from serve.on_ray.haproxy import BINARY, ENVIRONMENT, LAUNCHER

Agreement = Callable[[Sequence[Document], Sequence[Document]], Iterator[str]]
# Every secret that the manifests may name, with its key, and how one is made. ray-auth's key is the one that
# KubeRay 1.7.0 reads.
SECRETS = {
    "ray-auth": ("auth_token", '--from-literal=auth_token="$(openssl rand -hex 32)"'),
    "clickbait-redis": ("password", '--from-literal=password="$(openssl rand -hex 32)"'),
    "clickbait-api-keys": ("keys", '--from-literal=keys="$(openssl rand -hex 32)"'),
    "clickbait-wandb": ("api-key", "--from-literal=api-key=..."),
}
SERVE_PORT = 8000
GUARDED = {8265, 6379, 10001}


def secrets(documents: Iterable[Document]) -> set[tuple[str, str]]:
    """The (name, key) of every secret that a pod cannot start without."""
    found: set[tuple[str, str]] = set()

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            reference = node.get("secretKeyRef")
            if isinstance(reference, dict) and not reference.get("optional"):
                found.add((reference["name"], reference["key"]))
            if (
                isinstance(volume := node.get("secret"), dict)
                and "secretName" in volume
                and not volume.get("optional")
            ):
                found.update((volume["secretName"], item["key"]) for item in volume["items"])
            if isinstance(node.get("authOptions"), dict) and node["authOptions"].get("secretName"):
                found.add((node["authOptions"]["secretName"], "auth_token"))
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(list(documents))
    return found


def references(documents: Sequence[Document], platform: Sequence[Document]) -> Iterator[str]:
    """Accounts, ConfigMaps and secrets that are named are there; nothing is a Secret itself."""
    there = {(document["kind"], document["metadata"]["name"]) for document in [*documents, *platform]}
    for document in documents:
        where = f"{document['kind']}/{document['metadata']['name']}"
        if document["kind"] == "Secret":
            yield (
                f"{where}: a secret in a manifest ends in a repository: it is made with kubectl create secret"
            )
        for path, template in pod_templates(document):
            account = template["spec"].get("serviceAccountName")
            if account and ("ServiceAccount", account) not in there:
                yield f"{where}: {path}.spec.serviceAccountName: {account}: there is no such account"
        for path, container in containers(document):
            for source in container.get("envFrom", []):
                name = source.get("configMapRef", {}).get("name")
                if ("ConfigMap", name) not in there:
                    yield f"{where}: {path}.envFrom: {name}: there is no such ConfigMap"
    for name, key in sorted(secrets(documents)):
        if SECRETS.get(name, ("", ""))[0] != key:
            yield f"secret {name}, key {key}: not one of those that are made: {', '.join(SECRETS)}"


def images(documents: Sequence[Document], _: Sequence[Document]) -> Iterator[str]:
    """Ours are targets of the Dockerfile, and one build has one tag; others' are pinned by version."""
    dockerfile = ROOT / "Dockerfile"
    targets = (
        re.findall(r"(?im)^FROM .* AS ([\w-]+)\s*$", dockerfile.read_text(encoding="utf-8"))
        if dockerfile.is_file()
        else None
    )
    tags = set()
    for document in documents:
        for path, container in containers(document):
            name, *tag = container.get("image", "").rpartition("/")[2].split(":")
            if name.startswith("clickbait-"):
                tags.update(tag)
                if targets is not None and name.removeprefix("clickbait-") not in targets:
                    yield (
                        f"{document['kind']}/{document['metadata']['name']}: {path}.image: the Dockerfile "
                        f"has no target {name[10:]}"
                    )
    if len(tags) > 1:
        yield f"images: {len(tags)} tags in one build: {', '.join(sorted(tags))}"


def mirrors() -> dict[str, str]:
    """From a mirror's name in Artifact Registry to the registry that it mirrors, as cluster/terraform makes
    them.
    """
    path = ROOT / "cluster" / "terraform" / "storage.tf"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    block = re.search(r"^  mirrors = \{\n(.*?)\n  \}", text, re.MULTILINE | re.DOTALL)
    hosts = dict(re.findall(r'([\w-]+)\s*=\s*"https://([\w.-]+)"', block[1] if block else ""))
    return {name: host.replace("registry-1.docker.io", "docker.io") for name, host in hosts.items()}


def mirrored(documents: Sequence[Document], _: Sequence[Document]) -> Iterator[str]:
    """Where our images come from Artifact Registry, third parties' do too: from one of Terraform's
    mirrors.
    """
    found = [
        (document, path, one.get("image", "")) for document in documents for path, one in containers(document)
    ]
    ours = {
        image.rpartition("/clickbait/clickbait-")[0]
        for *_, image in found
        if "/clickbait/clickbait-" in image
    }
    for document, path, image in found:
        if not ours or "/clickbait/clickbait-" in image:
            continue
        if not any(image.startswith(f"{prefix}/{name}/") for prefix in ours for name in mirrors()):
            yield (
                f"{document['kind']}/{document['metadata']['name']}: {path}.image: {image} is not pulled "
                f"from a mirror "
                f"({', '.join(mirrors())}): name it under images: in overlays/gke/images"
            )


def services(documents: Sequence[Document], _: Sequence[Document]) -> Iterator[str]:
    """A Service that is referred to is there: among the documents, or made by the operator under a name that
    is known beforehand.
    """
    there = {document["metadata"]["name"] for document in documents if document["kind"] == "Service"}
    there = there.union(*(operator_services(document) for document in documents))
    for document in documents:
        target = document.get("spec", {}).get("targetRef", {})
        if target.get("kind") == "Service" and target.get("name") not in there:
            yield (
                f"{document['kind']}/{document['metadata']['name']}: targets the Service "
                f"{target.get('name')}, which nobody makes"
            )


def selectors(documents: Sequence[Document], _: Sequence[Document]) -> Iterator[str]:
    """A budget, a policy or a spread that selects no pod guards nothing."""
    labels = [
        template.get("metadata", {}).get("labels", {})
        for document in documents
        for _, template in pod_templates(document)
    ]
    for document in documents:
        where = f"{document['kind']}/{document['metadata']['name']}"
        chosen = [
            document["spec"].get(name, {})
            for name in ("selector", "podSelector")
            if document["kind"] in _SELECTING
        ]
        for _path, template in pod_templates(document):
            chosen += [
                one.get("labelSelector", {}) for one in template["spec"].get("topologySpreadConstraints", [])
            ]
        for selector in chosen:
            wanted = {
                key: value
                for key, value in selector.get("matchLabels", {}).items()
                if not key.startswith("ray.io/")
            }
            if wanted and not any(wanted.items() <= one.items() for one in labels):
                yield f"{where}: selects {wanted}, which no pod has"


_SELECTING = ("PodDisruptionBudget", "NetworkPolicy", "StatefulSet")


def network(documents: Sequence[Document], _: Sequence[Document]) -> Iterator[str]:
    """Nothing is open that no policy opens, nothing is open to everybody, and the head's ports only to this
    namespace and the operator.
    """
    policies = [document for document in documents if document["kind"] == "NetworkPolicy"]
    if any(document["kind"] == "RayService" for document in documents) and not any(
        one["spec"].get("podSelector") == {}
        and "Ingress" in one["spec"].get("policyTypes", [])
        and not one["spec"].get("ingress")
        for one in policies
    ):
        yield "NetworkPolicy: none denies what no other allows (podSelector: {}, no ingress)"
    for policy in policies:
        where = f"NetworkPolicy/{policy['metadata']['name']}"
        for rule in policy["spec"].get("ingress", []):
            peers = rule.get("from", [])
            ports = {port.get("port") for port in rule.get("ports", [])}
            if not peers or {} in peers:
                yield f"{where}: lets everybody in"
            outside = [peer for peer in peers if "namespaceSelector" in peer or "ipBlock" in peer]
            strangers = [peer for peer in outside if not _operator(peer)]
            if strangers and (not ports or ports & GUARDED):
                reached = ", ".join(str(port) for port in sorted(ports & GUARDED)) or "every port"
                yield f"{where}: lets pods outside the namespace reach {reached}"


def _operator(peer: Document) -> bool:
    labels = peer.get("podSelector", {}).get("matchLabels", {})
    return labels.get("app.kubernetes.io/name") == "kuberay-operator" and bool(
        peer.get("namespaceSelector", {}).get("matchLabels")
    )


def serving(documents: Sequence[Document], _: Sequence[Document]) -> Iterator[str]:
    """Serve's configuration fits the pods: port, HAProxy's variables, and a core for every replica."""
    for document in documents:
        if document["kind"] != "RayService":
            continue
        config = yaml.safe_load(document["spec"].get("serveConfigV2", "")) or {}
        cluster = cluster_spec(document)
        for path, container in containers(document):
            if ".initContainers." in path:  # no Ray runs there
                continue
            port = {one.get("name"): one.get("containerPort") for one in container.get("ports", [])}.get(
                "serve"
            )
            if port != config.get("http_options", {}).get("port"):
                yield (
                    f"RayService: {path}.ports: serve is {port}, serveConfigV2 has "
                    f"{config.get('http_options', {}).get('port')}"
                )
            given = {one["name"]: one.get("value") for one in container.get("env", [])}
            for name, value in (
                ENVIRONMENT | {BINARY: f"/app/{LAUNCHER.relative_to(ROOT).as_posix()}"}
            ).items():
                if given.get(name) != value:
                    yield (
                        f"RayService: {path}.env.{name}: {given.get(name)}, serve/on_ray/haproxy.py has "
                        f"{value}"
                    )
        cores = [
            sum(
                int(group.get("rayStartParams", {}).get("num-cpus", 0)) * group[bound]
                for group in cluster["workerGroupSpecs"]
            )
            for bound in ("minReplicas", "maxReplicas")
        ]
        for application in config.get("applications", []):
            for deployment in application.get("deployments", []):
                scaling = deployment.get("autoscaling_config", {})
                for name, room in zip(("min_replicas", "max_replicas"), cores, strict=True):
                    if scaling.get(name, 0) > room:
                        yield (
                            f"RayService: {deployment['name']}.{name}: {scaling[name]} replicas, {room} "
                            f"cores for them in the groups"
                        )
    for document in documents:
        if document["kind"] == "HealthCheckPolicy":
            check = document["spec"]["default"]["config"].get("httpHealthCheck", {})
            if check.get("port") != SERVE_PORT:
                yield (
                    f"HealthCheckPolicy/{document['metadata']['name']}: asks port {check.get('port')}, Serve "
                    f"has {SERVE_PORT}"
                )


def files(documents: Sequence[Document], _: Sequence[Document]) -> Iterator[str]:
    """Configurations and modules that a command names are in the checkout, and Ray is the one that is
    installed.
    """
    (version,) = set(
        re.findall(r'"ray\[[\w,]+\]==([\d.]+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    )
    for document in documents:
        where = f"{document['kind']}/{document['metadata']['name']}"
        spoken = [document["spec"].get("entrypoint", "")] if document["kind"] == "RayJob" else []
        spoken += [
            str(word)
            for _, one in containers(document)
            for word in [*one.get("command", []), *one.get("args", [])]
        ]
        text = " ".join(spoken)
        for path in re.findall(r"--config (?:/app/)?(\S+)", text):
            if not (ROOT / path).is_file():
                yield f"{where}: {path}: no such file"
        for module in re.findall(r"python -m ([\w.]+)", text):
            if module_file(module) is None:
                yield f"{where}: {module}: no such module"
        if document["kind"] in RAY_KINDS and cluster_spec(document).get("rayVersion") != version:
            yield (
                f"{where}: rayVersion: {cluster_spec(document).get('rayVersion')}, pyproject.toml has "
                f"{version}"
            )


def terraform(documents: Sequence[Document], _: Sequence[Document]) -> Iterator[str]:
    """IAM is bound to the accounts that are here, and networks and namespaces are the ones that Terraform
    makes.
    """
    sources = sorted((ROOT / "cluster" / "terraform").glob("*.tf"))
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    if not text:
        return
    bound = set(re.findall(r"/sa/([\w-]+)", text))
    proxies = re.findall(
        r'ip_cidr_range\s*=\s*"([\d./]+)"\s*\n\s*purpose\s*=\s*"REGIONAL_MANAGED_PROXY"', text
    )
    operator = re.findall(
        r'chart\s*=\s*"kuberay-operator".*?\n\s*namespace\s*=\s*"([\w-]+)"', text, re.DOTALL
    )
    for document in documents:
        where = f"{document['kind']}/{document['metadata']['name']}"
        if document["kind"] == "ServiceAccount" and document["metadata"]["name"] not in bound:
            yield f"{where}: cluster/terraform binds no role to it (it has: {', '.join(sorted(bound))})"
        if document["kind"] != "NetworkPolicy":
            continue
        peers = [peer for rule in document["spec"].get("ingress", []) for peer in rule.get("from", [])]
        blocks = {peer["ipBlock"]["cidr"] for peer in peers if "ipBlock" in peer}
        if blocks and not set(proxies) <= blocks:
            yield (
                f"{where}: the proxy-only subnet of cluster/terraform is {', '.join(proxies)}, not among "
                f"{', '.join(sorted(blocks))}"
            )
        for peer in peers:
            space = (
                peer.get("namespaceSelector", {}).get("matchLabels", {}).get("kubernetes.io/metadata.name")
            )
            if _operator(peer) and operator and space not in operator:
                yield f"{where}: the operator is in {', '.join(operator)} (cluster/terraform), not in {space}"


AGREEMENTS: tuple[Agreement, ...] = (
    references,
    images,
    mirrored,
    services,
    selectors,
    network,
    serving,
    files,
    terraform,
)
