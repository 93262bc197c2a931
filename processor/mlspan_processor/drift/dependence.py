"""Stage 5: how many independent rows a window's rows are worth, feature by feature.

Rows that follow each other resemble each other (the same user, the same minute), and tests that take them for
independent cry wolf: with rows of autocorrelation .5 in 43 % of windows. In: rows in their order, as cells. Out: the
design effect d >= 1 (n_features,): n rows are worth n / d.
d = 1 + 2 Σ ρ_k: for numbers of the value's rank in the reference; for categories of how much oftener two rows k apart
have the same one than two at random, each weighted by one over its share, as chi-squared weighs them (Rao & Scott:
chi-squared over the mean design effect). Fixed lags up to 64, linear between them, cut off where they stop being
positive and at what stays at long lags, which is a change within the window and not dependence. Each ρ_k is shrunk to
the mean over features, and that mean to 0, by as much as its noise warrants (James & Stein): independent rows keep
their power, and 100 rows of 50 features tell .5 from 0. Cost: 12 products a value, 6 ms for 1,000 x 50. Empty, constant
or single rows: 1.
Source: Kish, Survey Sampling, 1965; Rao & Scott, J. Am. Stat. Assoc. 76, 1981; Geyer, Stat. Sci. 7, 1992 (initial
sequence); Efron & Morris, J. Am. Stat. Assoc. 70, 1975.
"""

from functools import lru_cache
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from mlspan_processor.drift.base import Floats, Layout
from mlspan_processor.drift.shape import certain_of

LAGS: Final = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
MAX_REFERENCE_DEPENDENCE: Final = 64.0
"""What is believed of a reference's rows: a file may be in an order that has nothing to do with time."""
SHORT: Final = 1_000
"""Rows of a window that may be too short to show its dependence: then at least the reference's is believed."""
MIN_PAIRS: Final = 30
"""Pairs of rows from which a lag is believed."""
_ROWS_A_LAG: Final = 4
_BLOCK_ROWS: Final = 65_536
_LAGS: Final = np.array(LAGS, np.float64)


class Lagged(NamedTuple):
    """Autocorrelations of several features.

    Attributes:
        rho: (n_lags, n_features) at all of LAGS.
        varies: (n_features,) whether there are any.
        noise: (n_features,) the variance of `rho` for independent rows, times the pairs of rows.
    """

    rho: Floats
    varies: NDArray[np.bool_]
    noise: Floats


class LagSums:
    """Sums of products of scores at each lag.

    Attributes:
        products: (1 + n_lags, n_features) Σ s_t s_{t+k}, k = 0 first.
        pairs: (1 + n_lags,) how many.
        sums: (n_features,) Σ s_t.
    """

    __slots__ = ("pairs", "products", "sums")

    def __init__(self, n_features: int) -> None:
        self.products = np.zeros((1 + len(LAGS), n_features))
        self.pairs = np.zeros(1 + len(LAGS))
        self.sums = np.zeros(n_features)

    def add(self, scores: NDArray[np.float32]) -> None:
        """Add consecutive rows' scores (n_features, n_rows), 0 for missing values."""
        n = scores.shape[1]
        self.sums += scores.sum(axis=1, dtype=np.float64)
        for row, lag in enumerate((0, *LAGS)):
            if lag < n:
                self.products[row] += np.einsum("ij,ij->i", scores[:, : n - lag], scores[:, lag:])
                self.pairs[row] += n - lag

    def lagged(self) -> Lagged:
        """The autocorrelations."""
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = self.sums / self.pairs[0]
            variance = self.products[0] / self.pairs[0] - mean**2
            varies = variance > 1e-6 * self.products[0] / self.pairs[0]
            rho = (self.products[1:] / self.pairs[1:, None] - mean**2) / variance
        return Lagged(np.where(varies, rho, 0.0), varies, np.ones(len(self.sums)))

    def design_effect(self) -> Floats:
        """Design effects (n_features,) >= 1."""
        return _effects(self.lagged(), self.pairs)


