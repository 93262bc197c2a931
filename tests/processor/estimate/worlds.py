"""Models whose truth is known: two classes, several classes, numbers."""

from typing import Any

import numpy as np

from mlspan_processor.sample import Sample, Task


def sample(
    x: Any, scores: Any, labels: Any, *, task: Task = "binary", predictions: Any = None, n_classes: int = 2
) -> Sample:
    """A sample of numeric features x (n, n_features)."""
    n = len(x)
    if predictions is None:
        predictions = scores[:, 0] > 0.5 if n_classes == 2 else scores.argmax(axis=1)
    return Sample(
        task=task,
        names=tuple(f"x{j}" for j in range(x.shape[1])),
        types=("numeric",) * x.shape[1],
        cells=np.ascontiguousarray(x.T.astype(np.float32)).view(np.uint32),
        classes=() if task == "regression" else tuple("abcdefghij"[:n_classes]),
        predictions=np.asarray(predictions, np.float64),
        labels=np.asarray(labels, np.float64),
        scores=scores,
        weights=np.ones(n),
    )


def chance(x: Any) -> Any:
    """(n,) true probability of the last class: the model below knows the first feature only."""
    return 1 / (1 + np.exp(-(1.5 * x[:, 0] + 2.5 * x[:, 1])))


def binary(n: int, seed: int, *, shift: float = 0.0) -> Sample:
    """A model that overstates its first feature and has never seen the second, whose mean is shifted."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3))
    x[:, 1] += shift
    scores = 1 / (1 + np.exp(-2.0 * x[:, :1]))
    return sample(x, scores, rng.random(n) < chance(x))


def multiclass(n: int, seed: int) -> Sample:
    """Three classes, overconfident scores."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2))
    z = np.column_stack([x[:, 0], x[:, 1], np.zeros(n)])
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    scores = p**2 / (p**2).sum(axis=1, keepdims=True)
    labels = (rng.random((n, 1)) > np.cumsum(p, axis=1)[:, :-1]).sum(axis=1)
    return sample(x, scores, labels, task="multiclass", n_classes=3)


def regression(n: int, seed: int, *, shift: float = 0.0) -> Sample:
    """Predictions whose error grows with the second feature."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2))
    x[:, 1] += shift
    labels = 3 * x[:, 0] + rng.normal(size=n) * np.exp(0.7 * x[:, 1])
    return sample(x, None, labels, task="regression", predictions=3 * x[:, 0])
