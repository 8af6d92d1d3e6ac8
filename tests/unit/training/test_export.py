"""The exported forms are compared with torch by the verdicts that the bundle gives: at its threshold."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from clickbait.evaluation import metrics
from clickbait.inference.scorer import Scorer
from clickbait.registry import bundle
from clickbait.training import export
from tests.tiny import tiny_bundle

# Scores of torch and of the served form, and labels whose best threshold is between 0.85 and 0.95.
LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 1])
TORCH = np.array([0.10, 0.60, 0.70, 0.80, 0.88, 0.96, 0.97, 0.99])
SERVED = np.array([0.10, 0.60, 0.70, 0.85, 0.95, 0.96, 0.97, 0.99], np.float32)


def test_a_form_agrees_at_the_bundles_threshold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At 0.5 all verdicts are the same; at 0.9, the bundle's threshold, one of the eight differs."""
    folder = tiny_bundle(tmp_path / "bundle")
    rows = {"headline": [f"word {row}" for row in range(8)], "input_ids": [[1, 2]] * 8, "label": LABELS}
    dataset: Any = SimpleNamespace(table=lambda split, columns: pa.table(rows).select(columns))
    margins = np.log(TORCH / (1 - TORCH))
    monkeypatch.setattr(
        export, "torch_margins", lambda model, rows, which=None: margins if which is None else margins[which]
    )
    monkeypatch.setattr(Scorer, "score", lambda self, texts: SERVED[[int(text.split()[1]) for text in texts]])
    model: Any = None
    scorers = {"int8": Scorer(folder, runtime="int8")}
    measured, threshold = export.compare(model, scorers, "int8", dataset, 1.0, 1)
    assert threshold == metrics.best_threshold(LABELS, SERVED) == pytest.approx(0.905, abs=0.01)
    assert measured["threshold"] == threshold
    assert measured["int8"]["agreement"] == 7 / 8
    assert measured["int8"]["max_difference"] == pytest.approx(0.07)


def test_an_optimised_fp32_graph_that_is_another_function_is_removed(tmp_path: Path) -> None:
    folder = tiny_bundle(tmp_path / "bundle")
    graphs = {
        name: export.optimize(folder, file)
        for name, file in (("int8", "model.onnx"), ("fp32", "model.fp32.onnx"))
    }
    bundle.amend(folder, optimized=graphs)
    right, wrong = {"agreement": 1.0, "max_difference": 1e-6}, {"agreement": 0.9, "max_difference": 0.3}
    measured = {"fp32": right, "fp32_plain": right, "int8": wrong, "int8_plain": wrong}
    export.drop_wrong_graph(folder, measured)
    assert set(bundle.verify(folder).optimized) == {"int8", "fp32"}
    measured["fp32"] = wrong
    export.drop_wrong_graph(folder, measured)
    assert set(bundle.verify(folder).optimized) == {"int8"}
    assert measured["fp32"] == right
    assert not (folder / graphs["fp32"].file).exists()
    assert Scorer(folder, runtime="fp32").score(["you won believe"])[0] > 0.5
