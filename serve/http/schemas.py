"""The shapes of the answers, for the OpenAPI page.

The POST routes do not build these objects; tests compare their answers with them.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from clickbait import text


class _Answer(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)


class Result(_Answer):
    """One headline's verdict."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"label": "clickbait", "score": 0.973, "model": "v3"}]}
    )

    label: text.Label
    """The score against the model's threshold."""
    score: float = Field(ge=0.0, le=1.0)
    """The probability that the headline is clickbait."""
    model: str
    """The version that computed it."""


class Results(_Answer):
    """A verdict for each text, in their order."""

    results: list[Result]
    """In the order of the texts."""


class Label(_Answer):
    """A label and its probability."""

    label: text.Label
    """The label."""
    score: float = Field(ge=0.0, le=1.0)
    """Its probability."""


class Word(_Answer):
    """A word and what it did to the score."""

    word: str
    """As it stands in the text."""
    start: int = Field(ge=0)
    """Its first character's place in the text as it was sent, in Unicode code points."""
    end: int = Field(ge=0)
    """The place behind its last character."""
    weight: float = Field(ge=-1.0, le=1.0)
    """The text's score less that of the text without the word: above 0 it pushed towards clickbait."""


class Explanation(Result):
    """A verdict, and which words pushed it."""

    words: list[Word]
    """In the order of the text."""


class Error(_Answer):
    """Every answer that is not a 200 has this body. What was sent is never in it."""

    error: str
    """What is wrong and what to do, in one line."""
    error_type: str
    """A name to program against."""
    request_id: str
    """The `x-request-id` of the request, or one that was made for it."""


class Refused(_Answer):
    """A newer version that is not served."""

    version: str
    """Its name."""
    why: str
    """In one line."""


class Health(_Answer):
    """The server in a few lines. Without one of the server's keys, `message` and `status` are all."""

    message: str
    """What this is."""
    status: Literal["ready", "not ready", "alive"]
    """`ready`: a model is loaded and warmed. `alive`: the process answers, whatever the model."""
    model: str | None = None
    """The version that is served."""
    canary: str | None = None
    """The version that answers a share of the requests."""
    shadow: str | None = None
    """The version that is compared in silence."""
    refused: Refused | None = None
    """A newer version that could not be loaded: the one before serves on."""


class Model(_Answer):
    """The version that is served."""

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


class ServerMetadata(_Answer):
    """The server, as the inference protocol tells it."""

    name: str
    """Its name."""
    version: str
    """Of this api."""
    extensions: list[str]
    """Of the protocol, that it has."""


class Live(_Answer):
    """The process answers."""

    live: bool
    """Always true: who is not does not answer."""


class Ready(_Answer):
    """A model is loaded."""

    ready: bool
    """Always true: who is not answers 503."""


class ModelReady(Ready):
    """The model is loaded."""

    name: str
    """The model's name."""


class TensorMetadata(_Answer):
    """A tensor of the model."""

    name: str
    """Its name."""
    datatype: Literal["BYTES", "FP32"]
    """BYTES are texts in UTF-8."""
    shape: list[int]
    """-1 is any size."""


class ModelMetadata(_Answer):
    """The model, as the inference protocol tells it."""

    name: str
    """The model's name, from its manifest."""
    versions: list[str]
    """The one that is served."""
    platform: str
    """What computes."""
    inputs: list[TensorMetadata]
    """What it takes."""
    outputs: list[TensorMetadata]
    """What it gives."""


class Tensor(_Answer):
    """An output tensor, in JSON or as bytes behind it."""

    name: Literal["score", "label"]
    """Which."""
    datatype: Literal["FP32", "BYTES"]
    """FP32 for score, BYTES for label."""
    shape: list[int]
    """The count of texts."""
    data: list[float] | list[str] | None = None
    """The values, where they are not behind the JSON."""
    parameters: dict[str, Any] | None = None
    """`binary_data_size`: the bytes that it takes behind the JSON."""


class Inferred(_Answer):
    """The inference protocol's answer."""

    model_name: str
    """The model's name."""
    model_version: str
    """The version that computed."""
    id: str | None = None
    """The request's own, if it had one."""
    outputs: list[Tensor]
    """In the order that they were asked for."""
