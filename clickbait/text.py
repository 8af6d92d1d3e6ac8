"""One headline as a string: bound it, clean it, fold it, hash it. Training and serving call the same
functions.

Every function here takes time in proportion to the length of its text, whatever is in it (`make
bench-clean`). No dependency: serving reads this without pyarrow.
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

MAX_CHARACTERS = (
    512  # a headline is some 60 characters; what is longer is an article, and costs its square in attention
)

# Characters before cleaning for each one after it. NFC makes one character of four at most (a Greek letter
# and three marks), so that no text is refused for the way in which it is composed. The rest is room for white
# space and control characters.
RAW_FACTOR = 8

# Marks in a row that are kept, as in Unicode's stream-safe format (UAX #15, section 13). Unicode sorts a run
# of marks, Python does it by insertion, and the square of a run's length is what 64 KiB of marks would cost.
# No language writes more than a few.
MAX_MARKS = 30
_MARKS = range(0x300, 0x1E94B)  # where Unicode's combining marks are


def raw_bound(max_characters: int) -> int:
    """Characters that a text may have before it is cleaned, where `max_characters` are taken after."""
    return RAW_FACTOR * max_characters


def clean(text: str) -> str:
    """The headline as the model reads it: control and format characters out, NFC, white space folded to
    single blanks.

    Case, digits and punctuation stay. Of more than MAX_MARKS combining marks in a row the first stay. Lone
    surrogates stay too: `is_unicode` finds them.
    """
    if not text.isprintable():  # control characters, and every white space but the blank, are not printable
        text = text.translate({ord(c): " " if c.isspace() else None for c in set(text) if _is_dropped(c)})
    if not text.isascii():
        text = _with_few_marks(text)
        composed = unicodedata.normalize("NFC", text)
        # four of the marks become two each
        text = composed if composed == text else _with_few_marks(composed)
    return " ".join(text.split())


def is_unicode(text: str) -> bool:
    """False where a lone surrogate stands in the text: it has no UTF-8 form, and tokenizers refuse it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def normalise(text: str) -> str:
    """The headline's identity: compatibility forms, case, punctuation and spaces folded. Near-copies become
    equal.

    A text of punctuation alone keeps it, or all such texts would be one.
    """
    folded = unicodedata.normalize("NFKC", clean(text)).casefold()
    words = "".join(
        c if c.isalnum() or unicodedata.category(c).startswith("M") else " " for c in folded
    ).split()
    return " ".join(words) or folded


def key(text: str) -> bytes:
    """16 bytes of BLAKE2b over the normalised headline: what splits and duplicates go by."""
    return hashlib.blake2b(normalise(text).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _is_dropped(character: str) -> bool:
    """Whether `clean` drops the character or makes it a blank."""
    return character.isspace() or unicodedata.category(character) in ("Cc", "Cf")


def _with_few_marks(text: str) -> str:
    """The text with MAX_MARKS of each run of more combining marks."""
    return _many_marks().sub(lambda run: run[0][:MAX_MARKS], text)


@functools.cache
def _many_marks() -> re.Pattern[str]:
    """A run of more than MAX_MARKS characters that Unicode's normal forms sort. Built once, in 10 ms."""
    codes = [code for code in range(_MARKS.start, _MARKS.stop) if unicodedata.combining(chr(code))]
    codes += [0xF73, 0xF75, 0xF81, 0xFF9E, 0xFF9F]  # no marks themselves, but normal forms make marks of them
    low, high = (
        "".join(chr(code) for code in codes if (code < 0x10000) is wanted) for wanted in (True, False)
    )
    span, high_span = f"[{chr(_MARKS.start)}-{chr(_MARKS.stop - 1)}]", f"[\U00010000-{chr(_MARKS.stop - 1)}]"
    # A set of low codes is one look at a table. One with high codes in it is a walk through all of them, so
    # the cheap tests come first.
    first = f"(?:[{low}]|(?={high_span})[{high}])"
    # a run is looked at from its first mark alone: linear
    begins = f"(?={span}{{{MAX_MARKS}}})(?<![{low}{high}].)"
    return re.compile(f"{first}{begins}[{low}{high}]{{{MAX_MARKS},}}", re.DOTALL)
