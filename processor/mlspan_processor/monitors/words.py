"""Stage 6, part 12: what drift means in words: how a feature moved, in units a person reads, and requests to look at.

In: a judged window. Out: sentences, values, spans.
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlspan_processor.anomaly.findings import Exemplar
from mlspan_processor.cells import CellCounts, Reference
from mlspan_processor.drift.judgement import Judgement, Limits
from mlspan_processor.drift.sequence import Look
from mlspan_processor.monitors.rows import Rows

MAX_EXEMPLARS: Final = 5


class DriftWindow(NamedTuple):
    """One closed window.

    Attributes:
        judgement: of all features and answers.
        limits: that it was made with.
        look: what all windows so far say.
        counts: of the window.
        start, end: nanoseconds since the epoch.
        rows: those kept of the window, or None.
    """

    judgement: Judgement
    limits: Limits
    look: Look
    counts: CellCounts
    start: int
    end: int
    rows: Rows | None


def describe(metric: str, window: DriftWindow, reference: Reference, j: int) -> str:
    """What happened to a feature, in units a person reads."""
    drift, feature = window.judgement.drift, reference.features[j]
    if metric == "missing":
        return f"{feature.name}: {drift.missing[j]:.1%} missing, {drift.reference_missing[j]:.1%} in the reference"
    if metric == "unseen":
        was = expected_of("unseen", window, reference, j)
        what = "never seen before"
        if j < reference.n_inputs and feature.codes is None and np.isfinite([feature.min, feature.max]).all():
            what = f"outside the reference's {feature.min:.4g} to {feature.max:.4g}"
        return f"{feature.name}: {drift.unseen[j]:.1%} {what}, {was:.1%} in the reference"
    counts = window.counts
    if j < reference.n_inputs and feature.codes is None and counts.finite[j] > 0:
        mean = counts.sums[j] / counts.finite[j]
        moved = abs(mean - feature.mean) / feature.std if feature.std > 0 else 0.0
        if moved >= 0.1:
            before = f"{feature.mean:.4g} in the reference ({moved:.2g} standard deviations)"
            return f"{feature.name}: mean {mean:.4g}, {before}"
    (now, was), cell = _moved_cell(window, reference, j)
    return f"{feature.name}: {_cell_name(reference, j, cell)} {now:.1%} of the rows, {was:.1%} in the reference"


def exemplars(window: DriftWindow, reference: Reference, j: int) -> tuple[Exemplar, ...]:
    """Requests whose value lies in the cells that grew most."""
    rows = window.rows
    if rows is None or not rows.spans.any() or j >= len(rows.cells):
        return ()
    lift = _shares(window.counts.counts, reference, j) - _shares(reference.layout.reference, reference, j)
    start = int(reference.layout.starts[j])
    gain = lift[np.clip(rows.cells[j] - start, 0, len(lift) - 1)]
    best = [int(i) for i in np.argsort(-gain, kind="stable") if gain[i] > 0 and rows.spans[i]]
    return tuple(dict.fromkeys(exemplar_of(rows, i) for i in best[: 20 * MAX_EXEMPLARS]))[:MAX_EXEMPLARS]


def exemplar_of(rows: Rows, i: int) -> Exemplar:
    """The span of one row, in hex."""
    trace = b"".join(int(half).to_bytes(8, "little") for half in rows.traces[i])
    return trace.hex(), int(rows.spans[i]).to_bytes(8, "little").hex()


def value_of(metric: str, window: DriftWindow, reference: Reference, j: int) -> float:
    """The feature's share of missing or unseen values, its mean, or the share of the category that moved most."""
    drift = window.judgement.drift
    if metric in {"missing", "unseen"}:
        return float((drift.missing if metric == "missing" else drift.unseen)[j])
    counts = window.counts
    if j < reference.n_inputs and reference.features[j].codes is None and counts.finite[j] > 0:
        return float(counts.sums[j] / counts.finite[j])
    return _moved_cell(window, reference, j)[0][0]


def expected_of(metric: str, window: DriftWindow, reference: Reference, j: int) -> float:
    """The same in the reference."""
    if metric == "missing":
        return float(window.judgement.drift.reference_missing[j])
    layout = reference.layout
    if metric == "unseen":
        counts = layout.reference * (layout.feature == j)
        total = counts.sum()
        return float((counts * layout.is_unseen).sum() / total) if total > 0 else 0.0
    if j < reference.n_inputs and reference.features[j].codes is None and window.counts.finite[j] > 0:
        return float(reference.features[j].mean)
    return _moved_cell(window, reference, j)[0][1]


def _moved_cell(window: DriftWindow, reference: Reference, j: int) -> tuple[tuple[float, float], int]:
    """(share now, share in the reference) of the coarse cell that moved most, and the cell."""
    start = int(reference.layout.starts[j])
    group = reference.layout.coarse[start : start + reference.features[j].n_cells]
    now, before = (
        np.bincount(group - group[0], _shares(counts, reference, j))
        for counts in (window.counts.counts, reference.layout.reference)
    )
    cell = int(np.argmax(np.abs(now - before)))
    return (float(now[cell]), float(before[cell])), cell


def _cell_name(reference: Reference, j: int, cell: int) -> str:
    """A coarse cell in words."""
    feature = reference.features[j]
    start = int(reference.layout.starts[j])
    group = reference.layout.coarse[start : start + feature.n_cells]
    fine = np.flatnonzero(group - group[0] == cell)
    if fine[-1] == feature.n_cells - 1:
        return "missing values are"
    if int(fine[0]) in feature.unseen:
        return "values never seen before are"
    if feature.codes is not None:
        labels = feature.labels
        text = labels[int(fine[0])] if labels is not None and fine[0] < len(labels) else ""
        if j >= reference.n_inputs and fine[0] < len(reference.profile.classes):
            text = reference.profile.classes[int(fine[0])]
        return f'"{text}" is' if text else f"category {int(fine[0]) + 1} is"
    edges = feature.edges
    if edges is None:
        return "one part of the values is"
    low, high = int(fine[0]), int(fine[-1])
    bottom = _edge(edges[low - 1]) if 0 < low <= len(edges) else "the minimum"
    top = _edge(edges[high]) if high < len(edges) else "the maximum"
    return f"the value {top} is" if bottom == top else f"values from {bottom} to {top} are"


def _edge(value: float) -> str:
    """An edge for people: between a number and the next one, that number."""
    return "0" if abs(value) < np.finfo(np.float32).tiny else f"{value:.4g}"


def _shares(counts: NDArray[np.float64], reference: Reference, j: int) -> NDArray[np.float64]:
    start = int(reference.layout.starts[j])
    own = counts[start : start + reference.features[j].n_cells]
    total = own.sum()
    return own / total if total > 0 else own


def finite(value: Any) -> float | None:
    """A number, or None for what is none."""
    return float(value) if value is not None and np.isfinite(value) else None
