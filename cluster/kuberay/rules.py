"""What no schema says of the manifests: the operator's own rules, ours, and what one file has to agree with
another on.

The operator's rules are those of KubeRay 1.7.0, which it applies after the API server took a resource: a
fault shows as an event, and no pods. Each rule yields a line for each fault, and each is shown to fail in
tests/cluster/test_manifests.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from cluster.kuberay.schemas import RAY_KINDS, pod_templates

Document = dict[str, Any]
Rule = Callable[[Document], Iterator[str]]
NAME_LIMIT = {"RayCluster": 53, "RayService": 47, "RayJob": 47}
OPERATORS_OWN = {"Gateway": "clickbait-gateway", "HTTPRoute": "clickbait-httproute"}
MAX_IDLE_S = 3600  # of a finished job's cluster
DRAIN_S = 30  # SIGTERM to the end of Ray Serve's drain
PLACEHOLDERS = {"PROJECT": "--project", "REGION": "--region", "TAG": "--tag"}
_DNS = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_PLACEHOLDER = re.compile(rf"\b({'|'.join(PLACEHOLDERS)})\b")
_QUEUE = "kueue.x-k8s.io/queue-name"


def cluster_spec(document: Document) -> Document:
    """The Ray cluster in a Ray resource."""
    spec: Document = document.get("spec", {})
    inner: Document = spec.get(
        {"RayService": "rayClusterConfig", "RayJob": "rayClusterSpec"}.get(document["kind"], ""), spec
    )
    return inner


def names(document: Document) -> Iterator[str]:
    """Lengths and letters that the operator refuses, and names that it gives itself."""
    kind, name = document["kind"], document["metadata"].get("name", "")
    if kind in NAME_LIMIT and (len(name) > NAME_LIMIT[kind] or not _DNS.fullmatch(name)):
        yield (
            f"metadata.name: {name}: KubeRay takes {NAME_LIMIT[kind]} characters of a-z, 0-9 and hyphens, "
            f"from a letter on"
        )
    if OPERATORS_OWN.get(kind) == name:
        yield f"metadata.name: {name} is the one that KubeRay makes and owns: leave it to the operator"
    if kind in RAY_KINDS and "name" in cluster_spec(document).get("headGroupSpec", {}).get(
        "headService", {}
    ).get("metadata", {}):
        yield "headGroupSpec.headService.metadata.name: KubeRay refuses it: leave it out"


def placeholders(document: Document) -> Iterator[str]:
    """PROJECT, REGION or TAG that nobody filled in, and images without a tag."""
    found = sorted({word for text in _strings(document) for word in _PLACEHOLDER.findall(text)})
    yield from (f"{word} is not set: give {PLACEHOLDERS[word]}" for word in found)
    for path, container in containers(document):
        image = container.get("image", "")
        _, colon, tag = image.rpartition("/")[2].partition(":")
        if not colon or tag in ("", "latest"):
            yield (
                f"{path}.image: {image or '(none)'} has no tag of its own: set one under images: in the "
                f"overlay, or --tag"
            )


def head(document: Document) -> Iterator[str]:
    """A head that computes nothing, a token, and an autoscaler of version 2."""
    if document["kind"] not in RAY_KINDS:
        return
    spec = cluster_spec(document)
    if spec.get("headGroupSpec", {}).get("rayStartParams", {}).get("num-cpus") != "0":
        yield (
            'headGroupSpec.rayStartParams.num-cpus: is not "0": replicas and tasks would take the core of '
            "what steers them"
        )
    auth = spec.get("authOptions", {})
    if auth.get("mode") != "token":
        yield "authOptions.mode: is not token: whoever reaches the dashboard could run any code"
    if auth.get("enableK8sTokenAuth"):
        yield (
            f"authOptions.enableK8sTokenAuth: KubeRay 1.7.0 refuses it for a {document['kind']}: mode: token "
            f"alone"
        )
    if auth.get("mode") == "token" and not spec.get("rayVersion"):
        yield "rayVersion: KubeRay asks for it (2.52.0 or later) where authOptions.mode is token"
    options = spec.get("autoscalerOptions", {})
    if spec.get("enableInTreeAutoscaling") and options.get("version") != "v2":
        yield "autoscalerOptions.version: is not v2"
    for path, template in pod_templates(spec):
        if options.get("version") == "v2" and template["spec"].get("restartPolicy", "Never") != "Never":
            yield (
                f"{path}.spec.restartPolicy: {template['spec']['restartPolicy']}: the autoscaler of version "
                f"2 wants Never, or nothing"
            )
    for group in spec.get("workerGroupSpecs", []):
        low, high = group.get("minReplicas"), group.get("maxReplicas")
        if low is None or high is None or not low <= group.get("replicas", low) <= high:
            yield (
                f"workerGroupSpecs.{group.get('groupName')}: minReplicas <= replicas <= maxReplicas, all "
                f"given, is needed"
            )
    if "redis-password" in str(spec.get("headGroupSpec", {}).get("rayStartParams", {})):
        yield (
            "headGroupSpec.rayStartParams.redis-password: gcsFaultToleranceOptions.redisPassword is where it "
            "belongs"
        )


def service(document: Document) -> Iterator[str]:
    """Upgrades that the operator takes, state that outlives the head."""
    if document["kind"] != "RayService":
        return
    spec, cluster = document["spec"], cluster_spec(document)
    strategy = spec.get("upgradeStrategy", {})
    if strategy.get("type") not in ("NewCluster", "NewClusterWithIncrementalUpgrade", "None"):
        yield (
            f"spec.upgradeStrategy.type: {strategy.get('type')} is none of NewCluster, "
            f"NewClusterWithIncrementalUpgrade, None"
        )
    if strategy.get("type") == "NewClusterWithIncrementalUpgrade":
        options = strategy.get("clusterUpgradeOptions", {})
        surge, step = options.get("maxSurgePercent", 100), options.get("stepSizePercent", 0)
        if not 0 < step <= surge <= 100:
            yield (
                f"spec.upgradeStrategy.clusterUpgradeOptions: 0 < stepSizePercent {step} <= maxSurgePercent "
                f"{surge} <= 100 does not hold"
            )
        if options.get("intervalSeconds", 0) <= 0 or not options.get("gatewayClassName"):
            yield (
                "spec.upgradeStrategy.clusterUpgradeOptions: intervalSeconds above 0 and gatewayClassName "
                "are needed"
            )
        if not cluster.get("enableInTreeAutoscaling"):
            yield "enableInTreeAutoscaling: an incremental upgrade needs the autoscaler"
    fault_tolerance = cluster.get("gcsFaultToleranceOptions", {})
    if not fault_tolerance.get("redisAddress"):
        yield "gcsFaultToleranceOptions.redisAddress: a head that goes would take the service with it"
    if "valueFrom" not in fault_tolerance.get("redisPassword", {}):
        yield "gcsFaultToleranceOptions.redisPassword: by valueFrom.secretKeyRef"
    for group in cluster.get("workerGroupSpecs", []):
        template = group["template"]["spec"]
        pause = (
            template["containers"][0]
            .get("lifecycle", {})
            .get("preStop", {})
            .get("sleep", {})
            .get("seconds", 0)
        )
        grace = template.get("terminationGracePeriodSeconds", 30)
        if pause <= 0:
            yield (
                f"{group['groupName']}: no preStop sleep: load balancers send requests on to a pod that is "
                f"going"
            )
        if grace <= pause + DRAIN_S:
            yield (
                f"{group['groupName']}: terminationGracePeriodSeconds {grace}: not above preStop's {pause} "
                f"and the drain's {DRAIN_S}"
            )
        if not template.get("topologySpreadConstraints"):
            yield (
                f"{group['groupName']}: no topologySpreadConstraints: one machine could take all replicas "
                f"with it"
            )


def job(document: Document) -> Iterator[str]:
    """A job's cluster goes after every end; tries and queues are what the operator and Kueue take."""
    if document["kind"] != "RayJob":
        return
    spec = document["spec"]
    shutdown = spec.get("shutdownAfterJobFinishes", False)
    if spec.get("deletionStrategy"):
        yield (
            "spec.deletionStrategy: its rules see neither a stopped job nor every deadline: "
            "shutdownAfterJobFinishes: true instead"
        )
    if not shutdown:
        yield "spec.shutdownAfterJobFinishes: is not true: the cluster of a finished job would stay, and cost"
    if spec.get("ttlSecondsAfterFinished", 0) > MAX_IDLE_S:
        yield (
            f"spec.ttlSecondsAfterFinished: above {MAX_IDLE_S}: a finished job's cluster would stay that "
            f"long, and cost"
        )
    if not spec.get("activeDeadlineSeconds"):
        yield "spec.activeDeadlineSeconds: none: a job that hangs would keep its machines for ever"
    if spec.get("backoffLimit", 0) < 1:
        yield "spec.backoffLimit: 0: a machine that goes would end the job, which could have resumed"
    if _QUEUE in document["metadata"].get("labels", {}) and cluster_spec(document).get(
        "enableInTreeAutoscaling"
    ):
        yield f"{_QUEUE}: Kueue counts a fixed number of workers: enableInTreeAutoscaling: false"


