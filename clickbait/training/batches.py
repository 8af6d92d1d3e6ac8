"""Which headlines make up which batch: buckets of like length, the same for any number of workers, and any
batch found again by number.

A split is held as one flat array of tokens, so a worker's memory is the tokens and no more: 100 million
headlines are some 6 GB.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from tokenizers import Tokenizer

from clickbait.text import clean
from clickbait.training import augment

CHUNK = 64  # batches sorted by length together: next to no padding, and still a shuffle over 2,000 headlines


@dataclass(frozen=True)
class Batch:
    """One worker's share of a micro-batch, padded to its longest.

    input_ids and attention_mask are int64 (rows, tokens), labels int64 (rows,), -1 for none, margins float32
    (rows,), weights float32 (rows,): what each row counts in the step's mean. A worker with nothing to do in
    a short last batch gets one row of weight 0.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    labels: torch.Tensor
    margins: torch.Tensor
    weights: torch.Tensor


class Headlines:
    """A tokenized split: `tokens` flat, `offsets` (n + 1,), `labels` (n,), and where a teacher scored it
    `margins` (n,), else zeros.
    """

    def __init__(self, table: pa.Table) -> None:
        ids = table["input_ids"].combine_chunks()
        self.tokens: np.ndarray = ids.flatten().to_numpy(zero_copy_only=False)
        self.lengths: np.ndarray = ids.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
        self.offsets: np.ndarray = np.concatenate([[0], np.cumsum(self.lengths)])
        self.labels: np.ndarray = table["label"].to_numpy().astype(np.int64)
        scored = "margin" in table.column_names
        self.margins: np.ndarray = (
            table["margin"].to_numpy() if scored else np.zeros(len(self.labels), np.float32)
        )

    def __len__(self) -> int:
        return len(self.labels)

    def batch(
        self,
        rows: np.ndarray,
        weights: np.ndarray,
        pad_id: int,
        instead: Mapping[int, np.ndarray] | None = None,
    ) -> Batch:
        """The rows as tensors, padded to the longest of them; `instead` has other tokens for some of the
        rows.
        """
        instead = instead or {}
        tokens = [
            instead[row] if row in instead else self.tokens[self.offsets[row] : self.offsets[row + 1]]
            for row in rows.tolist()
        ]
        lengths = np.array([len(one) for one in tokens])
        ids = np.full((len(rows), int(lengths.max())), pad_id, dtype=np.int64)
        mask = np.arange(ids.shape[1]) < lengths[:, None]
        ids[mask] = np.concatenate(tokens)
        return Batch(
            torch.from_numpy(ids),
            torch.from_numpy(mask.astype(np.int64)),
            torch.from_numpy(self.labels[rows]),
            torch.from_numpy(self.margins[rows].astype(np.float32)),
            torch.from_numpy(weights.astype(np.float32)),
        )


class Rewriter:
    """Writes a share of the headlines otherwise, anew each epoch (`clickbait.training.augment`), and
    tokenizes them again.

    The result depends only on seed, epoch and row. It is the same for any number of workers and after a
    resume.
    """

    def __init__(self, texts: pa.ChunkedArray, tokenizer: Tokenizer, share: float, seed: int) -> None:
        self.texts, self.tokenizer, self.share, self.seed = texts, tokenizer, share, seed

    def tokens(self, rows: np.ndarray, epoch: int) -> dict[int, np.ndarray]:
        """The tokens of those of the rows that this epoch sees written otherwise."""
        changed: dict[int, str] = {}
        for row in rows.tolist():
            rng = np.random.default_rng([self.seed, epoch, row])
            if rng.random() < self.share:
                changed[row] = clean(augment.vary(self.texts[row].as_py(), rng))
        encodings = self.tokenizer.encode_batch_fast(list(changed.values())) if changed else []
        return {
            row: np.array(encoding.ids, np.int32) for row, encoding in zip(changed, encodings, strict=True)
        }


def epoch_steps(lengths: np.ndarray, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """The rows of each optimizer step of an epoch: every row once, rows of like length together, steps in
    random order.

    A function of its arguments alone, so a run that resumes finds its place by counting.
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths))
    steps: list[np.ndarray] = []
    for start in range(0, len(order), batch_size * CHUNK):
        chunk = order[start : start + batch_size * CHUNK]
        chunk = chunk[np.argsort(lengths[chunk], kind="stable")]
        steps += [chunk[at : at + batch_size] for at in range(0, len(chunk), batch_size)]
    return [steps[index] for index in rng.permutation(len(steps))]


def share(
    step: np.ndarray, rank: int, world: int, accumulation: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """A worker's micro-batches of a step, as (rows, weights). The weights of all workers and micro-batches
    add up to 1.
    """
    mine = step[rank::world]
    size = -(-len(mine) // accumulation) if len(mine) else 1
    for part in range(accumulation):
        rows = mine[part * size : (part + 1) * size]
        if len(rows):
            yield rows, np.full(len(rows), 1.0 / len(step))
        else:  # gradients are summed over workers: a worker that stayed away would hang the others
            yield step[:1], np.zeros(1)


def evaluation_batches(lengths: np.ndarray, tokens: int, rank: int, world: int) -> Iterator[np.ndarray]:
    """A worker's rows of a split, sorted by length and cut so that a batch has at most `tokens` tokens,
    padding counted.
    """
    order = np.argsort(lengths, kind="stable")[rank::world]
    start = 0
    while start < len(order):
        end = start + 1
        while end < len(order) and lengths[order[end]] * (end + 1 - start) <= tokens:
            end += 1
        yield order[start:end]
        start = end
