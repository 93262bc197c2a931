"""Batch, part 4a: what the model is for, and its answers as class indices or numbers.

What task.py (one answer a row) and outputs.py (several) make of a file's Answers, and all later parts take.
"""

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mlspan_processor.sample import Task

MAX_INVALID: Final = 0.1
"""Share of probabilities outside [0, 1] from which on none of a file's is used."""
EDGE: Final = 1e-6
"""How far outside counts as inside."""


@dataclass(frozen=True, slots=True)
class Model:
    """What the model is for.

    Attributes:
        task: None when neither label, prediction nor probability is known.
        classes: texts; the outputs' names for multilabel; () for regression.
        inferred: sentences on what was not said but concluded.
    """

    task: Task | None
    classes: tuple[str, ...]
    inferred: tuple[str, ...] = ()


@dataclass(slots=True, eq=False)
class Answered:
    """The answers of n rows.

    Attributes:
        predictions, labels: (n,) float64 class indices or numbers, NaN where there is none; (n, n_outputs) of 0 and 1,
            NaN rows, for multilabel.
        scores: (n, 1) or (n, n_classes) float32, NaN rows where there are none; None without.
        scores_reason: why there are none although there are columns.
        notes: what was left out, for people.
    """

    predictions: NDArray[np.float64]
    labels: NDArray[np.float64]
    scores: NDArray[np.float32] | None
    scores_reason: str = ""
    notes: list[str] = field(default_factory=list)


def missing(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(n,) rows without an answer: of several outputs, without any of them."""
    gaps = np.isnan(values)
    return gaps if gaps.ndim == 1 else np.asarray(gaps.any(axis=1))
