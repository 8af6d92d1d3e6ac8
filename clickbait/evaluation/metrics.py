"""Metrics computed from labels and scores: classification, calibration, slices, flips, curves, worst errors.

A label is 0 (news) or 1 (clickbait). A score is P(clickbait), in [0, 1]. The verdict is clickbait if score >=
threshold. Results are plain Python numbers, lists and dicts, so they can be written to metrics.json directly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from clickbait.evaluation.perturbations import WORD_START

Labels = npt.NDArray[np.integer[Any]]
Scores = npt.NDArray[np.floating[Any]]
Verdicts = npt.NDArray[np.bool_]

BINS = 15  # bins of the calibration error, as in Guo et al. 2017
CURVE_POINTS = 200  # enough for a plot; the full curve of a large split would fill most of metrics.json
HISTOGRAM_BINS = 20
SHORT, LONG = 40, 70  # characters: a headline is short below SHORT, and long from LONG on


def classification(labels: Labels, scores: Scores, threshold: float) -> dict[str, Any]:
    """The metrics of a split with labels (n,) and scores (n,), n at least 1.

    Keys: rows, only_class, accuracy, precision, recall, f1, auc, log_loss, ece, confusion ([[tn, fp], [fn,
    tp]]). Precision, recall and F1 are those of clickbait, and None if they are 0 / 0. If the split has a
    single class, `only_class` is its name, `news` or `clickbait`, and auc is None. Otherwise `only_class` is
    None.
    """
    from sklearn import metrics as sk  # the import takes 3 s

    labels, scores = _checked(labels, scores)
    verdicts = scores >= threshold
    confusion = sk.confusion_matrix(labels, verdicts, labels=[0, 1]).tolist()
    (_, false_positives), (false_negatives, true_positives) = confusion
    both = _both_classes(labels)
    return {
        "rows": len(labels),
        "only_class": None if both else "clickbait" if labels[0] else "news",
        "accuracy": float(np.mean(verdicts == labels)),
        "precision": _ratio(true_positives, true_positives + false_positives),
        "recall": _ratio(true_positives, true_positives + false_negatives),
        "f1": _ratio(2 * true_positives, 2 * true_positives + false_positives + false_negatives),
        "auc": float(sk.roc_auc_score(labels, scores)) if both else None,
        "log_loss": float(sk.log_loss(labels, scores, labels=[0, 1])),
        "ece": expected_calibration_error(labels, scores),
        "confusion": confusion,
    }


def expected_calibration_error(labels: Labels, scores: Scores, bins: int = BINS) -> float:
    """Mean difference, in [0, 1], between score and share of clickbait over bins of equal width.

    Each bin is weighted by its number of rows. Naeini, Cooper, Hauskrecht, "Obtaining Well Calibrated
    Probabilities Using Bayesian Binning", AAAI 2015, applied to the score of clickbait. 15 bins as in Guo et
    al., "On Calibration of Modern Neural Networks", ICML 2017, which applies it to the predicted class.
    """
    table = _reliability(*_checked(labels, scores), bins)
    count, gap = np.array(table["count"]), np.abs(np.array(table["mean_score"]) - np.array(table["observed"]))
    return float(np.average(gap, weights=count))


def temperature(labels: Labels, margins: Scores) -> float:
    """The temperature, in [0.1, 10], that calibrates the margins, (n,), when they are divided by it.

    A margin is the logit of clickbait minus the logit of news. The temperature minimises the log loss on
    held-out labels (Guo et al. 2017). It does not change accuracy or AUC. The labels are smoothed as in Platt
    (1999); without that, the best temperature of a split without errors would be zero.
    """
    from scipy.optimize import minimize_scalar  # of the `train` extra

    labels, margins = np.asarray(labels), np.asarray(margins, dtype=np.float64)
    positives = int(labels.sum())
    targets = np.where(labels == 1, (positives + 1) / (positives + 2), 1 / (len(labels) - positives + 2))

    def loss(log_temperature: float) -> float:
        scaled = margins / np.exp(log_temperature)
        return float(np.mean(np.logaddexp(0.0, scaled) - targets * scaled))

    # One minimum: the loss is convex in 1 / temperature.
    fit = minimize_scalar(loss, bounds=(np.log(0.1), np.log(10.0)), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(fit.x))


def best_threshold(labels: Labels, scores: Scores) -> float:
    """The threshold with the best accuracy on held-out labels.

    It is 0.5 if no other threshold is better. Otherwise it is the middle, in logits, of the widest gap
    between two scores among the gaps with the best accuracy.
    """
    labels, scores = _checked(labels, scores)
    if not _both_classes(labels):
        return 0.5
    order = np.argsort(scores, kind="stable")
    sorted_scores, is_news = np.clip(scores[order], 1e-9, 1.0 - 1e-9), labels[order] == 0
    # correct[i]: number of correct verdicts if the i lowest scores mean news
    correct = (
        np.concatenate([[0], np.cumsum(is_news)]) + np.concatenate([[0], np.cumsum(~is_news[::-1])])[::-1]
    )
    edges = np.concatenate([[1e-9], sorted_scores, [1.0 - 1e-9]])
    edges = np.log(edges) - np.log1p(-edges)
    gaps = np.diff(edges)
    possible = correct * (gaps > 0)  # no threshold fits between equal scores
    if correct[np.searchsorted(sorted_scores, 0.5)] == possible.max():
        return 0.5
    best = int(np.argmax(np.where(possible == possible.max(), gaps, 0.0)))
    return float(1.0 / (1.0 + np.exp(-(edges[best] + edges[best + 1]) / 2)))


def probabilities(margins: Scores, temperature: float) -> Scores:
    """P(clickbait), float64 (n,), of margins (n,) divided by the temperature."""
    return np.exp(-np.logaddexp(0.0, -np.asarray(margins, dtype=np.float64) / temperature))


def slices(
    texts: Sequence[str], labels: Labels, scores: Scores, threshold: float
) -> dict[str, dict[str, Any]]:
    """Rows, accuracy, f1 and share_clickbait of each slice that has rows.

    The slices are by length, by digits, by question marks and by title case (every word starts with a
    capital). f1 is None if neither a label nor a verdict of the slice is clickbait.
    """
    labels, scores = _checked(labels, scores)
    assert len(texts) == len(labels), "one label per text"
    length = np.array([len(text) for text in texts])
    digit = np.array([any(c.isdigit() for c in text) for text in texts])
    question = np.array(["?" in text for text in texts])
    title = np.array([is_title_case(text) for text in texts])
    masks = {
        "short": length < SHORT,
        "medium": (length >= SHORT) & (length < LONG),
        "long": length >= LONG,
        "has_digit": digit,
        "no_digit": ~digit,
        "question": question,
        "no_question": ~question,
        "title_case": title,
        "not_title_case": ~title,
    }
    verdicts = scores >= threshold
    return {name: _slice(labels[mask], verdicts[mask]) for name, mask in masks.items() if mask.any()}


def is_title_case(text: str) -> bool:
    """Whether every word starts with a capital or a digit, and at least one word with a capital."""
    starts = [match[1] for match in WORD_START.finditer(text)]
    return any(c.isupper() for c in starts) and not any(c.islower() for c in starts)


def flip_rate(before_scores: Scores, after_scores: Scores, threshold: float) -> float:
    """Share of verdicts, in [0, 1], that differ between two arrays of scores (n,), n at least 1."""
    both = np.stack([before_scores, after_scores]).astype(np.float64)  # raises if the lengths differ
    assert both.size, "at least one headline"
    assert not np.isnan(both).any(), "a score is not a number"
    verdicts = both >= threshold
    return float(np.mean(verdicts[0] != verdicts[1]))


@dataclass(frozen=True)
class Discordant:
    """The discordant pairs of two models: headlines that only one of the two classifies correctly."""

    only_first: int
    """Number of headlines that only the first model classifies correctly."""
    only_second: int
    """Number of headlines that only the second model classifies correctly."""

    def p_second_is_worse(self) -> float:
        """The p-value, in [0, 1], of the exact one-sided McNemar test that the second model is worse.

        It is the probability of this `only_second` or a smaller one if both models are equally good.
        """
        return _binomial(self.only_second, self.only_first + self.only_second)

    def p_differ(self) -> float:
        """The p-value, in [0, 1], of the exact two-sided McNemar test that the models differ."""
        smaller = min(self.only_first, self.only_second)
        return min(1.0, 2.0 * _binomial(smaller, self.only_first + self.only_second))


def _binomial(successes: int, trials: int) -> float:
    """Probability of `successes` or fewer in `trials` trials, each with probability 1/2 (McNemar 1947)."""
    from scipy.special import bdtr

    return float(bdtr(successes, trials, 0.5))


def discordant(labels: Labels, first: Verdicts, second: Verdicts) -> Discordant:
    """Counts the headlines that only one of two models classifies correctly.

    labels are (n,). The verdicts of both models are bool (n,), True for clickbait.
    """
    assert labels.shape == first.shape == second.shape == (labels.size,), "one verdict of each per label"
    first_correct, second_correct = first == labels, second == labels
    return Discordant(
        only_first=int(np.sum(first_correct & ~second_correct)),
        only_second=int(np.sum(~first_correct & second_correct)),
    )


def curves(labels: Labels, scores: Scores) -> dict[str, dict[str, list[Any]]]:
    """The data of the report's plots: at most 200 points per curve, rounded to 6 decimals.

    pr {precision, recall} and roc {fpr, tpr}: empty if the split has a single class. reliability {bin_lower,
    mean_score, observed, count}: only bins that have rows. histogram {edges, news, clickbait}: counts per
    bin, and one more edge than bins.
    """
    from sklearn import metrics as sk

    labels, scores = _checked(labels, scores)
    precision, recall, fpr, tpr = (np.empty(0) for _ in range(4))
    if _both_classes(labels):
        precision, recall, _ = sk.precision_recall_curve(labels, scores, drop_intermediate=True)
        fpr, tpr, _ = sk.roc_curve(labels, scores, drop_intermediate=True)
    edges = np.linspace(0.0, 1.0, HISTOGRAM_BINS + 1)
    return {
        "pr": {"precision": _thin(precision), "recall": _thin(recall)},
        "roc": {"fpr": _thin(fpr), "tpr": _thin(tpr)},
        "reliability": _reliability(labels, scores, BINS),
        "histogram": {
            "edges": _thin(edges),
            "news": np.histogram(scores[labels == 0], edges)[0].tolist(),
            "clickbait": np.histogram(scores[labels == 1], edges)[0].tolist(),
        },
    }


def worst(
    texts: Sequence[str], labels: Labels, scores: Scores, count: int, threshold: float
) -> list[dict[str, Any]]:
    """At most `count` wrong verdicts as {text, label, score}, largest error first. Ties keep their order."""
    labels, scores = _checked(labels, scores)
    assert len(texts) == len(labels), "one label per text"
    order = np.argsort(-np.abs(labels - scores), kind="stable")
    wrong = [i for i in order.tolist() if (scores[i] >= threshold) != labels[i]]
    return [{"text": texts[i], "label": int(labels[i]), "score": float(scores[i])} for i in wrong[:count]]


def _checked(labels: Labels, scores: Scores) -> tuple[Labels, Scores]:
    """The labels, and the scores as float64. Asserts the properties that all functions here rely on."""
    scores = np.asarray(scores, dtype=np.float64)
    assert labels.shape == scores.shape == (labels.size,), "labels (n,) and scores (n,)"
    assert labels.size, "at least one row"
    assert bool(((labels == 0) | (labels == 1)).all()), "a label is 0 or 1"
    assert bool(((scores >= 0.0) & (scores <= 1.0)).all()), (
        "a score is a number in [0, 1]"
    )  # also fails for NaN
    return labels, scores


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _both_classes(labels: Labels) -> bool:
    return bool(labels.min() != labels.max())


def _slice(labels: Labels, verdicts: npt.NDArray[np.bool_]) -> dict[str, Any]:
    true_positives = int(np.sum(verdicts & (labels == 1)))
    return {
        "rows": len(labels),
        "accuracy": float(np.mean(verdicts == labels)),
        "f1": _ratio(2 * true_positives, int(verdicts.sum() + labels.sum())),
        "share_clickbait": float(labels.mean()),
    }


def _reliability(labels: Labels, scores: Scores, bins: int) -> dict[str, list[Any]]:
    """Lower edge, mean score, share of clickbait and rows of each bin that has rows."""
    bin_of = np.minimum((scores * bins).astype(np.int64), bins - 1)  # a score of 1 is in the last bin
    count = np.bincount(bin_of, minlength=bins)
    used = np.flatnonzero(count)
    return {
        "bin_lower": [int(i) / bins for i in used],
        "mean_score": (np.bincount(bin_of, scores, minlength=bins)[used] / count[used]).tolist(),
        "observed": (np.bincount(bin_of, labels, minlength=bins)[used] / count[used]).tolist(),
        "count": count[used].tolist(),
    }


def _thin(values: npt.NDArray[np.float64]) -> list[float]:
    """At most CURVE_POINTS evenly spaced values, with the first and the last."""
    if len(values) > CURVE_POINTS:
        values = values[np.linspace(0, len(values) - 1, CURVE_POINTS).round().astype(np.int64)]
    return [round(value, 6) for value in values.tolist()]