def pods(document: Document) -> Iterator[str]:
    """No privilege, limits that are kept, probes, and no key in plain sight: of every pod in every kind."""
    for path, template in pod_templates(document):
        spec = template["spec"]
        if not spec.get("serviceAccountName") and spec.get("automountServiceAccountToken") is not False:
            yield f"{path}.spec.serviceAccountName: none, and the default account's token is mounted"
        for flag in ("hostNetwork", "hostPID", "hostIPC"):
            if spec.get(flag):
                yield f"{path}.spec.{flag}: is on"
        yield from (
            f"{path}.spec.volumes.{one['name']}: hostPath"
            for one in spec.get("volumes", [])
            if "hostPath" in one
        )
        yield from (
            f"{path}.spec.volumes.{one['name']}: no sizeLimit"
            for one in spec.get("volumes", [])
            if _boundless(one)
        )
        if _context(spec, {}, "seccompProfile") != {"type": "RuntimeDefault"}:
            yield f"{path}.spec.securityContext.seccompProfile: is not RuntimeDefault"
        if not _context(spec, {}, "runAsNonRoot"):
            yield f"{path}.spec.securityContext.runAsNonRoot: is not true"
    for path, container in containers(document):
        yield from _container(path, container)


def operator_services(document: Document) -> set[str]:
    """The Services that the operator makes for a RayService under a name that is known beforehand.

    With `NewClusterWithIncrementalUpgrade` KubeRay 1.7.0 names the Service of the replicas for each Ray
    cluster (`<cluster>-serve-svc`, where <cluster> is in .status.activeServiceStatus.rayClusterName), with
    the other strategies once.
    """
    if document["kind"] != "RayService":
        return set()
    name = document["metadata"]["name"]
    by_cluster = document["spec"].get("upgradeStrategy", {}).get("type") == "NewClusterWithIncrementalUpgrade"
    return {f"{name}-head-svc"} | (set() if by_cluster else {f"{name}-serve-svc"})


