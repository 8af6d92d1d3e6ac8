"""The Open Inference Protocol v2, for the clients of Triton and KServe: health, metadata and infer.

There is one model, with the name in the bundle's manifest. Its input is "text", BYTES of shape [n] or [n, 1].
Its outputs are "score", FP32 of shape [n], the probability of clickbait, and "label", BYTES of shape [n].
Tensors are JSON or, by Triton's extension, binary: then the body is a JSON object of
`inference-header-content-length` bytes, followed by the tensors, each text after its length in four bytes.

https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from typing import Any

import orjson

from clickbait.errors import BadRequest, NotReady, UnknownModel
from serve.core.engine import Answer
from serve.core.service import Service, not_served
from serve.http.parsing import JSON_TYPES, Incoming, check_count, check_texts, flat, object_of
from serve.settings import Settings

SERVER = {"name": "clickbait", "version": "1", "extensions": ["binary_tensor_data"]}
TYPES = JSON_TYPES | {b"", b"application/octet-stream"}  # tritonclient sends none
INFER = "/v2/models/{name}/infer"
INFER_VERSION = "/v2/models/{name}/versions/{version}/infer"
_PATH = re.compile(r"/v2/models/(?P<name>[^/]+)(?:/versions/(?P<version>[^/]+))?/infer")
_OUTPUTS = ("score", "label")
_KEYS = frozenset(
    {"id", "inputs", "model_name", "model_version", "outputs", "parameters"}
)  # KServe's client sends the model's name too
_HEADER_LENGTH = b"inference-header-content-length"
_LENGTH_BYTES = 4  # before each text of a binary tensor, little-endian


def is_infer(path: str) -> bool:
    """Whether `path` is a model's infer route."""
    return _PATH.fullmatch(path) is not None


def check_model(service: Service, name: str, version: str | None) -> str:
    """The version that is served, if it is what was asked for.

    Raises:
        NotReady, UnknownModel: the statuses are `serve.http.api`'s.
    """
    summary = service.summary()
    if not service.ready:
        raise NotReady("the server shuts down: another replica takes it")
    if name != summary["name"]:
        raise UnknownModel("no such model: GET /model names the one that is served")
    if version not in (None, summary["version"]):
        raise not_served()
    return str(summary["version"])


def metadata(service: Service, name: str, version: str | None) -> dict[str, Any]:
    """A model's metadata.

    Raises:
        NotReady, UnknownModel: the statuses are `serve.http.api`'s.
    """
    return {
        "name": name,
        "versions": [check_model(service, name, version)],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}],
        "outputs": [
            {"name": "score", "datatype": "FP32", "shape": [-1]},
            {"name": "label", "datatype": "BYTES", "shape": [-1]},
        ],
    }


class Asked:
    """An infer request: the texts, and which outputs in which form."""

    __slots__ = ("_id", "_name", "_outputs", "texts")

    def __init__(
        self, texts: list[str], name: str, request_id: str | None, outputs: list[tuple[str, bool]]
    ) -> None:
        self.texts = texts
        self._name = name
        self._id = request_id
        self._outputs = outputs

    def render(self, answer: Answer) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        """The body, and its headers."""
        results = [answer.scorer.result(score) for score in answer.scores]
        document: dict[str, Any] = {
            "model_name": self._name,
            "model_version": answer.scorer.version,
            "outputs": [],
        }
        if self._id is not None:
            document["id"] = self._id
        tensors: list[bytes] = []
        for name, binary in self._outputs:
            values = [result[name] for result in results]
            tensor: dict[str, Any] = {
                "name": name,
                "datatype": "FP32" if name == "score" else "BYTES",
                "shape": [len(values)],
            }
            if binary:
                tensors.append(
                    struct.pack(f"<{len(values)}f", *values) if name == "score" else _packed(values)
                )
                tensor["parameters"] = {"binary_data_size": len(tensors[-1])}
            else:
                tensor["data"] = values
            document["outputs"].append(tensor)
        head = orjson.dumps(document)
        if not tensors:
            return head, [(b"content-type", b"application/json")]
        return head + b"".join(tensors), [
            (b"content-type", b"application/octet-stream"),
            (_HEADER_LENGTH, b"%d" % len(head)),
        ]


