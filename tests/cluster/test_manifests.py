"""The manifests are what the API server, the operator and the rest of the repository take; and each check
fails where it should.
"""

from __future__ import annotations

import copy
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from clickbait import cli
from clickbait.config import EvaluateConfig, ExportConfig, PreprocessConfig, PromoteConfig, TrainConfig
from clickbait.errors import ConfigError
from clickbait.scoring.config import ScoreConfig
from cluster import manifests
from cluster.kuberay import agreement, generate, rules, schemas
from serve import settings
from tests.conftest import ROOT
from tuning.sweep.config import SweepConfig

REGION = ["--region", "europe-west4"]
PLACE = {"project": "test-project", "region": "europe-west4", "tag": "abc1234"}
NO_CRDS = (
    "no CRDs of KubeRay (KUBERAY_CRDS_DIR): unknown and missing fields of RayService and RayJob outside "
    "their pods were not checked"
)
BUILDS = [(overlay, job) for overlay in manifests.overlays() for job in [None, *manifests.jobs(overlay)]]
needs_crds = pytest.mark.skipif(schemas.crds() is None, reason=NO_CRDS)
Document = dict[str, Any]


def built(overlay: str, job: str | None = None) -> list[Document]:
    """A build with its words filled in, for a test to break."""
    folder = manifests.OVERLAYS / overlay / (f"jobs/{job}" if job else "")
    return copy.deepcopy(manifests.fill(manifests.build(folder), **PLACE))


def one(documents: list[Document], kind: str, name: str | None = None) -> Document:
    (found,) = [
        each for each in documents if each["kind"] == kind and name in (None, each["metadata"]["name"])
    ]
    return found


def head(document: Document) -> Document:
    found: Document = rules.cluster_spec(document)["headGroupSpec"]
    return found


def worker(document: Document) -> Document:
    found: Document = rules.cluster_spec(document)["workerGroupSpecs"][0]
    return found


def container(group: Document) -> Document:
    found: Document = group["template"]["spec"]["containers"][0]
    return found


@pytest.mark.parametrize(("overlay", "job"), BUILDS, ids=lambda value: str(value or "overlay"))
def test_what_is_committed_has_no_fault(overlay: str, job: str | None) -> None:
    documents, faults = manifests.render(overlay, job, **PLACE)
    assert documents
    assert faults == []


@needs_crds
def test_ray_kinds_were_held_against_the_operators_crds() -> None:
    """A reminder in the summary of what a clone without them does not check."""


def test_there_is_something_to_check() -> None:
    assert {"kind", "gke", "gke-gpu"} <= set(manifests.overlays())
    assert set(manifests.jobs("gke")) == {"preprocess", "train", "sweep", "score", "retrain"}
    kinds = {document["kind"] for document in built("gke")}
    wanted = {
        "RayService",
        "StatefulSet",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "PodMonitoring",
        "ClusterPodMonitoring",
    }
    assert wanted <= kinds


