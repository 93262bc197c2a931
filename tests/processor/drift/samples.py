"""Columns, references and windows for the tests of judgements."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlspan.profile import FeatureProfile, build_profile, cells_of
from mlspan_processor.drift import Layout, Table
from mlspan_processor.sample import Sample


def numbers(values: Any) -> NDArray[np.uint32]:
    """Numbers (n_rows, n) as cells (n, n_rows)."""
    return np.ascontiguousarray(np.asarray(values).T, np.float32).view(np.uint32)


def categories(values: Any) -> NDArray[np.uint32]:
    """Codes (n_rows, n) as cells (n, n_rows)."""
    return np.ascontiguousarray(np.asarray(values).T, np.uint32)


def profiles(reference: NDArray[np.uint32], kind: str, weights: Any = None) -> tuple[FeatureProfile, ...]:
    """Profiles of columns (n, n_rows) of one kind."""
    names = [f"x{j}" for j in range(len(reference))]
    rows = np.ascontiguousarray(reference.T)
    return build_profile(rows, names, [kind] * len(names), weights=weights).features


def flat_cells(layout: Layout, features: tuple[FeatureProfile, ...], rows: NDArray[np.uint32]) -> NDArray[np.intp]:
    """Layout cells (n, n_rows)."""
    own = [
        cells_of(f, column if f.codes is not None else column.view(np.float32))
        for f, column in zip(features, rows, strict=True)
    ]
    return np.array(own) + layout.starts[:, None]


def compared(
    reference: NDArray[np.uint32], window: NDArray[np.uint32], kind: str = "numeric", weights: Any = None
) -> Table:
    """The table of two sets of columns (n, n_rows)."""
    features = profiles(reference, kind)
    layout = Layout(features)
    w = np.ones(window.shape[1]) if weights is None else np.asarray(weights, np.float64)
    cells = flat_cells(layout, features, window)
    counts = np.bincount(cells.ravel(), np.tile(w, len(cells)), layout.n_cells).astype(np.float64)
    return Table.of(layout, counts, float(w.sum() / (w @ w)) if len(w) else 1.0)


def sample(cells: NDArray[np.uint32], kind: str = "numeric", weights: Any = None) -> Sample:
    """A Sample of columns (n, n_rows) alone."""
    n = cells.shape[1]
    nothing = np.full(n, np.nan)
    w = np.ones(n) if weights is None else np.asarray(weights, np.float64)
    names = tuple(f"x{j}" for j in range(len(cells)))
    return Sample("regression", names, (kind,) * len(cells), cells, (), nothing, nothing, None, w)
