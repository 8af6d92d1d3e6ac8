"""Score a lake: any number of headlines, in files of any size, to Parquet with the same columns and `score`,
`label` and `model`.

    python -m ray_jobs.score --config configs/score.yaml --source headlines.parquet --output gs://bucket/scores
    python -m ray_jobs.score --config configs/score.yaml --source "lake/**/*.csv" --output scores --bundle artifacts/bundle

The same command goes on where a killed run was. The layout of the output, quarantine and limits:
docs/scoring.md.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from clickbait import cli, storage
from clickbait.registry.registry import Registry
from clickbait.scoring import output
from clickbait.scoring.config import ScoreConfig
from clickbait.scoring.source import plan
from ray_jobs.scoring import Written, manifest, score_parts

log = logging.getLogger("score")
TELL_S = 5.0  # between two lines of progress


def score(config: ScoreConfig) -> dict[str, Any]:
    """Scores what is not scored yet, and returns the manifest of the whole output.

    Raises:
        DataError: a source that cannot be read, or an output that holds the scores of something else.
        BundleError, RegistryError: no whole model there.
    """
    if config.bundle is None:  # the alias may move while this runs
        config = config.model_copy(update={"model": Registry(config.registry).resolve(config.model)})
    model = manifest(config)
    source = plan(config)
    head = output.identify(config, source, model)
    if finished := output.begin(config.output, head):
        log.info("%s is whole already", config.output)
        return finished
    parts = dict(zip(output.names(head, source.parts), source.parts, strict=True))
    done = output.done(config.output, list(parts))
    log.info("%d parts, %d of them done already", len(parts), len(done))
    waiting = {name: part for name, part in parts.items() if name not in done}
    if waiting:
        progress = Progress(len(waiting))
        for written in score_parts(waiting, source.schema, config, head["model"]["sha256"]):
            done[written.name] = written.summary
            progress.tell(written)
    return output.seal(config.output, head, [done[name] for name in parts])


class Progress:
    """What a run tells about itself while it scores."""

    def __init__(self, parts: int) -> None:
        self._parts = parts
        self._done = self._rows = 0
        self._began, self._ended = (
            float("inf"),
            0.0,
        )  # of the work itself, without the start of Ray and of the actors
        self._told = 0.0

    def tell(self, written: Written) -> None:
        """Counts a part, and logs a line where the last was some seconds ago or this is the end."""
        self._done += 1
        self._rows += written.summary["in"]
        self._began, self._ended = min(self._began, written.began), max(self._ended, written.ended)
        if time.monotonic() - self._told >= TELL_S or self._done == self._parts:
            self._told = time.monotonic()
            seconds = max(self._ended - self._began, 1e-3)
            left = seconds / self._done * (self._parts - self._done)
            log.info(
                "%d of %d parts, %d rows in %.2f s: %.0f a second, %.0f s left",
                *(self._done, self._parts, self._rows, seconds, self._rows / seconds, left),
            )


def main(config: ScoreConfig) -> None:
    """Score, and print the counts."""
    counts = score(config)["counts"]
    for name in ("in", "scored", "clickbait", "quarantined"):
        print(f"{name:>12} {counts[name]:>14,}")
    for reason, rows in counts["reasons"].items():
        print(f"{'':>12} {rows:>14,} {reason}")
    print(f"scores: {storage.join(config.output, output.SCORES)}")
    if counts["quarantined"] > counts["in"] / 2:
        log.warning(
            "most rows could not be scored: look at %s, and at --headline-column",
            storage.join(config.output, output.QUARANTINE),
        )


if __name__ == "__main__":
    cli.run(ScoreConfig, main, __doc__)
