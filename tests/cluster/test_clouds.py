"""The documents for Vertex AI and Cloud Run are what Google's discovery documents describe; the tasks stop
before they change anything.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from invoke.context import Context
from invoke.exceptions import Exit
from invoke.runners import Result

from clickbait import cli
from clickbait.config import TrainConfig
from clickbait.errors import ConfigError
from cluster import cloud
from cluster.places import Place
from cluster.vertex import job
from serve import settings
from tests.conftest import ROOT

PLACE = Place("my-project-123456", "europe-west4")
WHERE = {"project": PLACE.project, "region": PLACE.region, "tag": "4f2a91c"}
SERVICES = ["api", "onnx", "bento", "frontend"]
API = "https://clickbait-api.example.run.app"
Json = dict[str, Any]


def discovery(name: str) -> Json:
    """The discovery document that google-api-python-client brings: no network."""
    found = importlib.util.find_spec("googleapiclient")
    assert found
    assert found.submodule_search_locations
    path = Path(found.submodule_search_locations[0]) / "discovery_cache" / "documents" / f"{name}.json"
    schemas: Json = json.loads(path.read_text(encoding="utf-8"))["schemas"]
    return schemas


def faults(schemas: Json, schema: Json, value: Any, where: str = "") -> Iterator[str]:
    """A line for each thing in `value` that the discovery document's `schema` does not know."""
    if "$ref" in schema:
        yield from faults(schemas, schemas[schema["$ref"]], value, where)
        return
    kind = schema.get("type", "any")
    if kind == "object":
        if not isinstance(value, dict):
            yield f"{where}: {value!r} is no object"
            return
        for key, inner in value.items():
            known = schema.get("properties", {}).get(key) or schema.get("additionalProperties")
            if known is None:
                yield f"{where}.{key}: no such field"
            else:
                yield from faults(schemas, known, inner, f"{where}.{key}")
    elif kind == "array":
        if not isinstance(value, list):
            yield f"{where}: {value!r} is no list"
            return
        for i, inner in enumerate(value):
            yield from faults(schemas, schema["items"], inner, f"{where}[{i}]")
    elif kind != "any":
        # A 64-bit number is a string in Google's JSON, and a word is never a number.
        types: dict[str, Any] = {"string": str, "boolean": bool, "integer": int, "number": (int, float)}
        if not isinstance(value, types[kind]) or (kind != "boolean" and isinstance(value, bool)):
            yield f"{where}: {value!r} is no {kind}"
        elif schema.get("format") == "int64" and not str(value).isdigit():
            yield f"{where}: {value!r} is no whole number"
        elif schema.get("format") == "google-duration" and not re.fullmatch(r"\d+(\.\d+)?s", str(value)):
            yield f"{where}: {value!r} is no duration, such as 3600s"
        elif "enum" in schema and value not in schema["enum"]:
            yield f"{where}: {value!r} is none of its values"


def vertex(*, gpu: bool) -> Json:
    document: Json = yaml.safe_load(
        job.spec(PLACE, "4f2a91c", f"{PLACE.data}/datasets/latest", "nightly", gpu=gpu)
    )
    return document


def cloudrun(name: str) -> Json:
    document: Json = yaml.safe_load(cloud.service_yaml(PLACE, name, "4f2a91c", API))
    return document


def container(name: str) -> Json:
    (one,) = cloudrun(name)["spec"]["template"]["spec"]["containers"]
    assert isinstance(one, dict)
    return one


def vertex_faults(document: Json) -> list[str]:
    schemas = discovery("aiplatform.v1")
    return list(faults(schemas, schemas["GoogleCloudAiplatformV1CustomJobSpec"], document))


def cloudrun_faults(document: Json) -> list[str]:
    schemas = discovery("run.v1")
    return list(faults(schemas, schemas["Service"], document))


@pytest.mark.parametrize("gpu", [False, True])
def test_the_vertex_spec_is_a_custom_job_spec(gpu: bool) -> None:
    assert vertex_faults(vertex(gpu=gpu)) == []


@pytest.mark.parametrize("name", SERVICES)
def test_the_cloud_run_service_is_a_service(name: str) -> None:
    assert cloudrun_faults(cloudrun(name)) == []


