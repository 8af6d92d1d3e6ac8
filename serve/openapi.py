"""The OpenAPI page of the two routes that `serve.api` parses by hand: what they take, what they give, and every status they answer."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, ConfigDict, Field

from serve.settings import Settings

REASONS = {
    400: "Not JSON in UTF-8, a lone surrogate, a key twice, or not of the route's shape",
    404: "No such route",
    405: "The route does not take this method",
    413: "More bytes than a body takes",
    415: "Not application/json in UTF-8, or compressed",
    422: "A text is blank or too long, or there are too many or none",
    429: "More requests wait than the server takes; Retry-After says when to come again",
    500: "A bug; the log has the request_id",
    503: "No model is loaded, or the server shuts down; Retry-After says when to come again",
    504: "The answer did not come in time",
}
CLASSIFY = (400, 413, 415, 422, 429, 500, 503, 504)


class Result(BaseModel):
    """One headline's verdict."""

    model_config = ConfigDict(
        use_attribute_docstrings=True, json_schema_extra={"examples": [{"label": "clickbait", "score": 0.973, "model": "v3"}]}
    )

    label: Literal["news", "clickbait"]
    """The score against the model's threshold."""
    score: float = Field(ge=0.0, le=1.0)
    """The probability that the headline is clickbait."""
    model: str
    """The version that computed it."""


class Results(BaseModel):
    """A verdict for each text, in their order."""

    results: list[Result]


class Error(BaseModel):
    """Every answer that is not a 200 has this body. What was sent is never in it."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    error: str
    """What is wrong and what to do, in one line."""
    error_type: str
    """A name to program against."""
    request_id: str
    """The `x-request-id` of the request, or one that was made for it."""


class Health(BaseModel):
    """The server in one line."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    message: str
    """What this is."""
    status: Literal["ready", "not ready", "alive"]
    """`ready`: a model is loaded and warmed. `alive`: the process answers, whatever the model."""
    model: str | None
    """The version that is served."""


class Model(BaseModel):
    """The version that is served."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    name: str
    """The model's name."""
    version: str
    """Its version in the registry."""
    base_model: str
    """The encoder that was fine-tuned."""
    created_at: str
    """When it was exported."""
    dataset: str
    """The fingerprint of the data it was trained on."""
    synthetic: bool
    """Whether that data was generated."""
    labels: list[str]
    """The classes, in the order of the logits."""
    threshold: float
    """A score at or above it is clickbait."""
    max_tokens: int
    """Tokens the model reads of a text; the rest is cut off."""
    max_characters: int
    """Characters the server takes, counted after cleaning."""
    runtime: str
    """The form that computes: int8 or fp32."""
    metrics: dict[str, float | None]
    """What it scored on the test split."""
    decision: str | None
    """What the gate decided."""


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a FastAPI route that may answer these."""
    return {status: {"model": Error, "description": REASONS[status]} for status in statuses}


def document(app: FastAPI, settings: Settings) -> dict[str, Any]:
    """FastAPI's document of its own routes, and the two others."""
    page = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    schemas = page["components"]["schemas"]
    for model in (Result, Results, Error):
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schema.pop("$defs", None)
        schemas[model.__name__] = schema
    text = {
        "type": "string",
        "minLength": 1,
        "description": f"A headline: 1 to {settings.max_characters} characters, control characters dropped and white space folded.",
    }
    texts = {"type": "array", "items": text, "minItems": 1, "maxItems": settings.max_texts}
    one, many = "What a chef learned in forty years", "Council approves the budget"
    page["paths"]["/classify"] = _post("Classify one headline", {"text": text}, {"text": one}, "Result")
    page["paths"]["/classify/batch"] = _post("Classify many headlines", {"texts": texts}, {"texts": [one, many]}, "Results")
    return page


def _post(summary: str, properties: dict[str, Any], example: dict[str, Any], result: str) -> dict[str, Any]:
    request_id = {"x-request-id": {"description": "The request's own, or one made for it", "schema": {"type": "string"}}}
    retry = {"retry-after": {"description": "Seconds", "schema": {"type": "integer"}}}
    body = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    answers = {"200": {"description": "Computed", "headers": request_id, "content": _json({"$ref": f"#/components/schemas/{result}"})}}
    for status in CLASSIFY:
        answers[str(status)] = {
            "description": REASONS[status],
            "headers": request_id | (retry if status in (429, 503) else {}),
            "content": _json({"$ref": "#/components/schemas/Error"}),
        }
    return {
        "post": {
            "summary": summary,
            "operationId": f"classify_{next(iter(properties))}",
            "parameters": [
                {
                    "name": "x-request-id",
                    "in": "header",
                    "required": False,
                    "description": "Up to 128 of A-Z a-z 0-9 . _ -; another is replaced",
                    "schema": {"type": "string"},
                }
            ],
            "requestBody": {"required": True, "content": {"application/json": {"schema": body, "example": example}}},
            "responses": answers,
        }
    }


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
