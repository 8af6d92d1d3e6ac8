"""Where things are in a Google Cloud project: the names that Terraform, the manifests and the tasks share,
and what can be none of them.
"""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clickbait.config import did_you_mean
from clickbait.errors import ConfigError

ZONES_FILE = Path(__file__).parent / "l4_zones.json"
_PROJECT = re.compile(
    r"[a-z][a-z0-9-]{4,28}[a-z0-9]"
)  # Google's own rule; cluster/terraform/variables.tf has the same
_REGION = re.compile(r"[a-z]+-[a-z]+[0-9]+")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")  # an image's tag, as registries take it
_WORD = re.compile(r"\$([A-Z_]+)")


@functools.cache
def l4_zones() -> dict[str, list[str]]:
    """The zones that have L4 GPUs, by region; the file names its source."""
    zones: dict[str, list[str]] = json.loads(ZONES_FILE.read_text(encoding="utf-8"))["zones"]
    return zones


@dataclass(frozen=True, slots=True)
class Place:
    """A project and a region that can be."""

    project: str
    region: str

    @classmethod
    def of(cls, project: str, region: str, *, gpu: bool = False) -> Place:
        """Raises ConfigError for an id that no project can have, a region that none is, or, with `gpu`, one
        without L4.
        """
        if not project:
            raise ConfigError(
                "no project: set GOOGLE_CLOUD_PROJECT or --project to its id (gcloud projects list)"
            )
        if not _PROJECT.fullmatch(project):
            raise ConfigError(
                f"--project {project}: not a project id (its name or number?): gcloud projects list has it, "
                f"as PROJECT_ID"
            )
        if not region:
            raise ConfigError(
                "no region: set --region to the one of the cluster and the images, such as europe-west4"
            )
        if not _REGION.fullmatch(region):
            raise ConfigError(
                f"--region {region}: not a region, such as europe-west4 (europe-west4-a would be a zone)"
            )
        if gpu and region not in l4_zones():
            near = did_you_mean(region, list(l4_zones()))
            raise ConfigError(
                f"--region {region}: no L4 GPU there{near}; those that have: {', '.join(l4_zones())}"
            )
        return cls(project, region)

    @property
    def data(self) -> str:
        """Headlines, datasets, scores."""
        return f"gs://{self.project}-clickbait-data"

    @property
    def models(self) -> str:
        """Runs, bundles, the registry."""
        return f"gs://{self.project}-clickbait-models"

    def account(self, name: str) -> str:
        """The Google service account's address."""
        return f"{name}@{self.project}.iam.gserviceaccount.com"

    def image(self, name: str, tag: str) -> str:
        """The image in Artifact Registry.

        Raises:
            ConfigError: no tag, `latest` (what runs then is whatever was pushed last), or one that no
                registry takes.
        """
        if not tag:
            raise ConfigError(
                f"no image tag: set --tag to what {name} was pushed with (git rev-parse --short HEAD)"
            )
        if tag == "latest":
            raise ConfigError(
                "--tag latest: changes under what runs; set --tag to the commit (git rev-parse --short HEAD)"
            )
        if not _TAG.fullmatch(tag):
            raise ConfigError(
                f"--tag {tag}: not an image tag: letters, digits, dots, hyphens, underscores, 128 at most"
            )
        return f"{self.region}-docker.pkg.dev/{self.project}/clickbait/{name}:{tag}"

    def fill(self, document: Any, words: dict[str, str]) -> Any:
        """The document with each $WORD in its strings filled in; text that a word brings is never read as
        YAML.

        Raises:
            ConfigError: a word that is not known.
        """
        if isinstance(document, dict):
            return {key: self.fill(value, words) for key, value in document.items()}
        if isinstance(document, list):
            return [self.fill(value, words) for value in document]
        if isinstance(document, str):
            for word in _WORD.findall(document):
                if word not in words:
                    raise ConfigError(f"${word}: nothing fills it in{did_you_mean(word, list(words))}")
            return _WORD.sub(lambda found: words[found[1]], document)
        return document
