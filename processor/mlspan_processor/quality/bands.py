"""Stage 5: the 95 % band of every realised figure, from the same mergeable sums as the figure itself.

In: a Quality. Out: (low, high) by metric, None where rows are too few or too alike for a band. A band says where the
figure of endlessly many such rows lies. One rule for each kind of figure:

share      Wilson's score interval, at the number of rows at which a share would vary as much as the figure does (Korn &
           Graubard, Surv. Methodol. 24, 1998): shares, and figures in [0, 1] whose variance comes by the delta method
           (macro F1), DeLong's (AUROC: DeLong, DeLong & Clarke-Pearson, Biometrics 44, 1988) or from the losses (Brier)
dice       F1 = 2J / (1 + J), where J is the share of hits among hits, misses and false alarms: Wilson's ends, mapped
average    mean of shares of different rows: MOVER (Zou & Donner, Stat. Med. 27, 2008) over Wilson's intervals
positive   mean loss: delta method on the logarithm, with Student's t
mean       Student's t

Rows that stand for several count as Kish's effective number (Survey Sampling, 1965). Where errors come in runs, n rows
that are worth n / d have the band of n / d rows (`design_effect`): it holds the truth in 90 to 93 % of windows, instead
of in half of them, where errors correlate by .8 from row to row. Bands of windows with fewer than about 30 effective
rows are rough. `difference` is the band of a difference of two figures (MOVER again).
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, Final

from scipy.special import ndtr, stdtrit

from mlspan_processor.quality.base import wilson

Z95: Final = 1.959963984540054
Band = tuple[float, float]
Interval = Callable[[float], Band | None]
"""The band at so many standard normal deviations, or None."""
_MAX_Z: Final = 37.0
_LAST_Z: Final = 36.3
"""The last quantile whose tail scipy inverts (beyond 1e-290 with the wrong sign); from there on they grow with z."""
_FARTHEST: Final = 1e100
"""Quantile beyond which squares of it leave the range of floats, and nothing differs any more."""


def bands(quality: Any, z: float = Z95, design_effect: float = 1.0) -> dict[str, Band | None]:
    """(low, high) of every figure that has a value; None where there is no band.

    Args:
        quality: statistics of any kind of task.
        z: standard normal deviations; 95 % as it stands.
        design_effect: so many rows tell as much as an independent one (runs.py). Bands know z and rows n as z² / n.
    """
    z *= math.sqrt(max(design_effect, 1.0))
    return {name: interval(z) for name, interval in quality.intervals().items()}


def share(value: float, n: float, variance: float = 0.0) -> Interval:
    """A figure in [0, 1] of n effective rows; `variance` of the figure, 0 for a plain share.

    A variance that was itself estimated from few rows is made up for by Student's t.
    """
    value = min(max(float(value), 0.0), 1.0)
    if variance > 0 and 0.0 < value < 1.0:
        rows = value * (1 - value) / variance
        return lambda z: wilson(value, rows, student(z, max(n, 2.0)))
    return lambda z: wilson(value, n, z)


def dice(value: float, n: float) -> Interval:
    """F1 of two classes; n: effective rows that are hits, misses or false alarms."""

    def interval(z: float) -> Band:
        low, high = wilson(float(value / (2 - value)), n, z)
        return 2 * low / (1 + low), 2 * high / (1 + high)

    return interval


def signed(value: float, n: float, variance: float) -> Interval:
    """A figure in [-1, 1], such as a correlation."""
    inner = share((value + 1) / 2, n, variance / 4)

    def interval(z: float) -> Band | None:
        band = inner(z)
        return None if band is None else (2 * band[0] - 1, 2 * band[1] - 1)

    return interval


def average(parts: Iterable[tuple[float, float, Interval]], dependent: bool = False) -> Interval:
    """Σ weight · figure over (weight, figure, its band) of separate rows; `dependent`: of the same rows, then
    conservative."""
    kept = list(parts)

    def interval(z: float) -> Band | None:
        value = sum(weight * one for weight, one, _ in kept)
        below, above = [], []
        for weight, one, inner in kept:
            band = inner(z)
            if band is None:
                return None
            below.append(weight * (one - band[0]))
            above.append(weight * (band[1] - one))
        if dependent:
            return max(0.0, value - sum(below)), min(1.0, value + sum(above))
        return max(0.0, value - math.hypot(*below)), min(1.0, value + math.hypot(*above))

    return interval


def wider(one: Interval, other: Interval) -> Interval:
    """From the lower of both lower ends to the higher of both upper ends."""

    def interval(z: float) -> Band | None:
        first, second = one(z), other(z)
        if first is None or second is None:
            return first or second
        return min(first[0], second[0]), max(first[1], second[1])

    return interval


def together(intervals: Iterable[tuple[float, Interval]]) -> Interval:
    """The mean of figures of the same rows with these bands, whatever their dependence: conservative."""
    kept = list(intervals)

    def interval(z: float) -> Band | None:
        low = high = 0.0
        for _, one in kept:
            band = one(z)
            if band is None:
                return None
            low, high = low + band[0], high + band[1]
        return (low / len(kept), high / len(kept)) if kept else None

    return interval


def positive(value: float, n: float, variance: float) -> Interval:
    """A mean of losses from 0 on; `variance` of the mean."""

    def interval(z: float) -> Band | None:
        if not (n > 1 and value > 0 and variance > 0):
            return None
        factor = math.exp(min(700.0, student(z, n) * math.sqrt(variance) / value))
        return value / factor, value * factor

    return interval


def mean(value: float, n: float, variance: float) -> Interval:
    """A mean of any sign; `variance` of the mean."""

    def interval(z: float) -> Band | None:
        if not (n > 1 and variance > 0):
            return None
        half = student(z, n) * math.sqrt(variance)
        return value - half, value + half

    return interval


def mapped(inner: Interval, function: Callable[[float], float]) -> Interval:
    """The band of a monotone function of a figure."""

    def interval(z: float) -> Band | None:
        band = inner(z)
        if band is None:
            return None
        low, high = sorted((function(band[0]), function(band[1])))
        return low, high

    return interval


def student(z: float, n: float) -> float:
    """The quantile of Student's t with n - 1 degrees of freedom that z >= 0 is of the normal distribution."""
    known = abs(float(stdtrit(max(n - 1, 1e-3), ndtr(-min(z, _LAST_Z)))))
    return min(_FARTHEST, known * max(1.0, z / _LAST_Z))


