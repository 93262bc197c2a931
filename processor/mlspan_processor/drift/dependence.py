"""Stage 5: how many independent rows a window's rows are worth, feature by feature.

Rows that follow each other resemble each other (the same user, the same minute), and tests that take them for
independent cry wolf: with rows of autocorrelation .5 in 43 % of windows. In: rows in their order, as cells. Out: the
design effect d >= 1 (n_features,): n rows are worth n / d.
d = 1 + 2 Σ ρ_k of each value's score: its rank in the reference for numbers, a balanced ±1 for categories. Fixed lags
up to 64, linear between them, cut off where they stop being positive and at what stays at long lags, which is a change
within the window and not dependence. Each ρ_k is shrunk to the mean over features, and that mean to 0, by as much as
its noise warrants (James & Stein): independent rows keep their power, and 100 rows of 50 features tell .5 from 0.
`LagSums` is what a pane keeps: addition merges it, products across the seam of two panes are left out. Memory 13
float64 a feature and pane; cost 12 products a value, 6 ms for 1,000 x 50. Empty, constant or single rows: 1.
Source: Kish, Survey Sampling, 1965; Geyer, Stat. Sci. 7, 1992 (initial sequence); Efron & Morris, J. Am. Stat. Assoc.
70, 1975.
"""

from functools import lru_cache
from typing import Any, Final
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from mlspan_processor.drift.base import Floats, Layout
from mlspan_processor.drift.shape import certain_of

LAGS: Final = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
MIN_PAIRS: Final = 30
"""Pairs of rows from which a lag is believed."""
_ROWS_A_LAG: Final = 4
_BLOCK_ROWS: Final = 65_536
_LAGS: Final = np.array(LAGS, np.float64)


class LagSums:
    """Sums of products of scores at each lag; addition merges them.

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

    def merge(self, other: "LagSums") -> None:
        """Add another's rows."""
        self.products += other.products
        self.pairs += other.pairs
        self.sums += other.sums

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.products.nbytes + self.pairs.nbytes + self.sums.nbytes

    def design_effect(self) -> Floats:
        """Design effects (n_features,) >= 1."""
        n = self.pairs[0]
        features = len(self.sums)
        usable = [i for i in range(len(LAGS)) if self.pairs[i + 1] >= MIN_PAIRS and LAGS[i] * _ROWS_A_LAG <= n]
        if not features or not usable:
            return np.ones(features)
        mean = self.sums / n
        variance = self.products[0] / n - mean**2
        varies = variance > 1e-9
        pairs = self.pairs[1:][usable]
        covariance = self.products[1:][usable] / pairs[:, None] - mean**2
        rho = np.where(varies, covariance / np.where(varies, variance, 1.0), 0.0)
        # The window's own mean takes a little from every lag; what, depends on the answer.
        weights = _weights(tuple(usable))
        effect = _summed(rho, pairs, weights, varies)
        effect = _summed(rho + effect / n, pairs, weights, varies)
        return np.where(varies, effect, 1.0)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {"products": self.products.tolist(), "pairs": self.pairs.tolist(), "sums": self.sums.tolist()}

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> "LagSums":
        """What `to_dict` gave."""
        sums = cls(len(state["sums"]))
        sums.products[...] = np.asarray(state["products"], np.float64).reshape(sums.products.shape)
        sums.pairs[...] = state["pairs"]
        sums.sums[...] = state["sums"]
        return sums


def design_effect(layout: Layout, cells: NDArray[Any]) -> Floats:
    """Design effects (n_features,) of rows in their order.

    Args:
        layout: of the reference.
        cells: (n_features, n_rows) layout cells, as `cells.Reference.cells` gives them.
    """
    sums, scores = LagSums(len(layout)), scores_of(layout)
    for start in range(0, cells.shape[1], _BLOCK_ROWS):
        sums.add(scores[cells[:, start : start + _BLOCK_ROWS]])
    return sums.design_effect()


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


def _summed(rho: Floats, pairs: Floats, weights: Floats, varies: NDArray[np.bool_]) -> Floats:
    """1 + 2 Σ ρ_k over all lags (n_features,), from some of them."""
    shrunk = _shrunk(rho, pairs, varies)
    if len(shrunk) > 3:
        # What remains at the longest lags is a level that changed.
        shrunk -= np.maximum(shrunk[-2:].mean(axis=0), 0.0)
    positive = np.logical_and.accumulate(shrunk > 0, axis=0)
    falling = np.minimum.accumulate(np.where(positive, shrunk, 0.0), axis=0)
    effect: Floats = 1 + 2 * weights @ falling
    return effect


def _shrunk(rho: Floats, pairs: Floats, varies: NDArray[np.bool_]) -> Floats:
    """Each lag's autocorrelations (n_lags, n_features), pulled to their mean and that to 0 by their noise."""
    known = rho[:, varies]
    if not known.shape[1]:
        return np.zeros_like(rho)
    noise = 1 / pairs
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = known.mean(axis=1)
        mean *= np.nan_to_num(np.maximum(0.0, 1 - noise / known.shape[1] / mean**2))
        spread = ((known - mean[:, None]) ** 2).mean(axis=1)
        keep = np.nan_to_num(np.maximum(0.0, 1 - noise / spread))
    return np.where(varies, mean[:, None] + keep[:, None] * (rho - mean[:, None]), 0.0)
