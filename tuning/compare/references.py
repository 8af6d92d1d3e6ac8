"""Two shallow reference models that a fine-tuned model has to beat.

    reference = train(train_split, validation_split, cased=True)
    reference.score(["You Won't Believe Number 7"])

Both are linear models on TF-IDF n-grams, one cased and one lower-cased. Capital letters tell the sources of a
training set apart, but say nothing about clickbait. So the cased model has a high accuracy, and the gate has
to refuse it. The lower-cased model is the baseline.
"""

from __future__ import annotations

import pickle
import time
from dataclasses import dataclass

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import FeatureUnion

from clickbait.evaluation import metrics
from clickbait.evaluation.measure import Split
from clickbait.text import clean

CASED, LOWER = NAMES = ("TF-IDF, cased", "TF-IDF, lower-cased")
# Values of C, the inverse regularisation. On 25,600 real headlines the best are 30 (lower) and 300 (cased).
STRENGTHS = (10.0, 30.0, 100.0, 300.0)


@dataclass(frozen=True)
class Reference:
    """A trained reference."""

    name: str
    vectors: FeatureUnion
    model: LogisticRegression
    threshold: float
    """The threshold with the best validation accuracy, chosen as for a bundle."""
    seconds: float
    """Training time, including the choice of C."""

    def score(self, texts: list[str]) -> np.ndarray:
        """P(clickbait) of each text, float64 (n,)."""
        scores: np.ndarray = self.model.predict_proba(self.vectors.transform(texts))[:, 1]
        return scores

    @property
    def parameters(self) -> int:
        """The number of coefficients."""
        return int(self.model.coef_.size)

    @property
    def size(self) -> int:
        """The pickled size in bytes: what a server would load. The pickle is never written or read."""
        return len(pickle.dumps((self.vectors, self.model)))


def train(split: Split, validation: Split, *, cased: bool) -> Reference:
    """Trains on `split`, and chooses C and the threshold on `validation`.

    C has the lowest log loss there, the threshold the best accuracy. The features are word 1- and 2-grams,
    and character 2- to 5-grams within words. Both splits must have both labels.
    """
    start = time.perf_counter()
    vectors = _vectors(cased)
    rows, held_out = vectors.fit_transform(split.texts), vectors.transform(validation.texts)
    best: tuple[float, LogisticRegression, np.ndarray] | None = None
    for strength in STRENGTHS:
        model = LogisticRegression(C=strength, solver="liblinear").fit(rows, split.labels)
        scores = model.predict_proba(held_out)[:, 1]
        loss = float(log_loss(validation.labels, scores, labels=[0, 1]))
        if best is None or loss < best[0]:
            best = loss, model, scores
    assert best is not None, "STRENGTHS is empty"
    threshold = metrics.best_threshold(validation.labels, best[2])
    return Reference(CASED if cased else LOWER, vectors, best[1], threshold, time.perf_counter() - start)


def _vectors(cased: bool) -> FeatureUnion:
    prepare = clean if cased else _lower  # not a lambda: lambdas cannot be pickled
    kinds = {"words": ("word", (1, 2)), "characters": ("char_wb", (2, 5))}
    return FeatureUnion(
        [
            (
                name,
                TfidfVectorizer(
                    analyzer=kind,
                    ngram_range=span,
                    preprocessor=prepare,
                    sublinear_tf=True,
                    min_df=2,
                    dtype=np.float32,
                ),
            )
            for name, (kind, span) in kinds.items()
        ]
    )


def _lower(text: str) -> str:
    return clean(text).lower()
