"""Labelled predictions for the quality tests."""

import numpy as np

from mlspan.payload import SCORE_PROBABILITY
from mlspan_processor.quality import Labelled


def classified(n: int, classes: int, seed: int = 0, weighted: bool = False) -> Labelled:
    """Predictions of a classifier that is right more often than not; width 1 for two classes."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    logits = rng.normal(size=(n, classes)) + 1.5 * (np.arange(classes) == labels[:, None])
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    scores = p.astype(np.float32)
    weights = rng.integers(1, 6, n).astype(np.float64) if weighted else np.ones(n)
    return Labelled(
        labels.astype(np.float64),
        p.argmax(axis=1).astype(np.float64),
        scores[:, 1:] if classes == 2 else scores,
        SCORE_PROBABILITY,
        weights,
    )


def regressed(n: int, seed: int = 0, weighted: bool = False, mean: float = 0.0) -> Labelled:
    """Predictions of a regression."""
    rng = np.random.default_rng(seed)
    labels = rng.normal(mean, 2, n)
    weights = rng.integers(1, 6, n).astype(np.float64) if weighted else np.ones(n)
    return Labelled(labels, labels + rng.normal(0, 0.7, n), None, 0, weights)


def labelled_thrice(n: int, seed: int = 0) -> Labelled:
    """Predictions of a multilabel classifier with three outputs, weighted."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, 3)) < 0.4).astype(np.float64)
    p = 1 / (1 + np.exp(-(rng.normal(size=(n, 3)) + 2 * labels - 1)))
    weights = rng.integers(1, 6, n).astype(np.float64)
    return Labelled(labels, (p > 0.5).astype(np.float64), p.astype(np.float32), SCORE_PROBABILITY, weights)


def cut(batch: Labelled, start: int, stop: int) -> Labelled:
    """Some of the rows."""
    scores = None if batch.scores is None else batch.scores[start:stop]
    return Labelled(
        batch.labels[start:stop],
        batch.predictions[start:stop],
        scores,
        batch.score_kind,
        batch.weights[start:stop],
    )
