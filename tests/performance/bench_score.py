"""How much of the engine `ray_jobs.score` brings to a lake: a million headlines through the job, against bare
processes without Ray.

    make bench-score
    python -m tests.performance.bench_score --rows 100000 --rounds 1 --bundle artifacts/bench/models/bundles/ngrams-taught

The ceiling is the same Scorer in as many bare processes as the job has actors, which score the same headlines
(the first 200,000 are enough for a rate) from memory, as many a call, and neither read nor write a file.
Ceiling and job take turns, with a ceiling at both ends; the medians are compared. The job's time is that of
its streaming phase, from the first part's first row to the last part's last byte, on a Ray that is up:
starting one costs the two cores half a minute. A run of 200,000 that starts its own comes first and is told
apart. The memory of the driver and the actors is sampled each second. Writes artifacts/bench/score.json and
score.svg.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from clickbait import sample
from clickbait.inference import graph_cache
from clickbait.inference.scorer import Scorer
from clickbait.scoring.output import BATCH
from tests.performance import results
from tests.performance.ray_server import ray_head

BENCH = results.ROOT / "artifacts" / "bench"
BUNDLE = BENCH / "models" / "bundles" / "minilm"
WARM_ROWS = 20_000
CEILING_ROWS = 200_000  # a minute of MiniLM
HEAD_S = 10.0  # until a head is up and idle again
SAMPLE_S = 1.0  # between two looks at the memory
PAGE = os.sysconf("SC_PAGE_SIZE")


def source(rows: int, folder: Path) -> Path:
    """A Parquet file of generated headlines, written once: a million take minutes."""
    path = folder / f"headlines-{rows}.parquet"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        print(f"generating {rows:,} headlines, once")
        texts = [text for text, _ in sample.generate(rows)]
        table = pa.table({"id": pa.array(range(rows), pa.int64()), "headline": texts})
        pq.write_table(table, path.with_suffix(".part"))
        path.with_suffix(".part").rename(path)
    return path


def ceiling(bundle: Path, texts: list[str], processes: int) -> float:
    """Headlines a second of bare processes, each with an equal share of the texts in its memory."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(processes + 1)
    share = -(-len(texts) // processes)
    children = [
        context.Process(target=_child, args=(str(bundle), texts[at : at + share], barrier))
        for at in range(0, len(texts), share)
    ]
    for child in children:
        child.start()
    barrier.wait()
    began = time.perf_counter()
    for child in children:
        child.join()
    seconds = time.perf_counter() - began
    assert all(child.exitcode == 0 for child in children)
    return len(texts) / seconds


def _child(bundle: str, texts: list[str], barrier: Barrier) -> None:
    scorer = Scorer(Path(bundle), shared=graph_cache.folder())
    scorer.score(texts[:BATCH])  # warm
    barrier.wait()
    for at in range(0, len(texts), BATCH):
        scorer.score(texts[at : at + BATCH])
    sys.stdout.flush()
    os._exit(0)  # what an interpreter tidies up on its way out is no scoring


def job(bundle: Path, path: Path, processes: int, head: Head | None = None) -> dict[str, Any]:
    """One run of the job: headlines a second while it streams and in all, and the memory over its streaming
    phase.
    """
    with tempfile.TemporaryDirectory(prefix="bench-score-") as folder:
        command = [
            sys.executable,
            "-m",
            "ray_jobs.score",
            "--config",
            "configs/score.yaml",
            "--source",
            str(path),
            "--bundle",
            str(bundle),
        ]
        command += ["--output", f"{folder}/scores", "--num-workers", str(processes)]
        began = time.time()
        with (Path(folder) / "log").open("w") as log:
            environment = {**os.environ, **(head.environment if head else {})}
            process = subprocess.Popen(command, cwd=results.ROOT, stdout=log, stderr=log, env=environment)
            looks: list[tuple[float, int]] = []
            while process.poll() is None:
                looks.append((time.time(), memory(process.pid, head.pid if head else process.pid)))
                time.sleep(SAMPLE_S)
            total = time.time() - began
        told = Path(folder, "log").read_text(encoding="utf-8")
        assert process.returncode == 0, told[-3000:]
        counts = json.loads(Path(folder, "scores", "manifest.json").read_text(encoding="utf-8"))["counts"]
        rows, seconds = re.findall(r"(\d+) rows in ([\d.]+) s", told)[-1]
        assert counts["scored"] == int(rows), told
        ended = max(path.stat().st_mtime for path in Path(folder, "scores", "done").iterdir())
    streaming = [
        (at - (ended - float(seconds)), size) for at, size in looks if ended - float(seconds) <= at <= ended
    ]
    return {"rate": int(rows) / float(seconds), "rate_in_all": int(rows) / total, "memory": streaming}


@dataclass(frozen=True)
class Head:
    """A Ray that is up."""

    pid: int
    environment: dict[str, str]
    """What makes a job join it."""


@contextlib.contextmanager
def ray_up(cpus: int) -> Iterator[Head]:
    """A head that is up and idle again."""
    with ray_head(cpus, 500_000_000, "--include-dashboard=false") as (head, token, address):
        time.sleep(HEAD_S)
        assert not head.ended(), head.told()
        yield Head(head.pid, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token, "RAY_ADDRESS": address})


