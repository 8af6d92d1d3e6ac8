"""What a model is worth, from labels and scores alone: classification, calibration, slices, invariances,
curves, worst errors.

Labels are 0 (news) and 1 (clickbait); scores are P(clickbait), in [0, 1]. A verdict is clickbait where score
>= threshold. Every answer is made of plain Python numbers, lists and dicts, so that it goes into metrics.json
as it is. No ray, no torch.
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

BINS = 15  # of the calibration error: Guo et al. 2017
CURVE_POINTS = 200  # enough for a plot; the whole curve of a large split would be most of metrics.json
HISTOGRAM_BINS = 20
SHORT, LONG = 40, 70  # characters: a headline below is short, one from here on is long


def classification(labels: Labels, scores: Scores, threshold: float) -> dict[str, Any]:
    """The figures of one split: labels (n,) and scores (n,), n at least 1.

    Keys: rows, only_class, accuracy, precision, recall, f1, auc, log_loss, ece, confusion ([[tn, fp], [fn,
    tp]]). Precision, recall and F1 are of clickbait. A figure that is not defined is None: one of these three
    where it is 0 / 0, and auc where the split has one class only. `only_class` is then that class, `news` or
    `clickbait`; with both classes it is None.
    """
    from sklearn import metrics as sk  # 3 s, with scipy and pandas

    labels, scores = _checked(labels, scores)
    verdicts = scores >= threshold
    confusion = sk.confusion_matrix(labels, verdicts, labels=[0, 1]).tolist()
    (_, called_wrongly), (missed, hits) = confusion
    both = _both_classes(labels)
    return {
        "rows": len(labels),
        "only_class": None if both else "clickbait" if labels[0] else "news",
        "accuracy": float(np.mean(verdicts == labels)),
        "precision": _ratio(hits, hits + called_wrongly),
        "recall": _ratio(hits, hits + missed),
        "f1": _ratio(2 * hits, 2 * hits + called_wrongly + missed),
        "auc": float(sk.roc_auc_score(labels, scores)) if both else None,
        "log_loss": float(sk.log_loss(labels, scores, labels=[0, 1])),
        "ece": expected_calibration_error(labels, scores),
        "confusion": confusion,
    }


def expected_calibration_error(labels: Labels, scores: Scores, bins: int = BINS) -> float:
    """Mean distance, in [0, 1], between P(clickbait) and the share of clickbait, over equal-width bins
    weighted by their rows.

    Naeini, Cooper, Hauskrecht, "Obtaining Well Calibrated Probabilities Using Bayesian Binning", AAAI 2015,
    here on the positive class; 15 bins as in Guo et al., "On Calibration of Modern Neural Networks", ICML
    2017 (which bins the winning class).
    """
    table = _reliability(*_checked(labels, scores), bins)
    count, gap = np.array(table["count"]), np.abs(np.array(table["mean_score"]) - np.array(table["observed"]))
    return float(np.average(gap, weights=count))


def temperature(labels: Labels, margins: Scores) -> float:
    """The temperature, in [0.1, 10], that the margins (logit of clickbait less logit of news, (n,)) are
    divided by to be calibrated.

    Guo et al. 2017: the one number that minimises the log loss on held-out labels; accuracy and AUC stay. The
    labels are softened as Platt (1999) does, or a split without an error would ask for certainty.
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
    """The threshold with the best accuracy on held-out labels: 0.5 where no other does better, else the
    middle, in logits, of the widest gap between scores that does best.
    """
    labels, scores = _checked(labels, scores)
    if not _both_classes(labels):
        return 0.5
    order = np.argsort(scores, kind="stable")
    sorted_scores, is_news = np.clip(scores[order], 1e-9, 1.0 - 1e-9), labels[order] == 0
    # right[i]: verdicts that are right where the i lowest scores are called news
    right = np.concatenate([[0], np.cumsum(is_news)]) + np.concatenate([[0], np.cumsum(~is_news[::-1])])[::-1]
    edges = np.concatenate([[1e-9], sorted_scores, [1.0 - 1e-9]])
    edges = np.log(edges) - np.log1p(-edges)
    gaps = np.diff(edges)
    possible = right * (gaps > 0)  # equal scores cannot be told apart
    if right[np.searchsorted(sorted_scores, 0.5)] == possible.max():
        return 0.5
    best = int(np.argmax(np.where(possible == possible.max(), gaps, 0.0)))
    return float(1.0 / (1.0 + np.exp(-(edges[best] + edges[best + 1]) / 2)))


def probabilities(margins: Scores, temperature: float) -> Scores:
    """P(clickbait), float64 (n,), of margins at a temperature."""
    return np.exp(-np.logaddexp(0.0, -np.asarray(margins, dtype=np.float64) / temperature))


def slices(
    texts: Sequence[str], labels: Labels, scores: Scores, threshold: float
) -> dict[str, dict[str, Any]]:
    """Name of a slice to its rows, accuracy, f1 and share_clickbait; a slice without rows is left out.

    Length in characters, a digit or none, a question mark or none, title case (every word starts with a
    capital) or not. f1 is None where neither a label nor a verdict of the slice is clickbait.
    """
    labels, scores = _checked(labels, scores)
    assert len(texts) == len(labels), "one label a text"
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
    """Every word starts with a capital: no word's first letter or digit is lower case, and at least one is
    upper.
    """
    starts = [match[1] for match in WORD_START.finditer(text)]
    return any(c.isupper() for c in starts) and not any(c.islower() for c in starts)


