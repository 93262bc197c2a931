"""Series that look like a service's, without anomalies, and what goes wrong with them at a known place."""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mlspan_processor.anomaly.base import Detector, Verdict

START_NS: Final = 1_700_000_000 * 10**9
STEP_NS: Final = 300 * 10**9
A_DAY: Final = 288
Floats = NDArray[np.float64]


def autocorrelated(rng: np.random.Generator, n: int, share: float) -> Floats:
    """AR(1) of variance 1."""
    noise = rng.standard_normal(n)
    values = np.empty(n)
    values[0] = noise[0]
    for i in range(1, n):
        values[i] = share * values[i - 1] + noise[i] * np.sqrt(1 - share * share)
    return values


def white(rng: np.random.Generator, n: int) -> Floats:
    """Normal, without memory."""
    return 50 + 3 * rng.standard_normal(n)


def daily(rng: np.random.Generator, n: int) -> Floats:
    """A day's course with a little noise."""
    return 100 + 20 * np.sin(2 * np.pi * np.arange(n) / A_DAY) + 3 * autocorrelated(rng, n, 0.3)


def lowcount(rng: np.random.Generator, n: int) -> Floats:
    """A few errors in most windows."""
    return rng.poisson(0.4, n).astype(np.float64)


CALM: Final[dict[str, Callable[[np.random.Generator, int], Floats]]] = {
    "white": white,
    "autocorrelated": lambda rng, n: 50 + 3 * autocorrelated(rng, n, 0.5),
    "wandering": lambda rng, n: 50 + 3 * autocorrelated(rng, n, 0.9),
    "heavy tails": lambda rng, n: 20 + 2 * rng.standard_t(2.5, n),
    "lognormal": lambda rng, n: np.exp(1 + 0.8 * autocorrelated(rng, n, 0.3)),
    "daily": daily,
    "counts": lambda rng, n: rng.poisson(30, n).astype(np.float64),
    "low counts": lowcount,
    "constant": lambda _, n: np.full(n, 42.0),
}


def times(n: int) -> list[int]:
    """Five minutes apart."""
    return [START_NS + i * STEP_NS for i in range(n)]


def judged(detector: Detector, values: Floats, rows: float | None = None) -> list[Verdict]:
    """A verdict a value."""
    return [detector.update(time, value, rows) for time, value in zip(times(len(values)), values.tolist(), strict=True)]


def anomalies(verdicts: list[Verdict]) -> list[int]:
    """Where they are."""
    return [i for i, verdict in enumerate(verdicts) if verdict.is_anomaly]
