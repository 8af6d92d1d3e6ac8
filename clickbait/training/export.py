"""From a checkpoint to a bundle: ONNX in fp32 and int8, compared with torch. Logic of `ray_jobs.export`.

The exporter is torch's own (`torch.onnx.export(dynamo=True)`). The quantizer is onnxruntime's: int8 weights
with one scale per channel, and activations quantized at run time (dynamic), so it needs no calibration data.

Each runtime has two graphs. The plain one loads in any onnxruntime. The optimised one is what a CPU serves:
onnxruntime fuses operators, then `clickbait.training.attention_rewrite` rewrites the attention. All of them
are compared with torch on the validation split.
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
import onnx
import torch
import transformers

from clickbait import cores, telemetry
from clickbait.config import MODEL_NAME, ExportConfig, TrainConfig
from clickbait.data.dataset import Dataset
from clickbait.evaluation import metrics
from clickbait.inference import graph_cache
from clickbait.inference.scorer import Scorer
from clickbait.models import compact, load, weight_transfer
from clickbait.registry import bundle, model_card
from clickbait.text import LABELS
from clickbait.training import attention_rewrite
from clickbait.training.batches import Headlines, evaluation_batches

FP32, INT8 = "model.fp32.onnx", "model.onnx"
PLAIN = "_plain"  # after a runtime's name: computed with its plain graph
SPEED_HEADLINES = 256  # one or two seconds per form and round
SPEED_BATCH = 16
SPEED_ROUNDS = 3
TORCH_TOKENS = 8192
FP32_TOLERANCE = 1e-3  # of P(clickbait); the order of its sums costs an fp32 graph some 1e-6

log = logging.getLogger(__name__)


class _Logits(torch.nn.Module):
    """The model with tensors in and out, as the ONNX exporter needs it."""

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
    """Fills the empty `folder` with a sealed bundle and returns its metrics document.

    Args:
        config: what to export.
        checkpoint: local folder of the fine-tuned model.
        train: the run's training configuration.
        history: the run's epochs.
        dataset: its validation split is what the forms are compared on.
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
    scorers = {name + PLAIN: Scorer(folder, runtime=name, threads=threads) for name in runtimes}
    bundle.amend(folder, optimized={name: optimize(folder, file) for name, file in runtimes.items()})
    scorers |= {name: Scorer(folder, runtime=name, threads=threads) for name in runtimes}
    measured, threshold = compare(model, scorers, fields["default_runtime"], dataset, temperature, threads)
    drop_wrong_graph(folder, measured)
    measured["size_mb"] = {
        name: round((folder / file).stat().st_size / 1e6, 1) for name, file in runtimes.items()
    }
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
        "export": measured,
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
    """Writes the int8 form of the fp32 ONNX file: dynamic, one scale per channel of a weight."""
    telemetry.off()
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quiet():
        quantize_dynamic(source, target, weight_type=QuantType.QInt8, per_channel=True)


def optimize(folder: Path, file: str) -> bundle.OptimizedGraph:
    """Writes the optimised graph of the plain graph `file` beside it, with its attention rewritten.

    The level is "extended": it fuses operators, in the same way for every CPU. The level above ("layout")
    depends on the CPU that optimises, and onnxruntime warns that such a graph should stay there
    (https://onnxruntime.ai/docs/performance/model-optimizations/graph-optimizations.html).
    """
    telemetry.off()
    import onnxruntime

    name = str(Path(file).with_suffix(".optimized.onnx"))
    options = graph_cache.options(1, optimized=False)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(folder / name)
    onnxruntime.InferenceSession(str(folder / file), options, providers=["CPUExecutionProvider"])
    model = onnx.load(folder / name)
    if attention_rewrite.rewrite(model):
        onnx.save(model, folder / name)
    return bundle.OptimizedGraph(file=name, onnxruntime=onnxruntime.__version__)


