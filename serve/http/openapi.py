"""The OpenAPI page: FastAPI's document of its routes, plus the POST routes and all their statuses."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from clickbait.text import raw_bound
from serve.http import v2
from serve.http.keys import needs_key
from serve.http.schemas import Error, Explanation, Inferred, Label, Result, Results
from serve.settings import Settings

REASONS = {
    400: "Not JSON in UTF-8, a lone surrogate, a key twice, or not of the route's shape",
    401: "None of the server's keys was sent",
    404: "No such route, or not the model or version that is served",
    405: "The route does not take this method",
    413: "More bytes than a body takes",
    415: "Not application/json in UTF-8, or compressed",
    422: "A text is blank or too long, or there are too many or none",
    429: "More requests wait than the server takes; Retry-After says when to come again",
    500: "A bug; the log has the request_id",
    503: "No model is loaded, or the server shuts down; Retry-After says when to come again",
    504: "The answer did not come in time",
}
POST = (400, 413, 415, 422, 429, 500, 503, 504)
_REF = "#/components/schemas/{model}"
_JSON = "application/json"
_BINARY = "application/octet-stream"
_ONE, _OTHER = "What a chef learned in forty years", "Council approves the budget"


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a FastAPI route that may answer these."""
    return {status: {"model": Error, "description": REASONS[status]} for status in statuses}


def document(app: FastAPI, settings: Settings) -> dict[str, Any]:
    """The whole page."""
    page = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    _, definitions = models_json_schema([(model, "serialization") for model in _MODELS], ref_template=_REF)
    page["components"]["schemas"] |= definitions["$defs"]
    for path, operation in _posts(settings).items():
        page["paths"].setdefault(path, {})["post"] = operation
    for operations in page["paths"].values():
        for operation in operations.values():
            _say_headers(operation)
            # FastAPI's own, of path parameters: any string is one, and a model that is not served is a 404
            operation["responses"] = {
                status: answer
                for status, answer in operation["responses"].items()
                if _schema_of(answer) != "HTTPValidationError"
            }
    for name in ("HTTPValidationError", "ValidationError"):
        page["components"]["schemas"].pop(name, None)
    if settings.keyed:
        _ask_for_keys(page)
    return page


_MODELS = (Error, Explanation, Inferred, Label, Result, Results)


def _posts(settings: Settings) -> dict[str, dict[str, Any]]:
    text = {
        "type": "string",
        "minLength": 1,
        "description": f"A headline: 1 to {settings.max_characters} characters, control characters dropped and white space folded; "
        f"with them {raw_bound(settings.max_characters)} at most.",
    }
    texts = {"type": "array", "items": text, "minItems": 1, "maxItems": settings.max_texts}
    lists = {**texts, "items": {"type": "array", "items": text, "minItems": 1, "maxItems": 1}}
    labels = {"type": "array", "items": {"$ref": _REF.format(model="Label")}}
    ranked = {"anyOf": [labels, {"type": "array", "items": labels}]}
    parameters = _object(
        {
            "top_k": {"type": ["integer", "null"], "minimum": 1},
            "function_to_apply": {"enum": ["softmax", None]},
        }
    )
    inputs = {
        "inputs": {"anyOf": [text, texts, lists]},
        "parameters": {"anyOf": [parameters, {"type": "null"}]},
        "truncate": {
            "type": ["boolean", "null"],
            "description": "A text longer than the model reads is cut either way.",
        },
        "truncation_direction": {"enum": ["Right", "right", None]},
        "raw_scores": {"const": False},
    }
    predict = _object(inputs, "inputs")
    infer = _infer(settings, text)
    example = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": [_OTHER]}]}
    return {
        "/classify": _post(
            "Classify one headline", _object({"text": text}, "text"), {"text": _ONE}, "Result"
        ),
        "/classify/batch": _post(
            "Classify many headlines",
            _object({"texts": texts}, "texts"),
            {"texts": [_ONE, _OTHER]},
            "Results",
        ),
        "/explain": _post(
            "Which words pushed the score", _object({"text": text}, "text"), {"text": _ONE}, "Explanation"
        ),
        "/predict": _post(
            "As text-embeddings-inference classifies", predict, {"inputs": _ONE}, ranked, "predict"
        ),
        "/": _post(
            "As Hugging Face's inference API classifies",
            predict,
            {"inputs": _ONE},
            {"type": "array", "items": labels},
            "predict_root",
        ),
        v2.INFER: _infer_post("Inference protocol: infer", infer, example, "infer", "name"),
        v2.INFER_VERSION: _infer_post(
            "Inference protocol: infer by a version", infer, example, "infer_version", "name", "version"
        ),
    }


