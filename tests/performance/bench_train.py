"""Ray Train's overhead: the training loop under TorchTrainer against the same work written in plain torch.

    make bench-train

Two processes live side by side and work in turn, an epoch each: a Ray Train worker that runs
`clickbait.training.loop.fit` as it is, with its bar, its tracker and its reports, and a process that knows
nothing of Ray and runs the dozen lines of `plain_epoch`. Same model, same batches in the same order, same
optimizer, same precision, same threads. The figure is the median over rounds of the quotient of headlines a
second; the first round warms up and is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from clickbait.config import PreprocessConfig, TrainConfig
from clickbait.data.dataset import open_dataset
from clickbait.models import load
from clickbait.training.batches import Headlines, epoch_steps
from clickbait.training.loop import Place, fit, has_bf16, make_optimizer

ROUNDS = 6  # and one to warm up
HEADLINES = 1600  # 1,280 to train on: some 10 s an epoch on 2 cores
PATIENCE_S = 300.0


class Turns:
    """Whose turn it is, by files in a folder: `go-<who>-<n>` starts turn n, `done-<who>-<n>` ends it and
    holds the figure.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def wait(self, name: str) -> str:
        """Until the file is there; its text."""
        end = time.monotonic() + PATIENCE_S
        while not (self.folder / name).exists():
            if time.monotonic() > end:
                raise TimeoutError(f"waited in vain for {name}")
            time.sleep(0.01)
        return (self.folder / name).read_text(encoding="utf-8")

    def tell(self, name: str, text: str = "") -> None:
        """Makes the file, whole."""
        (self.folder / f".{name}").write_text(text, encoding="utf-8")
        (self.folder / f".{name}").rename(self.folder / name)

    def take(self, who: str, turn: int) -> float:
        """Lets `who` have its turn; its headlines a second."""
        self.tell(f"go-{who}-{turn}")
        return float(self.wait(f"done-{who}-{turn}"))


def plain(config: TrainConfig, turns: Turns) -> None:
    """The process without Ray."""
    dataset = open_dataset(config.dataset)
    data = Headlines(dataset.table("train", ["input_ids", "label"]))
    torch.set_num_threads(config.threads)
    model = load.load(config, dataset.tokenizer, dataset.max_tokens).train()
    optimizer = make_optimizer(model, config)
    for turn in range(config.epochs):
        turns.wait(f"go-plain-{turn}")
        start = time.perf_counter()
        plain_epoch(model, optimizer, data, config, turn)
        turns.tell(f"done-plain-{turn}", str(len(data) / (time.perf_counter() - start)))


def plain_epoch(
    model: Any, optimizer: torch.optim.Optimizer, data: Headlines, config: TrainConfig, epoch: int
) -> None:
    """One epoch as torch's tutorial writes it."""
    bf16 = has_bf16(torch.device("cpu"))
    for rows in epoch_steps(data.lengths, config.batch_size, config.seed, epoch):
        batch = data.batch(rows, rows * 0.0, 0)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        loss = F.cross_entropy(logits.float(), batch.labels)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def ray_worker(values: dict[str, Any]) -> None:
    """What the Ray Train worker runs: `fit`, held up between epochs until it has its turn."""
    import ray.train

    config = TrainConfig.model_validate(values["config"])
    turns = Turns(Path(values["folder"]))

    def report(metrics: dict[str, float], checkpoint: str) -> None:
        turn = int(metrics["epoch"]) - 1
        ray.train.report(metrics)
        turns.tell(f"done-ray-{turn}", str(metrics["rows_per_second"]))
        if turn + 1 < config.epochs:
            turns.wait(f"go-ray-{turn + 1}")

    turns.wait("go-ray-0")
    fit(config, open_dataset(config.dataset), Place(), report)


def measure(config: TrainConfig, folder: Path) -> list[tuple[float, float]]:
    """(Ray, plain) headlines a second of each round but the first."""
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer

    turns = Turns(folder)
    trainer = TorchTrainer(
        ray_worker,
        train_loop_config={"config": config.model_dump(), "folder": str(folder)},
        torch_config=TorchConfig(backend="gloo"),
        scaling_config=ray.train.ScalingConfig(num_workers=1, resources_per_worker={"CPU": 1}),
        run_config=ray.train.RunConfig(name="bench", storage_path=str(folder / "ray")),
    )
    failed: list[BaseException] = []

    def train() -> None:
        try:
            trainer.fit()
        except BaseException as error:  # told by the main thread
            failed.append(error)

    thread = threading.Thread(target=train, daemon=True)
    thread.start()
    command = [
        sys.executable,
        "-m",
        "tests.performance.bench_train",
        "--plain",
        str(folder),
        "--dataset",
        config.dataset,
    ]
    other = subprocess.Popen([*command, "--threads", str(config.threads), "--rounds", str(config.epochs - 1)])
    rounds = []
    try:
        for turn in range(config.epochs):
            order = ("ray", "plain") if turn % 2 else ("plain", "ray")  # neither is always the first
            found = {who: turns.take(who, turn) for who in order}
            rounds.append((found["ray"], found["plain"]))
            print(
                f"round {turn}: ray {found['ray']:.1f}, plain torch {found['plain']:.1f} headlines/s",
                flush=True,
            )
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            other.wait(timeout=30)
        other.kill()
        thread.join(timeout=120)
    if failed:
        raise failed[0]
    return rounds[1:]


def recipe(folder: Path, dataset: str, threads: int, rounds: int) -> TrainConfig:
    """What both sides train: one turn is one epoch."""
    return TrainConfig(
        dataset=dataset,
        output=str(folder / "runs"),
        epochs=rounds + 1,
        threads=threads,
        num_workers=1,
        progress=False,
        schedule="constant",
    )


def main() -> None:
    """Measure and save."""
    import os

    from ray_jobs.preprocess import preprocess
    from ray_jobs.session import connect
    from tests.performance import results

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--plain", help=argparse.SUPPRESS)
    parser.add_argument("--dataset", help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="torch threads of each side")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="epochs measured of each side")
    given = parser.parse_args()
    if given.plain:
        folder = Path(given.plain)
        plain(recipe(folder, given.dataset, given.threads, given.rounds), Turns(folder))
        return
    with tempfile.TemporaryDirectory(prefix="bench-train-") as name:
        folder = Path(name)
        connect()
        dataset = preprocess(PreprocessConfig(sample_size=HEADLINES, output=str(folder / "datasets")))
        rounds = measure(recipe(folder, dataset, given.threads, given.rounds), folder)
    ratio = statistics.median(ray / plain for ray, plain in rounds)
    medians = [statistics.median(side) for side in zip(*rounds, strict=True)]
    results.save(
        "train",
        {
            "train_vs_plain_torch": ratio,
            "ray_headlines_per_second": medians[0],
            "plain_headlines_per_second": medians[1],
        },
        rounds=[{"ray": ray, "plain": plain} for ray, plain in rounds],
        threads=given.threads,
    )


if __name__ == "__main__":
    main()
