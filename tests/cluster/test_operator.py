"""What no schema sees: names that the operator gives, fields that it owns, ends of a job, how a head's
containers end.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from clickbait.errors import ConfigError
from cluster import manifests
from cluster.kuberay import rules, schemas
from tests.cluster.operator import ENDS, ApiServer, Conflict, cluster_goes, reconciled
from tests.cluster.test_manifests import BUILDS, PLACE, Document, built, one
from tests.conftest import ROOT

SERVICES = [
    overlay
    for overlay in manifests.overlays()
    if any(each["kind"] == "RayService" for each in built(overlay))
]
JOBS = [(overlay, job) for overlay, job in BUILDS if job and job != "retrain"]
TEXTS = [
    ROOT / "README.md",
    *ROOT.glob("docs/*.md"),
    *ROOT.glob("cluster/**/*.md"),
    *ROOT.glob("cluster/**/*.yaml"),
]
TEXTS += [*ROOT.glob("cluster/**/*.py"), *ROOT.glob(".github/workflows/*.yaml")]


@pytest.mark.parametrize("overlay", SERVICES)
def test_nothing_refers_to_a_service_that_the_operator_does_not_make(overlay: str) -> None:
    documents = built(overlay)
    made = rules.operator_services(one(documents, "RayService")) | {
        each["metadata"]["name"] for each in documents if each["kind"] == "Service"
    }
    for path in TEXTS:
        for name in re.findall(r"\b(clickbait-(?:serve|head)-svc)\b", path.read_text(encoding="utf-8")):
            assert name in made, f"{path.relative_to(ROOT)} names {name}, and {overlay} has {sorted(made)}"


def test_every_overlay_is_upgraded_in_the_same_way() -> None:
    """kind-e2e sees nothing of gke's Services otherwise."""
    assert {one(built(overlay), "RayService")["spec"]["upgradeStrategy"]["type"] for overlay in SERVICES} == {
        "NewClusterWithIncrementalUpgrade"
    }


def test_a_policy_for_a_service_that_nobody_makes_is_refused() -> None:
    policy = yaml.safe_load((manifests.OVERLAYS / "gke" / "health-check.yaml").read_text(encoding="utf-8"))
    for name, refused in (("clickbait-serve-svc", True), ("clickbait-redis", False)):
        policy["spec"]["targetRef"]["name"] = name
        faults = manifests.check([*built("gke"), policy])
        assert bool([line for line in faults if "which nobody makes" in line]) == refused


def test_a_health_check_for_each_service_of_an_upgrade_is_owned_by_it() -> None:
    names = ["clickbait-a-serve-svc", "clickbait-b-serve-svc", "clickbait-redis", "clickbait-a-head-svc"]
    listed = json.dumps({"items": [{"metadata": {"name": name, "uid": f"uid-{name}"}} for name in names]})
    policies = manifests.health_checks(listed)
    assert [each["spec"]["targetRef"]["name"] for each in policies] == names[:2]
    assert [each["metadata"]["ownerReferences"][0]["uid"] for each in policies] == [
        f"uid-{name}" for name in names[:2]
    ]
    assert not [line for each in policies for line in schemas.faults(each)]
    for text in ("", "[]", '{"items": [{}]}'):
        with pytest.raises(ConfigError, match="kubectl get services"):
            manifests.health_checks(text)


@pytest.mark.parametrize(
    ("overlay", "job"),
    [(overlay, None) for overlay in SERVICES] + JOBS,
    ids=lambda value: str(value or "service"),
)
def test_a_second_apply_needs_force_and_then_wins(overlay: str, job: str | None) -> None:
    """The operator writes into the worker groups, whose list is atomic: without force the next apply is a
    409.
    """
    kind = "RayJob" if job else "RayService"
    before = one(built(overlay, job), kind)
    changed = json.loads(json.dumps(before).replace(":abc1234", ":abc1235").replace(":kind", ":kind2"))
    server = ApiServer()
    server.apply("kubectl", before)
    server.update("kuberay-operator", reconciled(before))
    with pytest.raises(Conflict, match="workerGroupSpecs"):
        server.apply("kubectl", changed)
    server.apply("kubectl", changed, force=True)
    (groups,) = [value for path, value in server.fields.items() if path.endswith(".workerGroupSpecs")]
    assert groups == rules.cluster_spec(changed)["workerGroupSpecs"]


