"""The synthetic sample: the wording carries the label, the surface does not, and a seed means the same
headlines everywhere.
"""

from __future__ import annotations

import csv
import hashlib
import itertools
import os
import re
import string
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from clickbait.errors import DataError, StorageError
from clickbait.sample import MAX_COUNT, SYNTHETIC_NOTICE, bait, generate, news, write_csv
from clickbait.sample.__main__ import main
from clickbait.sample.words import WORDS
from clickbait.text import clean, normalise

Rows = list[tuple[str, int]]


@pytest.fixture(scope="module")
def rows() -> Rows:
    return generate(4000, seed=0)


def surface(headline: str) -> list[float]:
    """What a headline looks like to one who cannot read."""
    words = headline.split()
    digits = [word for word in words if any(c.isdigit() for c in word)]
    leading = "".join(c for c in words[0] if c.isdigit())
    return [
        len(headline),
        len(words),
        len(headline) / len(words),
        sum(c.isupper() for c in headline),
        sum(c.isupper() for c in headline) / len(headline),
        sum(word[0].isupper() for word in words) / len(words),
        sum(word.isupper() and len(word) > 1 for word in words),
        headline[0].isupper(),
        headline.istitle(),
        headline.islower(),
        headline.isupper(),
        headline[0].isdigit(),
        float(leading or 0),
        sum(c.isdigit() for c in headline),
        len(digits),
        headline[-1] in string.punctuation,
        headline[-1] == "?",
        headline[0] in "\"'",
        *(headline.count(mark) for mark in string.punctuation),
    ]


def held_out_accuracy(rows: Rows) -> dict[str, float]:
    """Accuracy of two kinds of model on the surface of the last quarter, trained on the others."""
    features = np.array([surface(headline) for headline, _ in rows], dtype=float)
    labels = np.array([label for _, label in rows])
    cut = len(rows) * 3 // 4
    models = {
        "linear": make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        "trees": HistGradientBoostingClassifier(max_iter=100, random_state=0),
    }
    return {
        name: model.fit(features[:cut], labels[:cut]).score(features[cut:], labels[cut:])
        for name, model in models.items()
    }


def test_the_surface_tells_nothing(rows: Rows) -> None:
    accuracies = held_out_accuracy(rows)
    assert max(accuracies.values()) < 0.58, accuracies


@pytest.mark.parametrize(
    "shortcut", [str.title, lambda headline: headline.rstrip("?.!") + "!", lambda headline: f"7 {headline}"]
)
def test_a_shortcut_on_the_surface_would_be_found(rows: Rows, shortcut: object) -> None:
    assert callable(shortcut)
    plain = [(headline.capitalize(), label) for headline, label in rows]
    accuracies = held_out_accuracy(
        [(shortcut(headline) if label else headline, label) for headline, label in plain]
    )
    assert min(accuracies.values()) > 0.9, accuracies


def test_the_wording_tells_nearly_all(rows: Rows) -> None:
    headlines, labels = zip(*((headline.lower(), label) for headline, label in rows), strict=True)
    model = make_pipeline(CountVectorizer(), LogisticRegression(max_iter=1000)).fit(
        headlines[:3000], labels[:3000]
    )
    assert model.score(headlines[3000:], labels[3000:]) > 0.95


@pytest.mark.parametrize("count", [1, 2, 100, 101, 4000, 20_000])
def test_headlines_are_distinct_balanced_clean_and_of_a_headlines_length(count: int) -> None:
    rows = generate(count, seed=5)
    assert len(rows) == count
    assert len({normalise(headline) for headline, _ in rows}) == count
    assert abs(2 * sum(label for _, label in rows) - count) <= 1
    for headline, _ in rows:
        assert headline.isprintable()
        assert clean(headline) == headline
        assert 15 <= len(headline) <= 150
        assert not set("{}|_") & set(headline)


def test_the_labels_come_in_no_order(rows: Rows) -> None:
    labels = [label for _, label in rows]
    changes = sum(a != b for a, b in itertools.pairwise(labels))
    assert 1800 < changes < 2200  # of 3,999 chances, half


def test_every_slot_has_its_words_and_every_word_its_slot() -> None:
    phrases = news.PHRASES.keys() | bait.PHRASES.keys()
    assert len(phrases) == len(news.PHRASES) + len(bait.PHRASES)
    assert not phrases & WORDS.keys()
    lists = [*WORDS.values(), *news.PHRASES.values(), *bait.PHRASES.values()]
    templates = [news.NEWS, bait.BAIT, news.SOFT_NEWS, bait.SOBER_BAIT]
    assert set(re.findall(r"\{(\w+)\}", "\n".join(lists + templates))) == phrases | WORDS.keys()


def test_no_template_stands_twice() -> None:
    lines = "".join((news.NEWS, bait.BAIT, news.SOFT_NEWS, bait.SOBER_BAIT)).split("\n")
    told = [line for line in lines if line]
    assert len(told) == len(set(told))


def test_the_words_are_many_and_no_single_one_is_a_class(rows: Rows) -> None:
    bags = [(set(normalise(headline).split()), label) for headline, label in rows]
    for of in (0, 1):
        assert len(set().union(*(bag for bag, label in bags if label == of))) > 700
    counts = Counter(word for bag, _ in bags for word in bag)
    clickbait = Counter(word for bag, label in bags for word in bag if label)
    best = max(0.5 + abs(2 * clickbait[word] - count) / len(rows) for word, count in counts.items())
    assert best < 0.65  # accuracy of the best rule "this word stands there"


def test_a_seed_means_the_same_headlines_for_ever() -> None:
    text = "\n".join(f"{headline}\t{label}" for headline, label in generate(200, seed=1))
    assert (
        hashlib.sha256(text.encode()).hexdigest()
        == "fa250ff6e0b9dca6ea7ab0ed7365dd0b8f72cdd6729134fd35ece0735a63e410"
    )
    assert len(set(generate(200, seed=1)) & set(generate(200, seed=2))) < 20


def test_the_hash_seed_of_python_does_not_matter() -> None:
    outputs = set()
    for hash_seed in ("1", "2"):
        ran = subprocess.run(
            [sys.executable, "-m", "clickbait.sample", "--count", "50", "--seed", "3"],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
        )
        assert ran.stderr.decode().strip() == SYNTHETIC_NOTICE
        outputs.add(ran.stdout)
    assert len(outputs) == 1


def test_the_csv_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "headlines.csv"
    write_csv(path, 300, 4)
    with path.open(encoding="utf-8", newline="") as file:
        assert [(row["headline"], int(row["clickbait"])) for row in csv.DictReader(file)] == generate(300, 4)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("count", [0, -1, MAX_COUNT + 1])
def test_a_count_out_of_bounds_is_refused(count: int) -> None:
    with pytest.raises(DataError, match="ask for 1 to"):
        generate(count)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="nowhere"):
        write_csv(tmp_path / "nowhere" / "headlines.csv", 10, 0)


def test_the_command_line_tells_a_bad_count_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["sample", "--count", "0"])
    assert main() == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