Breaking = Callable[[Document], Any]
# name: kind of the document, what breaks it, what the line says of it. Of the gke overlay.
SERVICE: dict[str, tuple[str, Breaking, str]] = {
    "unknown field": ("RayService", lambda d: d["spec"].update(serveConfig="x"), "serveConfig"),
    "unknown field of a pod": (
        "RayService",
        lambda d: container(head(d)).update(imagePolicy="Always"),
        "imagePolicy",
    ),
    "a type": ("RayService", lambda d: worker(d).update(maxReplicas="six"), "maxReplicas"),
    "name too long": ("RayService", lambda d: d["metadata"].update(name="c" * 48), "47 characters"),
    "the operator's service name": (
        "RayService",
        lambda d: head(d).update(headService={"metadata": {"name": "x"}}),
        "headService",
    ),
    "head with work": (
        "RayService",
        lambda d: head(d)["rayStartParams"].update({"num-cpus": "2"}),
        "num-cpus",
    ),
    "no token": (
        "RayService",
        lambda d: rules.cluster_spec(d).update(authOptions={"mode": "disabled"}),
        "authOptions.mode",
    ),
    "k8s token": (
        "RayService",
        lambda d: rules.cluster_spec(d)["authOptions"].update(enableK8sTokenAuth=True),
        "enableK8sTokenAuth",
    ),
    "no Ray version": ("RayService", lambda d: rules.cluster_spec(d).pop("rayVersion"), "rayVersion"),
    "autoscaler v1": (
        "RayService",
        lambda d: rules.cluster_spec(d)["autoscalerOptions"].update(version="v1"),
        "not v2",
    ),
    "restart policy": (
        "RayService",
        lambda d: worker(d)["template"]["spec"].update(restartPolicy="Always"),
        "restartPolicy",
    ),
    "replicas beyond the bounds": (
        "RayService",
        lambda d: worker(d).update(replicas=9),
        "minReplicas <= replicas",
    ),
    "step above surge": ("RayService", lambda d: upgrade(d).update(stepSizePercent=60), "stepSizePercent 60"),
    "no gateway class": ("RayService", lambda d: upgrade(d).update(gatewayClassName=""), "gatewayClassName"),
    "upgrade without autoscaler": (
        "RayService",
        lambda d: rules.cluster_spec(d).pop("enableInTreeAutoscaling"),
        "needs the autoscaler",
    ),
    "unknown upgrade": (
        "RayService",
        lambda d: d["spec"]["upgradeStrategy"].update(type="Rolling"),
        "Rolling",
    ),
    "no fault tolerance": (
        "RayService",
        lambda d: rules.cluster_spec(d).pop("gcsFaultToleranceOptions"),
        "redisAddress",
    ),
    "password in sight": (
        "RayService",
        lambda d: redis(d).update(redisPassword={"value": "x"}),
        "redisPassword",
    ),
    "password as an argument": (
        "RayService",
        lambda d: head(d)["rayStartParams"].update({"redis-password": "x"}),
        "where it belongs",
    ),
    "grace below drain": (
        "RayService",
        lambda d: worker(d)["template"]["spec"].update(terminationGracePeriodSeconds=50),
        "the drain's 30",
    ),
    "no preStop": ("RayService", lambda d: container(worker(d)).pop("lifecycle"), "no preStop"),
    "no spread": (
        "RayService",
        lambda d: worker(d)["template"]["spec"].pop("topologySpreadConstraints"),
        "topologySpread",
    ),
    "privileged": ("RayService", lambda d: context(d).update(privileged=True), "privileged"),
    "escalation": (
        "RayService",
        lambda d: context(d).pop("allowPrivilegeEscalation"),
        "allowPrivilegeEscalation",
    ),
    "capability": (
        "RayService",
        lambda d: context(d).update(capabilities={"drop": ["ALL"], "add": ["SYS_PTRACE"]}),
        "capabilities",
    ),
    "writable root": (
        "RayService",
        lambda d: context(d).update(readOnlyRootFilesystem=False),
        "readOnlyRootFilesystem",
    ),
    "root": (
        "RayService",
        lambda d: worker(d)["template"]["spec"]["securityContext"].pop("runAsNonRoot"),
        "runAsNonRoot",
    ),
    "no seccomp": (
        "RayService",
        lambda d: head(d)["template"]["spec"]["securityContext"].pop("seccompProfile"),
        "seccompProfile",
    ),
    "host network": (
        "RayService",
        lambda d: worker(d)["template"]["spec"].update(hostNetwork=True),
        "hostNetwork",
    ),
    "host path": (
        "RayService",
        lambda d: volumes(d).append({"name": "h", "hostPath": {"path": "/"}}),
        "hostPath",
    ),
    "no size": ("RayService", lambda d: volumes(d).append({"name": "e", "emptyDir": {}}), "sizeLimit"),
    "no limits": (
        "RayService",
        lambda d: container(worker(d))["resources"].pop("limits"),
        "resources.limits",
    ),
    "requests below limits": (
        "RayService",
        lambda d: requests(d).update(cpu="1"),
        "requests are not the limits",
    ),
    "no probe": ("RayService", lambda d: container(worker(d)).pop("readinessProbe"), "readinessProbe"),
    "autoscaler without limits": (
        "RayService",
        lambda d: rules.cluster_spec(d)["autoscalerOptions"].pop("resources"),
        "autoscalerOptions",
    ),
    "token in sight": (
        "RayService",
        lambda d: variables(d).append({"name": "RAY_AUTH_TOKEN", "value": "x"}),
        "RAY_AUTH_TOKEN",
    ),
    "no tag": ("RayService", lambda d: container(worker(d)).update(image="clickbait-serve"), "has no tag"),
    "latest": (
        "RayService",
        lambda d: container(worker(d)).update(image="clickbait-serve:latest"),
        "has no tag",
    ),
    "a word that nobody filled in": (
        "RayService",
        lambda d: container(worker(d)).update(image="PROJECT/clickbait-serve:1"),
        "--project",
    ),
    "another tag": (
        "RayService",
        lambda d: container(worker(d)).update(image="clickbait-serve:other"),
        "2 tags",
    ),
    "no such account": (
        "RayService",
        lambda d: head(d)["template"]["spec"].update(serviceAccountName="clickbait"),
        "no such account",
    ),
    "no such settings": (
        "RayService",
        lambda d: container(head(d)).update(envFrom=[{"configMapRef": {"name": "x"}}]),
        "no such ConfigMap",
    ),
    "another secret": (
        "RayService",
        lambda d: rules.cluster_spec(d)["authOptions"].update(secretName="token"),
        "secret token",
    ),
    "another Ray": ("RayService", lambda d: rules.cluster_spec(d).update(rayVersion="2.59.0"), "2.59.0"),
    "no HAProxy": ("RayService", lambda d: variables(d).pop(0), "RAY_SERVE_ENABLE_HA_PROXY"),
    "another port": (
        "RayService",
        lambda d: d["spec"].update(serveConfigV2=d["spec"]["serveConfigV2"].replace("8000", "8001")),
        "8001",
    ),
    "more replicas than cores": (
        "RayService",
        lambda d: worker(d).update(maxReplicas=4),
        "max_replicas: 12 replicas",
    ),
    "budget in percent": (
        "PodDisruptionBudget",
        lambda d: d["spec"].update(minAvailable="50%"),
        "as a number",
    ),
    "budget for nobody": (
        "PodDisruptionBudget",
        lambda d: d["spec"].update(selector={"matchLabels": {"a": "b"}}),
        "which no pod has",
    ),
    "built-in kind, unknown field": ("StatefulSet", lambda d: d["spec"].update(replica=1), "replica"),
    "an autoscaler that nothing starts again": (
        "RayService",
        lambda d: rules.cluster_spec(d)["autoscalerOptions"].pop("args"),
        "exited",
    ),
    "monitoring, missing field": (
        "PodMonitoring",
        lambda d: d["spec"]["endpoints"][0].pop("interval"),
        "interval: is missing",
    ),
    "a kind that nobody knows": ("PodMonitoring", lambda d: d.update(kind="PodMonitorings"), "not known"),
}


