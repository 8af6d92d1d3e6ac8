"""Workflows: GitHub's schema, pins, permissions, time bounds, no expression in a shell line, and all that
they name is here.

Each check is shown to fail on a workflow that is broken in one place.
"""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster import build_with_buildah, manifests
from cluster.kuberay import agreement, rules
from cluster.shell import module_file
from tests.conftest import ROOT

FOLDER = ROOT / ".github" / "workflows"
NAMES = ["ci", "deploy", "images", "kind-e2e", "staged-model"]
PIN = re.compile(r"[\w.-]+(/[\w.-]+)+@[0-9a-f]{40}")
# What a job may have beyond reading, and which jobs: anything more has to be written here first.
GRANTS = {
    ("images", "push"): {"id-token": "write"},
    ("deploy", "apply"): {"id-token": "write"},
    ("staged-model", "judge"): {"id-token": "write", "contents": "write"},
}
VARIABLES = {
    "PROJECT_ID": "project_id",
    "REGION": "region",
    "CLUSTER_NAME": "cluster_name",
    "IMAGE_REPOSITORY": "image_repository",
}
VARIABLES |= {"WORKLOAD_IDENTITY_PROVIDER": "workload_identity_provider"}
VARIABLES |= {
    f"{name}_SERVICE_ACCOUNT": f"{name.lower()}_service_account" for name in ("IMAGES", "DEPLOY", "JUDGE")
}
SECRETS = {"WANDB_API_KEY"}
MAX_MINUTES = 90


