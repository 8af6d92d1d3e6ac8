"""The embedded default: synthetic labelled headlines, so that everything runs without any download.

    python -m clickbait.sample --count 4000 --seed 0 > headlines.csv

News and clickbait are written by two grammars (`clickbait.sample.news`, `clickbait.sample.bait`) over the
same words (`clickbait.sample.words`). Only the wording tells them apart: a news headline is kept when a
clickbait headline of the same shape turns up (as many words, capitals and digits, the same punctuation,
nearly as many characters), and both are then given the same surface form. So no rule on case, digits,
punctuation or length does much better than a coin. Some 3% are hard: soft news and sober clickbait.

The same seed gives the same headlines everywhere: chance comes from `random.Random.random` alone, whose
sequence Python promises to keep, and nothing depends on the order of a set.
"""

from __future__ import annotations

import csv
import os
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TypeVar

from clickbait.errors import DataError, StorageError
from clickbait.sample import bait as bait_templates
from clickbait.sample import news as news_templates
from clickbait.sample.words import WORDS
from clickbait.text import normalise

SYNTHETIC_NOTICE = (
    "These headlines are synthetic: a program wrote them from grammars, "
    "and every person, place and company in them is invented."
)
COLUMNS = ("headline", "clickbait")
MAX_COUNT = 1_000_000  # `PreprocessConfig.sample_size` asks for no more; the grammars hold far more
SHORTEST, LONGEST = 15, 150  # characters
# chance of a hard template; they find partners more easily than others, and make up some 2.5% of the
# headlines
HARD = 0.012
# characters within which two lengths count as one: at 10, trees on the surface reach 0.58; at 4, shape
# betrays the partner
LENGTH_STEP = 6
# sentences written for a pair of one kind before another kind is tried: past 300,000 headlines, colons run
# short
PATIENCE = 50
KINDS = {
    "": 39,
    "1": 20,
    "?": 14,
    "'": 8,
    ",": 7,
    '"': 6,
    ":": 6,
}  # percent of headlines by what marks their template

Chance = Callable[[], float]  # a number from 0 up to, not including, 1
Text = tuple[str, ...]  # a template or a filler: literals at even places, names of slots at odd ones
T = TypeVar("T")

_AN = re.compile(r"\b([Aa])(?= (?:(?!uni|us[eu]|eu|one)[aeiou]|hour|honest))", re.IGNORECASE)
_SENTENCE = re.compile(r"(?:^|[.?!] )\"?[a-z]")
_WORD = re.compile(r"(?:^|(?<= ))[\"']?[a-z]")
_SHOUTED = re.compile(r"\b[A-Za-z]{4,}\b")


def generate(count: int = 4000, seed: int = 0) -> list[tuple[str, int]]:
    """`count` headlines with their labels (1 clickbait, 0 news): shuffled, balanced to within one, distinct
    once normalised.

    Raises:
        DataError: `count` is not from 1 to a million.
    """
    if not 1 <= count <= MAX_COUNT:
        raise DataError(f"no sample of {count} headlines: ask for 1 to {MAX_COUNT}")
    chance = random.Random(seed).random
    rows: list[tuple[str, int]] = []
    for news, bait in _pairs(chance):
        surface = _surface(chance)
        rows += [(surface(news), 0), (surface(bait), 1)]
        if len(rows) >= count:
            break
    del rows[count:]
    for i in range(
        len(rows) - 1, 0, -1
    ):  # Fisher and Yates; `Random.shuffle` may change with the version of Python
        j = int(chance() * (i + 1))
        rows[i], rows[j] = rows[j], rows[i]
    return rows


def write_csv(path: str | Path, count: int = 4000, seed: int = 0) -> None:
    """Writes the headlines to a CSV file, whole or not at all; same arguments, same bytes.

    Raises:
        DataError: as `generate`.
        StorageError: the file cannot be written.
    """
    rows = generate(count, seed)
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8", newline="") as file:
            write_rows(rows, file)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise StorageError(
            f"{path}: cannot be written ({error.strerror}): name a file in a folder that exists"
        ) from None


def write_rows(rows: Sequence[tuple[str, int]], file: IO[str]) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows)


# From a grammar to a sentence


def _parse(text: str) -> Text:
    return tuple(re.split(r"\{(\w+)\}", text))


def _fillers(text: str) -> list[Text]:
    """`a|{b}|2..4` as its alternatives: a, {b}, 2, 3, 4."""
    found: list[Text] = []
    for filler in text.split("|"):
        low, dots, high = filler.partition("..")
        found += [(str(n),) for n in range(int(low), int(high) + 1)] if dots else [_parse(filler)]
    return found