def test_every_command_that_applies_forces() -> None:
    commands = [
        (path, line)
        for path in TEXTS
        for line in path.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
        if re.search(
            r"kubectl (--namespace \S+ )?apply (?!\.\*)", line
        )  # but for the patterns of readme_walk
    ]
    assert len(commands) > 8
    for path, line in commands:
        assert re.search(r"apply --server-side --force-conflicts ", line), (
            f"{path.relative_to(ROOT)}: {line.strip()}"
        )


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize(("overlay", "job"), JOBS)
def test_the_cluster_of_a_job_goes_after_every_end(overlay: str, job: str, end: str) -> None:
    spec = one(built(overlay, job), "RayJob")["spec"]
    assert cluster_goes(spec, *ENDS[end])
    assert spec["ttlSecondsAfterFinished"] <= 3600


@pytest.mark.parametrize(("overlay", "job"), JOBS)
def test_each_rendered_job_is_one_run(overlay: str, job: str, tmp_path: Path) -> None:
    """Applying a job runs it, the second time too: each rendering has a name of its own, and a training run's
    name is the job's.
    """

    def rendered(stamp: str) -> Document:
        documents, faults = manifests.render(overlay, job, **PLACE, stamp=stamp)
        assert faults == []
        return one(documents, "RayJob")

    first, second = rendered("20261126-211500"), rendered("20261126-211501")
    assert first["metadata"]["name"] == f"{job}-20261126-211500"
    assert second["metadata"]["name"] == f"{job}-20261126-211501"
    if job in ("train", "sweep"):
        assert f"--name {job}-20261126-211500 " in first["spec"]["entrypoint"]
    assert re.fullmatch(
        rf"{job}-\d{{8}}-\d{{6}}",
        one(manifests.render(overlay, job, **PLACE)[0], "RayJob")["metadata"]["name"],
    )
    for stamp in ("A", "a" * 21, "a.b", "-a"):
        with pytest.raises(ConfigError, match="--stamp"):
            rendered(stamp)


def test_an_output_that_cannot_be_written_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert manifests.main(["--overlay", "kind", "--output", str(tmp_path / "missing" / "kind.yaml")]) == 2
    assert (
        "missing/kind.yaml: No such file or directory: give a file in a folder that is there"
        in capsys.readouterr().err
    )


def test_kueue_tries_the_machines_without_gpus_first() -> None:
    """It takes the first flavor with room: with the GPUs first, a submitter of half a core takes a machine
    with an L4.
    """
    (group,) = one(built("gke-gpu"), "ClusterQueue")["spec"]["resourceGroups"]
    gpus = [
        {each["name"]: each["nominalQuota"] for each in flavor["resources"]}["nvidia.com/gpu"]
        for flavor in group["flavors"]
    ]
    assert gpus[0] == "0"
    assert int(gpus[1]) > 0
    for overlay, job in JOBS:
        spec = one(built(overlay, job), "RayJob")["spec"]
        for template in (spec["submitterPodTemplate"], spec["rayClusterSpec"]["headGroupSpec"]["template"]):
            assert "gke-spot, operator: DoesNotExist" in yaml.safe_dump(
                template["spec"]["affinity"], default_flow_style=True, width=1000
            )


def test_the_image_of_gpu_jobs_finds_the_machines_driver() -> None:
    """pip's CUDA loads libcuda.so.1 by the loader's path; GKE and Vertex AI mount it where no image looks by
    itself.
    """
    stage = re.search(
        r"^FROM ray AS train$(.*?)^FROM ",
        (ROOT / "Dockerfile").read_text(encoding="utf-8"),
        re.MULTILINE | re.DOTALL,
    )
    assert stage
    assert "LD_LIBRARY_PATH=/usr/local/nvidia/lib64" in stage[1]