def text_of(name: str) -> str:
    return (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")


def faults(name: str, text: str) -> list[str]:
    """A line for each fault of a workflow."""
    document = yaml.safe_load(text)
    found = list(_frame(name, document))
    for job_name, job in document["jobs"].items():
        found += _job(name, job_name, job)
        for step in job["steps"]:
            found += _step(step)
    return [*found, *_pins(text), *_names(text, document)]


def _frame(name: str, document: dict[str, Any]) -> Iterator[str]:
    if document.get("permissions") != {"contents": "read"}:
        yield "permissions of the workflow: more than reading"
    if "group" not in document.get("concurrency", {}):
        yield "no concurrency group"
    if (
        name != "ci"
        and "push" in document[True]
        and document["concurrency"].get("cancel-in-progress") is not False
    ):  # YAML 1.1: on is True
        yield "a run that publishes can be cut off"


def _job(name: str, job_name: str, job: dict[str, Any]) -> Iterator[str]:
    if not isinstance(job.get("timeout-minutes"), int) or job["timeout-minutes"] > MAX_MINUTES:
        yield f"{job_name}: no time bound"
    granted = {key: value for key, value in job.get("permissions", {}).items() if value != "read"}
    if granted != GRANTS.get((name, job_name), {}):
        yield f"{job_name}: permissions {granted}"
    if "id-token" in granted and "github.ref == 'refs/heads/main'" not in str(job.get("if")):
        yield f"{job_name}: Google's token for other branches than main"


def _step(step: dict[str, Any]) -> Iterator[str]:
    uses = step.get("uses", "")
    if uses and not PIN.fullmatch(uses):
        yield f"{uses}: not pinned by commit"
    if uses.startswith("actions/checkout@") and step.get("with", {}).get("persist-credentials") is not False:
        yield "checkout leaves its token in the folder"
    if "${{" in step.get("run", ""):
        yield f"an expression in a shell line: {step['run'][:40]!r}"


def _pins(text: str) -> Iterator[str]:
    for line in re.findall(r"uses: .*", text):
        if not re.search(r"@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line):
            yield f"{line}: without its version"


def _names(text: str, document: dict[str, Any]) -> Iterator[str]:
    """What is named of this repository: modules with their flags, make targets, scripts, images, overlays,
    Terraform's outputs.
    """
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^FROM \S+ AS (\S+)", dockerfile, re.MULTILINE | re.IGNORECASE))
    overlays = {
        path.parent.name for path in (ROOT / "cluster" / "kuberay" / "overlays").glob("*/kustomization.yaml")
    }
    outputs = set(
        re.findall(
            r'^output "(\w+)"',
            (ROOT / "cluster" / "terraform" / "outputs.tf").read_text(encoding="utf-8"),
            re.MULTILINE,
        )
    )
    make = (ROOT / "Makefile").read_text(encoding="utf-8").replace("$(VENV)", ".venv")
    named = {
        target
        for job in document["jobs"].values()
        for target in job.get("strategy", {}).get("matrix", {}).get("target", [])
    }
    for loop in re.findall(r"for target in ([\w ]+);", text):
        named |= set(loop.split())
    yield from (f"image {one}: no such target in the Dockerfile" for one in sorted(named - targets))
    inputs = (document[True].get("workflow_dispatch") or {}).get("inputs", {})
    chosen = set(inputs.get("overlay", {}).get("options", [])) | set(
        re.findall(r"--overlay ([a-z]\S*)", text)
    )
    yield from (f"overlay {one}: there is none" for one in sorted(chosen - overlays))
    for one in sorted(set(re.findall(r"\bvars\.(\w+)", text))):
        if VARIABLES.get(one) not in outputs:
            yield f"variable {one}: no output of Terraform gives it"
    yield from (
        f"secret {one}: not written down"
        for one in sorted(set(re.findall(r"\bsecrets\.(\w+)", text)) - SECRETS)
    )
    for target in re.findall(r"^\s*(?:- )?(?:run: )?make (\S+)", text, re.MULTILINE):
        if not re.search(rf"^(?:[\w.-]+ )*{re.escape(target)}(?: [\w.-]+)*:", make, re.MULTILINE):
            yield f"make {target}: no such target"
    for path in re.findall(r"\bbash (\.?\w[\w./-]*)", text):
        if not (ROOT / path).is_file():
            yield f"{path}: not there"
    for module, rest in re.findall(r"-m ((?:cluster|ray_jobs|serve)[\w.]*)((?:\\\n|[^\n|&;])*)", text):
        source = module_file(module)
        if source is None:
            yield f"{module}: no such module"
            continue
        words = re.findall(r"(?:^|\s)(--[\w-]+)", rest.replace("\\\n", " "))
        known = source.read_text(encoding="utf-8")
        known += 'registry" "model" "host" "port' if module == "serve.standalone" else ""
        yield from (
            f"{module}: no flag {flag}"
            for flag in words
            if f'"{flag}"' not in known and f'"{flag[2:]}"' not in known
        )


@pytest.mark.parametrize("name", NAMES)
def test_a_workflow_has_no_fault(name: str) -> None:
    assert faults(name, text_of(name)) == []


def test_every_workflow_is_looked_at() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.y*ml")) == NAMES


CHECKOUT = "actions/checkout@11bd71901bbe5b1630ceea73d27597364c9af683 # v4.2.2"
BROKEN = {
    "a tag instead of a commit": ("ci", CHECKOUT, "actions/checkout@v4", "not pinned"),
    "a commit without its version": ("ci", " # v4.2.2", "", "without its version"),
    "a token left behind": (
        "ci",
        "persist-credentials: false",
        "persist-credentials: true",
        "leaves its token",
    ),
    "more than reading": ("ci", "contents: read", "contents: write", "more than reading"),
    "a grant that nobody wrote down": (
        "images",
        "id-token: write",
        "packages: write\n      id-token: write",
        "permissions",
    ),
    "any branch publishes": ("images", "github.ref == 'refs/heads/main' && ", "", "other branches"),
    "an expression in a shell line": (
        "images",
        "docker pull --quiet",
        "echo ${{ github.actor }}; docker pull",
        "expression in a shell",
    ),
    "no time bound": ("deploy", "timeout-minutes: 55", "continue-on-error: false", "no time bound"),
    "no concurrency": ("kind-e2e", "  group: ", "  grup: ", "no concurrency"),
    "a publishing run is cut off": (
        "images",
        "cancel-in-progress: false",
        "cancel-in-progress: true",
        "cut off",
    ),
    "an image that is none": ("ci", "[train, serve,", "[train, serv,", "image serv"),
    "an image in a loop that is none": (
        "kind-e2e",
        "for target in train serve;",
        "for target in trian serve;",
        "image trian",
    ),
    "an overlay that is none": ("deploy", "[gke, gke-gpu]", "[gke, gke-tpu]", "overlay gke-tpu"),
    "an overlay in a command that is none": ("kind-e2e", "--overlay kind ", "--overlay knd ", "overlay knd"),
    "a variable that is none": ("deploy", "vars.CLUSTER_NAME", "vars.CLUSTER", "variable CLUSTER"),
    "a secret that is none": (
        "staged-model",
        "secrets.WANDB_API_KEY",
        "secrets.WANDB_KEY",
        "secret WANDB_KEY",
    ),
    "a make target that is none": ("ci", "run: make demo", "run: make dmo", "make dmo"),
    "a module that is none": ("deploy", "-m cluster.smoke", "-m cluster.smok", "cluster.smok"),
    "a flag that is none": ("staged-model", "--comment artifacts", "--coment artifacts", "no flag --coment"),
    "a script that is none": ("ci", "bash .ci/run", "bash .ci/rnu", ".ci/rnu"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_workflow_is_seen(case: str) -> None:
    name, old, new, told = BROKEN[case]
    text = text_of(name)
    assert old in text
    assert any(told in line for line in faults(name, text.replace(old, new)))


def schema(path: Path) -> subprocess.CompletedProcess[str]:
    """GitHub's own schema, as the package vendors it: no network."""
    command = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.github-workflows",
        str(path),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", NAMES)
def test_a_workflow_fits_githubs_schema(name: str, tmp_path: Path) -> None:
    done = schema(FOLDER / f"{name}.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_workflow_that_does_not_fit_is_seen(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text(text_of("ci").replace("runs-on:", "run-on:"), encoding="utf-8")
    done = schema(broken)
    assert done.returncode == 1
    assert "runs-on" in done.stdout + done.stderr


def zizmor(*words: str) -> subprocess.CompletedProcess[str]:
    command = [
        str(Path(sys.executable).parent / "zizmor"),
        "--offline",
        "--quiet",
        "--persona=pedantic",
        *words,
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_zizmor_has_nothing_to_say_and_would(tmp_path: Path) -> None:
    done = zizmor(str(FOLDER))
    assert done.returncode == 0, done.stdout
    broken = tmp_path / ".github" / "workflows" / "broken.yaml"
    broken.parent.mkdir(parents=True)
    broken.write_text(
        text_of("ci").replace("run: make demo", "run: echo ${{ github.head_ref }}"), encoding="utf-8"
    )
    assert "template-injection" in zizmor(str(broken)).stdout


def test_every_shell_line_parses(tmp_path: Path) -> None:
    def parses(line: str) -> bool:
        return (
            subprocess.run(["bash", "-n"], input=line, capture_output=True, text=True, check=False).returncode
            == 0
        )

    lines = [
        step["run"]
        for name in NAMES
        for job in yaml.safe_load(text_of(name))["jobs"].values()
        for step in job["steps"]
        if "run" in step
    ]
    assert len(lines) > 20
    assert [line for line in lines if not parses(line)] == []
    assert not parses("if true; then echo")


def upstream(name: str) -> str:
    """The image where its builder publishes it: a mirror's name is taken back, and Docker Hub is written out."""
    for mirror, host in agreement.mirrors().items():
        name = re.sub(rf"^REGION-docker\.pkg\.dev/PROJECT/{mirror}/", f"{host}/", name)
    return name if name.split("/")[0].count(".") else f"docker.io/{name}"


def operators() -> set[str]:
    """The images of the charts that Terraform installs. Their tag is the chart's version with a v before it."""
    text = (ROOT / "cluster" / "terraform" / "operator.tf").read_text(encoding="utf-8")
    found = set()
    for body in re.split(r'^resource "helm_release" ', text, flags=re.MULTILINE)[1:]:
        (version,) = re.findall(r'version\s+= "([\d.]+)"', body)
        (path,) = re.findall(r'repository = "\$\{local\.mirror_prefix\}/([^"]+)"', body)
        found.add(upstream(f"REGION-docker.pkg.dev/PROJECT/{path}:v{version}"))
    return found


def third_parties() -> set[str]:
    """The images that others build, of every manifest, of the charts and of compose.yaml, with their registry."""
    names = operators()
    for overlay in manifests.overlays():
        for document in manifests.build(manifests.OVERLAYS / overlay):
            names |= {container["image"] for _, container in rules.containers(document)}
    services = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]
    names |= {service["image"] for service in services.values() if "image" in service}
    return {upstream(name) for name in names if "clickbait-" not in name}


def test_every_image_of_third_parties_is_scanned() -> None:
    job = yaml.safe_load(text_of("images"))["jobs"]["third-parties"]
    assert set(job["strategy"]["matrix"]["image"]) == third_parties()


def test_images_are_scanned_again_when_nobody_pushes() -> None:
    """A hole becomes known after the image was built."""
    assert yaml.safe_load(text_of("images"))[True]["schedule"]


def script(name: str, job: str, step: str) -> str:
    """The shell lines of a workflow's step."""
    (run,) = [
        one["run"] for one in yaml.safe_load(text_of(name))["jobs"][job]["steps"] if one.get("name") == step
    ]
    return str(run)


def run_with_docker(folder: Path, lines: str, docker: str, **variables: str) -> tuple[int, str]:
    """Runs shell lines as GitHub does, with `docker` as the program of that name; returns the code and GITHUB_OUTPUT."""
    tools, output = folder / "tools", folder / "output"
    tools.mkdir()
    output.touch()
    (tools / "docker").write_text(f"#!/bin/sh\n{docker}\n")
    (tools / "docker").chmod(0o755)
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    environment = {"PATH": path, "GITHUB_OUTPUT": str(output), **variables}
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", lines]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, output.read_text()


DIGEST = f"sha256:{'0123456789abcdef' * 4}"


def test_the_bases_digest_is_asked_for_once_and_has_to_be_one(tmp_path: Path) -> None:
    lines = script("images", "base", "The digest that the base's tag has now")
    base = build_with_buildah.base_image((ROOT / "Dockerfile").read_text(encoding="utf-8"))
    answer = f'[ "$4" = "{base}" ] && echo \'{{"digest": "{DIGEST}"}}\''
    (tmp_path / "a").mkdir()
    assert run_with_docker(tmp_path / "a", lines, answer) == (0, f"name={base}\ndigest={DIGEST}\n")
    for name, wrong in {"b": "echo '{}'", "c": "exit 1", "d": 'echo \'{"digest": "latest"}\''}.items():
        (tmp_path / name).mkdir()
        code, output = run_with_docker(tmp_path / name, lines, wrong)
        assert code != 0
        assert output == ""


def test_every_image_is_built_on_that_digest_and_says_so(tmp_path: Path) -> None:
    job = yaml.safe_load(text_of("images"))["jobs"]["push"]
    assert job["needs"] == "base"
    assert job["env"]["BASE"] == "${{ needs.base.outputs.name }}"
    assert job["env"]["DIGEST"] == "${{ needs.base.outputs.digest }}"
    lines = script("images", "push", "Push, unless the commit's is there already (tags never change)")
    log = tmp_path / "log"
    docker = f'[ "$2" != imagetools ] || exit 1; printf "%s\\n" "$@" > {log}'
    values = {
        "IMAGE": "i",
        "TARGET": "serve",
        "COMMIT": "c",
        "BASE": "python:3.11.14-slim-bookworm",
        "DIGEST": DIGEST,
    }
    assert run_with_docker(tmp_path, lines, docker, **values)[0] == 0
    words = log.read_text().splitlines()
    pairs = set(itertools.pairwise(words))
    context = f"{values['BASE']}=docker-image://docker.io/library/{values['BASE']}@{DIGEST}"
    assert ("--build-context", context) in pairs
    assert ("--label", f"org.opencontainers.image.base.digest={DIGEST}") in pairs
    assert ("--build-arg", "GIT_COMMIT=c") in pairs
    assert "--provenance=mode=max" in words


def test_redis_is_past_the_fix_of_its_known_remote_execution() -> None:
    """CVE-2025-49844: 7.4.6 is the first of its line without it."""
    (version,) = [
        re.search(r"/redis:(\d+)\.(\d+)\.(\d+)", name) for name in third_parties() if "/redis:" in name
    ]
    assert version
    assert tuple(int(part) for part in version.groups()) >= (7, 4, 6)


def test_whatever_is_pinned_is_offered_newer_versions() -> None:
    updates = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text(encoding="utf-8"))["updates"]
    watched = {(one["package-ecosystem"], one["directory"]) for one in updates}
    assert {
        ("github-actions", "/"), ("pip", "/"), ("docker", "/"), ("docker", "/cluster/kuberay/base"), ("docker-compose", "/"),
        ("terraform", "/cluster/terraform"), ("npm", "/tests/clients"),
    } <= watched  # fmt: skip
    for _, folder in watched:
        assert (ROOT / folder.lstrip("/")).is_dir()