def difference(a: float, band_a: Band, b: float, band_b: Band, correlation: float = 0.0) -> Band:
    """Band of b - a from both bands: MOVER; `correlation` of the two estimates, 0 for separate rows."""
    left_a, right_a = a - band_a[0], band_a[1] - a
    left_b, right_b = b - band_b[0], band_b[1] - b
    return b - a - _apart(left_b, right_a, correlation), b - a + _apart(right_b, left_a, correlation)


def _apart(one: float, other: float, correlation: float) -> float:
    """Length of the third side; endless where a side is, and never beyond what floats hold on the way."""
    largest = max(abs(one), abs(other))
    if not 0.0 < largest < math.inf:
        return largest
    one, other = one / largest, other / largest
    return largest * math.sqrt(max(0.0, one * one + other * other - 2 * correlation * one * other))


def rows_behind(value: float, band: Band, z: float) -> float | None:
    """Rows of which a share of this value has Wilson's band at z, from the end that is farther off; None for an empty
    band.

    >>> round(rows_behind(0.9, share(0.9, 40)(3.0), 3.0))
    40
    """
    end = max(band, key=lambda one: abs(one - value))
    return z * z * end * (1 - end) / (value - end) ** 2 if 0.0 < end < 1.0 and end != value else None


def p_value(a: float, interval_a: Interval, b: float, interval_b: Interval) -> float | None:
    """Two-sided p-value of "both are the same": the level at which the band of b - a just touches 0; None without
    bands."""
    if interval_a(Z95) is None or interval_b(Z95) is None:
        return None
    if a == b:
        return 1.0

    def touches(z: float) -> bool:
        band_a, band_b = interval_a(z), interval_b(z)
        if band_a is None or band_b is None:
            return True
        low, high = difference(a, band_a, b, band_b)
        return low <= 0.0 <= high

    low, high = 0.0, _MAX_Z
    if not touches(high):
        return 0.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if touches(middle) else (middle, high)
    return float(2 * ndtr(-high))