def design_effect(layout: Layout, cells: NDArray[Any]) -> Floats:
    """Design effects (n_features,) of rows in their order.

    Args:
        layout: of the reference.
        cells: (n_features, n_rows) layout cells, as `cells.Reference.cells` gives them.
    """
    numbers, categories = np.flatnonzero(layout.numeric), np.flatnonzero(~layout.numeric)
    sums, scores = LagSums(len(numbers)), scores_of(layout)
    for start in range(0, cells.shape[1], _BLOCK_ROWS):
        sums.add(scores[cells[numbers, start : start + _BLOCK_ROWS]])
    found = sums.lagged()
    if len(categories):
        parts = found, _same_category(layout, categories, cells, sums.pairs)
        order = np.argsort(np.concatenate([numbers, categories]))
        found = Lagged(*(np.concatenate(pair, axis=-1)[..., order] for pair in zip(*parts, strict=True)))
    return _effects(found, sums.pairs)


def of_window(own: float | Floats, reference: float | Floats, rows: float | Floats) -> Floats:
    """What is believed of a window's rows: their own design effects, of a short window at least the reference's.

    Args:
        own, reference: design effects, one or (n_features,).
        rows: of the window, any shape that broadcasts.
    """
    theirs = np.minimum(reference, MAX_REFERENCE_DEPENDENCE)
    return np.where(rows < SHORT, np.maximum(own, theirs), own)


def _same_category(layout: Layout, features: NDArray[np.intp], cells: NDArray[Any], pairs: Floats) -> Lagged:
    """Autocorrelations of category features, from the rows of a distance that have the same one.

    Under independence a pair matches with weight 1 / share in as many of all pairs as there are values known.
    """
    n = cells.shape[1]
    blocks = [slice(start, start + _BLOCK_ROWS) for start in range(0, n, _BLOCK_ROWS)]
    of_cell, counts = _together(layout), np.zeros(layout.n_cells)
    for block in blocks:
        counts += np.bincount(of_cell[cells[features, block]].ravel(), minlength=layout.n_cells)
    counts[layout.is_missing] = 0.0
    kinds = layout.by_feature((counts > 0).astype(np.float64))[features]
    known = layout.by_feature(counts)[features] / max(n, 1)
    weights = (n / np.where(counts > 0, counts, np.inf)).astype(np.float32)
    products = np.zeros((len(LAGS), len(features)))
    for block in blocks:
        rows = of_cell[cells[features, block]]
        own = weights[rows]
        for at, lag in enumerate(LAGS):
            if lag < rows.shape[1]:
                same = rows[:, :-lag] == rows[:, lag:]
                products[at] += np.einsum("ij,ij->i", own[:, :-lag], same, dtype=np.float32)
    varies = kinds > 1
    with np.errstate(divide="ignore", invalid="ignore"):
        rho = (products / pairs[1:, None] - known) / (kinds - known)
    return Lagged(np.where(varies, rho, 0.0), varies, 1 / np.maximum(kinds - 1, 1))


def _effects(lagged: Lagged, pairs: Floats) -> Floats:
    """Design effects (n_features,) >= 1.

    Args:
        lagged: the features' autocorrelations.
        pairs: (1 + n_lags,) of rows at each lag, 0 first.
    """
    n = pairs[0]
    usable = [i for i in range(len(LAGS)) if pairs[i + 1] >= MIN_PAIRS and LAGS[i] * _ROWS_A_LAG <= n]
    if not len(lagged.varies) or not usable:
        return np.ones(len(lagged.varies))
    rho, noise = lagged.rho[usable], lagged.noise / pairs[1:][usable, None]
    # The window's own mean takes a little from every lag; what, depends on the answer.
    weights = _weights(tuple(usable))
    effect = _summed(rho, noise, weights, lagged.varies)
    effect = _summed(rho + effect / n, noise, weights, lagged.varies)
    return np.where(lagged.varies, effect, 1.0)


_SCORES: WeakKeyDictionary[Layout, NDArray[np.float32]] = WeakKeyDictionary()


def scores_of(layout: Layout) -> NDArray[np.float32]:
    """The score (n_cells,) of each cell: mean 0 and variance 1 in the reference, 0 for missing values."""
    scores = _SCORES.get(layout)
    if scores is None:
        parts = [
            feature_scores(layout.reference[start:missing], bool(numeric))
            for start, missing, numeric in zip(
                layout.starts.tolist(), layout.missing.tolist(), layout.numeric.tolist(), strict=True
            )
        ]
        scores = _SCORES[layout] = np.concatenate([np.zeros(0), *parts]).astype(np.float32)
    return scores