def memory(driver: int, head: int) -> int:
    """Resident bytes of the driver and of the actors below `head`."""
    parents, sizes, actors = {}, {}, []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
                parents[int(entry.name)], sizes[int(entry.name)] = int(fields[1]), int(fields[21]) * PAGE
                if b"MapWorker" in (entry / "cmdline").read_bytes():
                    actors.append(int(entry.name))
            except OSError:  # it ended
                continue

    def ours(pid: int) -> bool:
        while pid > 1 and pid != head:
            pid = parents.get(pid, 0)
        return pid == head

    return sum(sizes.get(pid, 0) for pid in [driver, *(pid for pid in actors if ours(pid))])


def growth(looks: list[tuple[float, int]]) -> float:
    """The median memory of the last fifth of the samples over that of the second fifth."""
    sizes = [size for _, size in looks]
    fifth = max(len(sizes) // 5, 1)
    return statistics.median(sizes[-fifth:]) / statistics.median(sizes[fifth : 2 * fifth])


def plot(runs: list[dict[str, Any]], path: Path) -> None:
    """The memory of each run over its streaming phase."""
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.add_subplot()
    for at, run in enumerate(runs, 1):
        axes.plot(*zip(*((at_s, size / 1e6) for at_s, size in run["memory"]), strict=True), label=f"run {at}")
    axes.set(
        xlabel="seconds of scoring",
        ylabel="MB",
        ylim=(0, None),
        title="Resident memory of the driver and the actors",
    )
    axes.legend(loc="lower right")
    FigureCanvasSVG(figure).print_svg(path)


def main() -> None:
    """Measure, save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, default=BUNDLE)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    args = parser.parse_args()
    if not (args.bundle / "manifest.json").is_file():
        sys.exit(
            f"error: {args.bundle}: no bundle there: run make bench-models, or give one with ARGS='--bundle "
            f"folder'"
        )
    path = source(args.rows, BENCH / "score")
    texts = pq.read_table(path, columns=["headline"])["headline"].to_pylist()[:CEILING_ROWS]
    short = path.with_name("headlines-short.parquet")
    pq.write_table(pq.read_table(path).slice(0, CEILING_ROWS), short)
    cold = job(args.bundle, short, args.processes)["rate_in_all"]
    ceilings, runs = [ceiling(args.bundle, texts, args.processes)], []
    for _ in range(args.rounds):
        with ray_up(args.processes) as head:
            job(
                args.bundle, source(WARM_ROWS, BENCH / "score"), args.processes, head
            )  # Ray Data keeps actors of its own from now on
            runs.append(job(args.bundle, path, args.processes, head))
        ceilings.append(ceiling(args.bundle, texts, args.processes))  # no Ray is up
        print(
            f"ceiling {ceilings[-1]:,.0f} a second, job {runs[-1]['rate']:,.0f}, with its start "
            f"{runs[-1]['rate_in_all']:,.0f}"
        )
    best, rate, in_all = (
        statistics.median(values)
        for values in (ceilings, [r["rate"] for r in runs], [r["rate_in_all"] for r in runs])
    )
    print(
        f"from the command to its end {in_all:,.0f} a second, {cold:,.0f} with the start of a Ray of its own"
    )
    shows = {
        "score_vs_ceiling": rate / best,
        "score_rss_growth": statistics.median(growth(run["memory"]) for run in runs),
    }
    plot(runs, BENCH / "score.svg")
    details = {
        "rows": args.rows,
        "bundle": args.bundle.name,
        "processes": args.processes,
        "ceilings_s": ceilings,
        "runs": runs,
    }
    results.save(
        "score",
        shows,
        per_second={"ceiling": best, "job": rate, "with_its_start": in_all, "with_rays_start": cold},
        **details,
    )


if __name__ == "__main__":
    main()
