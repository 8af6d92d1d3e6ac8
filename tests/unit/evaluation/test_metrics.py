"""The figures: against sums done by hand, and by the properties that their definitions promise."""

from __future__ import annotations

import json
import math
import string
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clickbait.evaluation import metrics
from clickbait.evaluation.perturbations import PERTURBATIONS
from clickbait.text import normalise

LABELS = np.array([0, 0, 0, 1, 1, 1, 1, 0])
SCORES = np.array(
    [0.1, 0.2, 0.6, 0.9, 0.5, 0.4, 0.8, 0.0]
)  # one score on the threshold: it counts as clickbait

# Letters whose two cases fold to one: not the dotless i, whose capital is a plain I. Greek has the final
# sigma, German the sharp s. At least one of them a text: punctuation alone is its own identity.
LETTERS = string.ascii_letters + "äöüéèñçåøßÄÖÜÉÈÑÇÅØσςΣαΩ"
TEXTS = st.text(alphabet=LETTERS + string.digits + " .,!?'\"-:;()…%&", max_size=40).filter(
    lambda text: any(map(str.isalnum, text))
)
SPLITS = st.lists(st.tuples(st.integers(0, 1), st.floats(0.0, 1.0)), min_size=1, max_size=60).map(
    lambda rows: (np.array([label for label, _ in rows]), np.array([score for _, score in rows]))
)


def test_classification_equals_the_sums_by_hand() -> None:
    figures = metrics.classification(LABELS, SCORES, 0.5)
    assert figures["rows"] == 8
    assert figures["confusion"] == [[3, 1], [1, 3]]
    assert figures["accuracy"] == pytest.approx(6 / 8)
    assert figures["precision"] == figures["recall"] == figures["f1"] == pytest.approx(3 / 4)
    pairs = [(p > n) + (p == n) / 2 for p in SCORES[LABELS == 1] for n in SCORES[LABELS == 0]]
    assert figures["auc"] == pytest.approx(sum(pairs) / len(pairs))
    right = [max(score if label else 1 - score, 1e-300) for label, score in zip(LABELS, SCORES, strict=True)]
    assert figures["log_loss"] == pytest.approx(-sum(map(math.log, right)) / 8)
    assert figures["ece"] == pytest.approx(
        sum(abs(score - label) for label, score in zip(LABELS, SCORES, strict=True)) / 8
    )


def test_the_threshold_moves_verdicts_and_nothing_else() -> None:
    low, high = metrics.classification(LABELS, SCORES, 0.0), metrics.classification(LABELS, SCORES, 0.95)
    assert low["confusion"] == [[0, 4], [0, 4]]
    assert high["confusion"] == [[4, 0], [4, 0]]
    assert (high["precision"], high["recall"], high["f1"]) == (None, 0.0, 0.0), (
        "nothing is called clickbait: no precision"
    )
    for same in ("auc", "log_loss", "ece"):
        assert low[same] == high[same]


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_has_no_auc_and_no_curves(label: int) -> None:
    labels, scores = np.full(3, label), np.array([0.2, 0.7, 1.0])
    figures = metrics.classification(labels, scores, 0.5)
    assert (figures["auc"], figures["only_class"]) == (None, ("news", "clickbait")[label])
    assert figures["recall"] == (2 / 3 if label else None)
    curves = metrics.curves(labels, scores)
    assert curves["pr"] == {"precision": [], "recall": []}
    assert curves["roc"] == {"fpr": [], "tpr": []}
    assert sum(curves["reliability"]["count"]) == 3


@pytest.mark.parametrize(
    ("labels", "scores"), [([1], [math.nan]), ([1], [1.5]), ([2], [0.5]), ([1, 0], [0.5]), ([], [])]
)
def test_what_only_a_bug_can_cause_is_asserted(labels: list[int], scores: list[float]) -> None:
    with pytest.raises(AssertionError):
        metrics.classification(np.array(labels, dtype=np.int64), np.array(scores, dtype=np.float64), 0.5)


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_equals_the_sums_by_hand(first: int, second: int) -> None:
    """Exact: of `first + second` throws of a coin, as few heads as `second`; and both ends."""
    pair, total = metrics.Discordant(first, second), first + second
    at_most = [
        sum(math.comb(total, k) for k in range(count + 1)) / 2**total
        for count in (second, min(first, second))
    ]
    assert pair.p_second_is_worse() == pytest.approx(at_most[0], rel=1e-9)
    assert pair.p_differ() == pytest.approx(min(1.0, 2 * at_most[1]), rel=1e-9)
    assert metrics.Discordant(second, first).p_differ() == pair.p_differ()


