"""Word by word a text has the tokens that the tokenizer itself gives it, whatever the text is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from clickbait.inference import word_tokenizer
from clickbait.inference.word_tokenizer import Words
from clickbait.pretrained import locate
from clickbait.text import clean

LONGEST = 24
PIECES = st.sampled_from(
    [
        "You",
        "WON'T",
        "believe",
        "café",
        "naïve",
        "e\u0301",
        "10,000",
        "“quoted”",
        "[SEP]",
        "[MASK]",
        "[cls]",
        "北京",
        "snake_case",
        "x" * 120,
        *(
            "-",
            "...",
            "\u3000",
            "\u200b",
            "\x00",
            "\t",
            "#",
            "ﬁ",
            "İ",
            "ß",
            "unbelievably",
            "##ing",
            "🎉",
            " ",
        ),
    ]
)
TEXTS = st.lists(PIECES | st.text(max_size=8), max_size=20).flatmap(
    lambda parts: st.sampled_from(["", " ", "  "]).map(lambda gap: gap.join(parts))
)


def bert(**changes: bool) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(locate.file(locate.OFFLINE, "tokenizer.json")))
    tokenizer.no_padding()
    tokenizer.enable_truncation(LONGEST)
    if changes:
        tokenizer.normalizer = normalizers.BertNormalizer(**changes)
    return tokenizer


TOKENIZER, CASED = bert(), bert(lowercase=False, strip_accents=False)
KNOWN, KNOWN_CASED = Words(TOKENIZER), Words(CASED)


def straight(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    return [encoding.ids for encoding in tokenizer.encode_batch([clean(text) for text in texts])]


@given(texts=st.lists(TEXTS, max_size=4))
def test_the_tokens_are_the_tokenizers(texts: list[str]) -> None:
    assert KNOWN._by_word
    assert KNOWN_CASED._by_word
    for _ in range(2):  # looked up, then known
        assert KNOWN.encode(texts) == straight(TOKENIZER, texts)
        assert KNOWN_CASED.encode(texts) == straight(CASED, texts)


def test_a_known_word_is_not_tokenized_again(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Words(TOKENIZER)
    first = known.encode(["You won't believe THIS"])
    monkeypatch.setattr(known, "_look_up", lambda word: pytest.fail(f"{word} was looked up"))
    assert known.encode(["you won't believe this"]) == first


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_tokenizer, "KEPT", 5)
    known = Words(TOKENIZER)
    texts = [f"budget {number} of the minister" for number in range(20)]
    assert known.encode(texts) == straight(TOKENIZER, texts)
    assert len(known._known) <= 5
    known.encode(["a" * (word_tokenizer.LONGEST + 1)])
    assert not any(len(word) > word_tokenizer.LONGEST for word in known._known)


def test_a_tokenizer_that_looks_beyond_blanks_is_asked_for_whole_texts() -> None:
    tokenizer = bert()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    assert not Words(tokenizer)._by_word
    assert Words(tokenizer).encode(["you won", ""]) == straight(tokenizer, ["you won", ""])


def test_a_tokenizer_is_believed_only_once_it_was_seen() -> None:
    """It says of itself that it splits at blanks, but its special tokens are not in front and behind."""
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "[X]": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.enable_truncation(LONGEST)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A [X] $A", special_tokens=[("[X]", 2)])
    assert not Words(tokenizer)._by_word
    assert Words(tokenizer).encode(["a b"]) == straight(tokenizer, ["a b"])
