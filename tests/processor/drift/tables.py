"""Reference and window tables for the drift tests."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlspan.profile import build_profile, cells_of
from mlspan_processor.drift import Layout, Table

TYPES = ("numeric", "numeric", "boolean", "categorical", "numeric")
NAMES = ("x", "y", "flag", "carrier", "constant")


def rows(n: int, seed: int, shift: float = 0.0) -> NDArray[np.uint32]:
    """(n, 5) cells: two normals (the second with missing values), a boolean, a category, a constant."""
    rng = np.random.default_rng(seed)
    cells = np.empty((n, 5), np.uint32)
    cells[:, 0] = rng.normal(shift, 1, n).astype(np.float32).view(np.uint32)
    second = rng.exponential(1 + shift, n).astype(np.float32)
    second[rng.random(n) < 0.05] = np.nan
    cells[:, 1] = second.view(np.uint32)
    cells[:, 2] = (rng.random(n) < 0.3 + shift / 10).astype(np.float32).view(np.uint32)
    cells[:, 3] = rng.integers(0, 6, n) + (rng.random(n) < shift / 5) * 3
    cells[:, 4] = np.ones(n, np.float32).view(np.uint32)
    return cells


def layout_of(cells: NDArray[np.uint32]) -> Layout:
    """The layout of a reference."""
    return Layout(build_profile(cells, NAMES, TYPES).features)


def counts_of(reference: NDArray[np.uint32], cells: NDArray[np.uint32], weights: Any = None) -> NDArray[np.float64]:
    """Flat window counts in the reference's cells."""
    profile = build_profile(reference, NAMES, TYPES)
    parts = []
    for j, feature in enumerate(profile.features):
        column = np.ascontiguousarray(cells[:, j])
        values = column if feature.codes is not None else column.view(np.float32)
        parts.append(np.bincount(cells_of(feature, values), weights, feature.n_cells))
    return np.concatenate(parts).astype(np.float64)


def table(n: int = 5000, m: int = 1000, shift: float = 0.0, seed: int = 0) -> Table:
    """A table of n reference and m window rows."""
    reference = rows(n, seed)
    return Table.of(layout_of(reference), counts_of(reference, rows(m, seed + 1, shift)))
