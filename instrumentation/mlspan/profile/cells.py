"""The reference profile: what "normal" is for one version of one model, as counts over fixed cells.

Built from a table, from an instrumented ``fit`` or from the first rows that a processor sees; written as
JSON; read by the processor, which counts every window into the same cells, so that merging is addition. numpy
only.

Cells of a numeric (or boolean) feature with edges e_0 < … < e_k, float32: cell 0 holds x <= e_0 (below the
reference's minimum, -inf too), cell i holds e_{i-1} < x <= e_i, cell k+1 holds x > e_k (above its maximum,
+inf too), cell k+2 NaN. e_0 lies just under the minimum; the other edges are the unique quantiles 1/BINS,
2/BINS, … 1 by the inverted CDF, so that each edge is a value that occurred and ties never straddle an edge. A
feature without a finite value has no edges.
Cells of a categorical feature with m known codes: 0 … m-1 the codes, ascending; m "other" (a reference with
    more than
MAX_CODES categories folds the rarest into it, and hashes to it whatever is unknown: unseen values cannot be
    told apart then); m+1 unseen; m+2 missing (code 0).

Memory: at most 53 (numeric) or 503 (categorical) float64 counts a feature.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

BINS: Final = 50
"""Quantile bins of a numeric feature: raw rows buy nothing over 50 (measured power of KS, .87 against
.86)."""
MAX_CODES: Final = 500
"""Categories kept one by one."""
NUMERIC: Final = "numeric"
BOOLEAN: Final = "boolean"
CATEGORICAL: Final = "categorical"
TYPES: Final = (NUMERIC, BOOLEAN, CATEGORICAL)


class ProfileError(ValueError):
    """A profile's text is no profile, or its arrays do not fit each other; names the path of the key."""


class Weights(NamedTuple):
    """Σw and Σw² of the rows behind a profile; n_eff = total² / squares (Kish, 1965)."""

    total: float
    squares: float


class Anomaly(NamedTuple):
    """The distribution of the reference rows' own unusualness.

    `values` (n,) ascending; `tails` (n,) the share of rows at least that unusual, descending; `scale` the
    mean excess over the 98 % quantile, for the exponential tail beyond the last value (0: no extrapolation).
    """

    values: NDArray[np.float64]
    tails: NDArray[np.float64]
    scale: float


@dataclass(frozen=True, slots=True, eq=False)
class FeatureProfile:
    """One feature's cells and what the reference had in them.

    Attributes:
        name: the column's name; "prediction" or "score" for the model's answers.
        type: numeric, boolean or categorical.
        edges: (k + 1,) float32 ascending, or None for a categorical feature.
        codes: (m,) uint32 ascending category codes, or None; for predicted classes the class index + 1.
        labels: m readable texts of the codes ("" unknown), or None.
        counts: (n_cells,) float64 weighted counts.
        centers: (n_cells,) float64 mean reference value of each numeric cell (the nearest edge where it is
            empty), or None.
        mean, std, min, max: of the finite values, NaN without any; NaN for a categorical feature.
    """

    name: str
    type: str
    edges: NDArray[np.float32] | None
    codes: NDArray[np.uint32] | None
    labels: tuple[str, ...] | None
    counts: NDArray[np.float64]
    centers: NDArray[np.float64] | None = None
    mean: float = math.nan
    std: float = math.nan
    min: float = math.nan
    max: float = math.nan

    @property
    def n_cells(self) -> int:
        """Cells, the one for missing values included."""
        return len(self.counts)

    @property
    def missing(self) -> int:
        """The index of the cell for missing values: always the last."""
        return len(self.counts) - 1

    @property
    def unseen(self) -> tuple[int, ...]:
        """The cells for values that the reference never had."""
        if self.codes is not None:
            return (len(self.codes) + 1,)
        return (0, len(self.counts) - 2) if len(self.counts) > 2 else (0,)


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """The reference of one model version.

    Attributes:
        model_name, model_version, task: as on the instrumentation scope ("" unknown).
        classes: texts of the classes, in the order of the probability columns.
        rows: reference rows, unweighted.
        source: where it comes from, for people: "file train.parquet", "fit", "first 5000 rows".
        features: one profile a captured column.
        prediction: distribution of the answers (classes or numbers), or None.
        outputs: of a model with several outputs, in its place: how often each holds; named "prediction <output>".
        score: distribution of the last class's score, or None; `score_kind` says of which kind.
        anomaly: how unusual the reference's own rows are, or None without features.
        performance: evaluated figures by metric name ("accuracy": 0.91); empty when there were no labels.
        weights: Σw and Σw² of the rows.
    """

    model_name: str
    model_version: str
    task: str
    classes: tuple[str, ...]
    rows: int
    source: str
    features: tuple[FeatureProfile, ...]
    prediction: FeatureProfile | None
    score: FeatureProfile | None
    score_kind: int
    anomaly: Anomaly | None
    weights: Weights
    performance: Mapping[str, float] = field(default_factory=dict)
    outputs: tuple[FeatureProfile, ...] = ()