def _kind(template: Text) -> str:
    """The mark that is rarest in a template, or `1` where a number leads it, or nothing."""
    literals = "".join(template[::2])
    if template[0] == "" and template[1] in ("count", "few", "pct", "big", "price"):
        return "1"
    return next((mark for mark in "?\":'," if mark in literals), "")


def _by_kind(*blocks: str) -> dict[str, tuple[list[Text], ...]]:
    templates = [[_parse(line) for line in block.strip().splitlines()] for block in blocks]
    return {kind: tuple([t for t in block if _kind(t) == kind] for block in templates) for kind in KINDS}


_KINDS = [kind for kind, percent in KINDS.items() for _ in range(percent)]
_SLOTS: Mapping[str, list[Text]] = {
    name: _fillers(text) for name, text in (WORDS | news_templates.PHRASES | bait_templates.PHRASES).items()
}
_TEMPLATES = _by_kind(news_templates.NEWS, bait_templates.BAIT)
_HARD = _by_kind(news_templates.SOFT_NEWS, bait_templates.SOBER_BAIT)


def _choose(chance: Chance, options: Sequence[T]) -> T:
    return options[int(chance() * len(options))]


def _pairs(chance: Chance) -> Iterator[tuple[str, str]]:
    """News and clickbait of one shape, without end, no two alike once normalised."""
    seen: set[str] = set()
    waiting: tuple[dict[object, list[str]], dict[object, list[str]]] = ({}, {})
    label = 0
    while True:
        kind = _choose(chance, _KINDS)
        for _ in range(PATIENCE):
            label = 1 - label
            text = _write(chance, kind, label)
            identity = normalise(text)
            if (
                identity in seen or not SHORTEST <= len(text) < LONGEST
            ):  # one more character may come at the end
                continue
            seen.add(identity)
            shape = _shape(text)
            partners = waiting[1 - label].get(shape)
            if partners:
                other = partners.pop()
                yield (other, text) if label else (text, other)
                break
            waiting[label].setdefault(shape, []).append(text)


def _write(chance: Chance, kind: str, label: int) -> str:
    """A sentence of the kind and the label, in sentence case."""
    templates = (_HARD if chance() < HARD else _TEMPLATES)[kind][label] or _TEMPLATES[kind][label]
    text = _AN.sub(r"\1n", _fill(chance, _choose(chance, templates), set()))
    text = text.replace("s's ", "s' ").replace("the the ", "the ")
    return _SENTENCE.sub(lambda match: match[0].upper(), text)


def _fill(chance: Chance, text: Text, used: set[str]) -> str:
    """The template with its slots filled; a filler serves once in a headline where there is another."""
    parts = list(text)
    for i in range(1, len(parts), 2):
        for _ in range(4):
            filler = _choose(chance, _SLOTS[parts[i]])
            if len(filler) > 1 or filler[0] not in used:
                break
        if len(filler) > 1:
            parts[i] = _fill(chance, filler, used)
        else:
            used.add(filler[0])
            parts[i] = filler[0]
    return "".join(parts)


# The surface: what must not tell the classes apart


def _shape(text: str) -> object:
    """All that a rule on the surface could go by. Two headlines of one shape stay alike in any surface
    form.
    """
    words = text.split()
    return (
        len(words),
        len(text) // LENGTH_STEP,
        "".join(c for c in text if not c.isalnum() and c != " "),
        text[0].isdigit(),
        sum(c.isdigit() for c in text),
        sum(word[0].isdigit() for word in words),
        sum(c.isupper() for c in text),
    )


def _surface(chance: Chance) -> Callable[[str], str]:
    """A surface form by chance, the same for both headlines of a pair: casing, kind of quotes, a mark at the
    end.
    """
    casing, shout, quotes, end = chance(), chance(), chance(), chance()

    def dress(text: str) -> str:
        if casing < 0.40:  # title case
            text = _WORD.sub(lambda match: match[0].upper(), text)
        elif casing < 0.46:
            text = text.lower()
        elif casing < 0.49:
            text = text.upper()
        elif casing < 0.53:  # one word stressed
            words = list(_SHOUTED.finditer(text))
            if words:
                start, stop = words[int(shout * len(words))].span()
                text = text[:start] + text[start:stop].upper() + text[stop:]
        if quotes < 0.5:
            text = text.replace('"', "'")
        if text[-1].isalnum() and end < 0.03:
            text += "!" if end < 0.006 else "."
        return text

    return dress
