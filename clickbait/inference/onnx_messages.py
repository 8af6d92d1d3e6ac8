"""As much of ONNX's format as it takes to rewrite a graph (`clickbait.inference.attention_rewrite`): its
messages by protobuf, which keeps all other fields.

The package onnx and what it brings would be a quarter of the serving install. Names and numbers are those of
the public specification (onnx.proto, IR version 8 and later).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_FIELDS: dict[str, tuple[tuple[str, int, str], ...]] = {
    "ModelProto": (("graph", 7, "GraphProto"),),
    "GraphProto": (
        ("node", 1, "*NodeProto"),
        ("initializer", 5, "*TensorProto"),
        ("input", 11, "*ValueInfoProto"),
        ("output", 12, "*ValueInfoProto"),
        ("value_info", 13, "*ValueInfoProto"),
    ),
    "NodeProto": (
        ("input", 1, "*string"),
        ("output", 2, "*string"),
        ("op_type", 4, "string"),
        ("attribute", 5, "*AttributeProto"),
        ("domain", 7, "string"),
    ),
    "AttributeProto": (
        ("name", 1, "string"),
        ("f", 2, "float"),
        ("i", 3, "int64"),
        ("ints", 8, "*int64"),
        ("type", 20, "int32"),
    ),
    "TensorProto": (
        ("dims", 1, "*int64"),
        ("data_type", 2, "int32"),
        ("int64_data", 7, "*int64"),
        ("name", 8, "string"),
        ("raw_data", 9, "bytes"),
    ),
    "ValueInfoProto": (("name", 1, "string"),),
}
"""Message to fields: name, number, type; `*` is repeated."""
_FLOAT, _INT64 = 1, 7  # TensorProto.DataType
_TYPES = {np.dtype(np.float32): _FLOAT, np.dtype(np.int64): _INT64}
_ATTRIBUTE_FLOAT, _ATTRIBUTE_INT = 1, 2  # AttributeProto.AttributeType


@functools.cache
def _classes() -> dict[str, Any]:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    scalar = {
        "string": kinds.TYPE_STRING,
        "bytes": kinds.TYPE_BYTES,
        "float": kinds.TYPE_FLOAT,
        "int64": kinds.TYPE_INT64,
        "int32": kinds.TYPE_INT32,
    }
    file = descriptor_pb2.FileDescriptorProto(
        name="clickbait/onnx.proto", package="clickbait", syntax="proto2"
    )
    for message, fields in _FIELDS.items():
        described = file.message_type.add(name=message)
        for name, number, kind in fields:
            label = kinds.LABEL_REPEATED if kind.startswith("*") else kinds.LABEL_OPTIONAL
            kind = kind.lstrip("*")
            if kind in scalar:
                described.field.add(name=name, number=number, label=label, type=scalar[kind])
            else:
                described.field.add(
                    name=name,
                    number=number,
                    label=label,
                    type=kinds.TYPE_MESSAGE,
                    type_name=f".clickbait.{kind}",
                )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"clickbait.{name}"))
        for name in _FIELDS
    }


def model(data: bytes) -> Any:
    """A ModelProto."""
    return _classes()["ModelProto"].FromString(data)


def node(kind: str, inputs: Sequence[str], output: str, *, domain: str = "", **attributes: float) -> Any:
    """A NodeProto of one output; attributes are ints or floats."""
    made = _classes()["NodeProto"](op_type=kind, input=inputs, output=[output], domain=domain)
    for name, value in attributes.items():
        if isinstance(value, int):
            made.attribute.add(name=name, i=value, type=_ATTRIBUTE_INT)
        else:
            made.attribute.add(name=name, f=value, type=_ATTRIBUTE_FLOAT)
    return made


def tensor(name: str, values: NDArray[Any]) -> Any:
    """A TensorProto of float32 or int64 values."""
    return _classes()["TensorProto"](
        name=name, dims=values.shape, data_type=_TYPES[values.dtype], raw_data=values.tobytes()
    )


def integers(found: Any) -> list[int] | None:
    """The values of a TensorProto of int64; None for another."""
    if found.data_type != _INT64:
        return None
    return list(found.int64_data) or np.frombuffer(found.raw_data, "<i8").tolist()
