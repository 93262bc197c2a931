"""Stage 5: what every drift method works on: reference and window counts in the same cells, all features in
one flat array.

In: a Layout (which cell belongs to which feature), reference counts and window counts. Out: one number a
feature, NaN where the method says nothing (no data in the window or the reference, or a method for the other
type). Vectorised over features with `np.add.reduceat`: 50 features in well under a millisecond. Counts are
weighted and need not be whole numbers.

Fine cells are those of the profile (50 quantile bins). Coarse cells join a numeric feature's bins to at most
ten groups of
about equal reference share, beside the two outer cells and the missing one: chi-squared on 10 to 20 groups
    sees more than on 50, and the usual limits of the population stability index (0.1, 0.25) were set for ten
    groups (Siddiqi, 2006).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from mlspan.profile import BOOLEAN, FeatureProfile
from mlspan.semconv.metrics import Metric

COARSE: Final = 10
Floats = NDArray[np.float64]


class Layout:
    """Where each feature's cells lie in the flat arrays.

    Attributes:
        names: the features' names.
        numeric: (n_features,) bool, True for booleans too; `boolean` (n_features,) those.
        starts: (n_features,) first fine cell; `missing` (n_features,) the last, for missing values.
        feature: (n_cells,) the feature of each fine cell.
        is_missing, is_unseen: (n_cells,) bool.
        coarse: (n_cells,) the coarse cell of each fine cell; `coarse_starts` (n_features,).
        centers: (n_cells,) mean reference value of each numeric cell, 0 for categories.
        std: (n_features,) of the reference's finite values, NaN for categories.
        reference: (n_cells,) counts.
    """

    def __init__(self, features: Sequence[FeatureProfile]) -> None:
        self.names = tuple(feature.name for feature in features)
        self.numeric = np.array([feature.codes is None for feature in features], bool)
        self.boolean = np.array([feature.type == BOOLEAN for feature in features], bool)
        sizes = np.array([feature.n_cells for feature in features], np.intp)
        ends = np.cumsum(sizes)
        self.n_cells = int(ends[-1]) if len(ends) else 0
        self.starts = ends - sizes
        self.missing = ends - 1
        self.feature = np.repeat(np.arange(len(sizes)), sizes)
        self.is_missing = np.zeros(self.n_cells, bool)
        self.is_missing[self.missing] = True
        self.is_unseen = np.zeros(self.n_cells, bool)
        for start, feature in zip(self.starts, features, strict=True):
            self.is_unseen[[start + cell for cell in feature.unseen]] = True
        self.reference = np.concatenate([np.zeros(0), *(feature.counts for feature in features)])
        self.centers = np.concatenate(
            [np.zeros(0)] + [np.zeros(f.n_cells) if f.centers is None else np.asarray(f.centers) for f in features]
        )
        self.std = np.array([feature.std for feature in features], np.float64)
        groups = [_coarse(feature) for feature in features]
        coarse_sizes = np.array([group[-1] + 1 for group in groups], np.intp)
        self.coarse_starts = np.cumsum(coarse_sizes) - coarse_sizes
        self.coarse = np.concatenate(
            [
                np.zeros(0, np.intp),
                *(at + group for at, group in zip(self.coarse_starts, groups, strict=True)),
            ]
        )
        self.n_coarse = int(coarse_sizes.sum())
        self.coarse_feature = np.repeat(np.arange(len(groups)), coarse_sizes)

    def __len__(self) -> int:
        return len(self.names)

    def by_feature(self, values: Floats) -> Floats:
        """Sums (n_features,) of values (n_cells,)."""
        return np.add.reduceat(values, self.starts) if len(self.starts) else np.zeros(0)


def _coarse(feature: FeatureProfile) -> NDArray[np.intp]:
    """The coarse cell, from 0, of each of a feature's cells."""
    n = feature.n_cells
    if feature.codes is not None or n <= 2:
        return np.arange(n)
    inner = feature.counts[1:-2]
    total = inner.sum()
    middle = (np.cumsum(inner) - inner / 2) / (total if total > 0 else 1.0)
    _, group = np.unique(np.floor(middle * COARSE), return_inverse=True)
    last = int(group[-1]) + 1 if len(group) else 0
    return np.concatenate([[0], 1 + group, [1 + last, 2 + last]]).astype(np.intp)


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Reference and window side by side.

    Attributes:
        layout: of the cells.
        reference, window: (n_cells,) counts.
        reference_rows, window_rows: (n_features,) effective numbers of rows: a feature's count times Kish's
            (sum of weights) / (sum of squared weights); the counts themselves where every weight is 1.
    """

    layout: Layout
    reference: Floats
    window: Floats
    reference_rows: Floats
    window_rows: Floats

    @classmethod
    def of(cls, layout: Layout, window: Floats, window_ratio: float = 1.0, reference_ratio: float = 1.0) -> "Table":
        """A table of these window counts; the ratios are Kish's, effective rows per weighted row."""
        reference = layout.reference
        return cls(
            layout,
            reference,
            window,
            layout.by_feature(reference) * reference_ratio,
            layout.by_feature(window) * window_ratio,
        )

    def coarse(self) -> tuple[Floats, Floats]:
        """Reference and window counts (n_coarse,) in coarse cells."""
        n = self.layout.n_coarse
        reference = np.bincount(self.layout.coarse, self.reference, n).astype(np.float64, copy=False)
        return reference, np.bincount(self.layout.coarse, self.window, n).astype(np.float64, copy=False)

    def coarse_sums(self, values: Floats) -> Floats:
        """Sums (n_features,) of values (n_coarse,)."""
        return np.add.reduceat(values, self.layout.coarse_starts) if len(self.layout) else np.zeros(0)

    def present(self) -> tuple[Floats, Floats]:
        """Reference and window counts (n_cells,) with the missing values' cells at zero."""
        keep = ~self.layout.is_missing
        return self.reference * keep, self.window * keep

    def shares(self, counts: Floats) -> Floats:
        """Counts (n_cells,) over their feature's sum; NaN where that is zero."""
        sums = self.layout.by_feature(counts)[self.layout.feature]
        return _quotient(counts, sums)

    def coarse_shares(self, counts: Floats) -> Floats:
        """Counts (n_coarse,) over their feature's sum; NaN where that is zero."""
        sums = self.coarse_sums(counts)[self.layout.coarse_feature]
        return _quotient(counts, sums)

    def running(self, shares: Floats) -> Floats:
        """Cumulative sums (n_cells,) that begin anew with each feature."""
        total = np.cumsum(np.nan_to_num(shares))
        before = np.concatenate([[0.0], total])[self.layout.starts] if len(self.layout) else np.zeros(0)
        running: Floats = total - before[self.layout.feature]
        running[np.isnan(shares)] = np.nan
        return running


def _quotient(a: Floats, b: Floats) -> Floats:
    result: Floats = np.divide(a, b, out=np.full(len(a), np.nan), where=b > 0)
    return result


class DriftMethod(Protocol):
    """One number a feature for how far the window is from the reference."""

    name: ClassVar[str]
    metric: ClassVar[Metric]

    def score(self, table: Table) -> Floats:
        """(n_features,) values, NaN where the method says nothing."""