def cells_of(feature: FeatureProfile, column: NDArray[Any]) -> NDArray[np.intp]:
    """The cell of each value.

    Args:
        feature: whose cells.
        column: (n_rows,) float32 of a numeric or boolean feature, uint32 codes of a categorical one.

    Returns:
        (n_rows,) cell indices.
    """
    if feature.codes is None:
        assert feature.edges is not None
        # NaN sorts after every edge: one more step takes it from "above" to "missing".
        cells: NDArray[np.intp] = np.searchsorted(feature.edges, column, "left")
        cells += np.isnan(column)
        return cells
    known = len(feature.codes)
    if not known:
        return np.where(column == 0, 2, stranger(feature)).astype(np.intp)
    cells = np.searchsorted(feature.codes, column, "left")
    found = feature.codes[np.minimum(cells, known - 1)] == column
    cells[~found] = stranger(feature)
    cells[column == 0] = feature.missing
    return cells


def cell_costs(feature: FeatureProfile, rows: int) -> NDArray[np.float64]:
    """How unusual each cell is: -log of its probability under the reference, in nats.

    Numeric: the two-sided tail probability min(1, 2 min(P(cell <= i), P(cell >= i))) among all rows;
        categories and
    missing values: the share of values in cells at most as frequent. A cell the reference never had: 1 /
        (rows + 1).
    """
    counts = feature.counts
    total = counts.sum()
    floor = 1.0 / (rows + 1)
    if total <= 0:
        return np.zeros(len(counts))
    order = np.argsort(counts, kind="stable")
    running = np.cumsum(counts[order])
    last_of_ties = np.searchsorted(counts[order], counts, "right") - 1
    shares = running[last_of_ties] / total
    if feature.codes is None:
        values = counts[:-1]
        below = np.cumsum(values)
        above = below[-1] - below + values
        shares[:-1] = np.minimum(1.0, 2 * np.minimum(below, above) / total)
        missing_only = not values.any()
        shares[:-1] = floor if missing_only else shares[:-1]
    shares[counts == 0] = floor
    costs: NDArray[np.float64] = -np.log(np.clip(shares, floor, 1.0))
    return costs


def tail_of(anomaly: Anomaly, sums: NDArray[Any]) -> NDArray[np.float64]:
    """The share of reference rows at least as unusual as rows whose costs add up to `sums` (n,)."""
    logs = np.interp(sums, anomaly.values, np.log(anomaly.tails), left=0.0)
    if anomaly.scale > 0:
        logs -= np.maximum(np.asarray(sums, np.float64) - anomaly.values[-1], 0.0) / anomaly.scale
    return np.asarray(np.exp(logs))


def stranger(feature: FeatureProfile) -> int:
    """The cell of an unknown category: "other" where the reference has folded categories, else unseen."""
    assert feature.codes is not None
    known = len(feature.codes)
    return known if feature.counts[known] > 0 else known + 1
