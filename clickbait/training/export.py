"""From a checkpoint to a bundle: ONNX in fp32 and int8, compared with torch on the validation split. Logic of
`ray_jobs.export`.

The exporter is torch's own (`torch.onnx.export(dynamo=True)`), the quantizer onnxruntime's: weights int8, a
scale a channel, activations quantized as they come (dynamic). No calibration data is needed.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import os
import statistics
import subprocess
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from clickbait import cores, telemetry
from clickbait.config import MODEL_NAME, ExportConfig, TrainConfig
from clickbait.data.dataset import Dataset
from clickbait.evaluation import metrics
from clickbait.inference.scorer import Scorer
from clickbait.models import compact, load, weight_transfer
from clickbait.registry import bundle, model_card
from clickbait.text import LABELS
from clickbait.training.batches import Headlines, evaluation_batches

FP32, INT8 = "model.fp32.onnx", "model.onnx"
SPEED_HEADLINES = 256  # a second or two a form and round
SPEED_BATCH = 16
SPEED_ROUNDS = 3
TORCH_TOKENS = 8192


class _Logits(torch.nn.Module):
    """The model with tensors in and out, as ONNX wants it."""

    def __init__(self, model: transformers.PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


def build(
    config: ExportConfig,
    checkpoint: Path,
    train: dict[str, Any],
    history: list[dict[str, float]],
    dataset: Dataset,
    folder: Path,
) -> dict[str, Any]:
    """Fills the empty `folder` with a sealed bundle and returns its metrics document (`export` and `history`
    are in it).

    Args:
        config: what to export.
        checkpoint: local folder of the fine-tuned model.
        train: the run's training configuration.
        history: the run's epochs.
        dataset: whose validation split the forms are compared on.
        folder: where the bundle is built.
    """
    torch.set_num_threads(cores.bounded(torch.get_num_threads()))
    model = load.load_checkpoint(checkpoint)
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes((checkpoint / name).read_bytes())
    (folder / "tokenizer.json").write_bytes(dataset.tokenizer)
    validation = Headlines(dataset.table("validation", ["input_ids", "label"]))
    temperature = metrics.temperature(validation.labels, torch_margins(model, validation))
    runtimes = {"fp32": FP32}
    to_onnx(model, folder / FP32, dataset.max_tokens)
    if config.int8:
        quantize(folder / FP32, folder / INT8)
        runtimes["int8"] = INT8
    fields: dict[str, Any] = {
        "name": MODEL_NAME,
        "version": None,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "base_model": train["model"],
        "synthetic": dataset.synthetic,
        "labels": LABELS,
        "max_tokens": dataset.max_tokens,
        "max_characters": int(dataset.manifest["config"]["max_characters"]),
        "temperature": temperature,
        "runtimes": runtimes,
        "default_runtime": "int8" if config.int8 else "fp32",
        "config": train,
        "dataset": dataset.fingerprint,
        "git_commit": git_commit(),
        "metrics": {},
        "verdict": None,
    }
    bundle.seal(folder, **fields)
    threads = cores.bounded(config.threads)
    found, threshold = compare(
        model, folder, runtimes, fields["default_runtime"], dataset, temperature, threads
    )
    document = {
        "model": {
            "name": MODEL_NAME,
            "version": None,
            "base_model": train["model"],
            "parameters": load.parameters(model),
        },
        "synthetic": dataset.synthetic,
        "dataset": dataset.fingerprint,
        "threshold": threshold,
        "export": found,
        "history": history,
    }
    model_card.write(folder, document, threshold=threshold)
    return document


def to_onnx(model: transformers.PreTrainedModel, path: Path, max_tokens: int) -> None:
    """Writes the model as one ONNX file: input_ids and attention_mask int64 (batch, sequence) to logits
    float32 (batch, 2).
    """
    model = weight_transfer.convert(model, max_tokens) or model
    if isinstance(model, compact.CompactForSequenceClassification):
        model = copy.deepcopy(model)
        model.fold()
    batch, sequence = torch.export.Dim("batch", min=1, max=4096), torch.export.Dim("sequence", min=2, max=512)
    shape = {0: batch, 1: sequence}
    ids = torch.ones((3, 11), dtype=torch.int64)  # sizes that no constant of the model equals
    with _quiet():
        torch.onnx.export(
            _Logits(model).eval(),
            (ids, torch.ones_like(ids)),
            str(path),
            input_names=["input_ids", "attention_mask"],
            output_names=["logits"],
            dynamic_shapes={"input_ids": shape, "attention_mask": shape},
            dynamo=True,
            external_data=False,
        )


def quantize(source: Path, target: Path) -> None:
    """Writes the int8 form of the fp32 ONNX file: dynamic, weights with a scale a channel."""
    telemetry.off()
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quiet():
        quantize_dynamic(source, target, weight_type=QuantType.QInt8, per_channel=True)


def compare(
    model: transformers.PreTrainedModel,
    folder: Path,
    runtimes: dict[str, str],
    served: str,
    dataset: Dataset,
    temperature: float,
    threads: int,
) -> tuple[dict[str, Any], float]:
    """Each exported form against torch (fp32) on the validation split, the speed of each, side by side; and
    the bundle's threshold.

    The threshold is the best for the scores of the runtime `served` (`metrics.best_threshold`).

    `agreement`: share of headlines with the same verdict at the threshold; `max_difference`: largest
    difference of P(clickbait); `per_second`: headlines a second in batches of 16 on `threads` threads, median
    of interleaved rounds; ONNX from text, torch from tokens.
    """
    table = dataset.table("validation", ["headline", "input_ids", "label"])
    texts: list[str] = table["headline"].to_pylist()
    rows = Headlines(table)
    reference = metrics.probabilities(torch_margins(model, rows), temperature)
    scorers = {name: Scorer(folder, runtime=name, threads=threads) for name in runtimes}
    scores = {name: scorer.score(texts) for name, scorer in scorers.items()}
    threshold = metrics.best_threshold(rows.labels, scores[served])
    found: dict[str, Any] = {"rows": len(texts), "threads": threads, "threshold": threshold}
    for name, ours in scores.items():
        found[name] = {
            "agreement": 1.0 - metrics.flip_rate(reference, ours, threshold),
            "max_difference": float(np.abs(ours - reference).max()),
        }
    sample = np.linspace(0, len(texts) - 1, min(SPEED_HEADLINES, len(texts)), dtype=np.int64)
    runs: dict[str, Callable[[np.ndarray], Any]] = {"torch": lambda part: torch_margins(model, rows, part)}
    for name, scorer in scorers.items():
        runs[name] = lambda part, scorer=scorer: scorer.score([texts[row] for row in part])  # type: ignore[misc]
    for name, speed in speeds(runs, sample, threads).items():
        found.setdefault(name, {})["per_second"] = speed
    found["size_mb"] = {
        name: round((folder / file).stat().st_size / 1e6, 1) for name, file in runtimes.items()
    }
    return found, threshold


def speeds(runs: dict[str, Callable[[np.ndarray], Any]], rows: np.ndarray, threads: int) -> dict[str, float]:
    """Headlines a second of each way to score `rows` in batches of 16: rounds interleaved, medians."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    timed: dict[str, list[float]] = {name: [] for name in runs}
    parts = [rows[at : at + SPEED_BATCH] for at in range(0, len(rows), SPEED_BATCH)]
    for _ in range(SPEED_ROUNDS):
        for name, score in runs.items():
            start = time.perf_counter()
            for part in parts:
                score(part)
            timed[name].append(len(rows) / (time.perf_counter() - start))
    torch.set_num_threads(before)
    return {name: statistics.median(values) for name, values in timed.items()}


