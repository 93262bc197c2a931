"""Stage 5: has a share of rows changed? The test behind missing rates, unseen values and single categories.

In: how many of the window's and of the reference's rows are in a cell. Out: p-values that hold far into the tail for
small counts too, where a normal approximation is wrong by orders of magnitude: the conditional (Fisher) distribution by
a double saddlepoint, with a continuity correction. Counts may be fractions (effective rows of weighted or dependent
rows). Within 10 % of `scipy.stats.fisher_exact` where that is below .05, and no smaller than half of it. No rows: 1.
Source: Skovgaard, J. Appl. Probab. 24, 1987; Barndorff-Nielsen, Biometrika 73, 1986.
"""

from typing import Any, Final

import numpy as np
from scipy.special import gammaln, ndtr, xlogy

from mlspan_processor.drift.base import Floats

TINY: Final = 1e-300
_FLAT: Final = 0.05


def risen(a: Any, n: Any, c: Any, m: Any) -> Floats:
    """One-sided p-values of the window's share a / n being larger than the reference's c / m.

    Args:
        a, n: rows of the window in the cell, and all of them; any shapes that broadcast, fractions allowed.
        c, m: the reference's, likewise.
    """
    a, n, c, m = (np.asarray(x, np.float64) for x in np.broadcast_arrays(a, n, c, m))
    # Half a row towards the reference's share: P(X >= a) of whole numbers.
    with np.errstate(all="ignore"):
        step = np.minimum(0.5, np.minimum(a, m - c))
        a, c = a - step, c + step
        b, d = n - a, m - c
        total, share = n + m, (a + c) / (n + m)
        deviance = xlogy(a, a / (n * share)) + xlogy(b, b / (n * (1 - share)))
        deviance += xlogy(c, c / (m * share)) + xlogy(d, d / (m * (1 - share)))
        gap = a / n - c / m
        r = np.sign(gap) * np.sqrt(np.maximum(2 * deviance, 0.0))
        # A corner of the table has no finite log odds: a trickle of rows stands in for none.
        e = 1e-9 * total
        odds = np.log((a + e) * (d + e) / ((b + e) * (c + e)))
        u = odds * np.sqrt((a + e) * (b + e) / n * (c + e) * (d + e) / m / (total * share * (1 - share)))
        corrected = np.where(np.abs(r) > _FLAT, r + np.log(u / r) / r, r)
        # A fall is no rise: how little of one needs no second order.
        p = ndtr(-np.where(np.isfinite(corrected) & (r > 0), corrected, r))
    known = (n > 0) & (m > 0) & (share > 0) & (share < 1)
    result: Floats = np.where(known, np.clip(np.nan_to_num(p, nan=1.0), TINY, 1.0), 1.0)
    return result


def differs(a: Any, n: Any, c: Any, m: Any) -> Floats:
    """Two-sided p-values of the shares a / n and c / m being different: twice the smaller one-sided one."""
    a, n, c, m = (np.asarray(x, np.float64) for x in np.broadcast_arrays(a, n, c, m))
    # The complement of a fall is a rise.
    p: Floats = np.minimum(1.0, 2 * np.minimum(risen(a, n, c, m), risen(n - a, n, m - c, m)))
    return p


def beyond_extreme(a: Any, n: Any, m: Any) -> Floats:
    """P-values of `a` of n rows lying beyond the extreme of m exchangeable rows on one side.

    The probability that the a most extreme of all n + m rows are all the window's; exact without ties, larger than the
    truth with them.
    """
    a, n, m = (np.asarray(x, np.float64) for x in np.broadcast_arrays(a, n, m))
    a = np.minimum(a, n)
    logs = gammaln(n + 1) - gammaln(n - a + 1) - gammaln(n + m + 1) + gammaln(n + m - a + 1)
    p: Floats = np.clip(np.exp(np.minimum(logs, 0.0)), TINY, 1.0)
    return p
