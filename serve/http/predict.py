"""`POST /predict` of text-embeddings-inference and `POST /` of Hugging Face's inference API.

{"inputs": "a text"} at /predict             [{"label": "news", "score": 0.9}, {"label": "clickbait", "score": 0.1}]
{"inputs": "a text"} at /                    a list of one such list (read by @huggingface/inference)
{"inputs": ["a text"] or [["a text"]]}       a list of such lists
{"inputs": ..., "parameters": {"top_k": 1}}  a list of such lists, also for one text (huggingface_hub)

Unlike in text-embeddings-inference, ["one", "two"] is two texts: a headline has no pair. The labels are
sorted by score, not by the model's threshold.
"""

from __future__ import annotations

from typing import Any

import orjson

from clickbait.errors import BadRequest
from serve.core.engine import Answer
from serve.http.parsing import check_texts, flat, object_of
from serve.settings import Settings

_KEYS = frozenset({"inputs", "parameters", "raw_scores", "truncate", "truncation_direction"})
_PARAMETERS = frozenset({"function_to_apply", "top_k"})


class Asked:
    """What the body asked for beside the texts."""

    __slots__ = ("nested", "texts", "top_k")

    def __init__(self, texts: list[str], nested: bool, top_k: int | None) -> None:
        self.texts = texts
        self.nested = nested
        self.top_k = top_k

    def render(self, answer: Answer) -> bytes:
        """The labels of each text, the likelier first."""
        results = [_ranked(answer, score)[: self.top_k] for score in answer.scores]
        return orjson.dumps(results if self.nested else results[0])


def asked_of(body: bytes, settings: Settings, *, nested: bool) -> Asked:
    """The texts of a body, and the form of the answer; `nested`: a list of lists for one text too.

    Raises:
        BadRequest, InvalidText, TooManyTexts: the statuses are `serve.http.api`'s.
    """
    document = object_of(body, _KEYS)
    inputs = document.get("inputs")
    texts = [inputs] if isinstance(inputs, str) else flat(inputs)
    if texts is None:
        raise BadRequest('"inputs" must be a string, a list of strings, or a list of lists of one string')
    check_texts(texts, "inputs", settings)
    if document.get("raw_scores", False) is not False:
        raise BadRequest('"raw_scores" must be false: scores are probabilities')
    if not isinstance(document.get("truncate"), bool | None):
        raise BadRequest(
            '"truncate" must be true or false: a text that is longer than the model reads is cut either way'
        )
    if document.get("truncation_direction") not in (None, "Right", "right"):
        raise BadRequest(
            '"truncation_direction" must be "Right": a text that is longer than the model reads is cut at '
            "its end"
        )
    parameters = document.get("parameters")
    nested = nested or not isinstance(inputs, str) or parameters is not None
    return Asked(texts, nested=nested, top_k=_top_k(parameters))


def _top_k(parameters: Any) -> int | None:
    if parameters is None:
        return None
    if not isinstance(parameters, dict) or not parameters.keys() <= _PARAMETERS:
        raise BadRequest('"parameters" must be an object with no other key than top_k and function_to_apply')
    if parameters.get("function_to_apply") not in (None, "softmax"):
        raise BadRequest('"function_to_apply" must be "softmax": scores are probabilities')
    top_k = parameters.get("top_k")
    if top_k is not None and (type(top_k) is not int or top_k < 1):  # not bool, which is an int
        raise BadRequest('"top_k" must be a whole number of at least 1')
    return top_k


def _ranked(answer: Answer, score: float) -> list[dict[str, Any]]:
    news, clickbait = answer.scorer.manifest.labels
    score = round(float(score), 6)
    one, other = {"label": clickbait, "score": score}, {"label": news, "score": round(1.0 - score, 6)}
    return [one, other] if score >= 0.5 else [other, one]