def _container(path: str, container: Document) -> Iterator[str]:
    context = container.get("securityContext", {})
    if context.get("privileged"):
        yield f"{path}.securityContext.privileged: is on"
    if context.get("allowPrivilegeEscalation") is not False:
        yield f"{path}.securityContext.allowPrivilegeEscalation: is not false"
    if context.get("capabilities", {}).get("drop") != ["ALL"] or context.get("capabilities", {}).get("add"):
        yield f"{path}.securityContext.capabilities: drop: [ALL] and nothing added is needed"
    if not context.get("readOnlyRootFilesystem"):
        yield f"{path}.securityContext.readOnlyRootFilesystem: is not true: mount an emptyDir where it writes"
    resources = container.get("resources", {})
    limits, requests = resources.get("limits", {}), resources.get("requests", {})
    if not {"cpu", "memory"} <= limits.keys():
        yield f"{path}.resources.limits: cpu and memory are needed"
    elif limits != requests:
        yield (
            f"{path}.resources: requests are not the limits: Ray plans with the limits, and the machine "
            f"would be overbooked"
        )
    if container.get("name") in ("ray-head", "ray-worker", "redis"):
        for probe in ("readinessProbe", "livenessProbe"):
            if probe not in container:
                yield f"{path}.{probe}: none"
    for variable in container.get("env", []):
        # A variable that ends in _FILE names where a mounted secret is.
        if (
            re.search(r"(PASSWORD|TOKEN|SECRET|API_KEY)(?!.*_FILE$)", variable["name"])
            and "value" in variable
        ):
            yield f"{path}.env.{variable['name']}: its value is in the manifest: by valueFrom.secretKeyRef"


def containers(document: Document) -> Iterator[tuple[str, Document]]:
    """Every container with its path, of every pod template, and the autoscaler that KubeRay puts beside a
    head.
    """
    for path, template in pod_templates(document):
        for group in ("initContainers", "containers"):
            for index, container in enumerate(template["spec"].get(group, [])):
                yield f"{path}.spec.{group}.{index}", container


def autoscaler(document: Document) -> Iterator[str]:
    """The container that KubeRay puts beside the head is held to the same as ours."""
    if document["kind"] in RAY_KINDS and cluster_spec(document).get("enableInTreeAutoscaling"):
        options = cluster_spec(document).get("autoscalerOptions", {})
        yield from _container("autoscalerOptions", options)
        script = " ".join(options.get("args", []))
        if "trap" not in script or "while" not in script:
            yield (
                "autoscalerOptions.args: no shell that passes SIGTERM on and starts an autoscaler again that "
                "exited"
            )


def budgets(document: Document) -> Iterator[str]:
    """A budget that Kubernetes can count."""
    if document["kind"] == "PodDisruptionBudget" and not isinstance(
        document["spec"].get("minAvailable"), int
    ):
        yield "spec: minAvailable, as a number: Kubernetes counts nothing else for pods of a Ray resource"


def _context(pod: Document, container: Document, name: str) -> Any:
    return container.get("securityContext", {}).get(name, pod.get("securityContext", {}).get(name))


def _boundless(volume: Document) -> bool:
    return "emptyDir" in volume and "sizeLimit" not in (volume["emptyDir"] or {})


def _strings(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict):
        for value in node.values():
            yield from _strings(value)
    elif isinstance(node, list):
        for value in node:
            yield from _strings(value)


RULES: tuple[Rule, ...] = (names, placeholders, head, service, job, pods, autoscaler, budgets)
