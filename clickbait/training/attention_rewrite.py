"""Rewrites attention in an exported graph: the same function, fewer and cheaper steps.

An exporter writes attention as the framework computes it: a softmax, and copies that bring the heads forward
and back again. For a few dozen tokens these take a third of a model's time on one core, more than half of
what its matrix products take. `rewrite` replaces them:

- The softmax becomes exp, a sum, and a division after the values are mixed. onnxruntime's softmax works row
  by row, and a row is about 20 long. Scores are clipped to bounds that do not change a softmax in float32:
  e**80 times any number of tokens is finite, and e**-85 is nothing beside a row's largest weight.
- Queries, keys and values are taken from the projections by one gather each, which pads and splits at once.
  The products read the heads where they are, and one gather brings the mixed values back. The indices are
  computed once per run and serve every layer.

The input is a graph that onnxruntime has optimised: the rewrite needs its FusedMatMul and Split nodes. What
is not recognised stays as it is. `clickbait.training.export` compares the scores.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

LOWEST, HIGHEST = -85.0, 80.0  # bounds of a score: the exponentials are normal numbers of float32
_COPIES = {"Reshape", "Split", "Squeeze", "Transpose"}
_PREFIX = "attention."  # of every name that is added here
_MASK = "attention_mask"
_FUSED = "com.microsoft"  # the domain of FusedMatMul


def rewrite(model: onnx.ModelProto) -> bool:
    """Rewrites the model's attention in place. Returns whether there was any that is recognised."""
    graph = _Graph(model.graph)
    softmaxes = [node for node in graph.nodes if node.op_type == "Softmax"]
    rewritten = [graph.rewrite(softmax, number) for number, softmax in enumerate(softmaxes)]
    if not any(rewritten):
        return False
    graph.close()
    return True


@dataclass
class _Heads:
    """Where queries, keys or values come from: columns of a projection, padded by a gather."""

    projection: str
    slots: str
    """Row of the projection for each place of the padded square, (batch x tokens)."""
    part: int
    """Which of the projection's `parts` equal blocks of columns."""
    parts: int
    heads: int
    width: int
    """Columns of one head."""


