"""The token ids of headlines as Arrow columns."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer

BATCH = 1000  # headlines a call: enough to pay for the call, and little memory


def encode(tokenizer: Tokenizer, texts: list[str]) -> tuple[pa.Array, pa.Array]:
    """The token ids of each text, as list<int32>, and how many there are, as int16."""
    ids: list[list[int]] = []
    for start in range(0, len(texts), BATCH):
        ids += [encoding.ids for encoding in tokenizer.encode_batch_fast(texts[start : start + BATCH])]
    lengths = np.array([len(one) for one in ids], dtype=np.int16)
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    values = np.array([token for one in ids for token in one], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values)), pa.array(lengths)