@torch.no_grad()
def torch_margins(
    model: transformers.PreTrainedModel, rows: Headlines, which: np.ndarray | None = None
) -> np.ndarray:
    """The logit of clickbait less the logit of news, fp32, of `which` rows (default all) in their order."""
    chosen = np.arange(len(rows)) if which is None else which
    pad_id = int(model.config.pad_token_id or 0)
    margins = np.zeros(len(chosen))
    for part in evaluation_batches(rows.lengths[chosen], TORCH_TOKENS, 0, 1):
        batch = rows.batch(chosen[part], np.ones(len(part)), pad_id)
        logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits.float()
        margins[part] = (logits[:, 1] - logits[:, 0]).numpy()
    return margins


def train_config(document: dict[str, Any]) -> dict[str, Any]:
    """The run's training configuration with defaults for what run.json leaves out, without places on a
    disk.
    """
    config = TrainConfig.model_validate(document).model_dump(mode="json")
    return {key: value for key, value in config.items() if key not in ("dataset", "output", "name")}


def git_commit() -> str | None:
    """`GIT_COMMIT`, else the checkout's HEAD, else None (a working directory shipped by `ray job submit` is
    no checkout).
    """
    if os.environ.get("GIT_COMMIT"):
        return os.environ["GIT_COMMIT"]
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


@contextlib.contextmanager
def _quiet() -> Any:
    """Exporter and quantizer talk on stdout, stderr, warnings and the root logger: none of it is for a
    user.
    """
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
