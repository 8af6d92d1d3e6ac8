"""The gcloud command that trains on Vertex AI, printed, and run with --submit.

    python -m cluster.vertex.job --project my-project-123456 --region europe-west4 --tag 4f2a91c --dataset gs://my-project-123456-clickbait-data/datasets/latest
    python -m cluster.vertex.job ... --gpu --submit

The CustomJobSpec (`cpu.yaml`, `gpu.yaml`) is filled in and written to artifacts/vertex/<name>.yaml, which the
command names. `inv vertex-train` is the same behind the checks of `cluster.cloud`.
"""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
from pathlib import Path

import yaml

from clickbait import cli
from clickbait.errors import ConfigError
from cluster.places import Place

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]


def spec(place: Place, tag: str, dataset: str, name: str, *, gpu: bool) -> str:
    """The CustomJobSpec as YAML, with every word filled in.

    Raises:
        ConfigError: no tag, a dataset that is not in a bucket, or a name that is none.
    """
    if not dataset.startswith("gs://"):
        raise ConfigError(
            f"--dataset {dataset or '(none)'}: Vertex AI reads from a bucket: {place.data}/datasets/latest"
        )
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", name):
        raise ConfigError(
            f"--name {name or '(none)'}: letters, digits, hyphens; the same name resumes a run that was cut "
            f"off"
        )
    words = {
        "IMAGE": place.image("clickbait-train", tag),
        "DATASET": dataset,
        "OUTPUT": f"{place.models}/runs",
        "NAME": name,
        "SERVICE_ACCOUNT": place.account("clickbait-vertex"),
    }
    document = yaml.safe_load((FOLDER / ("gpu.yaml" if gpu else "cpu.yaml")).read_text(encoding="utf-8"))
    return yaml.safe_dump(place.fill(document, words), sort_keys=False)


def write(name: str, text: str) -> Path:
    """The spec in the file that the command names."""
    path = ROOT / "artifacts" / "vertex" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def command(place: Place, name: str, path: Path) -> list[str]:
    """What creates the job. There is no --args: it would replace the arguments of the spec."""
    where = [f"--project={place.project}", f"--region={place.region}"]
    return [
        "gcloud",
        "ai",
        "custom-jobs",
        "create",
        *where,
        f"--display-name={name}",
        f"--config={path.relative_to(ROOT)}",
    ]


def main(args: list[str] | None = None) -> int:
    """Writes the spec, prints the command and with --submit runs it; the exit code is
    `clickbait.cli.Code`.
    """
    return cli.exit_code(lambda: _run(args))


def _run(args: list[str] | None) -> None:
    parser = cli.Parser(prog="python -m cluster.vertex.job", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--project", required=True, help="project id")
    parser.add_argument("--region", default="europe-west4")
    parser.add_argument("--tag", required=True, help="tag of clickbait-train in Artifact Registry")
    parser.add_argument("--dataset", required=True, help="gs://.../datasets/latest")
    parser.add_argument("--name", default="clickbait", help="of the run; the same one resumes")
    parser.add_argument("--gpu", action="store_true", help="one L4 of a spot machine")
    parser.add_argument("--submit", action="store_true", help="run the command too")
    given = parser.parse_args(args)
    place = Place.of(given.project, given.region, gpu=given.gpu)
    text = spec(place, given.tag, given.dataset, given.name, gpu=given.gpu)
    line = command(place, given.name, write(given.name, text))
    print(shlex.join(line), flush=True)
    if given.submit and (code := subprocess.run(line, cwd=ROOT, check=False).returncode):
        raise ConfigError(f"gcloud ended with {code}: what it says is above")


if __name__ == "__main__":
    sys.exit(main())
