"""Samples with labels for the tests of realised performance, segments and versions."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlspan_processor.sample import Sample, Segment, Task

Floats = NDArray[np.float64]


def made(
    task: Task,
    labels: Any,
    predictions: Any,
    scores: Any = None,
    weights: Any = None,
    classes: tuple[str, ...] = (),
    segments: dict[str, Segment] | None = None,
) -> Sample:
    """A sample without features."""
    n = len(labels)
    return Sample(
        task,
        (),
        (),
        np.zeros((0, n), np.uint32),
        classes,
        np.asarray(predictions, np.float64),
        np.asarray(labels, np.float64),
        None if scores is None else np.asarray(scores, np.float64),
        np.ones(n) if weights is None else np.asarray(weights, np.float64),
        None,
        segments or {},
    )


def weights_of(rng: np.random.Generator, n: int, weighted: bool) -> Floats:
    """Weights of 1, or of 1 to 5."""
    return rng.integers(1, 6, n).astype(np.float64) if weighted else np.ones(n)


def binary(
    rng: np.random.Generator, n: int, *, share: float = 0.3, weighted: bool = False, sure: float = 1.0
) -> Sample:
    """Two classes, with calibrated probabilities unless `sure` is not 1."""
    y = (rng.random(n) < share).astype(np.float64)
    z = rng.normal(size=n) + 1.5 * y
    p = 1 / (1 + np.exp(-sure * (np.log(share / (1 - share)) + 1.5 * z - 1.125)))
    return made("binary", y, p > 0.4, p[:, None], weights_of(rng, n, weighted), ("no", "yes"))


def multiclass(rng: np.random.Generator, n: int, k: int = 4, *, weighted: bool = False) -> Sample:
    """k classes of unequal frequency."""
    shares = np.arange(k, 0, -1) / (k * (k + 1) / 2)
    y = rng.choice(k, n, p=shares)
    logits = rng.normal(size=(n, k)) + 1.4 * (y[:, None] == np.arange(k)) + np.log(shares)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return made("multiclass", y, p.argmax(axis=1), p, weights_of(rng, n, weighted), tuple("abcdefgh"[:k]))


def multilabel(rng: np.random.Generator, n: int, k: int = 3, *, weighted: bool = False) -> Sample:
    """k outputs that hang together."""
    common = rng.normal(size=(n, 1))
    y = rng.normal(size=(n, k)) + common > np.linspace(0, 1, k)
    p = 1 / (1 + np.exp(-(rng.normal(size=(n, k)) + 2 * y - 1 + 0.5 * common)))
    return made("multilabel", y, p > 0.5, p, weights_of(rng, n, weighted), tuple("abcdefgh"[:k]))


def regression(rng: np.random.Generator, n: int, *, weighted: bool = False) -> Sample:
    """Numbers away from 0, with a bias."""
    y = rng.gamma(4.0, 1.5, n) + 0.5
    return made("regression", y, y + rng.normal(0.1, 0.7, n), None, weights_of(rng, n, weighted))


MAKERS: dict[str, Callable[..., Sample]] = {
    "binary": binary,
    "multiclass": multiclass,
    "multilabel": multilabel,
    "regression": regression,
}
