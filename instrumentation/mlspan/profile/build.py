"""Fixes a reference's cells from its rows and counts the rows into them.

In: the captured cells of n rows, as payloads carry them, with the model's answers. Out: a Profile. The
unusualness of the reference's rows is kept with it, computed as if each row were new (leave-one-out), so that
new rows from the same distribution score alike. O(n log n) a column; memory: one column at a time beside the
input.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mlspan.payload import PREDICTION_CLASS, PREDICTION_NONE, PREDICTION_NUMBER, SCORE_NONE
from mlspan.profile.cells import (
    BINS,
    CATEGORICAL,
    MAX_CODES,
    NUMERIC,
    Anomaly,
    FeatureProfile,
    Profile,
    Weights,
    cell_costs,
    cells_of,
    stranger,
)

NO_PREDICTION: Final = -2
"""Class index of a row that came without an answer."""

_TINY: Final = float(np.finfo(np.float32).tiny)
_TAIL_POINTS_PER_DECADE: Final = 20
_TAIL_FIT_RATIO: Final = 0.02
_TAIL_FIT_ROWS: Final = 30


def build_profile(
    cells: NDArray[Any],
    names: Sequence[str],
    types: Sequence[str],
    *,
    predictions: NDArray[Any] | None = None,
    prediction_kind: int = PREDICTION_NONE,
    outputs: Mapping[str, NDArray[Any]] | None = None,
    scores: NDArray[Any] | None = None,
    score_kind: int = SCORE_NONE,
    weights: NDArray[Any] | None = None,
    labels: Mapping[str, Mapping[int, str]] | None = None,
    model_name: str = "",
    model_version: str = "",
    task: str = "",
    classes: Sequence[str] = (),
    source: str = "",
    performance: Mapping[str, float] | None = None,
) -> Profile:
    """Fix the cells of a reference and count its rows into them.

    Args:
        cells: (n_rows, n_columns) uint32 or float32 bits, as in a payload; at least one row.
        names, types: of the columns.
        predictions: (n_rows,) or (n_rows, 1) int32 class indices or float32. Rows without an answer hold NO_PREDICTION
            or NaN and are left out of its profile.
        prediction_kind, score_kind: as in a payload.
        outputs: of a multilabel model, by output: (n_rows,) 0 or 1, NaN for rows without an answer.
        scores: (n_rows, n_scores) float32; the last column gets a profile, of the rows where it is not NaN.
        weights: (n_rows,) how many rows each stands for; None for 1.
        labels: readable text of category codes, by feature name.
        model_name, model_version, task, classes, source, performance: see Profile.

    Raises:
        ValueError: no rows, or arrays of different lengths.
    """
    bits = np.ascontiguousarray(cells).view(np.uint32)
    n_rows, n_columns = bits.shape
    if not n_rows:
        raise ValueError("a reference needs at least one row")
    if not n_columns == len(names) == len(types):
        raise ValueError(f"{n_columns} columns, {len(names)} names and {len(types)} types")
    w = np.ones(n_rows) if weights is None else np.asarray(weights, np.float64)
    if len(w) != n_rows:
        raise ValueError(f"{n_rows} rows and {len(w)} weights")
    features = []
    sums = np.zeros(n_rows)
    for j, (name, kind) in enumerate(zip(names, types, strict=True)):
        column = np.ascontiguousarray(bits[:, j])
        texts = (labels or {}).get(name)
        feature = _categorical(name, column, w, texts) if kind == CATEGORICAL else _numeric(name, kind, column, w)
        features.append(feature)
        sums += cell_costs(feature, n_rows)[_cells_left_out(feature, column)]
    return Profile(
        model_name=model_name,
        model_version=model_version,
        task=task,
        classes=tuple(classes),
        rows=n_rows,
        source=source,
        features=tuple(features),
        prediction=_prediction(predictions, prediction_kind, w, tuple(classes)),
        score=_score(scores, w),
        score_kind=SCORE_NONE if scores is None else score_kind,
        anomaly=_anomaly(sums) if features else None,
        weights=Weights(float(w.sum()), float((w * w).sum())),
        outputs=tuple(_output(name, held, w) for name, held in (outputs or {}).items()),
        performance=dict(performance or {}),
    )


def _numeric(name: str, kind: str, column: NDArray[np.uint32], w: NDArray[np.float64]) -> FeatureProfile:
    values = column.view(np.float32)
    finite = np.isfinite(values)
    order = np.argsort(values[finite], kind="stable")
    sorted_values = values[finite][order]
    running = np.cumsum(w[finite][order])
    if not len(sorted_values) or running[-1] <= 0:
        bare = FeatureProfile(name, kind, np.zeros(0, np.float32), None, None, np.zeros(2))
        return _with_counts(bare, values, w, np.zeros(2))
    low, high = sorted_values[0], sorted_values[-1]
    at = np.searchsorted(running, np.arange(1, BINS) / BINS * running[-1] * (1 - 1e-12), "left")
    # Just under the minimum, but no denormal number: processes that flush those to zero would lose the
    # minimum's cell.
    below = np.nextafter(low, np.float32(-np.inf)) if abs(low) > _TINY else min(low, 0) - 2 * _TINY
    first = max(below, np.finfo(np.float32).min)
    edges = np.unique(np.concatenate([[first], sorted_values[at], [high]]).astype(np.float32))
    bare = FeatureProfile(name, kind, edges, None, None, np.zeros(len(edges) + 2))
    sums = _count(cells_of(bare, values[finite]), w[finite] * values[finite].astype(np.float64), len(edges) + 2)
    profile = _with_counts(bare, values, w, sums)
    wide = values[finite].astype(np.float64)
    mean = float(np.average(wide, weights=w[finite]))
    std = math.sqrt(float(np.average((wide - mean) ** 2, weights=w[finite])))
    return replace(profile, mean=mean, std=std, min=float(low), max=float(high))


def _with_counts(
    bare: FeatureProfile, values: NDArray[np.float32], w: NDArray[np.float64], sums: NDArray[np.float64]
) -> FeatureProfile:
    assert bare.edges is not None
    counts = _count(cells_of(bare, values), w, len(bare.counts))
    nearest = np.zeros(len(counts))
    if len(bare.edges):
        nearest[: len(bare.edges)] = bare.edges
        nearest[len(bare.edges) :] = bare.edges[-1]
    filled = counts > 0
    filled[[0, -2, -1]] = False  # infinities have no mean
    centers = np.divide(sums, counts, out=nearest, where=filled)
    return replace(bare, counts=counts, centers=centers)


def _categorical(
    name: str, column: NDArray[np.uint32], w: NDArray[np.float64], texts: Mapping[int, str] | None
) -> FeatureProfile:
    present = column != 0
    codes, which = np.unique(column[present], return_inverse=True)
    counts = _count(which, w[present], len(codes))
    other = 0.0
    if len(codes) > MAX_CODES:
        kept = np.sort(np.argsort(-counts, kind="stable")[:MAX_CODES])
        other = float(counts.sum() - counts[kept].sum())
        codes, counts = codes[kept], counts[kept]
    labels = None if texts is None else tuple(texts.get(code, "") for code in codes.tolist())
    all_counts = np.concatenate([counts, [other, 0.0, w[~present].sum()]])
    return FeatureProfile(name, CATEGORICAL, None, codes.astype(np.uint32), labels, all_counts)


def _prediction(
    predictions: NDArray[Any] | None, kind: int, w: NDArray[np.float64], classes: tuple[str, ...]
) -> FeatureProfile | None:
    if predictions is None or kind == PREDICTION_NONE or (predictions.ndim > 1 and predictions.shape[1] != 1):
        return None
    flat = np.ascontiguousarray(predictions).reshape(-1)
    known = flat == flat if kind == PREDICTION_NUMBER else flat > NO_PREDICTION
    flat, w = flat[known], w[known]
    if kind == PREDICTION_NUMBER:
        return _numeric("prediction", NUMERIC, flat.astype(np.float32).view(np.uint32), w)
    m = len(classes)
    cells = np.where((flat >= 0) & (flat < m), flat, m + 1)
    counts = _count(cells, w, m + 3)
    codes = np.arange(1, m + 1, dtype=np.uint32)
    return FeatureProfile("prediction", CATEGORICAL, None, codes, classes, counts)


def _output(name: str, held: NDArray[Any], w: NDArray[np.float64]) -> FeatureProfile:
    """How often one of several outputs holds."""
    indices = np.where(np.isnan(held), NO_PREDICTION, held > 0).astype(np.int32)
    found = _prediction(indices, PREDICTION_CLASS, w, ("0", "1"))
    assert found is not None
    return replace(found, name=f"prediction {name}")


def _score(scores: NDArray[Any] | None, w: NDArray[np.float64]) -> FeatureProfile | None:
    if scores is None or not scores.size:
        return None
    last = scores.reshape(len(w), -1)[:, -1].astype(np.float32)
    known = ~np.isnan(last)
    return _numeric("score", NUMERIC, last[known].view(np.uint32), w[known])


def _count(cells: NDArray[Any], w: NDArray[np.float64], n_cells: int) -> NDArray[np.float64]:
    return np.bincount(cells, w, n_cells).astype(np.float64, copy=False)


def _cells_left_out(feature: FeatureProfile, column: NDArray[np.uint32]) -> NDArray[np.intp]:
    """Cells of the reference's rows as if each row were new.

    The only copy of a minimum, a maximum or a category would have been unseen without its row; with this the
    reference rows' costs and those of new rows from the same distribution are alike.
    """
    if feature.codes is not None:
        cells = cells_of(feature, column)
        _, which, copies = np.unique(column, return_inverse=True, return_counts=True)
        return np.where(copies[which] == 1, stranger(feature), cells)
    values = column.view(np.float32)
    cells = cells_of(feature, values)
    beyond = feature.unseen[-1]
    lone = (
        (values == np.float32(feature.min), 0),
        (values == np.float32(feature.max), beyond),
        (np.isnan(values), 0),
    )
    for alike, cell in lone:
        rows = np.flatnonzero(alike)
        if len(rows) == 1:
            cells[rows] = cell
    return cells


def _anomaly(sums: NDArray[np.float64]) -> Anomaly:
    n = len(sums)
    ordered = np.sort(sums)
    decades = math.log10(n + 1)
    tails = 10 ** -np.linspace(0, decades, math.ceil(decades * _TAIL_POINTS_PER_DECADE) + 1)
    at = np.clip(n - np.round(tails * n).astype(np.intp), 0, n - 1)
    values = np.unique(ordered[at])
    exact = (1 + n - np.searchsorted(ordered, values, "left")) / (n + 1)
    threshold = ordered[min(n - 1, math.floor(n * (1 - _TAIL_FIT_RATIO)))]
    beyond = ordered[ordered > threshold] - threshold
    scale = float(beyond.mean()) if len(beyond) >= _TAIL_FIT_ROWS else 0.0
    return Anomaly(values, np.minimum(exact, 1.0), scale)
