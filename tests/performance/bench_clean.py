"""What the worst texts cost to clean: seconds per KiB of texts of 64 KiB, each kind made to cost as much as
it can.

    python -m tests.performance.bench_clean

`clean` is what training and serving do to every headline; `key` names it, for splits and duplicates. Prints a
markdown table and writes artifacts/bench/clean.json: `clean_worst_s_per_kib`, and how much more that is than
what plain text costs.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from clickbait.text import clean, key
from tests.performance.results import save

SIZE = 64 << 10
ROUNDS = 5
PLAIN = "plain"
WORST = {
    PLAIN: "Zürich\u2019s café wins again ",
    "ascii": "Markets close higher ",
    "marks_of_two_classes": "\u0345\u0334",
    "marks_of_three_classes": "\u0301\u0327\u0345",
    "marks_beyond_the_bmp": "\U0001d16d\U0001e94a",
    "runs_of_thirty_marks": "\u0345\u0334" * 15 + "a",
    "runs_of_thirty_wide_marks": "\U0001d16d" * 30 + "가",
    "marks_that_become_two": "\u0344",
    "marks_between_joiners": "\u0345\u200d\u0334\u200d",
    "letters_that_become_marks": "\u0345\uff9e",
    "hangul_by_letters": "\u1100\u1161\u11a8",
    "letters_that_become_words": "\ufdfa",
    "blanks": " \t",
    "joiners": "\u200d",
    "control_characters": "\x7f",
    "lone_surrogates": "\ud800",
    "emoji": "\U0001f469\u200d\U0001f680",
}
"""What each kind of text repeats."""


def long(unit: str, size: int) -> str:
    """`unit` again and again, about `size` bytes of UTF-8 in all."""
    return unit * (size // len(unit.encode("utf-8", "surrogatepass")))


def seconds_per_kib(work: Callable[[str], object], text: str) -> float:
    """The least of ROUNDS."""
    taken = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work(text)
        taken.append(time.perf_counter() - start)
    return min(taken) / (len(text.encode("utf-8", "surrogatepass")) / 1024)


def main() -> None:
    """Measures, prints and saves."""
    clean("é" * 100)  # builds its pattern
    print("| text of 64 KiB | clean, µs per KiB | key, µs per KiB |\n| --- | ---: | ---: |")
    found = {}
    for name, unit in WORST.items():
        text = long(unit, SIZE)
        found[name] = {work.__name__: seconds_per_kib(work, text) for work in (clean, key)}
        print(
            f"| {name.replace('_', ' ')} | {found[name]['clean'] * 1e6:.1f} | {found[name]['key'] * 1e6:.1f} "
            f"|"
        )
    worst = max(each["clean"] for each in found.values())
    save(
        "clean",
        {"clean_worst_s_per_kib": worst, "clean_worst_over_plain": worst / found[PLAIN]["clean"]},
        texts=found,
    )


if __name__ == "__main__":
    main()
