"""Stage 6: could chance alone have done it? Exact tails for values that are counts, or shares of a number of rows.

Three errors where one was expected, 8 of 9 right where 95 % were: a series' history says that this is far off, the
binomial distribution that it happens. `expected` is first moved towards the value by what the series varies anyway
beyond counting (`scale`), so that the interval is the sampling interval widened by history's. Source: Clopper &
Pearson, Biometrika 26, 1934.
"""

import math
from collections.abc import Callable
from typing import Final, Literal

from scipy.special import bdtr, bdtrc, pdtr, pdtrc

Counting = Literal["number", "share", "count"]
COUNTINGS: Final[tuple[Counting, ...]] = ("number", "share", "count")


def by_chance(counting: Counting, value: float, expected: float, scale: float, n: float | None) -> float:
    """One-sided probability in [0, 1] of a value at least as far from `expected`; 0 for plain numbers.

    `value`: a share in [0, 1] of `n` rows, or a count (n: how many windows' counts it is the mean of, None for one).
    """
    if counting == "number" or (counting == "share" and not n):
        return 0.0
    if counting == "share":
        rows = max(round(n or 0), 1)
        sampling = expected * (1 - expected) / rows
        near = _towards(value, expected, scale, sampling)
        near, hits = min(max(near, 0.0), 1.0), round(min(max(value, 0.0), 1.0) * rows)
        tail = _above(bdtrc, hits, rows, near) if value > expected else bdtr(hits, rows, near)
        return float(tail)
    windows = n or 1.0
    total = round(max(value, 0.0) * windows)
    near = max(_towards(value, expected, scale, max(expected, 0.0) / windows), 0.0) * windows
    tail = _above(pdtrc, total, near) if value > expected else pdtr(total, near)
    return float(tail)


def _towards(value: float, expected: float, scale: float, sampling_variance: float) -> float:
    """The expected value, moved towards `value` by the variation that counting does not explain."""
    beyond = math.sqrt(max(scale * scale - sampling_variance, 0.0))
    return min(expected + beyond, value) if value > expected else max(expected - beyond, value)


def _above(more_than: Callable[..., float], hits: int, *parameters: float) -> float:
    """At least that many, from a function for more than that many."""
    return more_than(hits - 1, *parameters) if hits > 0 else 1.0
