"""Augmentation: what a headline says stays, the same seed gives the same variant."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from clickbait.pretrained import locate
from clickbait.text import normalise
from clickbait.training import augment
from clickbait.training.batches import Rewriter

TEXT = 'BuzzFeed Asked 17 People About Their "Worst" Day, And It\'s 2016 All Over.'


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=60), st.integers(0, 1000))
def test_no_variant_is_empty(text: str, seed: int) -> None:
    assert augment.vary(text, rng(seed)).strip() or not text.strip()


@pytest.mark.parametrize("name", ["case", "punctuation", "spacing"])
def test_the_manner_changes_and_the_words_stay(name: str) -> None:
    variants = {augment.CHANGES[name](TEXT, rng(seed)) for seed in range(40)}
    assert len(variants - {TEXT}) >= 2
    assert {normalise(variant) for variant in variants} == {normalise(TEXT)}


def test_counts_change_and_years_prices_and_names_stay() -> None:
    text = "17 Things That Cost $5 In 2016, Said The iPhone 7 And 3 Dogs"
    variants = [augment.digits(text, rng(seed)) for seed in range(20)]
    assert len(set(variants)) > 10
    for variant in variants:
        assert re.fullmatch(r"\d\d Things That Cost \$5 In 2016, Said The iPhone \d And \d Dogs", variant)


def test_outlets_are_masked_and_only_they() -> None:
    masked = augment.source("The BBC and Wikinews on Abbcx", rng())
    assert "BBC" not in masked
    assert "Wikinews" not in masked
    assert "Abbcx" in masked


def test_crossed_headlines_are_made_of_both() -> None:
    for seed in range(20):
        words = augment.cross("a b c", "x y z", rng(seed)).split()
        kept = [word for word in words if word in "abc"]
        assert words == kept + [word for word in words if word in "xyz"]
        assert "a" in kept
        assert words[-1] == "z"


def test_words_are_dropped_or_masked_and_never_all() -> None:
    text = " ".join(f"w{n}" for n in range(12))
    masked = [augment.drop(text, rng(seed), "[MASK]") for seed in range(50)]
    assert any("[MASK]" in variant for variant in masked)
    dropped = [augment.drop(text, rng(seed), "") for seed in range(50)]
    assert all(variant and set(variant.split()) <= set(text.split()) for variant in dropped)
    assert min(len(variant.split()) for variant in dropped) < 6


def test_an_epoch_rewrites_its_share_and_finds_it_again() -> None:
    tokenizer = Tokenizer.from_file(str(locate.file(locate.OFFLINE, "tokenizer.json")))
    texts = pa.chunked_array([pa.array([f"The {n} Reasons Why You Will Love This" for n in range(200)])])
    rows = np.arange(200)
    half = Rewriter(texts, tokenizer, 0.5, seed=3)
    first, again, other = half.tokens(rows, 0), half.tokens(rows, 0), half.tokens(rows, 1)
    assert 60 < len(first) < 140
    assert first.keys() == again.keys() != other.keys()
    assert all(np.array_equal(first[row], again[row]) for row in first)
    part = half.tokens(rows[50:60], 0)
    assert all(np.array_equal(part[row], first[row]) for row in part), "what a row becomes hung on its batch"
    assert not Rewriter(texts, tokenizer, 0.0, seed=3).tokens(rows, 0)
