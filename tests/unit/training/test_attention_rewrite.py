"""A graph with rewritten attention gives the logits of the plain graph; other graphs stay as they are."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    MPNetConfig,
    MPNetForSequenceClassification,
)

from clickbait.inference import graph_cache
from clickbait.models import compact
from clickbait.training import attention_rewrite, export

MAX_TOKENS = 24
SHAPES = [(1, 2), (1, 9), (3, 2), (5, 24), (2, 3)]


def _bert() -> Any:
    config = BertConfig(
        vocab_size=60, hidden_size=48, num_hidden_layers=3, num_attention_heads=3, intermediate_size=64
    )
    return BertForSequenceClassification(config)


def _mpnet() -> Any:
    config = MPNetConfig(
        vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    model = MPNetForSequenceClassification(config)
    with torch.no_grad():
        model.mpnet.encoder.relative_attention_bias.weight.mul_(50)
    return model


def _compact(**fields: int) -> Any:
    return compact.CompactForSequenceClassification(
        compact.CompactConfig(
            vocab_size=60, hidden_size=32, heads=2, intermediate_size=64, max_tokens=MAX_TOKENS, **fields
        )
    )


MODELS = {
    "bert": _bert,
    "mpnet": _mpnet,
    "one layer": lambda: _compact(layers=1),
    "phrases": lambda: _compact(layers=2, buckets=64),
}


def exported(folder: Path, make: Any, scale: float = 6.0, *, biases: bool = True) -> dict[str, Path]:
    """fp32 and int8 files; weights so large that attention looks at some tokens more than at others."""
    torch.manual_seed(3)
    model = make().eval()
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if weights.dim() > 1 and "classifier" not in name:
                weights.mul_(scale)
            elif name.endswith("bias") and biases:
                weights.add_(0.1 * torch.randn_like(weights))
    files = {"fp32": folder / "fp32.onnx", "int8": folder / "int8.onnx"}
    export.to_onnx(model, files["fp32"], MAX_TOKENS)
    export.quantize(files["fp32"], files["int8"])
    return files


def session(path: Path, *, optimized: bool) -> Any:
    options = graph_cache.options(1, optimized=optimized)
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def optimized(path: Path) -> Path:
    return path.parent / export.optimize(path.parent, path.name).file


def logits(run: Any, shape: tuple[int, int]) -> Any:
    random = np.random.default_rng(shape[0] * 100 + shape[1])
    lengths = np.sort(random.integers(1, shape[1] + 1, shape[0]))
    lengths[-1] = shape[1]
    mask = (np.arange(shape[1]) < lengths[:, None]).astype(np.int64)
    ids = random.integers(4, 60, shape) * mask
    return run.run(["logits"], {"input_ids": ids, "attention_mask": mask})[0]


@pytest.mark.parametrize("kind", ["fp32", "int8"])
@pytest.mark.parametrize("name", MODELS)
def test_the_logits_stay(tmp_path: Path, name: str, kind: str) -> None:
    path = exported(tmp_path, MODELS[name], biases=name != "one layer")[kind]
    model = onnx.load(optimized(path))
    kinds = Counter(node.op_type for node in model.graph.node)
    rewritten = session(optimized(path), optimized=True)
    assert kinds["Softmax"] == kinds["Split"] == 0
    assert kinds["Exp"] == sum(node.op_type == "Softmax" for node in onnx.load(str(path)).graph.node)
    plain = session(path, optimized=False)
    for shape in SHAPES:
        before, after = logits(plain, shape), logits(rewritten, shape)
        assert np.ptp(before[:, 1] - before[:, 0]) > 0.003 or shape[0] == 1, (
            "headlines must differ, or anything would pass"
        )
        if kind == "fp32":
            np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)
        else:  # a sum rounded otherwise may take an activation to the next of 256 steps
            assert np.median(np.abs(after - before)) < 1e-4
            np.testing.assert_allclose(after, before, atol=0.1)


def test_scores_beyond_all_bounds_give_numbers(tmp_path: Path) -> None:
    path = exported(tmp_path, MODELS["bert"], scale=300.0)["fp32"]
    rewritten = session(optimized(path), optimized=True)
    for shape in SHAPES:
        assert np.isfinite(logits(rewritten, shape)).all()


def _softmax_alone(path: Path) -> None:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])
    out = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4])
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node("Softmax", ["y"], ["logits"])]
    graph = helper.make_graph(
        nodes, "g", [value], [out], [numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")]
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), str(path))


def test_a_graph_without_attention_stays(tmp_path: Path) -> None:
    _softmax_alone(tmp_path / "other.onnx")
    model = onnx.load(tmp_path / "other.onnx")
    before = model.SerializeToString()
    assert not attention_rewrite.rewrite(model)
    assert model.SerializeToString() == before


def test_the_optimised_graph_is_portable(tmp_path: Path) -> None:
    """Only operators that onnxruntime has on every CPU: none of the layouts that it makes for one CPU."""
    for path in exported(tmp_path, MODELS["bert"]).values():
        domains = {node.domain for node in onnx.load(optimized(path)).graph.node}
        assert domains == {"", "com.microsoft"}