def drop_wrong_graph(folder: Path, measured: dict[str, Any]) -> None:
    """Removes the optimised fp32 graph from the bundle if it computes other scores than torch.

    It must be the same function, so any difference beyond rounding is a fault of the rewrite. The int8
    graphs differ from torch by design; the gate bounds their agreement.

    Args:
        folder: the bundle.
        measured: the result of `compare`; the figures of the plain graph take the place of the wrong one's.
    """
    difference = measured["fp32"]["max_difference"]
    if difference <= FP32_TOLERANCE:
        return
    log.warning(
        "the optimised fp32 graph differs from torch by %.2g: it is removed, the plain graph is served",
        difference,
    )
    optimized = dict(bundle.read_manifest(folder).optimized)
    (folder / optimized.pop("fp32").file).unlink()
    bundle.amend(folder, optimized=optimized)
    measured["fp32"] = measured["fp32" + PLAIN]


def compare(
    model: transformers.PreTrainedModel,
    scorers: dict[str, Scorer],
    default: str,
    dataset: Dataset,
    temperature: float,
    threads: int,
) -> tuple[dict[str, Any], float]:
    """Each exported form against torch (fp32) on the validation split, and the bundle's threshold.

    The threshold is the best for the scores of `default` (`metrics.best_threshold`).

    Keys of a form: `agreement`, the share of headlines with the same verdict at the threshold;
    `max_difference`, the largest difference of P(clickbait); `per_second`, headlines per second in batches of
    16 on `threads` threads, median of interleaved rounds, ONNX from text and torch from tokens.

    Args:
        model: the reference.
        scorers: the forms by name; `int8` is the runtime as a CPU serves it, `int8_plain` its plain graph.
        default: the form that is served by default.
        dataset: its validation split is read.
        temperature: the bundle's.
        threads: compute threads.
    """
    table = dataset.table("validation", ["headline", "input_ids", "label"])
    texts: list[str] = table["headline"].to_pylist()
    rows = Headlines(table)
    reference = metrics.probabilities(torch_margins(model, rows), temperature)
    scores = {name: scorer.score(texts) for name, scorer in scorers.items()}
    threshold = metrics.best_threshold(rows.labels, scores[default])
    sample = np.linspace(0, len(texts) - 1, min(SPEED_HEADLINES, len(texts)), dtype=np.int64)
    runs: dict[str, Callable[[np.ndarray], Any]] = {"torch": lambda part: torch_margins(model, rows, part)}
    for name, scorer in scorers.items():
        runs[name] = lambda part, scorer=scorer: scorer.score([texts[row] for row in part])  # type: ignore[misc]
    measured: dict[str, Any] = {"rows": len(texts), "threads": threads, "threshold": threshold}
    for name, form in scores.items():
        measured[name] = {
            "agreement": 1.0 - metrics.flip_rate(reference, form, threshold),
            "max_difference": float(np.abs(form - reference).max()),
        }
    for name, speed in speeds(runs, sample, threads).items():
        measured.setdefault(name, {})["per_second"] = speed
    return measured, threshold


def speeds(runs: dict[str, Callable[[np.ndarray], Any]], rows: np.ndarray, threads: int) -> dict[str, float]:
    """Headlines per second of each way to score `rows` in batches of 16: medians of interleaved rounds."""
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
    """Logit of clickbait less logit of news (fp32) of the rows `which`, by default all."""
    chosen = np.arange(len(rows)) if which is None else which
    pad_id = int(model.config.pad_token_id or 0)
    margins = np.zeros(len(chosen))
    for part in evaluation_batches(rows.lengths[chosen], TORCH_TOKENS, 0, 1):
        batch = rows.batch(chosen[part], np.ones(len(part)), pad_id)
        logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits.float()
        margins[part] = (logits[:, 1] - logits[:, 0]).numpy()
    return margins


def train_config(document: dict[str, Any]) -> dict[str, Any]:
    """The run's training configuration without paths, with defaults for what run.json leaves out."""
    config = TrainConfig.model_validate(document).model_dump(mode="json")
    return {key: value for key, value in config.items() if key not in ("dataset", "output", "name")}


def git_commit() -> str | None:
    """`GIT_COMMIT`, else the checkout's HEAD, else None.

    A working directory that `ray job submit` sends is not a checkout.
    """
    if os.environ.get("GIT_COMMIT"):
        return os.environ["GIT_COMMIT"]
    try:
        completed = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return completed.stdout.strip()


@contextlib.contextmanager
def _quiet() -> Any:
    """Silences exporter and quantizer: stdout, warnings and loggers. None of it is useful to a user."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