class _Graph:
    """A GraphProto that is being rewritten."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self.nodes = list(graph.node)
        self._producer = {output: node for node in self.nodes for output in node.output}
        self._consumers: dict[str, list[Any]] = defaultdict(list)
        for node in self.nodes:
            for name in node.input:
                self._consumers[name].append(node)
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._shared: set[str] = set()  # outputs that all layers read

    def rewrite(self, softmax: Any, number: int) -> bool:
        """Rewrites one layer. Returns whether it has the expected form."""
        scores = softmax.input[0]
        mix = self._only_consumer(softmax)
        if (
            mix is None
            or mix.op_type != "MatMul"
            or mix.input[0] != softmax.output[0]
            or _attribute(softmax, "axis", -1) != -1
        ):
            return False
        name = f"{_PREFIX}{number}."
        values, mixed = mix.input[1], mix.output[0]
        product: dict[str, Any] = {"kind": "MatMul"}
        heads = self._heads(values)
        if heads is not None and self._gather_scores(scores, heads, name):
            values, product = (
                self._take(heads, f"{name}values"),
                {"kind": "FusedMatMul", "domain": _FUSED, "transBatchB": 1},
            )
        if (back := self._way_back(mix)) is not None and heads is not None:
            mixed = f"{name}mixed"
            self._bring_back(mixed, back, heads, name)
        exponentials, total = softmax.output[0], f"{name}total"
        bounds = [
            self._constant("lowest", np.float32(LOWEST)),
            self._constant("highest", np.float32(HIGHEST)),
        ]
        last = self._constant("last", np.array([-1]))
        self._drop(softmax, mix)
        self._add("Clip", [scores, *bounds], f"{name}scores")
        self._add("Exp", [f"{name}scores"], exponentials)
        self._add(inputs=[exponentials, values], output=f"{name}sums", **product)
        self._add("ReduceSum", [exponentials, last], total, keepdims=1)
        self._add("Div", [f"{name}sums", total], mixed)
        return True

    def close(self) -> None:
        """Writes the nodes back: sorted so that inputs come first, without nodes that are not read."""
        needed = self._needed()
        ready = {"", *self._constants, *(value.name for value in self._graph.input)}
        waiting, ordered = [node for node in self.nodes if needed & {*node.output}], []
        while waiting:
            later = []
            for node in waiting:
                if ready.issuperset(node.input):
                    ordered.append(node)
                    ready.update(node.output)
                else:
                    later.append(node)
            assert len(later) < len(waiting), "the graph has a cycle"
            waiting = later
        del self._graph.node[:], self._graph.value_info[:]
        self._graph.node.extend(ordered)

    def _needed(self) -> set[str]:
        """The names of all values that the outputs depend on."""
        producer = {output: node for node in self.nodes for output in node.output}
        pending, seen = [value.name for value in self._graph.output], set()
        while pending:
            name = pending.pop()
            if name not in seen:
                seen.add(name)
                pending += producer[name].input if name in producer else ()
        return seen

    def _gather_scores(self, scores: str, values: _Heads, name: str) -> bool:
        """Rewrites queries times keys. False where they do not come from the values' projection."""
        bias = self._producer.get(scores)
        product = self._producer.get(bias.input[0]) if bias is not None and bias.op_type == "Add" else None
        if (
            product is None
            or product.op_type != "FusedMatMul"
            or _attribute(product, "transB", 0)
            or _attribute(product, "transA", 0)
        ):
            return False
        keys, queries = self._heads(product.input[1]), self._heads(product.input[0])
        if keys is None or (keys.projection, keys.parts) != (values.projection, values.parts):
            return False
        query = self._take(queries, f"{name}queries") if queries is not None else product.input[0]
        self._drop(product)
        key = self._take(keys, f"{name}keys")
        attributes = {
            "transBatchA": int(queries is not None),
            "transBatchB": 1,
            "transB": 1,
            "alpha": float(_attribute(product, "alpha", 1.0)),
        }
        self._add("FusedMatMul", [query, key], product.output[0], domain=_FUSED, **attributes)
        return True

    def _heads(self, name: str) -> _Heads | None:
        """Follows copies back to the gather that pads a projection. None where there is none."""
        shape: list[int] | None = None
        part = parts = 0
        while (node := self._producer.get(name)) is not None and node.op_type in _COPIES:
            if node.op_type == "Split":
                part, parts = list(node.output).index(name), len(node.output)
            elif node.op_type == "Reshape" and parts and shape is None:
                shape = self._fixed(node.input[1])
            name = node.input[0]
        if node is None or node.op_type != "Gather" or not shape or shape[0] != parts:
            return None
        projection, slots = node.input
        width = self._width(projection)
        if not width or width % (parts * shape[1]):
            return None
        return _Heads(projection, slots, part, parts, shape[1], width // (parts * shape[1]))

    def _width(self, projection: str) -> int:
        """Columns of a matrix product, by its constant matrix or bias; 0 where it has neither."""
        node = self._producer.get(projection)
        for tensor in map(self._constants.get, node.input if node is not None else ()):
            if tensor is not None and len(tensor.dims) in (1, 2):
                return int(tensor.dims[0 if _attribute(node, "transB", 0) else -1])
        return 0

    def _fixed(self, name: str) -> list[int] | None:
        """[parts, heads] of a shape (batch, tokens, parts, heads, -1) that the graph concatenates."""
        node = self._producer.get(name)
        if node is None or node.op_type != "Concat" or len(node.input) != 5:
            return None
        tensors = [self._constants[name] for name in node.input[2:] if name in self._constants]
        sizes = [numpy_helper.to_array(tensor).tolist() for tensor in tensors]
        if len(sizes) != 3 or [len(size) for size in sizes] != [1, 1, 1] or sizes[2] != [-1]:
            return None
        return [sizes[0][0], sizes[1][0]]

    def _take(self, heads: _Heads, output: str) -> str:
        """Adds a gather of one part: (real tokens, parts x heads x width) to (tokens, batch, heads, width).

        It copies whole rows, not the rows of each head. FusedMatMul reads the result as (batch, heads,
        tokens, width) where `transBatch` says so.
        """
        whole = heads.heads * heads.width
        rows = f"{_PREFIX}parts.{heads.projection}"
        self._add_once(
            "Reshape", [heads.projection, self._constant(f"width.{whole}", np.array([-1, whole]))], rows
        )
        slots = self._slots(heads.slots)
        stride, part = (
            self._constant(f"parts.{heads.parts}", np.array(heads.parts)),
            self._constant(f"part.{heads.part}", np.array(heads.part)),
        )
        self._add_once("Mul", [slots, stride], f"{slots}.{heads.parts}")
        self._add_once("Add", [f"{slots}.{heads.parts}", part], f"{slots}.{heads.parts}.{heads.part}")
        self._add("Gather", [rows, f"{slots}.{heads.parts}.{heads.part}"], f"{output}.rows", axis=0)
        shape = self._constant(
            f"heads.{heads.heads}.{heads.width}", np.array([0, 0, heads.heads, heads.width])
        )
        self._add("Reshape", [f"{output}.rows", shape], output)
        return output

    def _slots(self, slots: str) -> str:
        """The slots as (tokens, batch)."""
        self._sizes()
        self._add_once("Concat", [f"{_PREFIX}batch", f"{_PREFIX}tokens"], f"{_PREFIX}square", axis=0)
        self._add_once("Reshape", [slots, f"{_PREFIX}square"], f"{_PREFIX}square.{slots}")
        self._add_once("Transpose", [f"{_PREFIX}square.{slots}"], f"{_PREFIX}slots.{slots}")
        return f"{_PREFIX}slots.{slots}"

    def _sizes(self) -> None:
        self._add_once("Shape", [_MASK], f"{_PREFIX}batch", start=0, end=1)
        self._add_once("Shape", [_MASK], f"{_PREFIX}tokens", start=1, end=2)

    def _way_back(self, mix: Any) -> tuple[str, str] | None:
        """The copies that bring the mixed values into rows again: the real rows, and the last output.

        None where the nodes are others.
        """
        node = mix
        for kind in ("Transpose", "Reshape", "Gather"):
            consumer = self._only_consumer(node)
            if consumer is None or consumer.op_type != kind:
                return None
            node = consumer
        return node.input[1], node.output[0]

    def _bring_back(self, mixed: str, back: tuple[str, str], heads: _Heads, name: str) -> None:
        """Adds a gather: (batch, heads, tokens, width) to (real tokens, heads x width)."""
        rows, output = back
        self._sizes()
        tokens, index = f"{_PREFIX}tokens", f"{_PREFIX}back.{rows}.{heads.heads}"
        # A token at batch x tokens + token of the square is, head by head, at (batch x heads + head) x tokens
        # + token.
        axis, count = (
            self._constant("one", np.array([1])),
            self._constant(f"heads.{heads.heads}", np.array(heads.heads)),
        )
        numbers = self._constant(f"each.{heads.heads}", np.arange(heads.heads).reshape(1, -1))
        for kind, inputs, step in (
            ("Div", [rows, tokens], "batch"),
            ("Mul", [f"{index}.batch", tokens], "start"),
            ("Sub", [rows, f"{index}.start"], "token"),
            ("Mul", [f"{index}.start", count], "block"),
            ("Add", [f"{index}.block", f"{index}.token"], "first"),
            ("Unsqueeze", [f"{index}.first", axis], "column"),
            ("Mul", [numbers, tokens], "head"),
            ("Add", [f"{index}.column", f"{index}.head"], "all"),
        ):
            self._add_once(kind, inputs, f"{index}.{step}")
        width = self._constant(f"width.{heads.width}", np.array([-1, heads.width]))
        whole = self._constant(
            f"width.{heads.heads * heads.width}", np.array([-1, heads.heads * heads.width])
        )
        self._drop(self._producer[output])
        self._add("Reshape", [mixed, width], f"{name}rows")
        self._add("Gather", [f"{name}rows", f"{index}.all"], f"{name}real", axis=0)
        self._add("Reshape", [f"{name}real", whole], output)

    def _only_consumer(self, node: Any) -> Any | None:
        consumers = self._consumers[node.output[0]]
        return consumers[0] if len(consumers) == 1 else None

    def _constant(self, name: str, values: NDArray[Any] | np.float32) -> str:
        name = f"{_PREFIX}{name}"
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(np.asarray(values), name)
            self._graph.initializer.append(self._constants[name])
        return name

    def _add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> None:
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))

    def _add_once(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> None:
        if output not in self._shared:
            self._shared.add(output)
            self._add(kind, inputs, output, **attributes)

    def _drop(self, *nodes: Any) -> None:
        for node in nodes:
            self.nodes = [other for other in self.nodes if other is not node]


def _attribute(node: onnx.NodeProto, name: str, default: float) -> float:
    values = (helper.get_attribute_value(item) for item in node.attribute if item.name == name)
    return next(values, default)
