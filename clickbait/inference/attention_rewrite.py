"""Attention over headlines, in a graph that onnxruntime has optimised: the same function in fewer and cheaper
steps.

An exporter writes attention as the framework computes it: a softmax, and copies that bring the heads forward
and back again. Over a few dozen tokens those take a third of a model's time on a core, more than half of what
its matrices take. Here

- a softmax becomes exp, a sum, and a division after the values are mixed. onnxruntime's softmax goes row by
  row, and rows are 20 long. Scores are held within bounds that no softmax in float32 sees beyond: e**80 times
  any number of tokens is finite, e**-85 is nothing beside a row's largest weight.
- queries, keys and values are taken out of the projections by one gather each, which pads and splits at once;
  the products read their heads where they lie, and one gather brings the mixed values back. Their indices are
  computed once a run and serve every layer.

`rewrite` changes what it knows and leaves the rest. Who calls it compares the scores
(`clickbait.inference.graph_cache`).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clickbait.inference import onnx_messages

LOWEST, HIGHEST = -85.0, 80.0  # of a score: their exponentials are normal numbers of float32
_MOVES = {"Reshape", "Split", "Squeeze", "Transpose"}
_MINE = "attention."  # before every name that is made here
_MASK = "attention_mask"
_FUSED = "com.microsoft"  # the domain of FusedMatMul


def rewrite(data: bytes) -> bytes | None:
    """The model with its attention rewritten; None where it has none that is known."""
    model = onnx_messages.model(data)
    graph = _Graph(model.graph)
    found = [node for node in graph.nodes if node.op_type == "Softmax"]
    if not sum(graph.rewrite(softmax, number) for number, softmax in enumerate(found)):
        return None
    graph.close()
    done: bytes = model.SerializeToString()
    return done


@dataclass
class _Heads:
    """Where queries, keys or values come from: a part of a projection's columns, and padded by a gather."""

    projection: str
    slots: str
    """Which row of the projection stands at each place of the padded square, (batch x tokens)."""
    part: int
    parts: int
    heads: int
    width: int
    """Of a head."""