def upgrade(document: Document) -> Any:
    return document["spec"]["upgradeStrategy"]["clusterUpgradeOptions"]


def redis(document: Document) -> Any:
    return rules.cluster_spec(document)["gcsFaultToleranceOptions"]


def context(document: Document) -> Any:
    return container(worker(document))["securityContext"]


def volumes(document: Document) -> Any:
    return worker(document)["template"]["spec"]["volumes"]


def requests(document: Document) -> Any:
    return container(worker(document))["resources"]["requests"]


def variables(document: Document) -> Any:
    return container(worker(document))["env"]


NEEDS_CRDS = {"unknown field", "a type"}


@pytest.mark.parametrize("name", SERVICE)
def test_a_broken_service_is_refused(name: str) -> None:
    if name in NEEDS_CRDS and schemas.crds() is None:
        pytest.skip(NO_CRDS)
    kind, breaks, said = SERVICE[name]
    documents = built("gke")
    breaks(one(documents, kind))
    faults = manifests.check(documents)
    assert [line for line in faults if said in line], faults
    assert all("\n" not in line and len(line) < 400 for line in faults)


RULES_OF_OLD = {"deletionRules": [{"policy": "DeleteCluster", "condition": {"jobStatus": "SUCCEEDED"}}]}
# The same of a job: which, what breaks it, what the line says.
JOBS: dict[str, tuple[str, str, Breaking, str]] = {
    "deletion rules": (
        "gke",
        "train",
        lambda d: d["spec"].update(deletionStrategy=RULES_OF_OLD),
        "see neither a stopped job",
    ),
    "no shutdown": (
        "gke",
        "train",
        lambda d: d["spec"].pop("shutdownAfterJobFinishes"),
        "would stay, and cost",
    ),
    "a long rest": ("gke", "train", lambda d: d["spec"].update(ttlSecondsAfterFinished=86400), "above 3600"),
    "no deadline": (
        "gke",
        "train",
        lambda d: d["spec"].pop("activeDeadlineSeconds"),
        "keep its machines for ever",
    ),
    "no second try": ("gke", "train", lambda d: d["spec"].update(backoffLimit=0), "backoffLimit"),
    "queue and autoscaler": ("gke-gpu", "train", lambda d: scaled(d), "Kueue counts"),
    "name too long": ("gke", "score", lambda d: d["metadata"].update(name="s" * 48), "47 characters"),
    "no such file": (
        "gke",
        "score",
        lambda d: d["spec"].update(entrypoint="python -m ray_jobs.score --config configs/x.yaml"),
        "configs/x.yaml",
    ),
    "no such module": (
        "gke",
        "score",
        lambda d: d["spec"].update(entrypoint="python -m ray_jobs.scores"),
        "ray_jobs.scores",
    ),
    "an image that nobody builds": (
        "gke",
        "score",
        lambda d: container(worker(d)).update(image="clickbait-score:abc1234"),
        "no target score",
    ),
}


