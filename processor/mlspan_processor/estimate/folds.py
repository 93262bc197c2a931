"""Stage 5: which reference row is held out when, and methods fitted without it."""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mlspan_processor.estimate.base import Floats, Integers

FOLDS: Final = 4


def folds_of(labels: Integers, n: int, seed: int) -> Integers:
    """(n_rows,) fold of each row, 0 to n - 1: shuffled, with every label's rows spread evenly."""
    rng = np.random.default_rng(seed)
    order = np.lexsort((rng.random(len(labels)), labels))
    folds = np.empty(len(labels), np.int64)
    folds[order] = np.arange(len(labels)) % n
    return folds


class CrossFitted:
    """One model a fold, each fitted on the rows of the others.

    Attributes:
        out_of_fold: (n_rows, width) what each row's own fold's model says of it.
    """

    def __init__(self, models: list[Any], out_of_fold: Floats) -> None:
        self.models = models
        self.out_of_fold = out_of_fold

    @classmethod
    def fit(
        cls,
        folds: Integers,
        fit: Callable[[NDArray[np.bool_], int], Any],
        says: Callable[[Any, NDArray[np.bool_]], Floats],
    ) -> "CrossFitted":
        """Fit; `fit` takes a mask of rows and a seed, `says` a model and a mask."""
        models, parts = [], []
        for fold in range(int(folds.max()) + 1):
            held = folds == fold
            model = fit(~held, fold)
            models.append(model)
            parts.append((held, says(model, held)))
        result = np.empty((len(folds), parts[0][1].shape[1]))
        for held, part in parts:
            result[held] = part
        return cls(models, result)
