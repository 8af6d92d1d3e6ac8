"""What every peer calls: a batch tokenized and padded to its longest by the tokenizer, one run of
onnxruntime, and two numbers a text.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from clickbait.registry import bundle


def setting(name: str, default: int = 1) -> int:
    """PEER_<NAME> as a number."""
    return int(os.environ.get(f"PEER_{name}", default))


class Model:
    """The bundle in PEER_BUNDLE with PEER_THREADS compute threads. Any thread may call it: onnxruntime
    computes without the GIL.
    """

    def __init__(self) -> None:
        folder = Path(os.environ["PEER_BUNDLE"])
        self._manifest = bundle.read_manifest(folder)
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(self._manifest.max_tokens)
        self._tokenizer.enable_padding()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = setting("THREADS")
        path = folder / self._manifest.runtimes[self._manifest.default_runtime]
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self(["a first run is slower"])

    def __call__(self, texts: list[str]) -> list[dict[str, Any]]:
        """The label and the score of each text."""
        encodings = self._tokenizer.encode_batch(texts)
        ids = np.array([encoding.ids for encoding in encodings], np.int64)
        mask = np.array([encoding.attention_mask for encoding in encodings], np.int64)
        (logits,) = self._session.run(["logits"], {"input_ids": ids, "attention_mask": mask})
        scores = 1.0 / (1.0 + np.exp((logits[:, 0] - logits[:, 1]) / self._manifest.temperature))
        news, bait = self._manifest.labels
        return [
            {"label": bait if score >= self._manifest.threshold else news, "score": score}
            for score in scores.tolist()
        ]
