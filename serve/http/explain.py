"""`POST /explain`: which words pushed the score, by occlusion.

The text is scored once as it is, and once without each of its words, all in one batch. A word's weight is the
score of the text minus the score of the text without the word (Zeiler and Fergus 2014, applied to words):
above 0 it pushed towards clickbait. Two words that only work together both get the full weight. Two words
that can replace each other get none.
"""

from __future__ import annotations

import re
from typing import Any

from clickbait.errors import InvalidText
from clickbait.text import clean
from serve.core.engine import Answer
from serve.settings import Settings

Word = tuple[str, int, int]
"""As it stands in the text, and from which character to before which."""


def words_of(text: str, settings: Settings) -> list[Word]:
    """What stands between white space in `text` and is more than control characters.

    Raises:
        InvalidText: there are more than `max_words`. The status is `serve.http.api`'s.
    """
    words = [(found[0], found.start(), found.end()) for found in re.finditer(r"\S+", text) if clean(found[0])]
    if len(words) > settings.max_words:
        raise InvalidText(f"text: {len(words)} words where {settings.max_words} are taken: shorten it")
    return words


def occluded(text: str, words: list[Word]) -> list[str]:
    """The text, and the text without each of `words`."""
    return [text, *(text[:start] + text[end:] for _, start, end in words)]


def explanation(answer: Answer, words: list[Word]) -> dict[str, Any]:
    """The verdict, and each word's weight, from the scores of `occluded`."""
    whole, *without = answer.scores
    weights = [round(float(whole) - float(score), 6) for score in without]
    found = [
        {"word": word, "start": start, "end": end, "weight": weight}
        for (word, start, end), weight in zip(words, weights, strict=True)
    ]
    return {**answer.scorer.result(whole), "words": found}
