"""Changes that make no headline more or less of a clickbait, for checks and for training.

`PERTURBATIONS` are the fixed changes of the gate's check: a verdict that changes under one of them
depends on the wrong thing.
`clickbait.training.augment` draws changes at random from the same parts.
"""

from __future__ import annotations

import re
from collections.abc import Callable

SENTENCE_END = ".,;:!?…"  # no quote, bracket or %: without one of those a headline says something else
WORD_START = re.compile(
    r"(?<!\S)[^\w\s]*(\w)"
)  # after an opening quote or bracket, never after an apostrophe


def title_case(text: str) -> str:
    """Every word's first letter in upper case, the rest unchanged: NASA stays, don't becomes Don't."""
    return WORD_START.sub(lambda match: match[0].upper(), text)


def without_end(text: str) -> str:
    """The text without the punctuation and the blanks at its end; empty where it holds nothing else."""
    return text.rstrip(SENTENCE_END + " ")


def other_end(text: str) -> str:
    """Drops the punctuation at the end, or adds a full stop. A text of punctuation alone stays."""
    stripped_of_blanks = text.rstrip()
    bare = without_end(stripped_of_blanks)
    if not bare:
        return text
    return bare if bare != stripped_of_blanks else f"{bare}."


def wide_spaces(text: str) -> str:
    """Two blanks for one between words, and blanks at both ends."""
    return f"  {'  '.join(text.split())}  "


PERTURBATIONS: dict[str, Callable[[str], str]] = {
    "lower": str.lower,
    "upper": str.upper,
    "title": title_case,
    "punctuation": other_end,
    "spaces": wide_spaces,
}
