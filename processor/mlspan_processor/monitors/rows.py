"""Stage 6, part 5: rows of the open window, as they came: what estimates, segments and exemplars need beside counts.

In: blocks of rows of one model version. Out: for a closed window its rows as a Sample, their cells in the reference's
layout, and the spans they came in. The first `MAX_ROWS` rows of a window in their order, so that neighbours stay
neighbours. Cost: one slice a block until the window is full, nothing afterwards.
Memory: 4 bytes a feature and 60 bytes a row, 400 kB a model version of 30 features.
"""

from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlspan.payload import SCORE_PROBABILITY
from mlspan_processor.cells import Reference
from mlspan_processor.model import Model
from mlspan_processor.outputs import unpacked
from mlspan_processor.pending import Predictions
from mlspan_processor.rows import Block
from mlspan_processor.sample import Sample, Task

MAX_ROWS: Final = 2_000
_NONE: Final = np.uint64(0)


class Rows(NamedTuple):
    """Rows of one window, n of them.

    Attributes:
        sample: the rows.
        cells: (n_layout_features, n) cells in the reference's layout.
        traces: (n, 2) halves of trace ids; `spans` (n,) span ids; 0 where unknown.
    """

    sample: Sample
    cells: NDArray[np.int32]
    traces: NDArray[np.uint64]
    spans: NDArray[np.uint64]


class OpenRows:
    """Rows that came since the last window was closed."""

    def __init__(self) -> None:
        self._parts: list[Rows] = []
        self.rows = 0
        self.nbytes = 0

    @property
    def full(self) -> bool:
        """Whether further rows are left out."""
        return self.rows >= MAX_ROWS

    def add(
        self,
        model: Model,
        block: Block,
        weights: NDArray[np.float64],
        times: NDArray[np.int64],
        used: NDArray[np.bool_],
        predictions: Predictions | None,
    ) -> None:
        """Keep the first used rows of a block, as long as there is room.

        Args:
            model: whose rows; with a reference.
            block: rows.
            weights, times, used: (n_rows,) of the block.
            predictions: the used rows as labels see them; None where labels are not for them.
        """
        reference = model.reference
        if reference is None or self.full:
            return
        binding = reference.binding(block.schema)
        if len(binding.features) < reference.n_inputs:
            return
        at = np.flatnonzero(used)[: MAX_ROWS - self.rows]
        if not len(at):
            return
        part = _rows(model, reference, _subset(block, at), weights[at], times[at], predictions)
        if self._parts and shape_of(self._parts[0]) != shape_of(part):
            return
        self._parts.append(part)
        self.rows += len(at)
        self.nbytes += part.cells.nbytes + part.sample.cells.nbytes + 60 * len(at)

    def take(self, end: int) -> Rows | None:
        """The rows whose time is before `end`, which are then forgotten; None without any."""
        if not self._parts:
            return None
        whole = joined(self._parts)
        times = whole.sample.times
        assert times is not None
        before = times < end
        taken = _chosen(whole, before)
        self.clear()
        if not before.all():
            self._parts = [_chosen(whole, ~before)]
            self.rows = len(self._parts[0].sample)
            self.nbytes = self._parts[0].cells.nbytes * 2 + 60 * self.rows
        return taken if len(taken.sample) else None

    def clear(self) -> None:
        """Forget all rows, as when the reference has changed."""
        self._parts = []
        self.rows = self.nbytes = 0


def _subset(block: Block, at: NDArray[np.intp]) -> Block:
    """Some rows of a block, without what concerns calls."""
    if len(at) == block.n_rows:
        return block
    return replace(
        block,
        columns=block.columns[:, at],
        call=block.call[at],
        firsts=np.zeros(0, np.intp),
        number=block.number[at],
        stands_for=block.stands_for[at],
        predictions=block.predictions[at],
        scores=block.scores[at],
        ids={},
    )


def _rows(
    model: Model,
    reference: Reference,
    block: Block,
    weights: NDArray[np.float64],
    times: NDArray[np.int64],
    predictions: Predictions | None,
) -> Rows:
    n = block.n_rows
    cells = [reference.cells(block, slice(0, n))]
    for place, extra in enumerate(reference.answer_cells(block), reference.n_inputs):
        # Without an answer a row counts as missing one, for neighbourhood only.
        nothing = np.full(n, reference.layout.missing[place])
        cells.append((nothing if extra is None else extra)[None].astype(np.int32))
    answers, scores = np.full(n, np.nan), None
    traces, spans = np.full((n, 2), _NONE), np.full(n, _NONE)
    if predictions is not None:
        answers = predictions.predictions[:n]
        traces, spans = predictions.traces[:n], predictions.spans[:n]
        if predictions.scores is not None and predictions.score_kind == SCORE_PROBABILITY:
            scores = predictions.scores[:n].astype(np.float64)
            if np.isnan(answers).all() and model.kind != "multilabel":
                answers = likeliest(scores)
    if model.kind == "multilabel":
        answers = unpacked(answers, model.declared)
    profile = reference.profile
    sample = Sample(
        task_of(model),
        tuple(feature.name for feature in profile.features),
        tuple(feature.type for feature in profile.features),
        block.columns[reference.binding(block.schema).columns],
        tuple(model.classes[: model.declared]),
        answers,
        np.full(answers.shape, np.nan),
        scores,
        weights,
        times,
    )
    return Rows(sample, np.concatenate(cells), traces, spans)


def task_of(model: Model) -> Task:
    """What the model is for."""
    if model.kind == "multilabel":
        return "multilabel"
    if not model.declared:
        return "regression"
    return "binary" if model.declared == 2 else "multiclass"


def likeliest(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """The class of the greatest probability (n,); NaN for rows without."""
    best = scores.argmax(axis=1) if scores.shape[1] > 1 else scores[:, 0] > 0.5
    return np.where(np.isnan(scores).any(axis=1), np.nan, best.astype(np.float64))


def shape_of(rows: Rows) -> tuple[object, ...]:
    """What rows must have in common to be joined."""
    sample = rows.sample
    width = None if sample.scores is None else sample.scores.shape[1]
    return sample.task, sample.names, sample.classes, width, len(rows.cells)


def joined(parts: list[Rows]) -> Rows:
    """Rows of one shape, in this order."""
    if len(parts) == 1:
        return parts[0]
    samples = [part.sample for part in parts]
    first = samples[0]
    sample = replace(
        first,
        cells=np.concatenate([one.cells for one in samples], axis=1),
        predictions=np.concatenate([one.predictions for one in samples]),
        labels=np.concatenate([one.labels for one in samples]),
        scores=None
        if first.scores is None
        else np.concatenate([one.scores for one in samples if one.scores is not None]),
        weights=np.concatenate([one.weights for one in samples]),
        times=np.concatenate([one.times for one in samples if one.times is not None]),
    )
    return Rows(
        sample,
        np.concatenate([part.cells for part in parts], axis=1),
        np.concatenate([part.traces for part in parts]),
        np.concatenate([part.spans for part in parts]),
    )


def _chosen(rows: Rows, mask: NDArray[np.bool_]) -> Rows:
    return Rows(rows.sample.take(mask), rows.cells[:, mask], rows.traces[mask], rows.spans[mask])