class _Graph:
    """A GraphProto that is being rewritten."""

    def __init__(self, graph: Any) -> None:
        self._graph = graph
        self.nodes = list(graph.node)
        self._producer = {output: node for node in self.nodes for output in node.output}
        self._consumers: dict[str, list[Any]] = defaultdict(list)
        for node in self.nodes:
            for name in node.input:
                self._consumers[name].append(node)
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._indices: dict[str, None] = {}

    def rewrite(self, softmax: Any, number: int) -> bool:
        """One layer; whether it is of a form that is known."""
        scores = softmax.input[0]
        mix = self._only_consumer(softmax)
        if (
            mix is None
            or mix.op_type != "MatMul"
            or mix.input[0] != softmax.output[0]
            or _attribute(softmax, "axis", -1) != -1
        ):
            return False
        name = f"{_MINE}{number}."
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
        """Puts the nodes in an order in which each has its inputs, without those whose outputs nobody reads
        any more.
        """
        needed = self._needed()
        ready = {"", *self._constants, *(each.name for each in self._graph.input)}
        waiting, ordered = [node for node in self.nodes if needed & {*node.output}], []
        while waiting:
            later = []
            for node in waiting:
                if ready.issuperset(node.input):
                    ordered.append(node)
                    ready.update(node.output)
                else:
                    later.append(node)
            assert len(later) < len(waiting), "the graph has a circle"
            waiting = later
        del self._graph.node[:], self._graph.value_info[:]
        self._graph.node.extend(ordered)

    def _needed(self) -> set[str]:
        """Every name that leads to what the graph gives."""
        producer = {output: node for node in self.nodes for output in node.output}
        open_, seen = [each.name for each in self._graph.output], set()
        while open_:
            name = open_.pop()
            if name not in seen:
                seen.add(name)
                open_ += producer[name].input if name in producer else ()
        return seen

    def _gather_scores(self, scores: str, values: _Heads, name: str) -> bool:
        """Queries times keys, each from its gather; False where they do not come from the values'
        projection.
        """
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
        ways = {
            "transBatchA": int(queries is not None),
            "transBatchB": 1,
            "transB": 1,
            "alpha": float(_attribute(product, "alpha", 1.0)),
        }
        self._add("FusedMatMul", [query, key], product.output[0], domain=_FUSED, **ways)
        return True

    def _heads(self, name: str) -> _Heads | None:
        """Follows copies back to the gather that pads a projection."""
        shape: list[int] | None = None
        part = parts = 0
        while (node := self._producer.get(name)) is not None and node.op_type in _MOVES:
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
        """Columns of a product with a matrix, by that or by what is added to it; 0 where it is not one."""
        made = self._producer.get(projection)
        for tensor in map(self._constants.get, made.input if made is not None else ()):
            if tensor is not None and len(tensor.dims) in (1, 2):
                return int(tensor.dims[0 if _attribute(made, "transB", 0) else -1])
        return 0

    def _fixed(self, name: str) -> list[int] | None:
        """Of a shape (batch, tokens, parts, heads, -1), put together in the graph: parts and heads."""
        made = self._producer.get(name)
        if made is None or made.op_type != "Concat" or len(made.input) != 5:
            return None
        found = [
            onnx_messages.integers(tensor)
            for tensor in map(self._constants.get, made.input[2:])
            if tensor is not None
        ]
        return (
            [found[0][0], found[1][0]]
            if len(found) == 3 and found[0] and found[1] and found[2] == [-1]
            else None
        )

    def _take(self, heads: _Heads, output: str) -> str:
        """(real tokens, parts x heads x width) to (tokens, batch, heads, width), of one part: whole rows are
        copied, none a head's alone.

        FusedMatMul reads it as (batch, heads, tokens, width) where `transBatch` says so.
        """
        whole = heads.heads * heads.width
        rows = f"{_MINE}parts.{heads.projection}"
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
        self._add_once("Concat", [f"{_MINE}batch", f"{_MINE}tokens"], f"{_MINE}square", axis=0)
        self._add_once("Reshape", [slots, f"{_MINE}square"], f"{_MINE}square.{slots}")
        self._add_once("Transpose", [f"{_MINE}square.{slots}"], f"{_MINE}slots.{slots}")
        return f"{_MINE}slots.{slots}"

    def _sizes(self) -> None:
        self._add_once("Shape", [_MASK], f"{_MINE}batch", start=0, end=1)
        self._add_once("Shape", [_MASK], f"{_MINE}tokens", start=1, end=2)

    def _way_back(self, mix: Any) -> tuple[str, str] | None:
        """Of copies that bring the mixed values into rows again: which rows are real, and the name of the
        last. None for others.
        """
        node = mix
        for kind in ("Transpose", "Reshape", "Gather"):
            found = self._only_consumer(node)
            if found is None or found.op_type != kind:
                return None
            node = found
        return node.input[1], node.output[0]

    def _bring_back(self, mixed: str, back: tuple[str, str], heads: _Heads, name: str) -> None:
        """(batch, heads, tokens, width) to (real tokens, heads x width)."""
        rows, output = back
        self._sizes()
        tokens, index = f"{_MINE}tokens", f"{_MINE}back.{rows}.{heads.heads}"
        # A token at batch x tokens + token of the square is, head by head, at (batch x heads + head) x tokens
        # + token.
        one, count = (
            self._constant("one", np.array([1])),
            self._constant(f"heads.{heads.heads}", np.array(heads.heads)),
        )
        each = self._constant(f"each.{heads.heads}", np.arange(heads.heads).reshape(1, -1))
        for kind, inputs, made in (
            ("Div", [rows, tokens], "batch"),
            ("Mul", [f"{index}.batch", tokens], "start"),
            ("Sub", [rows, f"{index}.start"], "token"),
            ("Mul", [f"{index}.start", count], "block"),
            ("Add", [f"{index}.block", f"{index}.token"], "first"),
            ("Unsqueeze", [f"{index}.first", one], "column"),
            ("Mul", [each, tokens], "head"),
            ("Add", [f"{index}.column", f"{index}.head"], "all"),
        ):
            self._add_once(kind, inputs, f"{index}.{made}")
        width = self._constant(f"width.{heads.width}", np.array([-1, heads.width]))
        whole = self._constant(
            f"width.{heads.heads * heads.width}", np.array([-1, heads.heads * heads.width])
        )
        self._drop(self._producer[output])
        self._add("Reshape", [mixed, width], f"{name}rows")
        self._add("Gather", [f"{name}rows", f"{index}.all"], f"{name}real", axis=0)
        self._add("Reshape", [f"{name}real", whole], output)

    def _only_consumer(self, node: Any) -> Any | None:
        found = self._consumers[node.output[0]]
        return found[0] if len(found) == 1 else None

    def _constant(self, name: str, values: NDArray[Any] | np.float32) -> str:
        name = f"{_MINE}{name}"
        if name not in self._constants:
            self._constants[name] = onnx_messages.tensor(name, np.asarray(values))
            self._graph.initializer.append(self._constants[name])
        return name

    def _add(self, kind: str, inputs: list[str], output: str, **more: Any) -> None:
        self.nodes.append(onnx_messages.node(kind, inputs, output, **more))

    def _add_once(self, kind: str, inputs: list[str], output: str, **more: Any) -> None:
        if output not in self._indices:
            self._indices[output] = None
            self._add(kind, inputs, output, **more)

    def _drop(self, *nodes: Any) -> None:
        for node in nodes:
            self.nodes = [one for one in self.nodes if one is not node]


def _attribute(node: Any, name: str, default: float) -> float:
    return next((one.f if one.type == 1 else one.i for one in node.attribute if one.name == name), default)