def scaled(document: Document) -> None:
    rules.cluster_spec(document).update(enableInTreeAutoscaling=True, autoscalerOptions={"version": "v2"})


@pytest.mark.parametrize("name", JOBS)
def test_a_broken_job_is_refused(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    overlay, job, breaks, said = JOBS[name]
    if name == "an image that nobody builds":  # whatever the real one has
        (tmp_path / "Dockerfile").write_text("FROM debian AS serve\nFROM debian AS train\n")
        (tmp_path / "pyproject.toml").write_text('"ray[serve]==2.60.0"')
        monkeypatch.setattr(agreement, "ROOT", tmp_path)
    documents = built(overlay, job)
    breaks(one(documents, "RayJob"))
    faults = manifests.check(documents, built(overlay))
    assert [line for line in faults if said in line], faults


def ingress(documents: list[Document], name: str) -> Any:
    return one(documents, "NetworkPolicy", name)["spec"]["ingress"][0]


NETWORK: dict[str, tuple[Callable[[list[Document]], Any], str]] = {
    "nothing denied": (lambda all_: all_.remove(one(all_, "NetworkPolicy", "deny")), "none denies"),
    "open to everybody": (lambda all_: ingress(all_, "serve-from-gateway").pop("from"), "lets everybody in"),
    "dashboard from outside": (
        lambda all_: ingress(all_, "metrics-from-collectors")["ports"][0].update(port=8265),
        "reach 8265",
    ),
    "every port from outside": (
        lambda all_: ingress(all_, "metrics-from-collectors").pop("ports"),
        "reach every port",
    ),
    "another proxy subnet": (
        lambda all_: ingress(all_, "serve-from-gateway")["from"].pop(0),
        "proxy-only subnet",
    ),
    "operator elsewhere": (
        lambda all_: ingress(all_, "ray-head-from-operator")["from"][0]["namespaceSelector"][
            "matchLabels"
        ].update({"kubernetes.io/metadata.name": "ray-system"}),
        "not in ray-system",
    ),
    "an account without rights": (
        lambda all_: all_.append(
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "clickbait-other"}}
        ),
        "binds no role",
    ),
    "an image from elsewhere": (
        lambda all_: container(one(all_, "StatefulSet")["spec"]).update(
            image="docker.io/library/redis:7.4.6-bookworm"
        ),
        "is not pulled from a mirror",
    ),
    "an image from a mirror that nobody makes": (
        lambda all_: container(one(all_, "StatefulSet")["spec"]).update(
            image="europe-west4-docker.pkg.dev/test-project/ghcr/library/redis:7.4.6-bookworm"
        ),
        "is not pulled from a mirror",
    ),
    "a secret in the repository": (
        lambda all_: all_.append({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}}),
        "kubectl create",
    ),
    "the operator's gateway": (
        lambda all_: all_.append(
            {"apiVersion": "v1", "kind": "Gateway", "metadata": {"name": "clickbait-gateway"}}
        ),
        "leave it to the operator",
    ),
}


