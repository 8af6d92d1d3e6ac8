"""cluster/terraform parses, is formatted, is valid for its providers, makes what its own tests say, and
agrees with the manifests.

`terraform validate` and `terraform test` are the real ones, on the providers' real schemas
(tests/cluster/schema_provider.py); no cloud.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hcl2
import pytest
import yaml

from cluster.kuberay import agreement, generate
from cluster.places import Place, l4_zones
from tests.cluster.provider_schema import used
from tests.cluster.schema_provider import SCHEMAS, served
from tests.conftest import ROOT

FOLDER = ROOT / "cluster" / "terraform"
KUBERAY = ROOT / "cluster" / "kuberay"
FILES = sorted(FOLDER.glob("*.tf"))
Run = Callable[..., subprocess.CompletedProcess[str]]


def plain(node: Any) -> Any:
    """What python-hcl2 read, without the quotes that it keeps and the notes that it adds."""
    if isinstance(node, dict):
        return {plain(key): plain(value) for key, value in node.items() if not key.startswith("__")}
    if isinstance(node, list):
        return [plain(value) for value in node]
    return node[1:-1] if isinstance(node, str) and len(node) > 1 and node[0] == node[-1] == '"' else node


def blocks(kind: str) -> dict[str, dict[str, Any]]:
    """Every block of a kind, by its labels: `type.name` for a resource."""
    found = {}
    for path in FILES:
        with path.open(encoding="utf-8") as file:
            for one in plain(hcl2.load(file)).get(kind, []):
                label, body = next(iter(one.items()))
                if kind in ("resource", "data"):
                    name, body = next(iter(body.items()))
                    label = f"{label}.{name}"
                found[label] = body
    return found


def documents(*parts: str) -> list[dict[str, Any]]:
    """The YAML documents of a file below cluster/kuberay."""
    return list(yaml.safe_load_all(KUBERAY.joinpath(*parts).read_text(encoding="utf-8")))


@pytest.fixture(scope="session")
def terraform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Runs terraform with the stand-in's schemas in the folder that it is given."""
    if shutil.which("terraform") is None:
        pytest.skip(
            "terraform is not on PATH (1.9 or newer, no package of PyPI, Debian or npm): fmt, validate and "
            "test were not run"
        )
    home = tmp_path_factory.mktemp("terraform")
    (home / "rc").touch()
    # A socket's path may have 107 characters, and pytest's folders can be longer.
    sockets = Path("/tmp") / f"clickbait-tf-{os.getpid()}"
    sockets.mkdir(mode=0o700)
    variables = {key: value for key, value in os.environ.items() if not key.startswith("TF_")}
    variables |= {"TF_CLI_CONFIG_FILE": str(home / "rc"), "CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1"}
    with served(sockets) as attached:

        def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
            command = ["terraform", *words, "-no-color"]
            return subprocess.run(
                command,
                cwd=folder,
                env=variables | attached,
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )

        yield run
    shutil.rmtree(sockets)


@pytest.fixture(scope="session")
def initialised(tmp_path_factory: pytest.TempPathFactory, terraform: Run) -> Path:
    """A copy of cluster/terraform after `terraform init`: that writes a folder, and none is wanted in the
    checkout.
    """
    home = tmp_path_factory.mktemp("cluster")
    ignored = shutil.ignore_patterns(".terraform*", "*.tfstate*", "*.tfplan", "terraform.tfvars")
    folder = shutil.copytree(FOLDER, home / "terraform", ignore=ignored)
    shutil.copy(FOLDER.parent / "l4_zones.json", home)
    (home / "kuberay").mkdir()
    shutil.copy(KUBERAY / "operator-values.yaml", home / "kuberay")
    (home / "monitoring").mkdir()
    for path in generate.RULES:
        shutil.copy(path, home / "monitoring")
    done = terraform(folder, "init", "-backend=false", "-input=false")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def copy(tmp_path: Path, initialised: Path) -> Path:
    """A copy of that, for a test to break."""
    return shutil.copytree(initialised.parent, tmp_path / "cluster") / "terraform"


def test_it_is_formatted(initialised: Path, terraform: Run) -> None:
    done = terraform(initialised, "fmt", "-check", "-recursive", "-diff")
    assert done.returncode == 0, done.stdout