def _infer(settings: Settings, text: dict[str, Any]) -> dict[str, Any]:
    parameters = {"type": "object"}
    size = {"type": "integer", "minimum": 0, "maximum": settings.max_texts}
    shape = {
        "type": "array",
        "prefixItems": [size, {"const": 1}],
        "items": False,
        "minItems": 1,
        "maxItems": 2,
    }
    data = {
        "type": "array",
        "items": {"anyOf": [text, {"type": "array", "items": text, "minItems": 1, "maxItems": 1}]},
    }
    tensor = _object(
        {"name": {"const": "text"}, "datatype": {"const": "BYTES"}, "shape": shape, "data": data},
        "name",
        "datatype",
        "shape",
    )
    tensor["properties"]["parameters"] = parameters
    form = {
        "type": "object",
        "properties": {"binary_data": {"type": "boolean"}},
        "additionalProperties": False,
    }
    output = {
        "type": "object",
        "properties": {"name": {"enum": ["score", "label"]}, "parameters": form},
        "required": ["name"],
    }
    return _object(
        {
            "id": {"type": ["string", "null"], "description": "Comes back in the answer."},
            "model_name": {"type": "string", "description": "The one in the path: KServe's client sends it."},
            "model_version": {"type": "string", "description": "The one in the path."},
            "inputs": {"type": "array", "items": tensor, "minItems": 1, "maxItems": 1},
            "outputs": {"type": "array", "items": output, "uniqueItems": True, "maxItems": 2},
            "parameters": {"type": "object", "properties": {"binary_data_output": {"type": "boolean"}}},
        },
        "inputs",
    )


def _object(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def _post(
    summary: str,
    body: dict[str, Any],
    example: dict[str, Any],
    result: str | dict[str, Any],
    name: str | None = None,
) -> dict[str, Any]:
    schema = {"$ref": _REF.format(model=result)} if isinstance(result, str) else result
    timing = {
        "description": "Milliseconds to parse, in the queue, on the engine, and in all",
        "schema": {"type": "string"},
    }
    answers: dict[str, Any] = {
        "200": {"description": "Computed", "headers": {"server-timing": timing}, "content": _content(schema)}
    }
    for status in POST:
        answers[str(status)] = {
            "description": REASONS[status],
            "content": _content({"$ref": _REF.format(model="Error")}),
        }
    return {
        "summary": summary,
        "operationId": name or f"post_{result}".lower(),
        "parameters": [],
        "requestBody": {"required": True, "content": {_JSON: {"schema": body, "example": example}}},
        "responses": answers,
    }


def _infer_post(
    summary: str, body: dict[str, Any], example: dict[str, Any], name: str, *in_path: str
) -> dict[str, Any]:
    operation = _post(summary, body, example, "Inferred", name)
    answers = operation["responses"]
    answers["200"]["content"][_BINARY] = {"schema": {"type": "string", "format": "binary"}}
    answers["404"] = {"description": REASONS[404], "content": _content({"$ref": _REF.format(model="Error")})}
    operation["parameters"] += [
        {"name": one, "in": "path", "required": True, "schema": {"type": "string"}} for one in in_path
    ]
    length = (
        "Where tensors are bytes behind the JSON: the JSON's length; the content type is then "
        "application/octet-stream."
    )
    operation["parameters"].append(
        {
            "name": "inference-header-content-length",
            "in": "header",
            "required": False,
            "description": length,
            "schema": {"type": "integer"},
        }
    )
    return operation


def _say_headers(operation: dict[str, Any]) -> None:
    """The request id of every answer, the Retry-After of some."""
    request_id = {
        "x-request-id": {"description": "The request's own, or one made for it", "schema": {"type": "string"}}
    }
    retry = {"retry-after": {"description": "Seconds", "schema": {"type": "integer"}}}
    for status, answer in operation["responses"].items():
        answer["headers"] = (
            answer.get("headers", {}) | request_id | (retry if status in ("429", "503") else {})
        )
    given = "Up to 128 of A-Z a-z 0-9 . _ -; another is replaced"
    operation.setdefault("parameters", []).append(
        {
            "name": "x-request-id",
            "in": "header",
            "required": False,
            "description": given,
            "schema": {"type": "string"},
        }
    )


def _ask_for_keys(page: dict[str, Any]) -> None:
    page["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    }
    refused = {"description": REASONS[401], "content": _content({"$ref": _REF.format(model="Error")})}
    for path, operations in page["paths"].items():
        for method, operation in operations.items():
            if method == "post" or needs_key(path):
                operation["security"] = [{"bearer": []}, {"key": []}]
                operation["responses"]["401"] = {
                    **refused,
                    "headers": {"www-authenticate": {"schema": {"type": "string"}}},
                }


def _schema_of(answer: dict[str, Any]) -> str:
    return str(answer.get("content", {}).get(_JSON, {}).get("schema", {}).get("$ref", "")).rpartition("/")[2]


def _content(schema: dict[str, Any]) -> dict[str, Any]:
    return {_JSON: {"schema": schema}}
