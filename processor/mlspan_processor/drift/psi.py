"""Stage 5: population stability index, sum of (q - p) ln(q / p) over coarse cells, missing values a cell of
their own.

A cell that is empty on one side counts as half a row there (both sides empty: left out), so that the index
stays finite; with no drift its expectation is about (cells - 1)(1/n + 1/m). Equal to Jeffreys' divergence,
`scipy.stats.entropy(q, p) + entropy(p, q)`, of those shares. NaN without rows. Limits in use: 0.1 some, 0.25
much. Source: Siddiqi, Credit Risk Scorecards, 2006; Yurdakul & Naranjo, J. Risk Model Validation 14(4), 2020.
"""

from typing import ClassVar, Final

import numpy as np

from mlspan.semconv.metrics import ML_DRIFT_PSI, Metric
from mlspan_processor.drift.base import Floats, Table

EMPTY: Final = 0.5


class PSI:
    """Population stability index."""

    name: ClassVar[str] = "psi"
    metric: ClassVar[Metric] = ML_DRIFT_PSI

    def __repr__(self) -> str:
        return "PSI()"

    def score(self, table: Table) -> Floats:
        """(n_features,) values >= 0."""
        reference, window = table.coarse()
        used = (reference > 0) | (window > 0)
        p = table.coarse_shares(np.where(used & (reference == 0), EMPTY, reference))
        q = table.coarse_shares(np.where(used & (window == 0), EMPTY, window))
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = np.where(used, (q - p) * np.log(q / p), 0.0)
        sums = table.coarse_sums(terms)
        empty = (table.coarse_sums(reference) == 0) | (table.coarse_sums(window) == 0)
        return np.where(empty, np.nan, sums)
