"""From texts to token ids, word by word: what a word comes to is remembered, so that most headlines never
reach the tokenizer.

A tokenizer that splits at blanks gives a text the tokens of its words, one after the other, between its
special tokens. News repeats its words: after 16,000 real headlines, nineteen in twenty of the next one's were
seen before, and finding a word in a dictionary takes a twentieth of the time that tokenizing it takes (`make
bench-engine`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from clickbait.text import clean

KEPT = 65_536  # words, some 15 MB: then all are forgotten, and the frequent ones are back at once
LONGEST = 32  # characters of a word that is kept: longer ones are links and garbage, and do not come again
# Of each of these, what stands beyond a blank has no part in what becomes of a word.
_NORMALIZERS = {None, "BertNormalizer", "Lowercase"}
_SPLITTERS = {"BertPreTokenizer", "Whitespace", "WhitespaceSplit"}
_MODELS = {"WordLevel", "WordPiece"}
_BERT = re.compile(
    r"[0-9a-z]+|[^ 0-9a-z]"
)  # BERT's words of ASCII in lower case: letters and digits in a row, or one other
_SAMPLE = "Zürich's “café” wins 10,000-to-1: [SEP] you won't BELIEVE_it 北京 !"


class Words:
    """A tokenizer (of the package tokenizers; it does not pad) and the words that it was asked for. Any
    thread may call it.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._known: dict[str, list[int]] = {}
        told = json.loads(tokenizer.to_str())
        self._special = {token["content"][0] for token in told.get("added_tokens", ())}
        self._split: Callable[[str], list[str]] = _bert_words if _is_bert(told) else str.split
        self._first: list[int] = []
        self._last: list[int] = []
        self._longest = 0
        self._by_word = _splits_at_blanks(told) and self._learn()

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of each text, cleaned and cut at the tokenizer's longest."""
        if self._by_word:
            return [self._ids(text) for text in texts]
        return [
            encoding.ids for encoding in self._tokenizer.encode_batch_fast([clean(text) for text in texts])
        ]

    def _learn(self) -> bool:
        """Which special tokens stand before and behind; whether a text of everything comes out as the
        tokenizer has it.
        """
        ends, inner, whole = (
            self._tokenizer.encode(text, add_special_tokens=special).ids
            for text, special in (("", True), ("a", False), ("a", True))
        )
        before = next((at for at in range(len(ends) + 1) if [*ends[:at], *inner, *ends[at:]] == whole), 0)
        self._first, self._last = ends[:before], ends[before:]
        self._longest = self._tokenizer.truncation["max_length"] - len(self._last)
        samples = (_SAMPLE, _SAMPLE.encode("ascii", "ignore").decode(), "a-b " * self._longest)
        return self._longest > before and all(
            self._ids(text) == self._tokenizer.encode(clean(text)).ids for text in samples
        )

    def _ids(self, text: str) -> list[int]:
        if text.isascii() and text.isprintable():  # nothing to clean but blanks
            words = self._split(text) if self._special.isdisjoint(text) else text.split()
        else:
            words = clean(text).split()
        ids, known = self._first.copy(), self._known
        for word in words:
            ids += known.get(word) or self._look_up(word)
        if len(ids) > self._longest:
            del ids[self._longest :]
        ids += self._last
        return ids

    def _look_up(self, word: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(word, add_special_tokens=False).ids
        if len(word) <= LONGEST:
            if len(self._known) >= KEPT:
                self._known.clear()
            self._known[word] = ids
        return ids


def _bert_words(text: str) -> list[str]:
    """The words of a text of ASCII, as an uncased BERT has them."""
    return _BERT.findall(text.lower())


def _splits_at_blanks(told: Any) -> bool:
    """Whether a text's tokens are those of its words, by what the tokenizer says of itself."""
    normalizer, splitter, model = (_kind(told, part) for part in ("normalizer", "pre_tokenizer", "model"))
    known = normalizer in _NORMALIZERS and splitter in _SPLITTERS and model in _MODELS
    cut = told.get("truncation") or {}
    blanks = any(" " in token["content"] for token in told.get("added_tokens", ()))
    return known and not blanks and cut.get("direction") == "Right"


def _is_bert(told: Any) -> bool:
    """Whether it splits punctuation off, and reads upper case as lower."""
    lower = (told.get("normalizer") or {}).get("lowercase", False)
    return (
        bool(lower)
        and _kind(told, "normalizer") == "BertNormalizer"
        and _kind(told, "pre_tokenizer") == "BertPreTokenizer"
    )


def _kind(told: Any, part: str) -> str | None:
    found: str | None = (told.get(part) or {}).get("type")
    return found
