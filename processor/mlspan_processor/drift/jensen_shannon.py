"""Stage 5: Jensen-Shannon distance, base 2, over coarse cells, missing values a cell of their own; in [0, 1].

The square root of the divergence, hence a metric; equal to `scipy.spatial.distance.jensenshannon(p, q,
base=2)`. Needs no care for empty cells. NaN without rows. With no drift its square is expected near (cells -
1) / (8 ln 2) (1/n + 1/m), which `effect` takes off. Source: Endres & Schindelin, IEEE Trans. Inf. Theory
49(7), 2003; Lin, ibid. 37(1), 1991.
"""

from typing import ClassVar

import numpy as np

from mlspan.semconv.metrics import ML_DRIFT_JENSEN_SHANNON, Metric
from mlspan_processor.drift.base import Floats, Table


class JensenShannon:
    """Jensen-Shannon distance."""

    name: ClassVar[str] = "jensen_shannon"
    metric: ClassVar[Metric] = ML_DRIFT_JENSEN_SHANNON

    def __repr__(self) -> str:
        return "JensenShannon()"

    def score(self, table: Table) -> Floats:
        """(n_features,) values in [0, 1]."""
        reference, window = table.coarse()
        p, q = table.coarse_shares(reference), table.coarse_shares(window)
        middle = (p + q) / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            left = np.where(p == 0, 0.0, p * np.log2(p / middle))
            right = np.where(q == 0, 0.0, q * np.log2(q / middle))
        divergence = table.coarse_sums(left + right) / 2
        distance: Floats = np.sqrt(np.clip(divergence, 0.0, 1.0))
        return distance

    def effect(self, table: Table, scores: Floats) -> Floats:
        """The distance (n_features,) less what sampling alone is expected to give: comparable between
        windows."""
        reference, window = table.coarse()
        cells = table.coarse_sums(((reference > 0) | (window > 0)).astype(np.float64))
        with np.errstate(divide="ignore", invalid="ignore"):
            noise = (cells - 1) / (8 * np.log(2)) * (1 / table.reference_rows + 1 / table.window_rows)
        effect: Floats = np.sqrt(np.maximum(scores**2 - noise, 0.0))
        return effect
