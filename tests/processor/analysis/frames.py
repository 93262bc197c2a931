"""Frames with known truth: a classifier that is calibrated, over features that can be made to shift."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.signal import lfilter

Random = np.random.Generator


def sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The logistic function."""
    return 1 / (1 + np.exp(-x))


def classified(rng: Random, rows: int, *, shift: float = 0.0, concept: bool = False, features: int = 4) -> pd.DataFrame:
    """Rows of a calibrated binary model: numbers x0 …, a category, probability p, label y.

    `shift` moves x0, where the model is less sure the further left; `concept` turns the truth around.
    """
    x = rng.normal(size=(rows, features))
    x[:, 0] += shift
    p = sigmoid(2 * x[:, 0] + x[:, 1])
    truth = 1 - p if concept else p
    frame = pd.DataFrame(x, columns=[f"x{i}" for i in range(features)])
    frame["kind"] = rng.choice(["a", "b", "c"], rows)
    frame["p"] = p
    frame["y"] = (rng.random(rows) < truth).astype(int)
    return frame


def numbers(rng: Random, rows: int, features: int, correlation: float = 0.0) -> pd.DataFrame:
    """Normal numbers whose neighbours in a column are correlated: AR(1)."""
    noise = rng.normal(size=(rows, features))
    x = lfilter([np.sqrt(1 - correlation**2)], [1, -correlation], noise, axis=0) if correlation else noise
    return pd.DataFrame(x, columns=[f"x{i}" for i in range(features)])
