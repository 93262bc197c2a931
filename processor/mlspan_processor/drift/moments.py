"""Stage 5: what the multivariate detector sums over rows, and its tests of means and pairs.

In: scores (n_rows, d) of rows in their order, in blocks. Out: Moments, which are averages and may come from any number
of rows; p-values and effects of a window's against the reference's. O(n d^2). Source: see `multivariate`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from mlspan.profile import FeatureProfile, cells_of
from mlspan_processor.drift.base import Floats
from mlspan_processor.drift.combine import quadratic_tail
from mlspan_processor.drift.dependence import MAX_REFERENCE_DEPENDENCE, LagSums


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Averages over rows.

    Attributes:
        rows: effective ones.
        means: (d,) of the scores; `products` (d, d) of their products, `variances` (d, d) of these.
        dependence: (d,) design effects; `bounds` (d,) the largest scores.
        distances: (n_cells,) counts of the Mahalanobis distances; `distance_dependence`, `distance_mean` of the same.
    """

    rows: float
    means: Floats
    products: Floats
    variances: Floats
    dependence: Floats
    bounds: Floats
    distances: Floats
    distance_dependence: float
    distance_mean: float

    @property
    def worth(self) -> float:
        """Independent rows that the rows are worth."""
        return self.rows / float(self.dependence.mean())


def moments_of(
    blocks: Iterator[NDArray[np.float32]],
    weights: Floats,
    whitening: Floats,
    distance: FeatureProfile,
    distance_scores: NDArray[np.float32],
) -> Moments:
    """Average over the rows of all blocks.

    Args:
        blocks: scores (n_rows_of_block, d).
        weights: (n_rows,) of all rows.
        whitening: (d, d) to scores of covariance 1.
        distance: cells of the distances; `distance_scores` (n_cells,) their scores.
    """
    d = whitening.shape[0]
    means, products, squares = np.zeros(d), np.zeros((d, d)), np.zeros((d, d))
    counts, sums, lags, far = np.zeros(distance.n_cells), 0.0, LagSums(d), LagSums(1)
    bounds = np.zeros(d)
    at, total = 0, float(weights.sum())
    for scores in blocks:
        w = weights[at : at + len(scores)]
        at += len(scores)
        weighted = scores if (w == 1.0).all() else scores * w[:, None].astype(np.float32)
        means += weighted.sum(axis=0, dtype=np.float64)
        products += weighted.T @ scores
        squares += (weighted * scores).T @ (scores * scores)
        np.maximum(bounds, np.abs(scores).max(axis=0, initial=0.0), out=bounds)
        distances = squared_distances(scores, whitening)
        cells = cells_of(distance, distances)
        counts += np.bincount(cells, w, distance.n_cells)
        sums += float(w @ distances)
        lags.add(np.ascontiguousarray(scores.T))
        far.add(distance_scores[cells][None, :])
    total = total or 1.0
    products /= total
    variances = np.maximum(squares / total - products**2, 0.0)
    rows = total * kish(weights)
    return Moments(
        rows,
        means / total,
        products,
        variances,
        lags.design_effect(),
        bounds,
        counts,
        float(far.design_effect()[0]),
        sums / total,
    )


def means_test(own: Moments, ours: Moments, whitening: Floats, eigenvalues: Floats) -> tuple[float, float]:
    """P-value and effect (in standard deviations) of the means' joint shift."""
    rate = own.dependence / own.rows + np.minimum(ours.dependence, MAX_REFERENCE_DEPENDENCE) / ours.rows
    gap = own.means - ours.means
    x = float((((gap / np.sqrt(rate)) @ whitening) ** 2).sum())
    p = float(quadratic_tail(np.array([x]), eigenvalues[None, :])[0])
    shift = float(((gap @ whitening) ** 2).sum()) - float(eigenvalues.sum() * rate.mean())
    return p, max(shift, 0.0) ** 0.5


def _pair_z(own: Moments, ours: Moments) -> tuple[Floats, Floats]:
    """Standard scores and standard errors (d, d) of the changes of the products' means."""
    n, m = (one.rows / _pair_dependence(one.dependence) for one in (own, ours))
    variance = (own.variances * n + ours.variances * m) / (n + m)
    # A window in which a pair never varies says nothing about how much it does.
    error = np.sqrt(np.maximum(variance, ours.variances) * (1 / n + 1 / m))
    return (own.products - ours.products) / np.where(error > 1e-9, error, np.inf), error


def _pair_dependence(dependence: Floats) -> Floats:
    """Design effects (d, d) of products of two autocorrelated series: lag by lag their autocorrelations' product."""
    rho = (dependence - 1) / (dependence + 1)
    both = np.outer(rho, rho)
    effect: Floats = (1 + both) / (1 - both)
    return effect


def largest_pair(own: Moments, ours: Moments) -> tuple[int, int]:
    """The pair whose correlation changed most clearly."""
    z, _ = _pair_z(own, ours)
    i, j = np.unravel_index(int(np.argmax(np.triu(np.abs(z), 1))), z.shape)
    return int(i), int(j)


def pairs_test(own: Moments, ours: Moments) -> tuple[float, float]:
    """P-value and effect of the largest change of a pair's rank correlation.

    The standard score is shortened as in Bernstein's inequality, since products of uneven scores are far from normal in
    the tail that thousands of pairs reach into.
    """
    z, error = _pair_z(own, ours)
    i, j = largest_pair(own, ours)
    pairs = len(z) * (len(z) - 1) / 2
    far, scale = abs(float(z[i, j])), float(error[i, j])
    step = float(ours.bounds[i] * ours.bounds[j]) / min(own.rows, ours.rows)
    far /= (1 + step / scale * far / 3) ** 0.5 if scale > 0 else 1.0
    p = min(1.0, 2 * float(ndtr(-far)) * pairs)
    gap = float(own.products[i, j] - ours.products[i, j])
    # The largest of so many is expected about this far out.
    chance = 2 * np.log(max(pairs, 1)) * scale**2
    return max(p, 1e-300), float(max(gap * gap - chance, 0.0) ** 0.5)


def covariance_of(scores: NDArray[np.float32]) -> Floats:
    """Covariance (d, d) of scores (n_rows, d)."""
    wide = scores.astype(np.float64)
    wide -= wide.mean(axis=0)
    covariance: Floats = wide.T @ wide / max(len(wide) - 1, 1)
    return covariance


def squared_distances(scores: NDArray[np.float32], whitening: Floats) -> NDArray[np.float32]:
    """Squared Mahalanobis distances (n_rows,) from the reference's mean, which is 0."""
    white = scores @ whitening.astype(np.float32)
    squared: NDArray[np.float32] = np.einsum("ij,ij->i", white, white).astype(np.float32)
    return squared


def kish(weights: Floats) -> float:
    """Effective rows per weighted row."""
    squares = float(weights @ weights)
    return float(weights.sum()) / squares if squares > 0 else 1.0