@pytest.mark.parametrize(
    ("there", "instead", "said"),
    [
        ("workerPoolSpecs", "worker_pool_specs", ".worker_pool_specs: no such field"),
        (
            "acceleratorType: NVIDIA_L4",
            "acceleratorType: nvidia-l4",
            ".acceleratorType: 'nvidia-l4' is none of its values",
        ),
        ("replicaCount: '1'", "replicaCount: 1", ".replicaCount: 1 is no string"),
        ("timeout: 21600s", "timeout: 6h", ".timeout: '6h' is no duration"),
        ("- '200'", "- 200", "args[10]: 200 is no string"),
        ("workerPoolSpecs:", "jobSpec:\n  x: 1\nworkerPoolSpecs:", ".jobSpec: no such field"),
    ],
)
def test_what_vertex_would_refuse_is_seen(there: str, instead: str, said: str) -> None:
    text = job.spec(PLACE, "4f2a91c", f"{PLACE.data}/datasets/latest", "nightly", gpu=True)
    assert there in text
    assert any(said in line for line in vertex_faults(yaml.safe_load(text.replace(there, instead))))


@pytest.mark.parametrize(
    ("there", "instead", "said"),
    [
        ("containerConcurrency: 64", "containerConcurrency: '64'", "is no integer"),
        ("serviceAccountName:", "serviceAccount:", ".serviceAccount: no such field"),
        ("secretKeyRef:", "secretRef:", ".secretRef: no such field"),
        ("cpu: '1'", "cpu: 1", "1 is no string"),
    ],
)
def test_what_cloud_run_would_refuse_is_seen(there: str, instead: str, said: str) -> None:
    text = cloud.service_yaml(PLACE, "api", "4f2a91c", API)
    assert there in text
    assert any(said in line for line in cloudrun_faults(yaml.safe_load(text.replace(there, instead))))


@pytest.mark.parametrize("gpu", [False, True])
def test_vertex_runs_a_command_that_the_job_understands(gpu: bool) -> None:
    (pool,) = vertex(gpu=gpu)["workerPoolSpecs"]
    spec = pool["containerSpec"]
    assert spec["command"] == ["python", "-m", "ray_jobs.train"]
    config = train_config(spec["args"])
    assert (config.dataset, config.output) == (f"{PLACE.data}/datasets/latest", f"{PLACE.models}/runs")
    assert config.name == "nightly"  # the same one resumes
    assert config.use_gpu is gpu
    assert ("acceleratorType" in pool["machineSpec"]) is gpu
    assert not gpu or config.checkpoint_steps  # what a preempted machine loses is bounded


def train_config(args: list[str]) -> TrainConfig:
    return cli.parse(TrainConfig, [str(ROOT / arg) if arg.startswith("configs/") else arg for arg in args])


