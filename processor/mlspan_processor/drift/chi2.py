"""Stage 5: chi-squared statistic of the contingency table (reference, window) x coarse cells, missing values
a cell.

Cells that are empty on both sides are left out; no Yates correction. Equal to
`scipy.stats.chi2_contingency(table, correction=False)` on counts of weight 1; weighted counts are first
scaled to their effective number of rows (Kish), a first-order Rao-Scott correction. NaN without rows; 0 with
p = 1 when a single cell is left. Source: Pearson, 1900; Rao & Scott, J. Am. Stat. Assoc. 76, 1981.
"""

from typing import ClassVar

import numpy as np
from scipy.special import chdtrc

from mlspan.semconv.metrics import ML_DRIFT_CHI2, Metric
from mlspan_processor.drift.base import Floats, Table


class ChiSquared:
    """Chi-squared statistic."""

    name: ClassVar[str] = "chi2"
    metric: ClassVar[Metric] = ML_DRIFT_CHI2

    def __repr__(self) -> str:
        return "ChiSquared()"

    def score(self, table: Table) -> Floats:
        """(n_features,) values >= 0."""
        reference, window = table.coarse()
        m, n = table.reference_rows, table.window_rows
        owner = table.layout.coarse_feature
        a, b = table.coarse_shares(reference) * m[owner], table.coarse_shares(window) * n[owner]
        with np.errstate(divide="ignore", invalid="ignore"):
            expected_a = (a + b) * (m / (m + n))[owner]
            expected_b = (a + b) * (n / (m + n))[owner]
            terms = (a - expected_a) ** 2 / expected_a + (b - expected_b) ** 2 / expected_b
        terms = np.where(a + b == 0, 0.0, terms)
        return table.coarse_sums(terms)

    def p_value(self, table: Table, scores: Floats) -> Floats:
        """(n_features,) p-values with (non-empty cells - 1) degrees of freedom."""
        reference, window = table.coarse()
        freedom = table.coarse_sums(((reference > 0) | (window > 0)).astype(np.float64)) - 1
        p = chdtrc(np.maximum(freedom, 1), np.nan_to_num(scores))
        return np.where(np.isfinite(scores), np.where(freedom > 0, p, 1.0), np.nan)