def test_it_is_valid_for_its_providers(initialised: Path, terraform: Run) -> None:
    done = terraform(initialised, "validate")
    assert done.returncode == 0, done.stderr


def test_its_own_tests_pass(initialised: Path, terraform: Run) -> None:
    done = terraform(initialised, "test")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"Success! \d+ passed, 0 failed", done.stdout)


@pytest.mark.parametrize(
    ("name", "there", "instead", "said"),
    [
        ("cluster.tf", "enable_private_nodes = true", "enable_private_node = true", "Unsupported argument"),
        ("cluster.tf", 'channel = "CHANNEL_STANDARD"', "", 'The argument "channel" is required'),
        ("nodes.tf", "workload_metadata_config {", "workload_metadata {", "Unsupported block type"),
        (
            "nodes.tf",
            "google_service_account.nodes.email",
            "google_service_account.node.email",
            "Reference to undeclared resource",
        ),
        (
            "iam.tf",
            "google_service_account.vertex.member",
            "google_service_account.vertex.members",
            "Unsupported attribute",
        ),
        (
            "storage.tf",
            "days_since_noncurrent_time = 30",
            'days_since_noncurrent_time = "month"',
            "Incorrect attribute value type",
        ),
        ("operator.tf", 'chart            = "kuberay-operator"', "", 'The argument "chart" is required'),
        (
            "outputs.tf",
            "value       = var.region",
            "value = var.regio",
            "Reference to undeclared input variable",
        ),
    ],
)
def test_what_is_not_valid_is_refused(
    copy: Path, terraform: Run, name: str, there: str, instead: str, said: str
) -> None:
    text = (copy / name).read_text(encoding="utf-8")
    assert there in text
    (copy / name).write_text(text.replace(there, instead, 1), encoding="utf-8")
    done = terraform(copy, "validate")
    assert done.returncode == 1
    assert said in done.stderr


@pytest.mark.parametrize(
    ("name", "there", "instead"),
    [
        ("iam.tf", "sa/clickbait-serve", "sa/default"),
        ("github.tf", "assertion.repository_id == '${var.github_repository_id}' && ", ""),
        (
            "nodes.tf",
            "disk_gb = 100, min = 0, max = var.gpu_max_nodes, spot = true, gpu = true }",
            "disk_gb = 100, min = 1, max = 2, spot = true, gpu = true }",
        ),
        ("variables.tf", "contains(keys(jsondecode(file", "!contains(keys(jsondecode(file"),
        ("alerts.tf", 'for file in ["rules.yaml", "rules-kubernetes.yaml"]', 'for file in ["rules.yaml"]'),
        ("iam.tf", "= google_artifact_registry_repository.mirror", "= {}"),
        ("operator.tf", "/quay/kuberay/operator", "/kuberay/operator"),
        ("storage.tf", '"https://quay.io"', '"https://quay.example"'),
        ("alerts.tf", "channels = [google_monitoring_notification_channel.email.name]", "channels = []"),
        ("alerts.tf", "seconds = { s = 1, m = 60, h = 3600 }", "seconds = { s = 1, m = 1, h = 3600 }"),
    ],
)
def test_its_own_tests_see_a_change_of_meaning(
    copy: Path, terraform: Run, name: str, there: str, instead: str
) -> None:
    text = (copy / name).read_text(encoding="utf-8")
    assert there in text
    (copy / name).write_text(text.replace(there, instead, 1), encoding="utf-8")
    assert terraform(copy, "test").returncode == 1


def test_what_is_not_formatted_is_seen(copy: Path, terraform: Run) -> None:
    (copy / "outputs.tf").write_text('output "one" {\n   value = 1\n}\n', encoding="utf-8")
    assert terraform(copy, "fmt", "-check").returncode != 0


def test_the_schemas_are_of_the_pinned_versions_and_of_all_that_is_used() -> None:
    schema = json.loads(SCHEMAS.read_text(encoding="utf-8"))
    text = (FOLDER / "versions.tf").read_text(encoding="utf-8")
    assert (
        dict(re.findall(r'source\s+= "hashicorp/(\w+)"[^}]*?version\s+= "([^"]+)"', text))
        == schema["versions"]
    )
    assert {name: sorted(kinds) for name, kinds in schema["schemas"].items()} == used()


