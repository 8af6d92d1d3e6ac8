"""Soft labels: whole or not there, of one dataset, and the loss that is trained on them is Hinton's."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest
import torch
import torch.nn.functional as F

from clickbait.config import TrainConfig
from clickbait.data import soft_labels
from clickbait.data.dataset import Dataset
from clickbait.errors import DataError
from clickbait.training.loop import headline_losses
from tuning.distil import CERTAIN, margins_of

ROWS = {
    "headline": ["a", "b", "c"],
    "label": [0, 1, -1],
    "input_ids": [[1], [2], [3]],
    "length": [1, 1, 1],
    "margin": [-3.0, 2.0, 0.5],
}
OURS = cast(Dataset, SimpleNamespace(fingerprint="ours"))


def written(folder: Path) -> str:
    table = pa.table({**ROWS, "origin": ["train", "train", "crossed"]}, schema=soft_labels.SCHEMA)
    soft_labels.write(str(folder), table, {"dataset": "ours"})
    return str(folder)


def test_what_is_written_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soft_labels, "PART_ROWS", 2)
    uri = written(tmp_path / "soft")
    assert soft_labels.sealed(uri).is_whole()
    found = soft_labels.open_soft(uri, OURS).table(["headline", "margin"])
    assert found.to_pydict() == {"headline": ROWS["headline"], "margin": ROWS["margin"]}


def test_half_of_it_is_nothing_and_a_changed_byte_is_told(tmp_path: Path) -> None:
    uri = written(tmp_path / "soft")
    with pytest.raises(DataError, match="of dataset ours, not theirs"):
        soft_labels.open_soft(uri, cast(Dataset, SimpleNamespace(fingerprint="theirs")))
    (part,) = (tmp_path / "soft").glob("part-*.parquet")
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match=r"part-00000-\w+\.parquet: its SHA-256"):
        soft_labels.open_soft(uri, OURS).table(["margin"])
    part.unlink()
    with pytest.raises(DataError, match="missing"):
        soft_labels.open_soft(uri, OURS).table(["margin"])
    (tmp_path / "soft" / "_SUCCESS").unlink()
    assert not soft_labels.sealed(uri).is_whole()
    with pytest.raises(DataError, match=r"no whole set of soft labels there: run python -m tuning\.distil"):
        soft_labels.open_soft(uri, OURS)


def test_a_set_that_another_job_wrote_meanwhile_stays_whole(tmp_path: Path) -> None:
    uri = written(tmp_path / "soft")
    other = pa.table({**ROWS, "margin": [9.0, 9.0, 9.0], "origin": ["train"] * 3}, schema=soft_labels.SCHEMA)
    soft_labels.write(uri, other, {"dataset": "ours"})  # a teacher's scores may differ in their last digits
    assert soft_labels.open_soft(uri, OURS).table(["margin"])["margin"].to_pylist() == ROWS["margin"]


def losses(**settings: Any) -> torch.Tensor:
    logits = torch.tensor([[1.0, -1.0], [0.5, 0.7], [0.0, 2.0]])
    return headline_losses(
        TrainConfig(**settings), logits, torch.tensor([0, 1, -1]), torch.tensor([-3.0, 2.0, 0.5])
    )


def test_the_loss_is_the_weighted_mean_of_both() -> None:
    margins, theirs = torch.tensor([-2.0, 0.2, 2.0]), torch.tensor([-3.0, 2.0, 0.5])
    hard = F.binary_cross_entropy_with_logits(margins, torch.tensor([0.0, 1.0, 0.0]), reduction="none")
    soft = F.binary_cross_entropy_with_logits(margins / 3, torch.sigmoid(theirs / 3), reduction="none") * 9
    found = losses(soft_labels="/soft", soft_weight=0.75, soft_temperature=3.0)
    torch.testing.assert_close(found[:2], (0.75 * soft + 0.25 * hard)[:2])
    torch.testing.assert_close(
        found[2], soft[2], msg="a headline without a label has the teacher's loss alone"
    )
    torch.testing.assert_close(losses()[:2], hard[:2])


def test_margins_are_what_the_probabilities_came_from() -> None:
    margins = np.array([-9.0, -0.5, 0.0, 3.0])
    scores = (1.0 / (1.0 + np.exp(-margins))).astype(np.float32)
    np.testing.assert_allclose(margins_of(scores), margins, atol=1e-2)
    assert np.abs(margins_of(np.array([0.0, 1.0], np.float32))).tolist() == pytest.approx([CERTAIN, CERTAIN])
