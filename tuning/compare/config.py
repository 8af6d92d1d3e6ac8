"""The settings of `tuning.compare` (`configs/compare.yaml`)."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from clickbait.config import Config, TransferConfig, Uri
from tuning.compare import references


class Entry(Config):
    """A bundle to compare."""

    name: str = Field(max_length=80, pattern=r"^\P{C}+$")
    """The model's name in the table: unique, without control characters."""
    bundle: Uri
    """The bundle's folder."""
    dataset: Uri | None = None
    """The bundle's dataset, if it is not the comparison's: same source, other tokenizer."""
    seconds: float | None = Field(None, ge=0.0)
    """Seconds of training; None: the sum over the epochs in its metrics.json."""


class CompareConfig(TransferConfig):
    """The settings of `tuning.compare`: the bundles and what they are measured on."""

    models: tuple[Entry, ...] = (Entry(name="candidate", bundle="artifacts/bundle"),)
    """The bundles, in the order of the table."""
    dataset: Uri = "artifacts/datasets/latest"
    """Its training split trains the references. Its test split measures every model."""
    references: bool = True
    """Train the two TF-IDF references too."""
    behaviour_file: str = "configs/behaviour.yaml"
    """YAML with the behavioural cases (`clickbait.evaluation.behaviour`)."""
    gate_file: str = "configs/gate.yaml"
    """YAML with the bounds (`GateConfig`)."""
    threads: int = Field(1, ge=1, le=256)
    """Compute threads of a bundle's scorer. The references use one thread."""
    output: Uri = "artifacts/compare"
    """Folder for compare.json, compare.md and index.html."""

    @model_validator(mode="after")
    def _names(self) -> Self:
        names = [entry.name for entry in self.models] + (list(references.NAMES) if self.references else [])
        if not names:
            raise ValueError("nothing to compare: name a bundle in models, or leave references on")
        if duplicate := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f'models: two are named "{duplicate}": give each another name')
        return self