def flip_rate(before_scores: Scores, after_scores: Scores, threshold: float) -> float:
    """Share of verdicts, in [0, 1], that differ between the two lists of scores (n,), (n,), n at least 1."""
    both = np.stack([before_scores, after_scores]).astype(np.float64)  # raises where the two differ in length
    assert both.size, "at least one headline"
    assert not np.isnan(both).any(), "a score is not a number"
    verdicts = both >= threshold
    return float(np.mean(verdicts[0] != verdicts[1]))


@dataclass(frozen=True)
class Discordant:
    """What two models' verdicts on the same headlines tell of them: the headlines that only one of the two
    judges right.
    """

    only_first: int
    """Headlines that the first judges right and the second wrong."""
    only_second: int
    """Headlines that the second judges right and the first wrong."""

    def p_second_is_worse(self) -> float:
        """Probability, in [0, 1], of so few `only_second` or fewer, were both models equally good: the exact
        one-sided McNemar test.
        """
        return _binomial(self.only_second, self.only_first + self.only_second)

    def p_differ(self) -> float:
        """Probability, in [0, 1], of a difference as large or larger, either way: the exact two-sided McNemar
        test.
        """
        return min(
            1.0, 2.0 * _binomial(min(self.only_first, self.only_second), self.only_first + self.only_second)
        )


def _binomial(most: int, total: int) -> float:
    """Probability of `most` heads or fewer in `total` throws of a fair coin (McNemar 1947 in its exact
    form).
    """
    from scipy.special import bdtr

    return float(bdtr(most, total, 0.5))


def discordant(labels: Labels, first: Verdicts, second: Verdicts) -> Discordant:
    """Where two models' verdicts, bool (n,), True for clickbait, differ on the same headlines with the labels
    (n,).
    """
    assert labels.shape == first.shape == second.shape == (labels.size,), "one verdict of each per label"
    right = first == labels
    return Discordant(int(np.sum(right & (second != labels))), int(np.sum(~right & (second == labels))))


def curves(labels: Labels, scores: Scores) -> dict[str, dict[str, list[Any]]]:
    """What the report draws, at most 200 points a curve, rounded to 6 decimals.

    pr {precision, recall}, roc {fpr, tpr} (both empty where the split has one class only), reliability
    {bin_lower, mean_score, observed, count} (bins with rows only), histogram {edges, news, clickbait} (counts
    a bin; one edge more than bins).
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
    """At most `count` wrong verdicts as {text, label, score}, the farthest from their label first, ties in
    the order given.
    """
    labels, scores = _checked(labels, scores)
    assert len(texts) == len(labels), "one label a text"
    order = np.argsort(-np.abs(labels - scores), kind="stable")
    wrong = [i for i in order.tolist() if (scores[i] >= threshold) != labels[i]]
    return [{"text": texts[i], "label": int(labels[i]), "score": float(scores[i])} for i in wrong[:count]]


def _checked(labels: Labels, scores: Scores) -> tuple[Labels, Scores]:
    """Both as they are, scores in float64; asserts what every function here takes for granted."""
    scores = np.asarray(scores, dtype=np.float64)
    assert labels.shape == scores.shape == (labels.size,), "labels (n,) and scores (n,)"
    assert labels.size, "at least one row"
    assert bool(((labels == 0) | (labels == 1)).all()), "a label is 0 or 1"
    assert bool(((scores >= 0.0) & (scores <= 1.0)).all()), (
        "a score is a probability, and a number"
    )  # NaN compares false
    return labels, scores


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _both_classes(labels: Labels) -> bool:
    return bool(labels.min() != labels.max())


def _slice(labels: Labels, verdicts: npt.NDArray[np.bool_]) -> dict[str, Any]:
    hits = int(np.sum(verdicts & (labels == 1)))
    called = int(verdicts.sum() + labels.sum())
    return {
        "rows": len(labels),
        "accuracy": float(np.mean(verdicts == labels)),
        "f1": _ratio(2 * hits, called),
        "share_clickbait": float(labels.mean()),
    }


def _reliability(labels: Labels, scores: Scores, bins: int) -> dict[str, list[Any]]:
    """Per bin that has rows: its lower edge, the mean score, the share of clickbait, the rows. A score of 1
    is in the last bin.
    """
    which = np.minimum((scores * bins).astype(np.int64), bins - 1)
    count = np.bincount(which, minlength=bins)
    used = np.flatnonzero(count)
    return {
        "bin_lower": [int(i) / bins for i in used],
        "mean_score": (np.bincount(which, scores, minlength=bins)[used] / count[used]).tolist(),
        "observed": (np.bincount(which, labels, minlength=bins)[used] / count[used]).tolist(),
        "count": count[used].tolist(),
    }


def _thin(values: npt.NDArray[np.float64]) -> list[float]:
    """At most CURVE_POINTS of the values, evenly spaced, both ends among them."""
    if len(values) > CURVE_POINTS:
        values = values[np.linspace(0, len(values) - 1, CURVE_POINTS).round().astype(np.int64)]
    return [round(value, 6) for value in values.tolist()]
