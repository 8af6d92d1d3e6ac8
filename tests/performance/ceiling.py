"""What the cores could do without a server: our engine in as many processes as there are replicas, batches of
32 headlines, nothing else.

python -m tests.performance.ceiling bundle headlines.txt 3 0      # a process: bundle, JSON strings by line, seconds, first line
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from tests.performance.results import ROOT

TEXTS = 32


def ceiling(bundle: Path, headlines: Path, *, processes: int, seconds: float, offset: int) -> float:
    """Headlines a second of `processes` processes at once, one compute thread each."""
    command = [sys.executable, "-m", "tests.performance.ceiling", str(bundle), str(headlines), str(seconds)]
    children = [
        subprocess.Popen(
            [*command, str(offset + 7919 * number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for number in range(processes)
    ]
    try:
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        for child in children:
            assert child.stdin is not None
            print("go", file=child.stdin, flush=True)
        return sum(float(child.communicate()[0]) for child in children)
    finally:
        for child in children:
            child.kill()
            child.wait()


def main() -> None:
    """Loads, says so, waits for a line, scores for so many seconds, prints headlines a second."""
    from clickbait.inference import graph_cache
    from clickbait.inference.scorer import Scorer

    bundle, headlines, seconds, offset = sys.argv[1:]
    texts = [json.loads(line) for line in Path(headlines).read_text(encoding="ascii").splitlines()]
    scorer = Scorer(
        Path(bundle), verified=True, shared=graph_cache.folder()
    )  # the engine of serve.core.engine
    scorer.score(texts[:TEXTS])
    print("ready", flush=True)
    sys.stdin.readline()
    begin, at, done = time.perf_counter(), int(offset), 0
    while time.perf_counter() - begin < float(seconds):
        at = at % (len(texts) - TEXTS)
        scorer.score(texts[at : at + TEXTS])
        at, done = at + TEXTS, done + TEXTS
    print(done / (time.perf_counter() - begin))


if __name__ == "__main__":
    main()
