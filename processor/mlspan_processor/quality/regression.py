"""Stage 5: quality of a regression from five sums.

MAE, RMSE and R² are exact: those of scikit-learn on the same (weighted) rows. The labels' spread is kept as
mean and sum of squared deviations and merged by Chan, Golub & LeVeque's pairwise formula (Stanford
STAN-CS-79-773, 1979), which does not lose digits where the mean is large. Rows with a NaN or infinite label
or prediction are left out. R² is None for fewer than two rows and for labels that are all equal. Memory: 80
bytes.
"""

import math
from typing import Self

import numpy as np

from mlspan_processor.quality.base import Figure, Labelled, Sums


class Regression(Sums):
    """Quality statistics of a regression."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = 0.0
        self.absolute = 0.0
        self.squared = 0.0
        self.mean = 0.0
        self.deviations = 0.0

    def __repr__(self) -> str:
        return "Regression()"

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return 80

    def update(self, batch: Labelled) -> None:
        """Add rows; those with a NaN or infinite label or prediction are left out."""
        used = np.isfinite(batch.labels) & np.isfinite(batch.predictions)
        labels, w = batch.labels[used], batch.weights[used]
        if not len(labels) or w.sum() <= 0:
            return
        self.add_labelled(w)
        errors = labels - batch.predictions[used]
        part = Regression()
        part.weight = float(w.sum())
        part.absolute = float(w @ np.abs(errors))
        part.squared = float(w @ errors**2)
        part.mean = float(w @ labels) / part.weight
        part.deviations = float(w @ (labels - part.mean) ** 2)
        self._merge_moments(part)

    def update_predictions(self, batch: Labelled) -> None:
        """Add rows that had no prediction before."""
        self.update(batch)

    def update_scores(self, batch: Labelled) -> None:
        """Regressions have no scores: nothing to do."""

    def merge(self, other: Self) -> None:
        """Add another's rows."""
        self.merge_sums(other)
        self._merge_moments(other)

    def figures(self) -> dict[str, Figure]:
        """mae, rmse, r2."""
        if self.weight <= 0:
            return dict.fromkeys(("mae", "rmse", "r2"), Figure(None, "no labelled predictions"))
        if self.rows < 2:
            r2 = Figure(None, "fewer than two labelled predictions")
        elif self.deviations <= 0:
            r2 = Figure(None, "all labels are equal")
        else:
            r2 = Figure(1 - self.squared / self.deviations)
        return {
            "mae": Figure(self.absolute / self.weight),
            "rmse": Figure(math.sqrt(self.squared / self.weight)),
            "r2": r2,
        }

    def _merge_moments(self, other: "Regression") -> None:
        weight = self.weight + other.weight
        if weight > 0:
            gap = other.mean - self.mean
            self.mean += gap * other.weight / weight
            self.deviations += other.deviations + gap**2 * self.weight * other.weight / weight
        self.weight = weight
        self.absolute += other.absolute
        self.squared += other.squared
