"""The configuration of `ray_jobs.score`."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from clickbait.config import Config, Uri
from clickbait.text import MAX_CHARACTERS


class ScoreConfig(Config):
    """Headlines in, the same rows with scores out: `ray_jobs.score`."""

    source: str = "artifacts/headlines.parquet"
    """Path or URI of a file, a folder or a glob: csv, tsv, jsonl, txt (a headline a line), each plain or .gz,
    or parquet.
    """
    headline_column: str = Field("headline", min_length=1)
    """The column with the headline; what a txt file's only column is called."""
    output: Uri = "artifacts/scores"
    """The folder that the scores are written to. The same command resumes there; anything else wants a folder
    of its own.
    """
    bundle: Uri | None = None
    """A bundle's folder; None: the registry's `model`."""
    registry: Uri = "artifacts/registry"
    """Where versions and aliases are kept."""
    model: str = Field("production", min_length=1, max_length=64)
    """An alias (`production`), a version (`v3`) or `latest`."""
    prefix: str = Field("", max_length=64)
    """Goes before the names of the new columns: score, label, model."""
    max_characters: int = Field(MAX_CHARACTERS, ge=1, le=100_000)
    """A longer headline, counted after cleaning, goes to quarantine."""
    part_rows: int = Field(32_768, ge=1, le=10_000_000)
    """Rows a part: what a run that was killed computes again at most, a worker. A second of the fastest
    model, a minute of a MiniLM.
    """
    num_workers: int = Field(0, ge=0, le=10_000)
    """Ray Data actors that score; 0: as many as the cluster has cores for. Changes the speed, never a byte of
    the output.
    """
    threads: int = Field(1, ge=1, le=256)
    """Compute threads, and CPUs, of each actor."""

    @model_validator(mode="after")
    def _new_columns(self) -> Self:
        if self.headline_column in self.columns:
            raise ValueError(
                f'prefix: the new column "{self.headline_column}" would be the headline\'s; give another '
                f"prefix"
            )
        return self

    @property
    def columns(self) -> tuple[str, str, str]:
        """The names of the new columns: score, label, model."""
        score, label, model = (f"{self.prefix}{name}" for name in ("score", "label", "model"))
        return score, label, model
