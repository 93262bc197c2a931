"""Stage 5: how far the values shifted, in standard deviations, whatever their type; missing values aside.

The Jensen-Shannon divergence of the coarse cells, less what two samples of one distribution are expected to have, as
the shift of a normal variable's mean that has the same: d = √(8 ln 2 · JS). Also Cohen's w for small shifts (.1 small,
.3 medium, .5 large). At most 2.35: no cell in common. So a mean shift of .1 sd is .1, a spread 5 % larger is .07, a
category that goes from 20 % to 23 % of the rows .07. NaN without rows; 0 for a constant that stays.
Source: Lin, IEEE Trans. Inf. Theory 37(1), 1991; Cohen, Statistical Power Analysis, 1988.
"""

from typing import Final

import numpy as np

from mlspan_processor.drift.base import Floats, Table

SD_PER_DISTANCE: Final = float((8 * np.log(2)) ** 0.5)
"""Standard deviations of a small shift over its Jensen-Shannon distance, base 2."""


def shift_of(table: Table, n: Floats, m: Floats, unseen: Floats | None = None) -> Floats:
    """Shifts (n_features,).

    Args:
        table: the counts.
        n, m: (n_features,) effective rows of window and reference that have a value.
        unseen: (n_features,) share of unseen categories that is expected without drift; None for none.
    """
    layout = table.layout
    if not len(layout):
        return np.zeros(0)
    missing = np.zeros(layout.n_coarse, bool)
    missing[layout.coarse[layout.missing]] = True
    reference, window = (np.where(missing, 0.0, counts) for counts in table.coarse())
    p, q = table.coarse_shares(reference), table.coarse_shares(window)
    owner = layout.coarse_feature
    with np.errstate(divide="ignore", invalid="ignore"):
        middle = (p + q) / 2
        terms = np.where(p > 0, p * np.log2(p / middle), 0.0) + np.where(q > 0, q * np.log2(q / middle), 0.0)
        divergence = table.coarse_sums(terms) / 2
        # A cell with many rows adds (1/n + 1/m) / (8 ln 2); one that expects few at most half its share, which is what
        # rows that one side alone has add.
        pooled = (p * m[owner] + q * n[owner]) / (n + m)[owner]
        each = (1 / n + 1 / m)[owner] / (8 * np.log(2)) * (1 - pooled)
    noise = table.coarse_sums(np.minimum(np.nan_to_num(each), np.nan_to_num(pooled / 2)))
    if unseen is not None:
        noise += np.where(layout.numeric, 0.0, unseen / 2)
    shift: Floats = SD_PER_DISTANCE * np.sqrt(np.maximum(divergence - noise, 0.0))
    return np.where((n > 0) & (m > 0), shift, np.nan)
