"""Walks a page's commands in order, without running them, to the first one that lacks its precondition.

    python -m cluster.readme_check        # calls this for cluster/README.md

RULES says of each kind of command what it needs and what it gives. A command that no rule knows is a fault as
well: a new command needs a rule that says what it needs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

SECRETS = ("ray-auth", "clickbait-redis", "clickbait-api-keys")


@dataclass(frozen=True)
class Rule:
    """A kind of command. `{name}` in `needs` and `gives` is a group of the pattern."""

    pattern: str
    """A regular expression that the whole command matches from its start."""
    needs: tuple[str, ...] = ()
    """Facts that have to hold before."""
    gives: tuple[str, ...] = ()
    """Facts that hold after it."""


CLUSTER = ("kubeconfig",)
TOOLS, CLOUD = "the tools of make install", "a login with gcloud"
RULES = (
    Rule(r"make install$", (), (TOOLS,)),
    Rule(r"make demo$", (), ("file artifacts/demo/bundle", "file artifacts/demo/datasets/latest")),
    Rule(r"export "),
    Rule(r"(git|date|openssl|printf) "),
    Rule(r"gcloud auth login$", (), (CLOUD,)),
    Rule(r"gcloud auth application-default login$", (), ("a login of the libraries",)),
    Rule(r"gcloud config set project ", (CLOUD,), ("a project of gcloud's",)),
    Rule(r"gcloud auth (configure-docker|print-identity-token)\b", (CLOUD,), ("a login of Docker's",)),
    Rule(r"gcloud services enable ", (CLOUD, "a project of gcloud's"), ("the first services",)),
    Rule(
        r"gcloud storage buckets create (?P<bucket>\S+) ", (CLOUD, "the first services"), ("bucket {bucket}",)
    ),
    Rule(r"gcloud storage buckets update (?P<bucket>\S+) ", ("bucket {bucket}",)),
    Rule(
        r"gcloud storage cp (?P<file>\S+) (?P<uri>gs://[^/\s]+)/",
        (CLOUD, "Terraform's resources"),
        ("headlines in the bucket",),
    ),
    Rule(r"gcloud storage rm ", (CLOUD,)),
    Rule(r"gcloud container clusters get-credentials ", (CLOUD, "Terraform's resources"), CLUSTER),
    Rule(r"gcloud secrets versions add ", (CLOUD, "Terraform's resources"), ("the keys of Cloud Run",)),
    Rule(
        r"gcloud run services describe (?P<service>\S+) ",
        ("Cloud Run {service}",),
        ("the address of a server",),
    ),
    Rule(r"gcloud run services delete (?P<service>\S+) ", ("Cloud Run {service}",)),
    Rule(r"cp \S*terraform.tfvars.example ", (), ("terraform.tfvars",)),
    Rule(
        r"terraform \S+ init ",
        ("a login of the libraries", "bucket gs://$PROJECT-clickbait-tfstate"),
        ("Terraform's state",),
    ),
    Rule(
        r"terraform \S+ plan -out=(?P<plan>\S+)", ("Terraform's state", "terraform.tfvars"), ("plan {plan}",)
    ),
    Rule(r"terraform \S+ apply (?P<plan>[^\s-]\S*)$", ("plan {plan}",), ("Terraform's resources",)),
    Rule(r"terraform \S+ (apply|destroy|output) ", ("Terraform's resources",)),
    Rule(r"docker build .*--tag (?P<image>\S+) ", ("a login of Docker's",), ("image {image}",)),
    Rule(r"docker push (?P<image>\S+)", ("image {image}", "a login of Docker's"), ("pushed {image}",)),
    Rule(r"kubectl create namespace ", CLUSTER, ("the namespace",)),
    Rule(
        r"kubectl \S+ clickbait create secret generic (?P<name>\S+) ",
        (*CLUSTER, "the namespace"),
        ("secret {name}",),
    ),
    Rule(r"kubectl .*apply .*--filename -$", CLUSTER),
    Rule(
        r"kubectl apply .*--filename (?P<file>artifacts/gke.yaml)",
        (
            "file {file}",
            *CLUSTER,
            "pushed $IMAGES/clickbait-serve:$TAG",
            "a version in production",
            *(f"secret {name}" for name in SECRETS),
        ),
        ("the service",),
    ),
    Rule(
        r"kubectl apply .*--filename (?P<file>artifacts/preprocess.yaml)",
        (
            "file {file}",
            *CLUSTER,
            "the service",
            "pushed $IMAGES/clickbait-train:$TAG",
            "headlines in the bucket",
        ),
        ("applied {file}",),
    ),
    Rule(
        r"kubectl apply .*--filename (?P<file>artifacts/train.yaml)",
        (
            "file {file}",
            *CLUSTER,
            "the service",
            "pushed $IMAGES/clickbait-train:$TAG",
            "ended artifacts/preprocess.yaml",
        ),
        ("applied {file}",),
    ),
    Rule(
        r"kubectl apply .*--filename (?P<file>artifacts/retrain.yaml)",
        (
            "file {file}",
            *CLUSTER,
            "the service",
            "pushed $IMAGES/clickbait-train:$TAG",
            "headlines in the bucket",
        ),
    ),
    Rule(r"kubectl wait --filename (?P<file>\S+) ", ("applied {file}",), ("ended {file}",)),
    Rule(r"kubectl \S+ clickbait wait rayservice/", ("the service",), ("a ready service",)),
    Rule(r"kubectl \S+ clickbait get (services|rayservice|gateway)\b", ("a ready service",)),
    Rule(r"kubectl \S+ clickbait port-forward service/(?P<name>\S+) ", ("a ready service",), ("a tunnel",)),
    Rule(r"kubectl (\S+ clickbait )?delete ", ("the namespace",)),
    Rule(r"curl -s localhost:8000/", ("a tunnel",)),
    Rule(r"\.venv/bin/inv cloud-check ", (TOOLS, CLOUD)),
    Rule(r"\.venv/bin/inv cloud-bench ", (TOOLS, "the address of a server")),
    Rule(
        r"\.venv/bin/inv vertex-train ",
        (TOOLS, CLOUD, "pushed $IMAGES/clickbait-train:$TAG", "ended artifacts/preprocess.yaml"),
    ),
    Rule(r"\.venv/bin/inv deploy-cloudrun .*--dry-run", (TOOLS,)),
    Rule(
        r"\.venv/bin/inv deploy-cloudrun --service (?P<service>\S+) ",
        (
            TOOLS,
            CLOUD,
            "pushed $IMAGES/clickbait-standalone:$TAG",
            "a version in production",
            "the keys of Cloud Run",
        ),
        ("Cloud Run clickbait-{service}",),
    ),
    Rule(r"\.venv/bin/python -m cluster\.manifests --health-checks -", (TOOLS,)),
    Rule(
        r"\.venv/bin/python -m cluster\.manifests .*--live --output (?P<file>\S+)",
        (TOOLS, *CLUSTER, *(f"secret {name}" for name in SECRETS)),
        ("file {file}",),
    ),
    Rule(r"\.venv/bin/python -m cluster\.manifests .*--output (?P<file>\S+)", (TOOLS,), ("file {file}",)),
    Rule(
        r"\.venv/bin/python -m ray_jobs\.export .*--output (?P<file>\S+)",
        (TOOLS, "ended artifacts/train.yaml"),
        ("file {file}",),
    ),
    Rule(
        r"\.venv/bin/python -m ray_jobs\.evaluate --bundle (?P<file>\S+) ",
        (TOOLS, "file {file}"),
        ("evaluated {file}",),
    ),
    Rule(
        r"\.venv/bin/python -m ray_jobs\.promote --bundle (?P<file>artifacts/demo/bundle) ",
        (TOOLS, "file {file}", "a login of the libraries", "Terraform's resources"),
        ("a version in production",),
    ),
    Rule(
        r"\.venv/bin/python -m ray_jobs\.promote --bundle (?P<file>\S+) ",
        (TOOLS, "evaluated {file}"),
        ("a version in production",),
    ),
    Rule(r"\.venv/bin/(inv|python) ", (TOOLS,)),
)


def walk(commands: Sequence[Sequence[str]]) -> Iterator[str]:
    """At most one line: the first command without a rule, or without its precondition.

    Args:
        commands: the words of each, in the page's order.
    """
    facts: set[str] = set()
    for words in commands:
        line = " ".join(words)
        for rule in RULES:
            if match := re.match(rule.pattern, line):
                break
        else:
            yield f"{line[:80]}: cluster/readme_walk.py has no rule for it: say there what it needs and gives"
            return
        groups = match.groupdict()
        for need in (each.format(**groups) for each in rule.needs):
            if need not in facts:
                yield f"{line[:80]}: needs {need}, which no command before it gives"
                return
        facts |= {each.format(**groups) for each in rule.gives}