@pytest.mark.parametrize("name", ["api", "onnx"])
def test_the_server_understands_what_cloud_run_sets(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one = container(name)
    for variable in one["env"]:
        monkeypatch.setenv(variable["name"], variable.get("value", "a-key"))
    chosen = settings.load()
    assert chosen.registry == f"{PLACE.models}/registry"
    assert chosen.host == "0.0.0.0"
    assert chosen.api_keys.get_secret_value()  # it may be reached from everywhere
    assert chosen.runtime == {"api": None, "onnx": "fp32"}[name]
    assert cloudrun(name)["spec"]["template"]["spec"]["timeoutSeconds"] > chosen.timeout_s


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_one_port_for_clients_and_probes(name: str) -> None:
    one = container(name)
    (port,) = {entry["containerPort"] for entry in one["ports"]}
    probes = [one[probe] for probe in ("startupProbe", "livenessProbe") if probe in one]
    assert {
        next(iter(value["port"] for key, value in probe.items() if key in ("httpGet", "tcpSocket")))
        for probe in probes
    } == {port}
    assert cloudrun(name)["metadata"]["name"] == f"clickbait-{name}"


def test_no_service_asks_for_a_gpu_without_the_cores_and_memory_for_one() -> None:
    for name in SERVICES:
        limits = container(name)["resources"]["limits"]
        assert "nvidia.com/gpu" not in limits or (
            int(limits["cpu"]) >= 4 and int(limits["memory"].removesuffix("Gi")) >= 8
        )


def test_the_accounts_and_the_secret_are_terraforms() -> None:
    text = (ROOT / "cluster" / "terraform" / "iam.tf").read_text(encoding="utf-8")
    made = {PLACE.account(name) for name in re.findall(r'account_id\s+= "([\w-]+)"', text)}
    used = {
        vertex(gpu=True)["serviceAccount"],
        *(cloudrun(name)["spec"]["template"]["spec"]["serviceAccountName"] for name in SERVICES),
    }
    assert used <= made
    secrets = {
        one["valueFrom"]["secretKeyRef"]["name"]
        for name in SERVICES
        for one in container(name)["env"]
        if "valueFrom" in one
    }
    storage = (ROOT / "cluster" / "terraform" / "storage.tf").read_text(encoding="utf-8")
    assert secrets == set(re.findall(r'secret_id = "([\w-]+)"', storage))


def stage(image: str) -> str:
    """The target of the Dockerfile that the image is built from."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    stages: dict[str, str] = dict(re.findall(r"(?ims)^FROM [^\n]* AS ([\w-]+)\n(.*?)(?=^FROM |\Z)", text))
    return stages[image.removeprefix("clickbait-")]


def test_the_images_are_targets_of_the_dockerfile_and_listen_where_cloud_run_asks() -> None:
    assert "ray_jobs.train" in stage("clickbait-train")
    for name, image in cloud.IMAGES.items():
        (port,) = re.findall(r"^EXPOSE (\d+)$", stage(image), re.MULTILINE)
        assert container(name)["ports"][0]["containerPort"] == int(port)
    variables = {one["name"] for one in container("frontend")["env"]}
    assert set(re.findall(r"\bCLICKBAIT_\w+(?==)", stage("clickbait-frontend"))) <= variables


class Recorder(Context):
    """A context that notes the line and runs nothing."""

    line = ""

    def run(self, command: str, **settings: Any) -> Result:
        self._set(line=command)
        return Result()


@pytest.fixture
def gcloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for gcloud: it notes how it is called, and fails where a file of the command's first word
    says so, with what is in it.
    """
    tool = tmp_path / "bin" / "gcloud"
    tool.parent.mkdir()
    script = f'#!/bin/sh\necho "$@" >> {shlex.quote(str(tmp_path))}/calls\n'
    refusal = f'{shlex.quote(str(tmp_path))}/"$1"'
    script += f"if [ -f {refusal} ]; then cat {refusal} >&2; exit 1; fi\necho secret-token\n"
    tool.write_text(script, encoding="utf-8")
    tool.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tool.parent}{os.pathsep}/usr/bin{os.pathsep}/bin")
    monkeypatch.delenv("GOOGLE_CLOUD_PROJECT", raising=False)
    monkeypatch.chdir(ROOT)
    return tmp_path


def said(excinfo: pytest.ExceptionInfo[Exit]) -> str:
    """The one line."""
    assert excinfo.value.code == 2
    assert excinfo.value.message
    assert "\n" not in excinfo.value.message
    assert "secret-token" not in excinfo.value.message
    return str(excinfo.value.message)


def test_the_tasks_print_and_run_one_gcloud_command(gcloud: Path) -> None:
    recorder = Recorder()
    cloud.vertex_train(recorder, **WHERE, gpu=True)
    assert shlex.split(recorder.line)[:4] == ["gcloud", "ai", "custom-jobs", "create"]
    assert "--args" not in recorder.line  # it would replace the spec's
    (path,) = re.findall(r"--config=(\S+)", recorder.line)
    assert vertex_faults(yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))) == []
    cloud.deploy_cloudrun(recorder, service="api", **WHERE)
    assert shlex.split(recorder.line)[:4] == ["gcloud", "run", "services", "replace"]
    calls = (gcloud / "calls").read_text(encoding="utf-8")
    assert "auth print-access-token" in calls
    assert f"projects describe {PLACE.project}" in calls
    assert "clickbait-train:4f2a91c" in calls
    assert "clickbait-standalone:4f2a91c" in calls


def test_a_dry_run_asks_nobody_and_prints(gcloud: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorder = Recorder()
    cloud.deploy_cloudrun(recorder, service="frontend", api=API, dry_run=True, **WHERE)
    cloud.vertex_train(recorder, dry_run=True, **WHERE)
    cloud.cloud_bench(recorder, url=API, dry_run=True)
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0].rpartition("/")[2][:6] for line in printed] == ["gcloud", "gcloud", "python"]
    assert recorder.line == ""
    assert not (gcloud / "calls").exists()


