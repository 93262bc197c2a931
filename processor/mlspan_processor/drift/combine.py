"""Stage 5: several p-values made one, and many held to one level.

`joined`: Cauchy combination. Where the tests are independent or nearly normal it holds its level in the tail; it is
never above the split of the level by the same weights, and close to the smallest p-value. `spread`: sum of weighted
chi-squared variables' tail, by the saddlepoint. Source: Liu & Xie, J. Am. Stat. Assoc. 115, 2020; Kuonen, Biometrika
86, 1999.
"""

from typing import Final

import numpy as np
from scipy.special import ndtr

from mlspan_processor.drift.base import Floats

_LARGEST: Final = 0.95
_TINY: Final = 1e-300
_HALVINGS: Final = 60


def joined(p_values: Floats, weights: Floats) -> Floats:
    """Combined p-values (n,) of p_values (n_tests, n), weights (n_tests, 1 or n) that sum to 1 over tests.

    NaN (a test that has nothing to say) counts as a weight of zero; NaN where no test speaks.
    """
    known = ~np.isnan(p_values)
    shares = np.where(known, weights, 0.0)
    sums = shares.sum(axis=0)
    # A p-value of 1, common in discrete data, has a cotangent of minus infinity and would silence the other test.
    p = np.clip(np.where(known, p_values, 0.5), _TINY, _LARGEST)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = (shares / np.tan(np.pi * p)).sum(axis=0) / sums
    return np.where(sums > 0, np.maximum(np.arctan2(1.0, mean) / np.pi, _TINY), np.nan)


def quadratic_tail(x: Floats, eigenvalues: Floats) -> Floats:
    """P(sum of eigenvalues (n, k) times independent chi-squared variables of one degree >= x (n,)).

    Within 8 % down to 1e-10; rows whose eigenvalues are all zero give 1.
    """
    largest = eigenvalues.max(axis=1, initial=0.0)
    safe = np.where(largest > 0, largest, 1.0)
    scaled, x = eigenvalues / safe[:, None], np.asarray(x, np.float64) / safe
    mean = scaled.sum(axis=1)
    low = np.where(x > mean, 0.0, -0.5 * eigenvalues.shape[1] / np.maximum(x, 1e-12) - 1.0)
    high = np.where(x > mean, 0.5, 0.0)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        rising = (scaled / (1 - 2 * middle[:, None] * scaled)).sum(axis=1) < x
        low, high = np.where(rising, middle, low), np.where(rising, high, middle)
    at = (low + high) / 2
    rest = 1 - 2 * at[:, None] * scaled
    with np.errstate(divide="ignore", invalid="ignore"):
        w = np.sign(at) * np.sqrt(np.maximum(2 * at * x + np.log(rest).sum(axis=1), 0.0))
        v = at * np.sqrt(2 * ((scaled / rest) ** 2).sum(axis=1))
        p = ndtr(-(w + np.log(v / w) / w))
    # At the mean the formula is 0 / 0; a normal variable's half is near enough there.
    p = np.where(np.abs(w) > 1e-3, p, 0.5)
    return np.where((largest > 0) & (x > 0), np.clip(np.nan_to_num(p, nan=1.0), _TINY, 1.0), 1.0)
