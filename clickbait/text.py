"""A headline as a string: length limit, cleaning, normalising and hashing, for training and serving.

The time of every function is proportional to the length of the text, whatever the text contains (`make
bench-clean`). The module uses only the standard library.
"""

from __future__ import annotations

import functools
import hashlib
import re
import unicodedata
from typing import Literal, get_args

Label = Literal["news", "clickbait"]
# In the order of a model's logits: the label column of a dataset holds indexes into this.
LABELS: tuple[Label, ...] = get_args(Label)

# Longest headline after cleaning. A headline has about 60 characters; a longer text is an article, and the
# cost of attention grows with the square of the length.
MAX_CHARACTERS = 512

# Characters allowed before cleaning, per character allowed after it. NFC joins at most four characters into
# one (a Greek letter and three marks), so a text is never refused because it is decomposed. The rest leaves
# room for white space and control characters.
RAW_FACTOR = 8

# Longest run of combining marks that is kept: the limit of Unicode's stream-safe format (UAX #15, section
# 13). Normalising sorts each run, and Python uses insertion sort, so 64 KiB of marks would take quadratic
# time. Real text has only a few marks in a row.
MAX_MARKS = 30
_MARKS = range(0x300, 0x1E94B)  # code points from the first to the last combining mark


def raw_bound(max_characters: int) -> int:
    """The longest text before cleaning, if `max_characters` is the longest text after cleaning."""
    return RAW_FACTOR * max_characters


def clean(text: str) -> str:
    """The headline as the model reads it: NFC, single spaces, no control or format characters.

    Case, digits and punctuation do not change. If there are more than MAX_MARKS combining marks in a row, the
    first MAX_MARKS stay. Lone surrogates also stay: use `is_unicode` to find them.
    """
    if not text.isprintable():  # control characters and all white space except the space are not printable
        text = text.translate({ord(c): " " if c.isspace() else None for c in set(text) if _is_dropped(c)})
    if not text.isascii():
        text = _with_few_marks(text)
        composed = unicodedata.normalize("NFC", text)
        # NFC splits four of the marks into two each, so runs can be longer now.
        text = composed if composed == text else _with_few_marks(composed)
    return " ".join(text.split())


def is_unicode(text: str) -> bool:
    """Whether the text can be encoded as UTF-8. A lone surrogate cannot, and tokenizers reject it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def normalise(text: str) -> str:
    """The headline without differences of case, punctuation, spaces and compatibility forms.

    Near-copies of a headline become equal. A text that consists of punctuation keeps it; otherwise all such
    texts would be equal.
    """
    folded = unicodedata.normalize("NFKC", clean(text)).casefold()
    words = "".join(
        c if c.isalnum() or unicodedata.category(c).startswith("M") else " " for c in folded
    ).split()
    return " ".join(words) or folded


def key(text: str) -> bytes:
    """16 bytes of BLAKE2b of the normalised headline. It decides the split and identifies duplicates."""
    return hashlib.blake2b(normalise(text).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _is_dropped(character: str) -> bool:
    """Whether `clean` removes the character or replaces it by a space."""
    return character.isspace() or unicodedata.category(character) in ("Cc", "Cf")


def _with_few_marks(text: str) -> str:
    """The text with every run of combining marks cut to MAX_MARKS."""
    return _many_marks().sub(lambda run: run[0][:MAX_MARKS], text)


@functools.cache
def _many_marks() -> re.Pattern[str]:
    """Matches a run of more than MAX_MARKS combining marks. Building it takes 10 ms, so it is cached."""
    codes = [code for code in range(_MARKS.start, _MARKS.stop) if unicodedata.combining(chr(code))]
    codes += [0xF73, 0xF75, 0xF81, 0xFF9E, 0xFF9F]  # not marks, but normal forms turn them into marks
    low = "".join(chr(code) for code in codes if code < 0x10000)
    high = "".join(chr(code) for code in codes if code >= 0x10000)
    span, high_span = f"[{chr(_MARKS.start)}-{chr(_MARKS.stop - 1)}]", f"[\U00010000-{chr(_MARKS.stop - 1)}]"
    # `re` tests a class of code points below 0x10000 with one table lookup, but a class with higher code
    # points by a linear search. So the cheap tests come first.
    first = f"(?:[{low}]|(?={high_span})[{high}])"
    # A match can only begin at the first mark of a run. This keeps the search linear.
    begins = f"(?={span}{{{MAX_MARKS}}})(?<![{low}{high}].)"
    return re.compile(f"{first}{begins}[{low}{high}]{{{MAX_MARKS},}}", re.DOTALL)
