"""Rows that are analysed together: what a model saw, what it answered, what was true.

The one form in which rows reach estimates, segments, comparisons and the multivariate detector, whether they come from
a file or from spans. Columns first, as everywhere in the processor; arrays are never changed once they are in here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

Task = Literal["binary", "multiclass", "multilabel", "regression"]
TASKS: Final[tuple[Task, ...]] = ("binary", "multiclass", "multilabel", "regression")

EPSILON: Final = float(np.finfo(np.float32).eps)
"""Probabilities are clipped to it and to 1 less it for the log loss, as scikit-learn does with float32, in which spans
carry them."""


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """A column to cut by.

    Attributes:
        codes: (n_rows,) int32 indices into `labels`, -1 for rows without a value.
        labels: readable values.
    """

    codes: NDArray[np.int32]
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """n rows of one model.

    Attributes:
        task: what the model is for.
        names, types: of the features; types are numeric, boolean or categorical.
        cells: (n_features, n_rows) uint32: float32 bits (NaN: missing) or category codes (0: missing), as in a
            payload.
        classes: texts of the classes, in the order of the scores; two for binary, () for regression; the outputs' names
            for multilabel.
        predictions: (n_rows,) float64 class indices or numbers, NaN without; (n_rows, n_classes) of 0/1 for multilabel.
        labels: like predictions.
        scores: (n_rows, 1) float64 probability of the last class for binary, (n_rows, n_classes) else; None for a model
            without probabilities; NaN rows for rows without.
        weights: (n_rows,) float64, how many rows each stands for.
        times: (n_rows,) int64 nanoseconds since the epoch, or None.
        segments: columns to cut by, by name.
        epsilon: see EPSILON; float64's for probabilities that came as such.
    """

    task: Task
    names: tuple[str, ...]
    types: tuple[str, ...]
    cells: NDArray[np.uint32]
    classes: tuple[str, ...]
    predictions: NDArray[np.float64]
    labels: NDArray[np.float64]
    scores: NDArray[np.float64] | None
    weights: NDArray[np.float64]
    times: NDArray[np.int64] | None = None
    segments: Mapping[str, Segment] = field(default_factory=dict)
    epsilon: float = EPSILON

    def __len__(self) -> int:
        return len(self.weights)

    def take(self, rows: "NDArray[np.intp] | NDArray[np.bool_] | slice") -> "Sample":
        """The rows at these places, or where the mask is True."""
        return replace(
            self,
            cells=self.cells[:, rows],
            predictions=self.predictions[rows],
            labels=self.labels[rows],
            scores=None if self.scores is None else self.scores[rows],
            weights=self.weights[rows],
            times=None if self.times is None else self.times[rows],
            segments={name: Segment(one.codes[rows], one.labels) for name, one in self.segments.items()},
        )

    def values(self) -> NDArray[np.float64]:
        """(n_rows, n_features) float64 for estimators: numbers as they are, codes as ordinals, NaN where missing."""
        result = np.empty((len(self), len(self.names)))
        for j, kind in enumerate(self.types):
            column = self.cells[j]
            if kind == "categorical":
                result[:, j] = np.where(column == 0, np.nan, column.astype(np.float64))
            else:
                result[:, j] = column.view(np.float32)
        return result
