"""One headline as a string: clean it, fold it, hash it. Training and serving call the same three functions.

No dependency: serving reads this without pyarrow.
"""

from __future__ import annotations

import hashlib
import unicodedata

MAX_CHARACTERS = 512  # a headline is some 60 characters; what is longer is an article, and costs its square in attention


def clean(text: str) -> str:
    """The headline as the model reads it: NFC, control and format characters out, white space folded to single blanks.

    Case, digits and punctuation stay. Lone surrogates stay too: `is_unicode` finds them.
    """
    text = unicodedata.normalize("NFC", text)
    if not text.isprintable():  # control characters, and every white space but the blank, are not printable
        kept = (" " if c.isspace() else c for c in text if c.isspace() or unicodedata.category(c) not in ("Cc", "Cf"))
        text = "".join(kept)
    return " ".join(text.split())


def is_unicode(text: str) -> bool:
    """False where a lone surrogate stands in the text: it has no UTF-8 form, and tokenizers refuse it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def normalise(text: str) -> str:
    """The headline's identity: compatibility forms, case, punctuation and spaces folded. Near-copies become equal.

    A text of punctuation alone keeps it, or all such texts would be one.
    """
    folded = unicodedata.normalize("NFKC", clean(text)).casefold()
    words = "".join(c if c.isalnum() or unicodedata.category(c).startswith("M") else " " for c in folded).split()
    return " ".join(words) or folded


def key(text: str) -> bytes:
    """16 bytes of BLAKE2b over the normalised headline: what splits and duplicates go by."""
    return hashlib.blake2b(normalise(text).encode("utf-8", "surrogatepass"), digest_size=16).digest()
