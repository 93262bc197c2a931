"""Stage 5: how far the values shifted, in standard deviations, whatever their type; missing values aside.

The Jensen-Shannon divergence of the coarse cells, less what two samples of one distribution are expected to have, as
the shift of a normal variable's mean that has the same: d = √(8 ln 2 · JS). Also Cohen's w for small shifts (.1 small,
.3 medium, .5 large). At most 2.35: no cell in common. So a mean shift of .1 sd is .1, a spread 5 % larger is .07, a
category that goes from 20 % to 23 % of the rows .07.
Numbers: the larger of that, less two of its standard errors, and of the same from four smooth components of the ranks
(location, spread, skewness, tails), which has a third of the noise: what tells .02 from .07 at 10,000 rows. NaN without
rows; 0 for a constant that stays. Source: Lin, IEEE Trans. Inf. Theory 37(1), 1991; Cohen, Statistical Power Analysis,
1988; Neyman, Skand. Aktuarietidskr. 20, 1937 (smooth components).
"""

from typing import Final
from weakref import WeakKeyDictionary

import numpy as np

from mlspan_processor.drift.base import Floats, Layout, Table

SD_PER_DISTANCE: Final = float((8 * np.log(2)) ** 0.5)
"""Standard deviations of a small shift over its Jensen-Shannon distance, base 2."""
COMPONENTS: Final = 4
MAX_ALLOWANCE: Final = 0.002
"""Most that two standard errors may take off a squared shift: few rows have a first gate that is stricter still."""


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
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = 1 / n + 1 / m
    divergence, noise = _divergence(table, n, m, rate)
    if unseen is not None:
        noise += np.where(layout.numeric, 0.0, unseen / 2)
    with np.errstate(invalid="ignore"):
        any_shift, chance = (SD_PER_DISTANCE**2 * x for x in (divergence - noise, noise))
        allowance = np.minimum(2 * np.sqrt(2 * chance * rate), MAX_ALLOWANCE)
        squared = np.where(layout.numeric, np.fmax(_smooth(table, rate), any_shift - allowance), any_shift)
        shift: Floats = np.sqrt(np.maximum(squared, 0.0))
    return np.where((n > 0) & (m > 0), shift, np.nan)


def _divergence(table: Table, n: Floats, m: Floats, rate: Floats) -> tuple[Floats, Floats]:
    """Jensen-Shannon divergences (n_features,), base 2, and what they are expected to be without drift."""
    layout = table.layout
    missing = np.zeros(layout.n_coarse, bool)
    missing[layout.coarse[layout.missing]] = True
    reference, window = (np.where(missing, 0.0, counts) for counts in table.coarse())
    p, q = table.coarse_shares(reference), table.coarse_shares(window)
    owner = layout.coarse_feature
    with np.errstate(divide="ignore", invalid="ignore"):
        middle = (p + q) / 2
        terms = np.where(p > 0, p * np.log2(p / middle), 0.0) + np.where(q > 0, q * np.log2(q / middle), 0.0)
        # A cell with many rows adds (1/n + 1/m) / (8 ln 2); one that expects few at most half its share, which is what
        # rows that one side alone has add.
        pooled = (p * m[owner] + q * n[owner]) / (n + m)[owner]
        each = rate[owner] / (8 * np.log(2)) * (1 - pooled)
    noise = table.coarse_sums(np.minimum(np.nan_to_num(each), np.nan_to_num(pooled / 2)))
    return table.coarse_sums(terms) / 2, noise


def _smooth(table: Table, rate: Floats) -> Floats:
    """Squared shifts (n_features,) of the numbers' smooth components, less their expectation without drift."""
    layout = table.layout
    basis = _basis_of(layout)
    reference, window = table.present()
    gaps = np.nan_to_num(table.shares(window) - table.shares(reference))
    squares: Floats = np.add.reduceat(gaps[:, None] * basis, layout.starts) ** 2
    used = np.add.reduceat(np.abs(basis), layout.starts) > 0
    smooth: Floats = squares.sum(axis=1) - used.sum(axis=1) * rate
    return smooth


_BASES: WeakKeyDictionary[Layout, Floats] = WeakKeyDictionary()


def _basis_of(layout: Layout) -> Floats:
    """Components (n_cells, COMPONENTS): polynomials of the rank, orthonormal in the reference, 0 for categories."""
    basis = _BASES.get(layout)
    if basis is None:
        basis = _BASES[layout] = np.zeros((layout.n_cells, COMPONENTS))
        for j in np.flatnonzero(layout.numeric).tolist():
            start, missing = int(layout.starts[j]), int(layout.missing[j])
            basis[start:missing] = _polynomials(layout.reference[start:missing])
    return basis


def _polynomials(counts: Floats) -> Floats:
    """Polynomials (n_cells, COMPONENTS) of a feature's cells; fewer values than components leave some at 0."""
    result = np.zeros((len(counts), COMPONENTS))
    total = counts.sum()
    if total <= 0:
        return result
    shares = counts / total
    rank = 2 * (np.cumsum(shares) - shares / 2) - 1
    ones = [np.ones(len(counts))]
    for k in range(COMPONENTS):
        power = ones[-1] * rank
        # Twice, as once leaves what rounding made of it.
        for earlier in ones * 2:
            power = power - shares @ (power * earlier) * earlier
        norm = float(np.sqrt(shares @ power**2))
        if norm < 1e-6:
            break
        ones.append(power / norm)
        result[:, k] = ones[-1]
    return result