def test_every_variable_and_output_is_explained_and_every_free_value_is_checked() -> None:
    variables, outputs = blocks("variable"), blocks("output")
    assert all(body.get("description") for body in [*variables.values(), *outputs.values()])
    assert [name for name, body in variables.items() if "validation" not in body] == [
        "deletion_protection",
        "keep_buckets",
    ]  # yes or no


def test_the_example_sets_what_has_no_default() -> None:
    with (FOLDER / "terraform.tfvars.example").open(encoding="utf-8") as file:
        given = plain(hcl2.load(file))
    variables = blocks("variable")
    assert (
        {name for name, body in variables.items() if "default" not in body}
        <= given.keys()
        <= variables.keys()
    )


def test_no_key_and_no_wide_role_is_given() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in FILES)
    assert "google_service_account_key" not in text
    assert not re.findall(r"roles/(?:owner|editor|\w+\.admin)\b", text)
    assert not re.findall(r"allUsers|allAuthenticatedUsers", text)


def test_the_pods_accounts_are_the_manifests() -> None:
    accounts = {one["metadata"]["name"] for one in documents("base", "serviceaccounts.yaml")}
    text = (FOLDER / "iam.tf").read_text(encoding="utf-8")
    assert set(re.findall(r"/sa/([\w-]+)\"", text)) == accounts


def test_the_namespaces_are_the_manifests() -> None:
    (namespace,) = documents("base", "namespace.yaml")
    assert blocks("variable")["namespace"]["default"] == namespace["metadata"]["name"]
    operator = blocks("resource")["helm_release.kuberay"]["namespace"]
    policies = yaml.safe_dump_all(documents("base", "networkpolicies.yaml"))
    assert f"kubernetes.io/metadata.name: {operator}\n" in policies


def test_the_operator_is_the_one_whose_crds_the_manifests_are_held_against() -> None:
    """But for the last number, which changes no field: the CRDs at hand are those of 1.7.0."""
    version = blocks("resource")["helm_release.kuberay"]["version"]
    workflow = (ROOT / ".github" / "workflows" / "kind-e2e.yaml").read_text(encoding="utf-8")
    assert f"kuberay-helm/ --version {version}\n" in workflow
    folder = os.environ.get("KUBERAY_CRDS_DIR")
    if folder:
        assert version.rpartition(".")[0] in Path(folder).name


def test_the_buckets_are_the_manifests_and_the_tasks() -> None:
    place = Place.of("my-project-123456", "europe-west4")
    text = (FOLDER / "storage.tf").read_text(encoding="utf-8")
    made = {
        f"gs://{name.replace('${var.project_id}', place.project)}"
        for name in re.findall(r'= "(\$\{var\.project_id\}-[\w-]+)"', text)
    }
    assert made == {place.data, place.models}
    settings = (
        (KUBERAY / "overlays" / "gke" / "settings.env")
        .read_text(encoding="utf-8")
        .replace("PROJECT", place.project)
    )
    named = set(re.findall(r"gs://[\w-]+", settings))
    assert named == made
    assert f"CLICKBAIT_REGISTRY={place.models}/registry\n" in settings


def test_the_image_repository_is_the_manifests_and_the_tasks() -> None:
    repository = blocks("resource")["google_artifact_registry_repository.clickbait"]["repository_id"]
    (images,) = documents("overlays", "gke", "images", "kustomization.yaml")
    ours = {
        one["newName"].rpartition("/")[0] for one in images["images"] if one["name"].startswith("clickbait-")
    }
    assert ours == {f"REGION-docker.pkg.dev/PROJECT/{repository}"}
    assert (
        Place.of("my-project-123456", "europe-west4")
        .image("clickbait-serve", "1")
        .startswith(f"europe-west4-docker.pkg.dev/my-project-123456/{repository}/")
    )


