"""The engine alone: onnxruntime's options, weights that replicas share or keep, how much is computed at a
time, tokens by word.

    make bench-engine
    make bench-engine ARGS='--bundle artifacts/bench/models/bundles/minilm'

First one process computes batches of 1, 8 and 32 generated headlines, each with one option changed; rounds
are interleaved, figures are medians. Then two processes take turns with one headline, as two replicas do
behind a balancer: each with weights of its own, or with the prepared file mapped by both. Then two processes
compute what waits in runs of so many tokens. Last, the tokenizer against `clickbait.inference.word_tokenizer`
on the second half of the headlines, once it has seen the first: generated ones, and real ones where
CLICKBAIT_DATA_DIR has them. Prints four tables, and writes artifacts/bench/engine.json. Run it on a quiet
machine.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from clickbait.inference import graph_cache
from clickbait.inference.scorer import Scorer
from clickbait.registry import bundle
from clickbait.sample import generate
from clickbait.text import clean

BATCHES = (1, 8, 32)
BUDGETS = (1, 64, 128, 192, 256, 384, 512, 1024)  # tokens of one run; 1 is one headline
QUEUE = 64  # headlines that wait, of which runs are made
ROUNDS, SECONDS = 5, 0.4
TURNS = 1500
BUNDLE = Path(__file__).parents[2] / "artifacts" / "bench" / "models" / "bundles" / "minilm"


def variants(folder: Path, shared: Path) -> dict[str, Callable[[], Any]]:
    """What is compared, by name: sessions, the served one first."""
    import onnxruntime

    manifest = bundle.verify(folder)
    model, served = manifest.runtimes["int8"], manifest.optimized["int8"].file
    sha256 = manifest.files[served].sha256
    with graph_cache.graph(folder / served, sha256, shared, optimized=True) as (packed, _):
        assert packed.parent.parent == shared

    def session(file: Path | str = model, threads: int = 1, optimized: bool = False, **changed: Any) -> Any:
        options = graph_cache.options(threads, optimized=optimized)
        for name, value in changed.items():
            if name == "spinning":
                options.add_session_config_entry("session.intra_op.allow_spinning", value)
            else:
                setattr(options, name, value)
        return onnxruntime.InferenceSession(str(folder / file), options, providers=["CPUExecutionProvider"])

    level, mode = onnxruntime.GraphOptimizationLevel, onnxruntime.ExecutionMode
    return {
        "as served: int8, one thread, prepared weights": lambda: session(packed, optimized=True),
        "weights of its own": lambda: session(served, optimized=True),
        "weights of its own, attention as exported": session,
        "fp32": lambda: session(manifest.optimized["fp32"].file, optimized=True),
        "two threads that sleep when idle": lambda: session(threads=2),
        "two threads that spin (onnxruntime's default)": lambda: session(threads=2, spinning="1"),
        "graph optimisation: basic": lambda: session(graph_optimization_level=level.ORT_ENABLE_BASIC),
        "graph optimisation: none": lambda: session(graph_optimization_level=level.ORT_DISABLE_ALL),
        "execution mode: parallel": lambda: session(execution_mode=mode.ORT_PARALLEL, inter_op_num_threads=2),
        "no memory pattern": lambda: session(enable_mem_pattern=False),
        "no arena": lambda: session(enable_cpu_mem_arena=False),
    }


def feeds(folder: Path, count: int) -> list[dict[str, np.ndarray]]:
    """Inputs of `count` headlines each, sorted by length and padded as the scorer does."""
    scorer = Scorer(folder, verified=True)
    rows = scorer.encode([text for text, _ in generate(64 * count, seed=6)])
    found = []
    for at in range(0, len(rows), count):
        batch = sorted(rows[at : at + count], key=len)
        ids = np.zeros((count, len(batch[-1])), np.int64)
        mask = np.zeros_like(ids)
        for row, tokens in enumerate(batch):
            ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, 1
        found.append({"input_ids": ids, "attention_mask": mask})
    return found


def rate(session: Any, given: list[dict[str, np.ndarray]]) -> float:
    """Headlines a second."""
    begin, done = time.perf_counter(), 0
    while time.perf_counter() - begin < SECONDS:
        one = given[done % len(given)]
        session.run(["logits"], one)
        done += 1
    return done * len(given[0]["input_ids"]) / (time.perf_counter() - begin)


def options_table(folder: Path, shared: Path) -> dict[str, dict[str, float]]:
    """Headlines a second by variant and batch: medians of interleaved rounds."""
    sessions = {name: make() for name, make in variants(folder, shared).items()}
    given = {count: feeds(folder, count) for count in BATCHES}
    found: dict[str, dict[int, list[float]]] = {name: {count: [] for count in BATCHES} for name in sessions}
    for _ in range(ROUNDS):
        for name, session in sessions.items():
            for count in BATCHES:
                found[name][count].append(rate(session, given[count]))
    return {
        name: {str(count): round(statistics.median(rates), 1) for count, rates in each.items()}
        for name, each in found.items()
    }


def _replica(folder: Path, shared: Path | None, line: Connection) -> None:
    """Scores a headline whenever it is told to, and says how long that took, and what memory it has that no
    other process shares.
    """
    scorer = Scorer(folder, verified=True, shared=shared)
    texts = [text for text, _ in generate(256, seed=9)]
    for text in texts[:50]:
        scorer.score([text])
    rollup = dict(
        row.split(":") for row in Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
    )
    line.send(int(rollup["Private_Dirty"].split()[0]) / 1024)
    at = 0
    while line.recv():
        begin = time.perf_counter()
        scorer.score([texts[at % len(texts)]])
        at += 1
        line.send(time.perf_counter() - begin)


def turns(folder: Path, shared: Path | None) -> dict[str, float]:
    """Microseconds of a headline, in one process alone and in two that take turns; MB that a process has for
    itself.
    """
    context = multiprocessing.get_context("spawn")
    lines, children = [], []
    for _ in range(2):
        ours, theirs = context.Pipe()
        child = context.Process(target=_replica, args=(folder, shared, theirs), daemon=True)
        child.start()
        lines.append(ours)
        children.append(child)
    private = statistics.median(line.recv() for line in lines)
    found = {"private_mb": round(private, 1)}
    for name, order in (("alone_us", lines[:1]), ("in_turn_us", lines)):
        times = []
        for number in range(TURNS):
            line = order[number % len(order)]
            line.send(True)
            times.append(line.recv())
        found[name] = round(statistics.median(times) * 1e6, 1)
    for line, child in zip(lines, children, strict=True):
        line.send(False)
        child.join()
    return found


def _budgets(folder: Path, shared: Path, seed: int, line: Connection) -> None:
    """Microseconds a headline by budget, each measured when the other process measures it too."""
    scorer = Scorer(folder, verified=True, shared=shared)
    rows = scorer.encode([text for text, _ in generate(QUEUE * 64, seed=seed)])
    scorer.score_tokens(rows[:QUEUE])
    line.send(True)
    while budget := line.recv():
        begin, done = time.perf_counter(), 0
        while time.perf_counter() - begin < SECONDS:
            at = done % len(rows)
            scorer.score_tokens(rows[at : at + QUEUE], budget)
            done += QUEUE
        line.send((time.perf_counter() - begin) / done * 1e6)


def budgets(folder: Path, shared: Path) -> dict[int, float]:
    """Microseconds a headline by the budget of a run, of two processes at once: medians over rounds and
    processes.
    """
    context = multiprocessing.get_context("spawn")
    lines = []
    for seed in (11, 12):
        ours, theirs = context.Pipe()
        context.Process(target=_budgets, args=(folder, shared, seed, theirs), daemon=True).start()
        lines.append(ours)
    for line in lines:
        line.recv()
    found: dict[int, list[float]] = {budget: [] for budget in BUDGETS}
    for _ in range(ROUNDS):
        for budget in BUDGETS:
            for line in lines:
                line.send(budget)
            found[budget] += [line.recv() for line in lines]
    for line in lines:
        line.send(0)
    return {budget: round(statistics.median(times), 1) for budget, times in found.items()}


def headlines() -> dict[str, list[str]]:
    """Generated ones, and real ones in no order."""
    found = {"generated": [text for text, _ in generate(20_000, seed=5)]}
    real = Path(os.environ.get("CLICKBAIT_DATA_DIR", "")) / "stop-clickbait" / "clickbait_data.csv"
    if real.is_file():
        with real.open(encoding="utf-8", newline="") as lines:
            found["real"] = [row["headline"] for row in csv.DictReader(lines)]
        random.Random(1).shuffle(found["real"])
    return found


def tokenizing(folder: Path) -> dict[str, dict[str, float]]:
    """Microseconds a headline by the tokenizer and by word, one at a time, and the share of words that were
    new: medians of rounds.
    """
    found = {}
    for name, texts in headlines().items():
        half, times = len(texts) // 2, {"tokenizer_us": [], "by_word_us": []}  # type: dict[str, list[float]]
        for _ in range(ROUNDS):
            words = Scorer(folder, verified=True)._words
            words.encode(texts[:half])
            before = len(words._known)
            begin = time.perf_counter()
            for text in texts[half:]:
                words._tokenizer.encode_batch_fast([clean(text)])
            middle = time.perf_counter()
            for text in texts[half:]:
                words.encode([text])
            times["tokenizer_us"].append((middle - begin) / half * 1e6)
            times["by_word_us"].append((time.perf_counter() - middle) / half * 1e6)
        new = (len(words._known) - before) / sum(len(text.split()) for text in texts[half:])
        found[name] = {key: round(statistics.median(each), 2) for key, each in times.items()} | {
            "new_words": round(new, 4)
        }
    return found


def main() -> None:
    """Prints and writes."""
    from tests.performance import (
        results,
    )  # not above: every process imports this module, and `results` brings torch

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, default=BUNDLE)
    folder = parser.parse_args().bundle
    with tempfile.TemporaryDirectory(prefix="engine-") as where:
        shared = Path(where) / "prepared"
        table = options_table(folder, shared)
        print(
            "| options | "
            + " | ".join(f"batches of {count}" for count in BATCHES)
            + " |\n| --- |"
            + " ---: |" * len(BATCHES)
        )
        for name, rates in table.items():
            print(f"| {name} | " + " | ".join(f"{value:,.0f}" for value in rates.values()) + " |")
        sharing = {
            name: [turns(folder, given) for _ in range(3)]
            for name, given in (("own", None), ("shared", shared))
        }
    medians = {
        name: {key: statistics.median(one[key] for one in each) for key in each[0]}
        for name, each in sharing.items()
    }
    print(
        "\n| weights | a process alone, µs | two in turn, µs | MB of its own |\n| --- | ---: | ---: | ---: |"
    )
    for name, one in medians.items():
        print(f"| {name} | {one['alone_us']:.0f} | {one['in_turn_us']:.0f} | {one['private_mb']:.0f} |")
    with tempfile.TemporaryDirectory(prefix="engine-") as where:
        runs = budgets(folder, Path(where) / "prepared")
    print("\n| tokens of a run | µs a headline, two processes at once |\n| ---: | ---: |")
    for budget, microseconds in runs.items():
        print(f"| {budget} | {microseconds:.0f} |")
    print("\n| headlines | tokenizer, µs | by word, µs | words that are new |\n| --- | ---: | ---: | ---: |")
    tokens = tokenizing(folder)
    for name, each in tokens.items():
        print(f"| {name} | {each['tokenizer_us']:.1f} | {each['by_word_us']:.1f} | {each['new_words']:.1%} |")
    shows = {
        "in_turn_shared_vs_own": round(medians["shared"]["in_turn_us"] / medians["own"]["in_turn_us"], 4)
    }
    results.save(
        "engine",
        shows,
        options=table,
        sharing=sharing,
        budgets={str(budget): each for budget, each in runs.items()},
        tokens=tokens,
        model=folder.name,
    )


if __name__ == "__main__":
    main()
