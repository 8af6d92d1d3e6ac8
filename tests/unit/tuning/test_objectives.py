"""What a trial's served form is worth: its flips are counted at the threshold that an export would choose."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tuning.sweep import objectives

HEADLINES = ["one", "two", "three", "Four", "Five", "Six"]
LABELS = [0, 0, 0, 1, 1, 1]


class Cased:
    """Scores 0.95 for a capital at the start and 0.7 for none: the best threshold is between the two, and all
    are above 0.5.
    """

    def score(self, texts: list[str]) -> np.ndarray:
        return np.array([0.95 if text[:1].isupper() else 0.7 for text in texts], np.float32)


def test_flips_are_counted_at_the_trials_own_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table({"headline": HEADLINES, "label": pa.array(LABELS, pa.int8())})
    dataset: Any = SimpleNamespace(table=lambda split, columns: table.select(columns))
    monkeypatch.setattr(objectives, "exported", lambda *_: Cased())
    found = objectives.measure("run", dataset, ["log_loss", "flip_rate"], headlines=6)
    assert found == {"flip_rate": 0.5}, "lower case turns three of six; at 0.5 nothing would turn"
