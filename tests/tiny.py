"""A real bundle that weighs a few kilobytes: an ONNX model of an embedding, a masked sum and a matrix, and a
word tokenizer.

It keeps the contract of the served model (inputs, output, labels, tokenizer.json, manifest) and two
properties that tests lean on: a score depends on which words are there, and padding and neighbours do not
change it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from clickbait.registry import bundle

BAIT = ("you", "won", "believe", "secret", "shocking", "trick", "reasons")
NEWS = ("council", "approves", "budget", "market", "closes", "report", "minister")
NEUTRAL = ("the", "a", "of", "in", "new", "word", "number", "seven", "one", "two")
WIDTH = 4


def tiny_bundle(folder: Path, **manifest_fields: Any) -> Path:
    """Writes the bundle and returns its folder. `BAIT` words push the score up, `NEWS` words down."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {
        word: index for index, word in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", *BAIT, *NEWS, *NEUTRAL))
    }
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    for file in ("model.onnx", "model.fp32.onnx"):
        onnx.save(_model(vocabulary), str(folder / file))
    fields: dict[str, Any] = {
        "name": "clickbait-model",
        "created_at": "2026-01-02T03:04:05+00:00",
        "base_model": "tiny",
        "synthetic": True,
        "max_tokens": 32,
        "max_characters": 512,
        "runtimes": {"int8": "model.onnx", "fp32": "model.fp32.onnx"},
        "default_runtime": "int8",
        "config": {},
        "dataset": "0" * 16,
        "git_commit": None,
        "metrics": {"accuracy": 0.9, "auc": None},
        "verdict": {"decision": "promoted", "champion": None, "checks": []},
    }
    bundle.seal(folder, **{**fields, **manifest_fields})
    return folder


def _model(vocabulary: dict[str, int]) -> onnx.ModelProto:
    """logits = (sum of the unmasked tokens' vectors) x matrix. Pads have a large vector, so a mask that is
    not used shows.
    """
    table = np.random.default_rng(7).normal(0.0, 0.05, (len(vocabulary), WIDTH)).astype(np.float32)
    for word, index in vocabulary.items():
        table[index, 0] += 0.8 * (word in BAIT) - 0.8 * (word in NEWS) + 50.0 * (word == "[PAD]")
    matrix = np.random.default_rng(8).normal(0.0, 0.1, (WIDTH, 2)).astype(np.float32)
    matrix[0] = (-1.0, 1.0)
    ids, mask = (
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"])
        for name in ("input_ids", "attention_mask")
    )
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["vectors"]),
        helper.make_node("Cast", ["attention_mask"], ["weights"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["weights", "last"], ["columns"]),
        helper.make_node("Mul", ["vectors", "columns"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "middle"], ["pooled"], keepdims=0),
        helper.make_node("MatMul", ["pooled", "matrix"], ["logits"]),
    ]
    constants = [
        numpy_helper.from_array(table, "table"),
        numpy_helper.from_array(matrix, "matrix"),
        numpy_helper.from_array(np.array([2], np.int64), "last"),
        numpy_helper.from_array(np.array([1], np.int64), "middle"),
    ]
    graph = helper.make_graph(nodes, "tiny", [ids, mask], [logits], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model
