"""How far a headline's score moves when it is computed in a batch: nothing to speak of in fp32, more in int8,
whose ranges are the batch's.

    python -m tests.performance.bench_alike artifacts/bench/models/bundles/minilm artifacts/bench/models/bundles/student

Each of 512 generated headlines is scored alone and in batches of 32, by each runtime of each bundle. Prints a
markdown table.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from clickbait.inference.scorer import Scorer
from clickbait.sample import generate

HEADLINES, BATCH = 512, 32


def main() -> None:
    """Prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundles", type=Path, nargs="+")
    texts = [text for text, _ in generate(HEADLINES, seed=11)]
    print(
        "| bundle | runtime | largest difference | 99th percentile | verdicts that change |\n| --- | --- | "
        "---: | ---: | ---: |"
    )
    for folder in parser.parse_args().bundles:
        for runtime in Scorer(folder).manifest.runtimes:
            scorer = Scorer(folder, runtime=runtime, verified=True)
            alone = np.array([scorer.score([text])[0] for text in texts])
            together = np.concatenate(
                [scorer.score(texts[at : at + BATCH]) for at in range(0, HEADLINES, BATCH)]
            )
            off = np.abs(alone - together)
            changed = sum(
                scorer.label(float(a)) != scorer.label(float(b)) for a, b in zip(alone, together, strict=True)
            )
            print(
                f"| {folder.name} | {runtime} | {off.max():.2g} | {np.quantile(off, 0.99):.2g} | {changed} "
                f"of {HEADLINES} |"
            )


if __name__ == "__main__":
    main()
