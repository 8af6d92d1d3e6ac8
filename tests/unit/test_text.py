"""Cleaning: its cost follows the length of a text, whatever is in it, and one bound on the raw text stands
before it everywhere.
"""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Callable

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clickbait import text
from clickbait.config import PreprocessConfig
from clickbait.data import headlines
from clickbait.errors import InvalidText
from clickbait.scoring import output
from clickbait.text import MAX_MARKS, clean, key, normalise, raw_bound
from serve.http.parsing import check_text
from tests.performance.bench_clean import WORST, long

MARKS = "".join(chr(code) for code in range(0x110000) if unicodedata.combining(chr(code)))


def seconds(work: Callable[[str], object], argument: str) -> float:
    """Of this thread's own time, the least of a few runs: a busy machine only adds."""
    taken = []
    for _ in range(5):
        start = time.thread_time()
        work(argument)
        taken.append(time.thread_time() - start)
    return min(taken)


@pytest.mark.parametrize("name", WORST)
def test_eight_times_the_text_costs_some_eight_times_as_much(name: str) -> None:
    # A square costs 64 times as much: 64 KiB of marks took 2 s.
    short, whole = long(WORST[name], 8 << 10), long(WORST[name], 64 << 10)
    for work in (clean, normalise):
        work(short)
        assert seconds(work, whole) < 30 * seconds(work, short) + 0.01, work


def test_a_run_of_marks_is_cut_and_nothing_else_is() -> None:
    for count in (1, MAX_MARKS, MAX_MARKS + 1, 1000):
        cleaned = clean(f"x{chr(0x334) * count}y")
        assert cleaned == f"x{chr(0x334) * min(count, MAX_MARKS)}y"
    assert (
        clean("e" + "\u200d" + "\u0301") == "\u00e9"
    )  # what is dropped no longer stands between a letter and its mark


def test_every_mark_of_unicode_is_known() -> None:
    sorted_by_unicode = [
        chr(code)
        for code in range(0x110000)
        if not 0xD800 <= code < 0xE000 and unicodedata.combining(unicodedata.normalize("NFKD", chr(code))[0])
    ]
    assert all(len(text._with_few_marks(mark * 40)) == MAX_MARKS for mark in sorted_by_unicode)
    others = (
        set(map(chr, range(0x20, 0x30000))) - set(sorted_by_unicode) - set(map(chr, range(0xD800, 0xE000)))
    )
    assert all(text._with_few_marks(other * 40) == other * 40 for other in others)


@settings(deadline=None)
@given(
    st.text(
        st.one_of(st.sampled_from(MARKS), st.characters(), st.sampled_from("a \u200d\u0344\uff9e가")),
        max_size=120,
    )
)
def test_clean_text_stays_as_it_is_and_names_the_same_headline(raw: str) -> None:
    cleaned = clean(raw)
    assert clean(cleaned) == cleaned
    assert key(cleaned) == key(raw)
    assert unicodedata.is_normalized("NFC", cleaned)


def test_a_text_is_not_refused_for_the_way_it_is_composed() -> None:
    composed = "\u1f82" * 512  # a Greek letter with three marks: Unicode's longest
    decomposed = unicodedata.normalize("NFD", composed)
    assert len(decomposed) == 4 * 512 <= raw_bound(512)
    check_text(decomposed, "text", 512)
    assert clean(decomposed) == composed


def test_a_raw_text_beyond_the_bound_is_refused_before_it_is_cleaned(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(_: str) -> str:
        pytest.fail("a text beyond the bound was cleaned")

    beyond, within = "a" + "\u0301" * raw_bound(512), "a" + " " * (raw_bound(512) - 2) + "b"
    check_text(within, "text", 512)
    for module in ("clickbait.text", "serve.http.parsing", "clickbait.scoring.output"):
        monkeypatch.setattr(f"{module}.clean", unreachable)
    with pytest.raises(
        InvalidText, match="4097 characters, white space included, where 4096 are taken: shorten it"
    ):
        check_text(beyond, "text", 512)
    assert output._judged(beyond, 512) == headlines.TOO_LONG
    raw = pa.Table.from_pylist(
        [{"row": 1, "headline": beyond.encode(), "label": "1", "reason": None}], schema=headlines.RAW
    )
    assert headlines.validate(raw, 0, PreprocessConfig())["reason"].to_pylist() == [headlines.TOO_LONG]