@given(st.lists(st.tuples(st.integers(0, 1), st.booleans(), st.booleans()), min_size=1))
def test_discordant_headlines_are_those_that_one_model_alone_judges_right(
    rows: list[tuple[int, bool, bool]],
) -> None:
    labels, first, second = (np.array(column) for column in zip(*rows, strict=True))
    pair = metrics.discordant(labels, first, second)
    assert pair.only_first == sum(a == label != b for label, a, b in rows)
    assert pair.only_second == sum(b == label != a for label, a, b in rows)
    gain = np.mean(second == labels) - np.mean(first == labels)
    assert gain == pytest.approx((pair.only_second - pair.only_first) / len(rows))


@given(SPLITS)
def test_every_answer_is_json_and_in_bounds(split: tuple[metrics.Labels, metrics.Scores]) -> None:
    labels, scores = split
    texts = ["Is it 12?" if i % 2 else "one more" for i in range(len(labels))]
    figures = metrics.classification(labels, scores.astype(np.float32), 0.5)
    assert np.sum(figures["confusion"]) == figures["rows"] == len(labels)
    assert all(0 <= figures[key] <= 1 for key in ("accuracy", "ece"))
    assert all(figures[key] is None or 0 <= figures[key] <= 1 for key in ("precision", "recall", "f1"))
    curves = metrics.curves(labels, scores)
    assert (
        sum(curves["histogram"]["news"]) + sum(curves["histogram"]["clickbait"])
        == sum(curves["reliability"]["count"])
        == len(labels)
    )
    json.dumps(
        [
            figures,
            curves,
            metrics.slices(texts, labels, scores, 0.5),
            metrics.worst(texts, labels, scores, 5, 0.5),
        ],
        allow_nan=False,
    )


@given(
    st.lists(st.tuples(st.integers(0, 14), st.integers(1, 6)), min_size=1, max_size=10),
    st.randoms(use_true_random=False),
)
def test_ece_of_calibrated_bins_is_zero(bins: list[tuple[int, int]], random: object) -> None:
    """A bin with rows n and k of them clickbait, all scored k / n, is calibrated; k / n must lie in the bin,
    so n is 15 and k the bin.
    """
    labels = np.concatenate([np.arange(15) < k for k, times in bins for _ in range(times)]).astype(np.int64)
    scores = np.concatenate([np.full(15, k / 15) for k, times in bins for _ in range(times)])
    assert metrics.expected_calibration_error(labels, scores) == pytest.approx(0.0, abs=1e-12)


@given(SPLITS)
def test_ece_in_one_bin_is_the_difference_of_the_means(split: tuple[metrics.Labels, metrics.Scores]) -> None:
    labels, scores = split
    assert metrics.expected_calibration_error(labels, scores, bins=1) == pytest.approx(
        abs(labels.mean() - scores.mean())
    )


def test_ece_is_the_confidence_gap_of_a_model_that_is_always_sure_and_half_right() -> None:
    assert metrics.expected_calibration_error(
        np.array([0, 1, 0, 1]), np.array([1.0, 1.0, 0.0, 0.0])
    ) == pytest.approx(0.5)


def test_slices_partition_and_add_up() -> None:
    texts = [
        "Is It Worth It?",
        "a" * 39,
        "b" * 40,
        "c" * 69,
        "d" * 70,
        "21 Cats Won",
        "'Quoted' Words",
        "the end?",
    ]
    found = metrics.slices(texts, LABELS, SCORES, 0.5)
    assert {name: found[name]["rows"] for name in found} == {
        "short": 5, "medium": 2, "long": 1, "has_digit": 1, "no_digit": 7,
        "question": 2, "no_question": 6, "title_case": 3, "not_title_case": 5,
    }  # fmt: skip
    for names in (
        ("short", "medium", "long"),
        ("has_digit", "no_digit"),
        ("question", "no_question"),
        ("title_case", "not_title_case"),
    ):
        assert sum(found[name]["rows"] * found[name]["accuracy"] for name in names) == pytest.approx(6)
        assert sum(found[name]["rows"] * found[name]["share_clickbait"] for name in names) == pytest.approx(4)
    whole = metrics.slices(["x"] * 8, LABELS, SCORES, 0.5)
    assert whole["short"]["f1"] == pytest.approx(metrics.classification(LABELS, SCORES, 0.5)["f1"])
    assert "has_digit" not in whole
    assert found["long"]["f1"] == 1.0
    assert metrics.slices(["x"], np.array([0]), np.array([0.1]), 0.5)["short"]["f1"] is None


@pytest.mark.parametrize("name", sorted(PERTURBATIONS))
@given(text=TEXTS)
def test_a_perturbation_keeps_the_headlines_identity(name: str, text: str) -> None:
    assert normalise(PERTURBATIONS[name](text)) == normalise(text)


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("lower", "NASA Won", "nasa won"),
        ("upper", "it's on", "IT'S ON"),
        (
            "title",
            "why don't NASA's \"new\" rockets (still) fly",
            "Why Don't NASA's \"New\" Rockets (Still) Fly",
        ),
        ("title", "21 tips", "21 Tips"),
        ("punctuation", "The end", "The end."),
        ("punctuation", "The end?!", "The end"),
        ("punctuation", "The end ...", "The end"),
        ("punctuation", "...", "..."),
        ("punctuation", "up 5%", "up 5%."),
        ("spaces", "a b  c", "  a  b  c  "),
    ],
)
def test_what_a_perturbation_does(name: str, before: str, after: str) -> None:
    assert PERTURBATIONS[name](before) == after