def asked_of(request: Incoming, service: Service, settings: Settings) -> Asked:
    """What an infer request asks for.

    Raises:
        BadRequest, InvalidText, NotReady, TooManyTexts, UnknownModel: the statuses are `serve.http.api`'s.
    """
    path = _PATH.fullmatch(request.path)
    assert path is not None
    check_model(service, path["name"], path["version"])
    request.version = path["version"]
    head, binary = _split(request)
    document = object_of(head, _KEYS)
    if (
        document.get("model_name", path["name"]) != path["name"]
        or document.get("model_version", path["version"]) != path["version"]
    ):
        raise BadRequest('"model_name" and "model_version" must be the ones in the path, or not there')
    request_id = document.get("id")
    if not isinstance(request_id, str | None):
        raise BadRequest('"id" must be a string')
    texts = _texts(document.get("inputs"), binary, settings)
    check_texts(texts, "text", settings)
    return Asked(
        texts,
        path["name"],
        request_id,
        _outputs(document.get("outputs"), _parameters(document).get("binary_data_output", False)),
    )


def _split(request: Incoming) -> tuple[bytes, bytes]:
    """The JSON and what comes behind it."""
    declared = request.headers.get(_HEADER_LENGTH)
    if declared is None:
        return request.body, b""
    length = int(declared[:20]) if declared.isdigit() else -1
    if not 0 <= length <= len(request.body):
        raise BadRequest("inference-header-content-length must be the length of the JSON in the body")
    return request.body[:length], request.body[length:]


def _texts(inputs: Any, binary: bytes, settings: Settings) -> list[str]:
    if (
        not isinstance(inputs, list)
        or len(inputs) != 1
        or not isinstance(inputs[0], dict)
        or inputs[0].get("name") != "text"
    ):
        raise BadRequest('"inputs" must be a list of one tensor, named "text"')
    tensor = inputs[0]
    if tensor.get("datatype") != "BYTES":
        raise BadRequest('the datatype of "text" must be BYTES')
    shape = tensor.get("shape")
    if (
        not isinstance(shape, list)
        or not all(type(size) is int and size >= 0 for size in shape)
        or shape[1:] not in ([], [1])
        or not shape
    ):
        raise BadRequest('the shape of "text" must be [n] or [n, 1]')
    count = shape[0]
    check_count(count, "text", settings)
    size = _parameters(tensor).get("binary_data_size")
    if size is None:
        if binary:
            raise BadRequest('bytes behind the JSON need the parameter "binary_data_size"')
        found = flat(tensor.get("data"))
        if found is None:
            raise BadRequest('"data" must be a list of strings')
        texts = found
    else:
        if "data" in tensor or type(size) is not int or size != len(binary):
            raise BadRequest(
                '"binary_data_size" must be the count of bytes behind the JSON, and there must be no "data"'
            )
        texts = _unpacked(binary, count)
    if len(texts) != count:
        raise BadRequest('"text" must have as many elements as its shape says')
    return texts


def _outputs(asked: Any, binary: Any) -> list[tuple[str, bool]]:
    """Names, and whether in binary form."""
    if type(binary) is not bool:
        raise BadRequest('"binary_data_output" must be true or false')
    if not asked:
        if asked not in (None, []):
            raise BadRequest('"outputs" must be a list')
        return [(name, binary) for name in _OUTPUTS]
    if not isinstance(asked, list) or not all(
        isinstance(one, dict) and one.get("name") in _OUTPUTS for one in asked
    ):
        raise BadRequest('"outputs" must be a list of "score" and "label"')
    names = [one["name"] for one in asked]
    if len(set(names)) != len(names):
        raise BadRequest('"outputs" must name each output once')
    forms = [_parameters(one) for one in asked]
    if any(form.keys() - {"binary_data"} for form in forms):
        raise BadRequest(
            'an output takes no other parameter than "binary_data": no classification, no shared memory'
        )
    chosen = [form.get("binary_data", binary) for form in forms]
    if not all(type(one) is bool for one in chosen):
        raise BadRequest('"binary_data" must be true or false')
    return list(zip(names, chosen, strict=True))


def _parameters(holder: dict[str, Any]) -> dict[str, Any]:
    parameters = holder.get("parameters", {})
    if not isinstance(parameters, dict):
        raise BadRequest('"parameters" must be an object')
    return parameters


def _unpacked(data: bytes, count: int) -> list[str]:
    texts: list[str] = []
    position = 0
    try:
        while position < len(data) and len(texts) <= count:
            (length,) = struct.unpack_from("<I", data, position)
            position += _LENGTH_BYTES + length
            if position > len(data):
                break
            texts.append(data[position - length : position].decode())
    except (struct.error, UnicodeDecodeError):
        position = -1
    if position != len(data):
        raise BadRequest(
            "a binary text must be its length in four bytes, little-endian, and as many bytes of UTF-8"
        )
    return texts


def _packed(values: Sequence[str]) -> bytes:
    encoded = [value.encode() for value in values]
    return b"".join(struct.pack("<I", len(value)) + value for value in encoded)