@pytest.mark.parametrize(
    ("broken", "line"),
    [
        ({"project": ""}, "no project: set GOOGLE_CLOUD_PROJECT"),
        ({"project": "My Project"}, "--project My Project: not a project id"),
        ({"project": "123456789012"}, "not a project id"),
        ({"region": "europe-west8"}, '--region europe-west8: no L4 GPU there; did you mean "europe-west'),
        ({"region": "europe-west4-a"}, "--region europe-west4-a: not a region"),
        ({"tag": ""}, "no image tag: set --tag"),
        ({"tag": "latest"}, "--tag latest: changes under what runs"),
        ({"tag": "a b"}, "--tag a b: not an image tag"),
        (
            {"dataset": "artifacts/datasets/latest"},
            "--dataset artifacts/datasets/latest: Vertex AI reads from a bucket",
        ),
        ({"name": "../x"}, "--name ../x:"),
    ],
)
def test_what_can_be_seen_here_is_refused_before_gcloud_is_asked(
    gcloud: Path, broken: dict[str, str], line: str
) -> None:
    recorder = Recorder()
    with pytest.raises(Exit) as excinfo:
        cloud.vertex_train(recorder, **{**WHERE, "gpu": True, **broken})
    assert line in said(excinfo)
    assert recorder.line == ""
    assert not (gcloud / "calls").exists()


@pytest.mark.parametrize(
    ("command", "answer", "line"),
    [
        (
            "auth",
            "ERROR: (gcloud.auth.print-access-token) Reauthentication failed.",
            "no valid login (the token has expired?): gcloud auth login",
        ),
        (
            "projects",
            "ERROR: PERMISSION_DENIED",
            "--project my-project-123456: not there, or not yours: gcloud projects list",
        ),
        (
            "artifacts",
            "ERROR: Image not found.",
            "clickbait-standalone:4f2a91c: not in the registry: push it first",
        ),
    ],
)
def test_what_gcloud_refuses_stops_the_task_before_it_changes_anything(
    gcloud: Path, command: str, answer: str, line: str
) -> None:
    (gcloud / command).write_text(answer, encoding="utf-8")
    recorder = Recorder()
    with pytest.raises(Exit) as excinfo:
        cloud.deploy_cloudrun(recorder, service="api", **WHERE)
    assert line in said(excinfo)
    assert answer in said(excinfo)
    assert recorder.line == ""


def test_without_gcloud_the_task_says_where_it_is_had(gcloud: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(gcloud))
    with pytest.raises(Exit) as excinfo:
        cloud.cloud_check(Recorder(), project=PLACE.project, region=PLACE.region)
    assert "gcloud: not installed" in said(excinfo)


def test_a_frontend_needs_the_api_and_a_service_has_a_name(gcloud: Path) -> None:
    with pytest.raises(Exit) as excinfo:
        cloud.deploy_cloudrun(Recorder(), service="frontend", **WHERE)
    assert "--api: set it to the https:// address" in said(excinfo)
    with pytest.raises(Exit) as excinfo:
        cloud.deploy_cloudrun(Recorder(), service="apo", **WHERE)
    assert '--service apo: no such service; did you mean "api"?' in said(excinfo)


def test_a_word_that_nothing_fills_in_is_refused_and_what_fills_in_is_never_yaml() -> None:
    with pytest.raises(ConfigError, match=r"\$REGISTY: nothing fills it in"):
        PLACE.fill({"a": ["$REGISTY"]}, {"REGISTRY": "x"})
    assert PLACE.fill({"a": "$NAME"}, {"NAME": "x: [y]"}) == {"a": "x: [y]"}


def test_the_job_prints_its_command_without_the_tasks(capsys: pytest.CaptureFixture[str]) -> None:
    args = ["--project", PLACE.project, "--tag", "4f2a91c", "--dataset", f"{PLACE.data}/datasets/latest"]
    assert job.main(args) == 0
    assert capsys.readouterr().out.startswith(
        "gcloud ai custom-jobs create --project=my-project-123456 --region=europe-west4 "
    )
    assert job.main([*args, "--gpu", "--region", "europe-north1"]) == 2
    assert "no L4 GPU there" in capsys.readouterr().err


@pytest.mark.skipif(
    subprocess.run(["which", "gcloud"], capture_output=True, check=False).returncode != 0,
    reason="gcloud is not on PATH",
)
def test_the_real_gcloud_without_a_login_is_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CLOUDSDK_CONFIG", "HOME"):
        monkeypatch.setenv(name, str(tmp_path))  # nobody is logged in there
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("CLOUDSDK_CORE_DISABLE_PROMPTS", "1")
    with pytest.raises(ConfigError, match="gcloud auth login"):
        cloud.check(PLACE, [])
