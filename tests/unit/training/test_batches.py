"""Batches: every row once, like lengths together, the same step for any number of workers."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import torch
from hypothesis import given
from hypothesis import strategies as st

from clickbait.training.batches import Headlines, epoch_steps, evaluation_batches, share

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=300).map(np.array)


@given(LENGTHS, st.integers(1, 40), st.integers(0, 5))
def test_an_epoch_visits_every_row_once(lengths: np.ndarray, batch_size: int, epoch: int) -> None:
    steps = epoch_steps(lengths, batch_size, seed=1, epoch=epoch)
    assert sorted(np.concatenate(steps).tolist()) == list(range(len(lengths)))
    assert all(len(step) <= batch_size for step in steps)


def test_epochs_differ_and_are_found_again() -> None:
    lengths = np.arange(1, 200) % 30 + 1
    first, again, second = (epoch_steps(lengths, 8, 0, epoch) for epoch in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_buckets_leave_next_to_no_padding() -> None:
    lengths = np.random.default_rng(0).integers(5, 40, 4096)

    def padding(steps: list[np.ndarray]) -> float:
        padded = sum(len(step) * lengths[step].max() for step in steps)
        return 1.0 - lengths.sum() / padded

    shuffled = np.random.default_rng(1).permutation(4096).reshape(-1, 32)
    assert padding(epoch_steps(lengths, 32, 0, 0)) < 0.03 < 0.3 < padding(list(shuffled))


@given(st.integers(1, 50), st.integers(1, 5), st.integers(1, 4))
def test_shares_of_all_workers_are_the_step(rows: int, world: int, accumulation: int) -> None:
    step = np.arange(rows) + 7
    parts = [part for rank in range(world) for part in share(step, rank, world, accumulation)]
    assert len(parts) == world * accumulation, "a worker that skips a micro-batch hangs the others"
    real = [row for part, weights in parts for row, weight in zip(part, weights, strict=True) if weight]
    assert sorted(real) == sorted(step)
    assert np.isclose(sum(weights.sum() for _, weights in parts), 1.0)


@given(LENGTHS, st.integers(1, 4), st.integers(1, 500))
def test_evaluation_covers_the_split_within_the_budget(lengths: np.ndarray, world: int, tokens: int) -> None:
    batches = [rows for rank in range(world) for rows in evaluation_batches(lengths, tokens, rank, world)]
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert all(len(rows) == 1 or len(rows) * lengths[rows].max() <= tokens for rows in batches)


def test_a_batch_holds_its_rows_padded() -> None:
    table = pa.table(
        {
            "input_ids": pa.array([[5, 6, 7], [8], [9, 10]], pa.list_(pa.int32())),
            "label": pa.array([1, 0, 1], pa.int8()),
        }
    )
    batch = Headlines(table).batch(np.array([1, 2]), np.array([0.5, 0.5]), pad_id=99)
    assert torch.equal(batch.input_ids, torch.tensor([[8, 99], [9, 10]]))
    assert torch.equal(batch.attention_mask, torch.tensor([[1, 0], [1, 1]]))
    assert batch.labels.tolist() == [0, 1]


def test_a_sliced_table_is_read_from_its_own_offset() -> None:
    table = pa.table(
        {
            "input_ids": pa.array([[5, 6, 7], [8], [9, 10]], pa.list_(pa.int32())),
            "label": pa.array([1, 0, 1], pa.int8()),
        }
    )
    batch = Headlines(table.slice(1)).batch(np.array([1]), np.array([1.0]), pad_id=0)
    assert batch.input_ids.tolist() == [[9, 10]]