def test_third_parties_images_come_from_a_mirror_of_their_own_registry() -> None:
    """In the overlay and in the operators' charts: the path behind the mirror's name is the upstream's."""
    (images,) = documents("overlays", "gke", "images", "kustomization.yaml")
    renamed = {
        one["name"]: one["newName"] for one in images["images"] if not one["name"].startswith("clickbait-")
    }
    assert renamed
    for name, new in renamed.items():
        host, _, path = name.partition("/")
        prefix, mirror, rest = new.split("/", 3)[:2], new.split("/")[2], new.split("/", 3)[3]
        assert prefix == ["REGION-docker.pkg.dev", "PROJECT"]
        assert (agreement.mirrors()[mirror], rest) == (host, path)
    text = (FOLDER / "operator.tf").read_text(encoding="utf-8")
    charts = re.findall(r'repository = "\$\{local\.mirror_prefix\}/([\w-]+)/([\w/-]+)"', text)
    assert [(agreement.mirrors()[mirror], path) for mirror, path in charts] == [
        ("quay.io", "kuberay/operator"),
        ("registry.k8s.io", "kueue/kueue"),
    ]


def test_the_nodes_read_the_mirrors_and_nobody_writes_there() -> None:
    resources = blocks("resource")
    assert resources["google_artifact_registry_repository.mirror"]["mode"] == "REMOTE_REPOSITORY"
    grants = {
        name: (body["role"], body["member"])
        for name, body in resources.items()
        if name.startswith("google_artifact_registry_repository_iam_member.")
        and "google_artifact_registry_repository.mirror" in str(body.get("for_each"))
    }
    reader = ("roles/artifactregistry.reader", "${google_service_account.nodes.member}")
    assert grants == {"google_artifact_registry_repository_iam_member.mirror": reader}


def test_the_gateways_proxies_are_let_in_by_both_firewalls() -> None:
    subnet = blocks("resource")["google_compute_subnetwork.proxies"]["ip_cidr_range"]
    firewall = blocks("resource")["google_compute_firewall.gateway"]
    policies = [
        one
        for one in documents("overlays", "gke", "gateway.yaml")
        if one["metadata"]["name"] == "serve-from-gateway"
    ]
    (ingress,) = policies[0]["spec"]["ingress"]
    health = {source for source in firewall["source_ranges"] if "google_" not in source}
    assert {peer["ipBlock"]["cidr"] for peer in ingress["from"]} == {subnet, *health}
    assert {str(one["port"]) for one in ingress["ports"]} == set(firewall["allow"][0]["ports"])


def test_gpu_jobs_ask_for_the_machines_that_the_pool_has() -> None:
    text = (FOLDER / "nodes.tf").read_text(encoding="utf-8")
    (job,) = documents("overlays", "gke-gpu", "jobs", "common", "kustomization.yaml")
    patch = yaml.safe_load(job["patches"][0]["patch"])
    values = {one["path"].rpartition("/")[2]: one.get("value") for one in patch}
    assert values["nodeSelector"]["cloud.google.com/gke-accelerator"] in re.findall(
        r'\["([\w-]+)"\] : \[\]', text
    )
    (key, value, effect) = re.findall(r'key\s+= "(\S+)"\s+value\s+= "(\S+)"\s+effect = "(\w+)"', text)[0]
    taint = {"key": key, "operator": "Equal", "value": value, "effect": effect.title().replace("_", "")}
    assert taint in values["tolerations"]
    assert (
        int(values["resources"]["limits"]["cpu"]) < 8
    )  # of the g2-standard-8's; GKE and the agents take part of one


def test_the_zones_are_of_their_regions_and_name_their_source() -> None:
    zones = json.loads((FOLDER.parent / "l4_zones.json").read_text(encoding="utf-8"))
    assert zones["source"]
    assert all(zone[:-2] == region for region, some in zones["zones"].items() for zone in some)
    assert blocks("variable")["region"]["default"] in l4_zones()


def test_what_the_workflows_ask_of_terraform_is_an_output() -> None:
    workflows = [path.read_text(encoding="utf-8") for path in (ROOT / ".github" / "workflows").glob("*.yaml")]
    asked = {name for text in workflows for name in re.findall(r"terraform[^\n|]* output -raw (\w+)", text)}
    assert asked <= blocks("output").keys()
