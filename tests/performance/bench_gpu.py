"""The engine on a GPU, beside a CPU core: the same scores, and how many tokens to compute at a time.

    python -m tests.performance.bench_gpu artifacts/bench/models/bundles/minilm

Needs a bundle with fp32 and safetensors, a GPU, onnxruntime-gpu in onnxruntime's place, and torch; not Ray.
Per backend and number of tokens of a run: headlines a second while 8,192 wait, tokenizing left out; per
backend a lone headline's time, and the largest differences of scores: of 2,048 from fp32 on a core, and of
256 alone from those in a batch. Medians of rounds. Prints a table, writes artifacts/bench/gpu.json.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from clickbait.inference import backends
from clickbait.inference.scorer import Scorer
from clickbait.sample import generate
from tests.performance import results

WAITING, COMPARED, LONE, ROUNDS = 8192, 2048, 200, 5
BUDGETS = (192, 1024, 4096, 16_384, 65_536, 262_144)
TF32 = "GPU, onnxruntime fp32, products in TF32"
CORE = {"core, int8": ("int8", "cpu"), "core, fp32": ("fp32", "cpu")}
OWN = "GPU, onnxruntime fp32"
GPU = {
    OWN: ("fp32", "cuda"),
    TF32: ("fp32", "cuda"),
    "GPU, torch fp32": ("torch", "cuda"),
    "GPU, onnxruntime int8": ("int8", "cuda"),
}


def seconds(work: Callable[..., object], *given: object, rounds: int = ROUNDS) -> float:
    """Of one call of `work`: the median of `rounds`, after one that is not counted."""
    work(*given)
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        work(*given)
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def measure(scorer: Scorer, texts: list[str], expected: np.ndarray, *, gpu: bool) -> dict[str, float]:
    """The figures of a backend: a core has those of its own budget alone."""
    rows = scorer.encode(texts)
    scores = scorer.score_tokens(rows[:COMPARED])
    found = {"largest_difference": float(np.abs(scores - expected).max())}
    alone = np.array([scorer.score_tokens([row])[0] for row in rows[: COMPARED // 8]])
    found["batch_or_alone"] = float(np.abs(scores[: COMPARED // 8] - alone).max())
    found["lone_us"] = seconds(scorer.score_tokens, rows[:1], rounds=LONE) * 1e6
    for budget in BUDGETS if gpu else BUDGETS[:1]:
        some = rows if gpu and scorer.runtime != "int8" else rows[: WAITING // 8]
        found[f"at_{budget}"] = len(some) / seconds(scorer.score_tokens, some, budget)
    return found


def main() -> None:
    """Prints and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    folder = parser.parse_args().bundle
    texts = [text for text, _ in generate(WAITING, seed=21)]
    expected = Scorer(folder, runtime="fp32").score(texts[:COMPARED])
    table: dict[str, dict[str, float]] = {}
    for name, (runtime, device) in {**CORE, **GPU}.items():
        backends.CUDA_OPTIONS["use_tf32"] = "1" if name == TF32 else "0"
        scorer = Scorer(folder, runtime=runtime, device=device, verified=True)
        table[name] = measure(scorer, texts, expected, gpu=device == "cuda")
        print(f"{name}: {table[name]}", flush=True)
    print(
        "\n| computed by | from fp32 on a core | batch or alone | a lone headline, µs | "
        + " | ".join(f"{budget:,}" for budget in BUDGETS)
        + " |"
    )
    print("| --- |" + " ---: |" * (3 + len(BUDGETS)))
    for name, found in table.items():
        rates = [f"{found[key]:,.0f}" if (key := f"at_{budget}") in found else "" for budget in BUDGETS]
        print(
            f"| {name} | {found['largest_difference']:.1g} | {found['batch_or_alone']:.1g} | "
            f"{found['lone_us']:,.0f} | " + " | ".join(rates) + " |"
        )
    own = table[OWN]
    shows = {
        "gpu_vs_core": max(own[f"at_{budget}"] for budget in BUDGETS)
        / table["core, int8"][f"at_{BUDGETS[0]}"],
        "gpu_largest_difference": own["largest_difference"],
        "gpu_batch_or_alone": own["batch_or_alone"],
    }
    results.save("gpu", shows, table=table, model=folder.name)


if __name__ == "__main__":
    main()