_TOGETHER: WeakKeyDictionary[Layout, NDArray[np.int32]] = WeakKeyDictionary()


def _together(layout: Layout) -> NDArray[np.int32]:
    """The cell (n_cells,) that stands for each: of a feature's rare and unseen categories the unseen one's."""
    found = _TOGETHER.get(layout)
    if found is None:
        found = _TOGETHER[layout] = np.arange(layout.n_cells, dtype=np.int32)
        for start, missing in zip(layout.starts[~layout.numeric], layout.missing[~layout.numeric], strict=True):
            rare = is_rare(layout.reference[start:missing])
            found[start:missing][rare] = missing - 1
    return found


def is_rare(counts: Floats) -> NDArray[np.bool_]:
    """Which of a category feature's cells (n_known + 2,) do not stand for themselves; the last two never do."""
    rare = counts < certain_of(counts)
    rare[-2:] = True
    return rare


def feature_scores(counts: Floats, numeric: bool) -> Floats:
    """The scores (n + 1,) of a feature's cells, of which it has these counts (n,); the last is the missing one's."""
    result = np.zeros(len(counts) + 1)
    total = counts.sum()
    if total <= 0:
        return result
    shares = counts / total
    rare = np.zeros(len(counts), bool)
    if numeric:
        raw = np.cumsum(shares) - shares / 2
    else:
        # Rare categories are one with the unseen ones: rows to come have more of the latter than the reference has, and
        # fewer of the former, since a rare category is known by chance.
        rare = is_rare(counts)
        cells = np.append(np.flatnonzero(~rare), len(counts))
        held = np.append(counts[~rare], counts[rare].sum())
        # + - - + down from the most frequent: two halves of about the same share.
        signs = np.zeros(len(counts) + 1)
        signs[cells[np.argsort(-held, kind="stable")]] = np.resize([1.0, -1.0, -1.0, 1.0], len(cells))
        raw = np.where(rare, signs[-1], signs[:-1])
    centered = raw - shares @ raw
    variance = shares @ centered**2
    if variance > 0:
        result[:-1] = centered / np.sqrt(variance)
        if not counts[rare].sum():
            result[:-1][rare] = 0.0  # a value that the reference has none of is the question of another test
    return result


@lru_cache(maxsize=len(LAGS))
def _weights(usable: tuple[int, ...]) -> Floats:
    """Every lag's weight in the sum over all whole lags, by linear interpolation."""
    lags = _LAGS[list(usable)]
    whole = np.arange(1, int(lags[-1]) + 1)
    return np.array([np.interp(whole, lags, unit).sum() for unit in np.eye(len(lags))])


def _summed(rho: Floats, noise: Floats, weights: Floats, varies: NDArray[np.bool_]) -> Floats:
    """1 + 2 Σ ρ_k over all lags (n_features,), from some of them."""
    shrunk = _shrunk(rho, noise, varies)
    if len(shrunk) > 3:
        # What remains at the longest lags is a level that changed.
        shrunk -= np.maximum(shrunk[-2:].mean(axis=0), 0.0)
    positive = np.logical_and.accumulate(shrunk > 0, axis=0)
    falling = np.minimum.accumulate(np.where(positive, shrunk, 0.0), axis=0)
    effect: Floats = 1 + 2 * weights @ falling
    return effect


def _shrunk(rho: Floats, noise: Floats, varies: NDArray[np.bool_]) -> Floats:
    """Each lag's autocorrelations (n_lags, n_features), pulled to their mean and that to 0 by their noise."""
    known = rho[:, varies]
    if not known.shape[1]:
        return np.zeros_like(rho)
    noise_known = noise[:, varies].mean(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = known.mean(axis=1)
        mean *= np.nan_to_num(np.maximum(0.0, 1 - noise_known / known.shape[1] / mean**2))
        own = np.maximum(((known - mean[:, None]) ** 2).mean(axis=1) - noise_known, 0.0)
        keep = np.nan_to_num(own[:, None] / (own[:, None] + noise))
    return np.where(varies, mean[:, None] + keep * (rho - mean[:, None]), 0.0)