# ── containers as processes: the first of its own PID namespace, as in a pod

needs_namespaces = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None,
    reason="a PID namespace needs root and util-linux",
)
AUTOSCALER = """#!/bin/sh
echo started >> "$LOG"
exec sleep 60
"""


def autoscaler_script(overlay: str, job: str | None) -> str:
    kind = "RayJob" if job else "RayService"
    (script,) = rules.cluster_spec(one(built(overlay, job), kind))["autoscalerOptions"]["args"]
    return str(script)


class Container:
    """A shell command as the first process of a PID namespace, with a stand-in for `ray` that, like the
    autoscaler, handles no signal.
    """

    def __init__(self, script: str, folder: Path) -> None:
        self.log = folder / "log"
        (folder / "ray").write_text(AUTOSCALER)
        (folder / "ray").chmod(0o755)
        environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "LOG": str(self.log)}
        environment |= {"RAY_CLUSTER_NAME": "c", "RAY_CLUSTER_NAMESPACE": "n"}
        command = ["unshare", "--pid", "--fork", "--kill-child", "/bin/bash", "-c", script]
        self.outer = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        self.wait_for(1)
        (self.first,) = children(self.outer.pid)

    def wait_for(self, starts: int) -> None:
        end = time.monotonic() + 30
        while not self.log.exists() or len(self.log.read_text().split()) < starts:
            assert time.monotonic() < end, "it did not start"
            time.sleep(0.05)

    def ends_within(self, seconds: float) -> bool:
        try:
            self.outer.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def close(self) -> None:
        self.outer.kill()
        self.outer.wait()


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@needs_namespaces
@pytest.mark.parametrize(("overlay", "job"), [("gke", None), ("kind", None), ("gke", "train")])
def test_the_autoscaler_ends_on_sigterm_and_is_started_again(
    overlay: str, job: str | None, tmp_path: Path
) -> None:
    """A head goes within 20 s, not after the pod's 90 s of grace; and an autoscaler that dies does not stay
    dead.
    """
    container = Container(autoscaler_script(overlay, job), tmp_path)
    try:
        (autoscaler,) = children(container.first)
        os.kill(autoscaler, signal.SIGKILL)
        container.wait_for(2)
        os.kill(container.first, signal.SIGTERM)
        assert container.ends_within(20)
    finally:
        container.close()


@needs_namespaces
def test_a_first_process_without_a_handler_ignores_sigterm(tmp_path: Path) -> None:
    """What KubeRay starts by itself, and why there is a shell: the kernel delivers no default action to the
    first process.
    """
    container = Container("exec ray kuberay-autoscaler", tmp_path)
    try:
        os.kill(container.first, signal.SIGTERM)
        assert not container.ends_within(2)
    finally:
        container.close()


@pytest.mark.parametrize("overlay", SERVICES)
def test_a_head_waits_for_redis_instead_of_being_made_anew(overlay: str) -> None:
    """Without an answer the program goes on trying; with one it ends."""
    (waiting,) = one(built(overlay), "RayService")["spec"]["rayClusterConfig"]["headGroupSpec"]["template"][
        "spec"
    ]["initContainers"]
    assert waiting["command"] == ["python", "-c"]
    program = waiting["args"][0].replace("time.sleep(5)", "time.sleep(0.05)")
    assert "clickbait-redis" in program

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    here = program.replace('("clickbait-redis", 6379)', f'("127.0.0.1", {port})')
    process = subprocess.Popen([sys.executable, "-c", here], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert "clickbait-redis:6379" in process.stdout.readline()
        with socket.socket() as redis:
            redis.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            redis.bind(("127.0.0.1", port))
            redis.listen()
            assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()
