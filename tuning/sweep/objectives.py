"""The objectives beside the log loss: how easily a trial's verdicts flip, and its latency.

Both are measured on the trial's best checkpoint, exported to int8 ONNX in a temporary folder, as it would be
served.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from clickbait.config import MODEL_NAME
from clickbait.data.dataset import Dataset
from clickbait.evaluation import measure as evaluation
from clickbait.evaluation import metrics
from clickbait.evaluation.perturbations import PERTURBATIONS
from clickbait.inference.scorer import Scorer
from clickbait.registry import bundle
from clickbait.training.runs import open_run

LATENCY_HEADLINES = 100  # enough for a median


def measure(run: str, dataset: Dataset, objectives: Sequence[str], headlines: int) -> dict[str, float]:
    """Measures `flip_rate` and `latency_ms` of the run's best checkpoint, if `objectives` names them.

    Args:
        run: the run's URI.
        dataset: its validation split is scored.
        objectives: the names; log_loss is measured during training.
        headlines: the largest number of headlines to score, evenly spread over the split.
    """
    if not {"flip_rate", "latency_ms"} & set(objectives):
        return {}
    table = dataset.table("validation", ["headline", "label"])
    table = table.take(np.linspace(0, table.num_rows - 1, min(headlines, table.num_rows), dtype=np.int64))
    texts: list[str] = table["headline"].to_pylist()
    values = {}
    with tempfile.TemporaryDirectory(prefix="sweep-") as folder:
        scorer = exported(run, dataset, Path(folder))
        if "flip_rate" in objectives:
            values["flip_rate"] = flip_rate(scorer, texts, table["label"].to_numpy().astype(np.int64))
        if "latency_ms" in objectives:
            evaluation.latency(scorer.score, texts[:10])  # warm up
            values["latency_ms"] = statistics.median(
                evaluation.latency(scorer.score, texts[:LATENCY_HEADLINES])
            )
    return values


def flip_rate(scorer: Scorer, texts: Sequence[str], labels: np.ndarray) -> float:
    """The largest share of verdicts that flip under one of `PERTURBATIONS`.

    The threshold is chosen as an export does it, but on `texts` and `labels`, int64 (n,), instead of the
    whole validation split.
    """
    before = scorer.score(texts)
    threshold = metrics.best_threshold(labels, before)
    changed = (scorer.score([change(text) for text in texts]) for change in PERTURBATIONS.values())
    return max(metrics.flip_rate(before, after, threshold) for after in changed)


def exported(run: str, dataset: Dataset, folder: Path) -> Scorer:
    """Exports the best checkpoint to int8 and loads it on one thread.

    This is `clickbait.training.export.build` without the parts that only a published bundle needs.
    """
    # These import torch, which a sweep without these objectives does not need.
    from clickbait.models import load
    from clickbait.training import export

    with open_run(run).fetch(str(open_run(run).best())) as checkpoint:
        model = load.load_checkpoint(checkpoint)
    export.to_onnx(model, folder / export.FP32, dataset.max_tokens)
    export.quantize(folder / export.FP32, folder / export.INT8)
    (folder / "tokenizer.json").write_bytes(dataset.tokenizer)
    bundle.seal(
        folder,
        name=MODEL_NAME,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        base_model="trial",
        synthetic=dataset.synthetic,
        max_tokens=dataset.max_tokens,
        max_characters=int(dataset.manifest["config"]["max_characters"]),
        temperature=1.0,  # does not change a verdict: the threshold is chosen on these scores
        runtimes={"int8": export.INT8, "fp32": export.FP32},
        default_runtime="int8",
        config={},
        dataset=dataset.fingerprint,
        git_commit=None,
        metrics={},
        verdict=None,
    )
    return Scorer(folder, verified=True)