@pytest.mark.parametrize("name", NETWORK)
def test_a_broken_neighbourhood_is_refused(name: str) -> None:
    breaks, said = NETWORK[name]
    documents = built("gke")
    breaks(documents)
    faults = manifests.check(documents)
    assert [line for line in faults if said in line], faults


def test_an_overlay_without_a_tag_a_project_or_a_possible_one_stops(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    target = tmp_path / "gke.yaml"
    for flags, said in (
        (["--project", "test-project"], "no region: set --region"),
        (["--project", "test-project", *REGION], "no image tag: set --tag"),
        (["--project", "test-project", *REGION, "--tag", "latest"], "--tag latest"),
        (["--tag", "abc1234"], "no project: set"),
        (["--tag", "abc1234", "--project", "My Project"], "not a project id"),
        (["--tag", "abc1234", "--project", "test-project", "--region", "europe-west4-a"], "not a region"),
    ):
        assert manifests.main(["--overlay", "gke", "--output", str(target), *flags]) == 2
        printed = capsys.readouterr().err.strip()
        assert said in printed
        assert printed.startswith("error: ")
        assert "\n" not in printed.removeprefix(f"note: {NO_CRDS}")
    assert not target.exists()


def test_what_is_written_is_what_was_checked(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    target = tmp_path / "gke.yaml"
    assert (
        manifests.main(
            [
                "--overlay",
                "gke",
                "--project",
                "test-project",
                *REGION,
                "--tag",
                "abc1234",
                "--output",
                str(target),
            ]
        )
        == 0
    )
    documents = list(yaml.safe_load_all(target.read_text()))
    assert documents == built("gke")
    text = target.read_text()
    assert "europe-west4-docker.pkg.dev/test-project/clickbait/clickbait-serve:abc1234" in text
    assert "gs://test-project-clickbait-models/registry" in text


def test_an_unknown_overlay_or_job_names_those_that_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert manifests.main(["--overlay", "aws"]) == 2
    assert "gke-gpu" in capsys.readouterr().err
    assert manifests.main(["--overlay", "kind", "--job", "train"]) == 2
    assert "no such job" in capsys.readouterr().err
    assert manifests.main(["--job", "train"]) == 2
    assert "--overlay" in capsys.readouterr().err


def test_a_fault_is_a_line_and_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    shutil.copytree(ROOT / "cluster" / "kuberay", tmp_path / "kuberay")
    service = tmp_path / "kuberay" / "base" / "rayservice.yaml"
    service.write_text(service.read_text().replace('num-cpus: "0"', 'num-cpus: "1"'))
    monkeypatch.setattr(manifests, "OVERLAYS", tmp_path / "kuberay" / "overlays")
    assert manifests.main(["--overlay", "kind", "--output", str(tmp_path / "out.yaml")]) == 1
    assert "kind: RayService/clickbait: headGroupSpec.rayStartParams.num-cpus" in capsys.readouterr().err
    assert not (tmp_path / "out.yaml").exists()


def test_missing_secrets_are_told_with_the_command_that_makes_them() -> None:
    documents = built("gke")
    there = {"ray-auth": {"auth_token": "eA=="}, "clickbait-redis": {"wrong": "eA=="}}

    def ask(name: str) -> str | None:
        return json.dumps({"data": there[name]}) if name in there else None

    lines = manifests.missing_secrets(documents, ask=ask)
    assert [line.split()[1] for line in lines] == ["clickbait-api-keys", "clickbait-redis"]
    assert all("kubectl --namespace clickbait create secret generic" in line for line in lines)
    there.update({"clickbait-redis": {"password": "eA=="}, "clickbait-api-keys": {"keys": "eA=="}})
    assert manifests.missing_secrets(documents, ask=ask) == []


def test_without_kubectl_there_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(manifests, "BIN", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"^kubectl: not installed: .*\[dev\]"):
        manifests.kubectl()


def test_without_the_crds_pods_are_still_checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(schemas.CRDS_VARIABLE, str(tmp_path))
    assert schemas.crds() is None
    service = one(built("gke"), "RayService")
    assert not list(schemas.faults(service))
    container(head(service)).update(imagePolicy="Always")
    assert [line for line in schemas.faults(service) if "imagePolicy" in line]


def test_generated_files_are_what_would_be_written() -> None:
    for path, text in generate.files().items():
        assert path.read_text(encoding="utf-8") == text, f"{path}: run python -m cluster.manifests --write"


def test_the_serve_configuration_is_configs_serve_yaml_key_by_key() -> None:
    """All of it but for what a pod has otherwise: the interface, the variables, the registry, the overlay's
    numbers.
    """

    def flat(node: Any, path: str = "") -> dict[str, Any]:
        if isinstance(node, dict):
            return {
                key: value
                for name, inner in node.items()
                for key, value in flat(inner, f"{path}.{name}").items()
            }
        if isinstance(node, list):
            return {
                key: value
                for index, inner in enumerate(node)
                for key, value in flat(inner, f"{path}.{index}").items()
            }
        return {path.lstrip("."): node}

    there = flat(yaml.safe_load((ROOT / "configs" / "serve.yaml").read_text(encoding="utf-8")))
    for overlay, apart in (("kind", set()), ("gke", {"min_replicas", "max_replicas"})):
        here = flat(yaml.safe_load(one(built(overlay), "RayService")["spec"]["serveConfigV2"]))
        assert here.keys() <= there.keys()
        left = {name for name in there.keys() - here.keys() if not name.startswith("controller_options.")}
        # A pod's clients come by its Service, so by HAProxy: no shared port there.
        assert left == {f"applications.0.args.{name}" for name in ("registry", "model", "shared_port")}
        different = {name.rpartition(".")[2] for name in here if here[name] != there[name]}
        assert different == {"host", "keep_alive_timeout_s", *apart}
        assert (
            here["http_options.keep_alive_timeout_s"] > 600
        )  # for how long Google's load balancer keeps a connection


def test_the_entrypoints_are_commands_that_their_jobs_take() -> None:
    models: dict[str, Any] = {
        "preprocess": PreprocessConfig,
        "train": TrainConfig,
        "sweep": SweepConfig,
        "score": ScoreConfig,
    }
    for overlay, job in BUILDS:
        if job in (None, "retrain"):
            continue
        entrypoint = one(built(overlay, job), "RayJob")["spec"]["entrypoint"]
        words = shlex.split(entrypoint.replace("/app/", f"{ROOT}/").replace("$CLICKBAIT_", "gs://bucket/"))
        assert words[:2] == ["python", "-m"]
        config = cli.parse(models[job], words[3:])
        assert "gs://bucket" in (config.output if job != "sweep" else config.train.dataset)


@pytest.mark.parametrize("group", [head, worker])
def test_the_servers_keys_are_a_mounted_file_on_every_pod(group: Callable[[Document], Document]) -> None:
    """A file changes with its secret. A variable keeps the key that was taken back, and `subPath` would
    too.
    """
    pod = group(one(built("gke"), "RayService"))["template"]["spec"]
    names = {variable["name"]: variable.get("value", "") for variable in pod["containers"][0]["env"]}
    assert "CLICKBAIT_API_KEYS" not in names
    path = Path(names["CLICKBAIT_API_KEYS_FILE"])
    (mount,) = [
        each for each in pod["containers"][0]["volumeMounts"] if each["mountPath"] == str(path.parent)
    ]
    assert "subPath" not in mount
    (volume,) = [each for each in pod["volumes"] if each["name"] == mount["name"]]
    assert volume["secret"] == {
        "secretName": "clickbait-api-keys",
        "items": [{"key": "keys", "path": path.name}],
    }
    assert agreement.SECRETS["clickbait-api-keys"][0] == "keys"


def test_scripts_of_containers_are_shell_and_their_commands_are_taken() -> None:
    models: dict[str, Any] = {
        "preprocess": PreprocessConfig,
        "train": TrainConfig,
        "export": ExportConfig,
        "evaluate": EvaluateConfig,
        "promote": PromoteConfig,
    }
    for overlay, job, kind, path in (
        ("kind", None, "Job", ("spec", "template")),
        ("gke", "retrain", "CronJob", ("spec", "jobTemplate", "spec", "template")),
    ):
        template = one(built(overlay, job), kind)
        for name in path:
            template = template[name]
        (script,) = container({"template": template})["args"]
        subprocess.run(["sh", "-n"], input=script, text=True, check=True, timeout=60)
        taken = []
        for job, flags in re.findall(r"^python -m ray_jobs\.(\w+) (.*?)(?: \|\| .*)?$", script, re.MULTILINE):
            words = shlex.split(flags.replace("configs/", f"{ROOT}/configs/").replace("$RUN", "retrain-1"))
            cli.parse(models[job], [word.replace("$", "gs://") for word in words])
            taken.append(job)
        assert taken == list(models)


@pytest.mark.parametrize(("code", "ends"), [(0, 0), (1, 0), (2, 1), (3, 1), (130, 1), (137, 1)])
def test_the_weekly_retraining_takes_a_refusal_alone_for_a_result(
    tmp_path: Path, code: int, ends: int
) -> None:
    template = one(built("gke", "retrain"), "CronJob")["spec"]["jobTemplate"]["spec"]["template"]
    (script,) = container({"template": template})["args"]

    def ended(ending: str) -> int:
        stub = tmp_path / "python"
        stub.write_text(f"#!/bin/sh\ncase $* in {ending}; esac\n")
        stub.chmod(0o755)
        environment = {
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "CLICKBAIT_DATA": "d",
            "CLICKBAIT_RUNS": "r",
            "RUN": "x",
        }
        return subprocess.run(
            ["sh", "-ec", script], env={**environment, "CLICKBAIT_REGISTRY": "g"}, check=False, timeout=60
        ).returncode

    assert ended(f"*ray_jobs.promote\\ --config*) exit {code}") == ends
    assert ended("*import\\ ray_jobs.promote*) exit 1") != 0  # a module that cannot be loaded
    assert ended("*ray_jobs.evaluate*) exit 1") != 0


def test_a_retrained_candidate_goes_to_the_canary_that_replicas_answer_a_share_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    template = one(built("gke", "retrain"), "CronJob")["spec"]["jobTemplate"]["spec"]["template"]
    (flags,) = re.findall(
        r"^python -m ray_jobs\.promote (.*?) \|\|", container({"template": template})["args"][0], re.MULTILINE
    )
    words = shlex.split(flags.replace("configs/", f"{ROOT}/configs/"))
    promotion = cli.parse(PromoteConfig, [word.replace("$", "gs://") for word in words])
    variables = one(built("gke"), "ConfigMap", "clickbait-settings")["data"]
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    serving = settings.load()
    assert promotion.champion == serving.model == "production"
    assert promotion.alias == serving.canary
    assert 0 < serving.canary_share <= 0.1


def test_the_command_line_is_what_the_module_says() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-m", "cluster.manifests", "--overlay", "kind", "--output", "-"],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "kind: 19 documents, 0 faults" in done.stderr
    assert "clickbait-serve:kind" in done.stdout
