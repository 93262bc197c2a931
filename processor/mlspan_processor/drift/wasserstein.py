"""Stage 5: Wasserstein-1 distance over fine bins in reference standard deviations; numeric features, missing
values aside.

Every value is taken to lie at its bin's mean in the reference, those outside the reference's range at its
minimum or
maximum: a shift far beyond the range is understated (the unseen ratio shows it), one within is exact up to
    the bins' width. Equal to `scipy.stats.wasserstein_distance` of those representatives over the standard
    deviation. NaN for categories, without rows, and for a constant reference. Source: Ramdas, Garcia Trillos
    & Cuturi, Entropy 19(2), 2017.
"""

from typing import ClassVar

import numpy as np

from mlspan.semconv.metrics import ML_DRIFT_WASSERSTEIN, Metric
from mlspan_processor.drift.base import Floats, Table


class Wasserstein:
    """Wasserstein-1 distance in reference standard deviations."""

    name: ClassVar[str] = "wasserstein"
    metric: ClassVar[Metric] = ML_DRIFT_WASSERSTEIN

    def __repr__(self) -> str:
        return "Wasserstein()"

    def score(self, table: Table) -> Floats:
        """(n_features,) values >= 0."""
        layout = table.layout
        reference, window = table.present()
        gaps = np.abs(table.running(table.shares(window)) - table.running(table.shares(reference)))
        steps = np.diff(layout.centers, append=0.0) if layout.n_cells else np.zeros(0)
        steps[layout.is_missing] = 0.0
        steps[layout.missing - 1] = 0.0  # behind the last value there is nothing to carry over
        with np.errstate(divide="ignore", invalid="ignore"):
            distance = layout.by_feature(gaps * np.abs(steps)) / layout.std
        return np.where(layout.numeric & (layout.std > 0), distance, np.nan)