@given(text=TEXTS)
def test_case_and_space_perturbations_are_done_once(text: str) -> None:
    for name in ("lower", "title", "spaces"):
        change: Callable[[str], str] = PERTURBATIONS[name]
        assert change(change(text)) == change(text)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1), st.floats(0, 1))
def test_flip_rate_is_symmetric_a_share_and_zero_on_itself(
    pairs: list[tuple[float, float]], threshold: float
) -> None:
    before, after = (np.array(column) for column in zip(*pairs, strict=True))
    rate = metrics.flip_rate(before, after, threshold)
    assert rate == metrics.flip_rate(after, before, threshold)
    assert 0 <= rate <= 1
    assert metrics.flip_rate(before, before, threshold) == 0


def test_flip_rate_counts_crossings_of_the_threshold() -> None:
    assert metrics.flip_rate(np.array([0.1, 0.4, 0.6, 0.9]), np.array([0.4, 0.5, 0.7, 0.1]), 0.5) == 0.5


def test_long_curves_are_thinned_and_keep_their_ends() -> None:
    random = np.random.default_rng(0)
    labels, scores = random.integers(0, 2, 5000), random.random(5000)
    curves = metrics.curves(labels, scores)
    for curve in (curves["pr"], curves["roc"]):
        assert {len(values) for values in curve.values()} == {metrics.CURVE_POINTS}
    assert (curves["roc"]["fpr"][0], curves["roc"]["tpr"][0]) == (0.0, 0.0)
    assert (curves["roc"]["fpr"][-1], curves["roc"]["tpr"][-1]) == (1.0, 1.0)
    assert curves["pr"]["recall"][0] == 1.0
    assert curves["pr"]["recall"][-1] == 0.0
    area = np.trapezoid(curves["roc"]["tpr"], curves["roc"]["fpr"])
    assert area == pytest.approx(metrics.classification(labels, scores, 0.5)["auc"], abs=0.005)


def test_worst_are_errors_only_and_the_farthest_first() -> None:
    texts = [f"headline {i}" for i in range(8)]
    assert metrics.worst(texts, LABELS, SCORES, 5, 0.5) == [
        {"text": "headline 2", "label": 0, "score": 0.6},
        {"text": "headline 5", "label": 1, "score": 0.4},
    ]
    assert len(metrics.worst(texts, LABELS, SCORES, 1, 0.5)) == 1
    assert metrics.worst(texts, LABELS, SCORES, 0, 0.5) == []


def test_temperature_undoes_what_made_the_margins_too_sure() -> None:
    rng = np.random.default_rng(0)
    honest = rng.normal(0.0, 3.0, 20_000)
    labels = (rng.random(len(honest)) < metrics.probabilities(honest, 1.0)).astype(np.int64)
    for factor in (0.5, 1.0, 3.0):
        found = metrics.temperature(labels, honest * factor)
        assert abs(found / factor - 1.0) < 0.05
        assert (
            metrics.expected_calibration_error(labels, metrics.probabilities(honest * factor, found)) < 0.01
        )


def test_temperature_of_a_split_without_an_error_does_not_ask_for_certainty() -> None:
    labels = np.array([0, 1] * 200)
    margins = np.where(labels == 1, 4.0, -4.0)
    scores = metrics.probabilities(margins, metrics.temperature(labels, margins))
    assert 0.99 < scores.max() < 0.999


@given(st.lists(st.tuples(st.integers(0, 1), st.floats(0.01, 0.99)), min_size=2, max_size=40))
def test_no_threshold_does_better_than_the_best(pairs: list[tuple[int, float]]) -> None:
    labels, scores = (
        np.array([label for label, _ in pairs]),
        np.array([round(score, 3) for _, score in pairs]),
    )

    def right(threshold: float) -> int:
        return int(np.sum((scores >= threshold) == labels))

    chosen = metrics.best_threshold(labels, scores)
    assert 0.0 <= chosen <= 1.0
    if labels.min() != labels.max():
        assert right(chosen) >= max(right(float(score)) for score in scores)
    assert chosen == 0.5 or right(chosen) > right(0.5), "another threshold than 0.5 has to earn it"


def test_the_threshold_is_in_the_middle_of_its_gap() -> None:
    labels, scores = np.array([0, 0, 0, 1, 1]), np.array([0.1, 0.6, 0.7, 0.9, 0.95])
    chosen = metrics.best_threshold(labels, scores)
    assert np.log(chosen / (1 - chosen)) == pytest.approx((np.log(0.7 / 0.3) + np.log(9)) / 2)
