"""Random rewrites of a headline that must not change its verdict, for training a robust model.

Each change keeps what the headline says: its case, the punctuation at its end and its quotes, its numbers'
values, its blanks, the name of the outlet that ran it. Pure functions of a text and a random generator.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from clickbait.evaluation.perturbations import title_case, without_end

# Outlets whose names stand in headlines about themselves: a model that knows the name knows the source, not
# the style.
OUTLETS = (
    "BuzzFeed News", "BuzzFeed", "Upworthy", "ViralNova", "Viral Nova", "ScoopWhoop", "Thatscoop", "ViralStories", "PlayBuzz",
    "Distractify", "LittleThings", "BoredPanda", "Bored Panda", "Mashable", "HuffPost", "Huffington Post", "Daily Mail", "Wikinews",
    "Wikipedia", "New York Times", "The Guardian", "The Hindu", "Reuters", "Associated Press", "Bloomberg", "Al Jazeera", "Fox News",
    "CNN", "BBC", "NPR",
)  # fmt: skip
_OUTLET = re.compile(r"\b(?:" + "|".join(re.escape(name) for name in OUTLETS) + r")\b", re.IGNORECASE)
MASKS = ("News", "The Site", "Our Site", "The Paper", "The Agency", "It")
_NUMBER = re.compile(
    r"(?<![\w.,$€£-])\d{1,2}(?![\w.,:%-])"
)  # a count: neither a year, a price, a score nor a part of a name
MASKED, SAMPLED = 0.1, 0.25  # shares of words and of headlines: Tang et al. 2019
SHORTEST = 3  # words of a run


def case(text: str, rng: np.random.Generator) -> str:
    """Lower case, upper case, a capital on every word, or on the first alone."""
    kind = int(rng.integers(4))
    if kind == 0:
        return text.lower()
    if kind == 1:
        return text.upper()
    if kind == 2:
        return title_case(text)
    return text[:1].upper() + text[1:].lower()


def punctuation(text: str, rng: np.random.Generator) -> str:
    """Another end (none, a full stop, an exclamation mark), or other quotes."""
    bare = without_end(text) or text
    kind = int(rng.integers(5))
    if kind == 0:
        return bare
    if kind == 1:
        return bare + "."
    if kind == 2:
        return bare if bare != text else bare + "!"
    if kind == 3:
        return text.translate({0x2018: "'", 0x2019: "'", 0x201C: '"', 0x201D: '"'})
    return text.replace("'", "\u2019").replace('"', "\u201d")


def digits(text: str, rng: np.random.Generator) -> str:
    """Other counts: each number of one or two digits becomes another one of as many digits."""

    def other(match: re.Match[str]) -> str:
        low, high = (2, 10) if len(match[0]) == 1 else (10, 100)
        return str(int(rng.integers(low, high)))

    return _NUMBER.sub(other, text)


def spacing(text: str, rng: np.random.Generator) -> str:
    """A blank doubled here and there, and blanks at the ends."""
    parts = text.split(" ")
    gaps = np.where(rng.random(len(parts)) < 0.3, "  ", " ")
    joined = "".join(part + gap for part, gap in zip(parts, gaps.tolist(), strict=True))
    return " " + joined


def source(text: str, rng: np.random.Generator) -> str:
    """The outlets' names masked."""
    return _OUTLET.sub(lambda _: MASKS[int(rng.integers(len(MASKS)))], text)


CHANGES: dict[str, Callable[[str, np.random.Generator], str]] = {
    "case": case,
    "punctuation": punctuation,
    "digits": digits,
    "spacing": spacing,
    "source": source,
}


def vary(text: str, rng: np.random.Generator) -> str:
    """The headline under one to three of the changes, drawn at random; never an empty one."""
    names = rng.permutation(list(CHANGES))[: int(rng.integers(1, 4))]
    changed = text
    for name in names.tolist():
        changed = CHANGES[name](changed, rng)
    return changed if changed.strip() else text


def cross(one: str, other: str, rng: np.random.Generator) -> str:
    """The beginning of one headline and the end of another: nobody's label, for a teacher to score."""
    left, right = one.split(" "), other.split(" ")
    return " ".join(left[: int(rng.integers(1, len(left) + 1))] + right[int(rng.integers(len(right))) :])


def drop(text: str, rng: np.random.Generator, mask: str) -> str:
    """Every tenth word masked (gone, where there is no mask), and one time in four a run of the words alone:
    for a teacher to score.

    Masking and n-gram sampling of Tang et al., "Distilling Task-Specific Knowledge from BERT into Simple
    Neural Networks" (2019).
    """
    words = [
        mask if chance < MASKED else word
        for word, chance in zip(text.split(" "), rng.random(text.count(" ") + 1).tolist(), strict=True)
    ]
    if rng.random() < SAMPLED and len(words) > SHORTEST:
        start = int(rng.integers(len(words) - SHORTEST + 1))
        words = words[start : start + int(rng.integers(SHORTEST, len(words) + 1))]
    return " ".join(word for word in words if word) or text
