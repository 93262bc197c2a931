"""Stage 5: windows made from the reference, where the labels are known: what the choice and the bands are settled on.

Each is a draw without replacement of a quarter of the rows, with odds that rise or fall with the rank of a feature,
of the score, or of two features together (covariate shift of two strengths), or a stretch of rows in their order.
Only which rows are drawn depends on this; methods are judged by probabilities that did not see the rows' labels.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from mlspan_processor.estimate.base import Floats, Inputs

COUNT: Final = 36
_STRENGTHS: Final = (1.5, 4.0)


def made_shifts(rows: Inputs, *, seed: int, count: int = COUNT) -> list[NDArray[np.intp]]:
    """Sorted row indices of each window."""
    rng = np.random.default_rng(seed)
    n = len(rows.weights)
    size = max(n // 4, 1)
    columns = [rows.features[:, j] for j in range(rows.features.shape[1])]
    columns = [one for one in columns if np.ptp(np.nan_to_num(one)) > 0]
    answers = list(rows.answers().T)
    windows = []
    for i in range(count):
        if i % 6 == 5:
            start = int(rng.integers(n - size + 1))
            windows.append(np.arange(start, start + size))
            continue
        if i % 6 == 4 or not columns:
            keys = _ranks(answers[rng.integers(len(answers))])
        else:
            keys = _ranks(columns[rng.integers(len(columns))])
            if i % 6 == 3:
                keys = (keys + rng.choice([-1.0, 1.0]) * _ranks(columns[rng.integers(len(columns))])) / 2
        tilt = rng.choice([-1.0, 1.0]) * _STRENGTHS[i % 2]
        # Exponential races: the smallest keys are a weighted draw without replacement (Efraimidis & Spirakis, 2006).
        race = rng.exponential(size=n) / np.exp(tilt * keys)
        windows.append(np.sort(np.argpartition(race, size - 1)[:size]))
    return windows


def _ranks(column: Floats) -> Floats:
    """Ranks from 0 to 1, ties together; missing values lowest."""
    _, inverse, counts = np.unique(np.nan_to_num(column, nan=-np.inf), return_inverse=True, return_counts=True)
    result: Floats = ((np.cumsum(counts) - counts / 2) / len(column))[inverse]
    return result
