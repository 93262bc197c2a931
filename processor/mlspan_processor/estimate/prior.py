"""Stage 5: probabilities for a window in which only the classes' shares have changed (label shift).

The new shares come from expectation maximisation over the reference's probabilities; a row's probabilities are then
multiplied by new share / old share. Whether label shift is what happened can be checked without labels: reference
rows weighted by the ratio of their own class must look like the window in every feature and in the score. Only then
(Bonferroni over all columns, 10 %), and only where the unweighted reference clearly does not, is this method used;
and only for two classes, since with more of them a shift of the features is too easily taken for one of the shares.
Source: Saerens, Latinne & Decaestecker, Neural Computation 14, 2002; Lipton, Wang & Smola, ICML 2018.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc

from mlspan_processor.estimate.base import Floats, Integers, Rows

FITS: Final = 0.1
DIFFERS: Final = 1e-4
_STEPS: Final = 300
_BINS: Final = 10
_EXPECTED: Final = 5.0


def shares(p: Floats, weights: Floats, before: Floats) -> Floats:
    """(n_classes,) shares of the classes in a window.

    Args:
        p: (n, n_classes) probabilities that hold where the shares are as before.
        weights: (n,) of the rows.
        before: (n_classes,) shares in the reference, all above 0.
    """
    now = before.copy()
    for _ in range(_STEPS):
        posterior = moved(p, now / before)
        after = weights @ posterior / weights.sum()
        if np.abs(after - now).max() < 1e-6:
            break
        now = after
    return now


def moved(p: Floats, ratio: Floats) -> Floats:
    """(n, n_classes) probabilities after the classes' shares changed by these ratios (n_classes,)."""
    odds = p * ratio
    total = odds.sum(axis=1, keepdims=True)
    result: Floats = np.where(total > 0, odds / np.where(total > 0, total, 1.0), p)
    return result


def mismatch(reference: Rows, window: Rows, weights: Floats) -> float:
    """Bonferroni-corrected p-value that the window is a draw from the reference weighted by weights (n_reference,),
    over all columns; 1 where nothing can be compared."""
    n = window.weights.sum() ** 2 / (window.weights**2).sum()
    smallest, tests = 1.0, 0
    columns = [(reference.features[:, j], window.features[:, j], bool(c)) for j, c in enumerate(reference.categorical)]
    columns += [
        (reference.scores[:, k], window.scores[:, k], False)
        for k in range(1 if reference.n_classes == 2 else 0, reference.n_classes)
    ]
    for then, now, categorical in columns:
        codes, others, width = _binned(then, now, categorical=categorical)
        weight = np.bincount(codes, weights, width)
        expected = weight / weights.sum()
        seen = np.bincount(others, window.weights, width) / window.weights.sum()
        # Of a weighted share: the variance of a ratio, sum of squares of w (hit - share).
        squares = np.bincount(codes, weights**2, width)
        noise = (squares * (1 - 2 * expected) + expected**2 * (weights**2).sum()) / weights.sum() ** 2
        small = expected * n < _EXPECTED
        variance = expected * (1 - expected) / n + noise
        kept = ~small & (variance > 0) & (expected < 1)
        if (
            seen[small].sum() * n
            > _EXPECTED + 4 * np.sqrt(max(expected[small].sum() * n, 1.0)) + expected[small].sum() * n
        ):
            return 0.0
        if kept.sum() < 2:
            continue
        gaps = (seen - expected)[kept] ** 2 / variance[kept] * (1 - expected[kept])
        statistic = float(gaps.sum())
        smallest = min(smallest, float(chdtrc(kept.sum() - 1, statistic)))
        tests += 1
    return min(1.0, smallest * tests) if tests else 1.0


def ratio_of(reference: Rows, labels: Integers, window: Rows, p: Floats) -> tuple[Floats, bool]:
    """(n_classes,) new share / old share of each class, and whether label shift explains the window."""
    k = reference.n_classes
    before = np.bincount(labels, reference.weights, k) / reference.weights.sum()
    present = before > 0
    ratio = np.ones(k)
    if k != 2 or present.sum() < 2 or mismatch(reference, window, reference.weights) > DIFFERS:
        return ratio, False
    known = p[:, present] / p[:, present].sum(axis=1, keepdims=True)
    ratio[present] = shares(known, window.weights, before[present]) / before[present]
    return ratio, mismatch(reference, window, reference.weights * ratio[labels]) > FITS


def _binned(then: Floats, now: Floats, *, categorical: bool) -> tuple[NDArray[np.intp], NDArray[np.intp], int]:
    """Bins of reference and window values: quantiles of the reference or its most frequent categories, missing last."""
    if categorical:
        values, counts = np.unique(then[~np.isnan(then)], return_counts=True)
        top = np.sort(values[np.argsort(-counts, kind="stable")][: 3 * _BINS])

        def code(x: Floats) -> NDArray[np.intp]:
            at = np.minimum(np.searchsorted(top, x), max(len(top) - 1, 0))
            hit = top[at] == x if len(top) else np.zeros(len(x), bool)
            return np.where(np.isnan(x), len(top) + 1, np.where(hit, at, len(top))).astype(np.intp)

        return code(then), code(now), len(top) + 2
    known = then[~np.isnan(then)]
    edges = np.unique(np.quantile(known, np.linspace(0, 1, _BINS + 1)[1:-1])) if len(known) else np.zeros(0)

    def place(x: Floats) -> NDArray[np.intp]:
        return np.where(np.isnan(x), len(edges) + 1, np.searchsorted(edges, x, side="left")).astype(np.intp)

    return place(then), place(now), len(edges) + 2
