"""Stage 4, part 0: the calls of several requests as arrays, and what is counted of them whether they carry
rows or not.

In: Calls. Out: weights, times and ids as arrays, which spans are new; durations and answers into the
instruments.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from mlspan.payload import PREDICTION_CLASS
from mlspan.semconv import attributes as names
from mlspan.semconv.metrics import ML_PREDICTION_COUNT
from mlspan_processor.decode import Calls
from mlspan_processor.duplicates import RecentSpans, recent_keys, span_keys
from mlspan_processor.instruments import MAX_CLASSES, OVERFLOW, Attributes, Instruments
from mlspan_processor.rows import Block

_SECOND: Final = 1_000_000_000
_LAST: Final = np.iinfo(np.int64).max
OTHER_CLASS: Final = "_OTHER"
Key = tuple[str, str]
"""Name and version of a model."""


class Batch:
    """Calls as arrays.

    Attributes:
        calls: the calls.
        now: when they are worked on, nanoseconds since the epoch.
        starts, ends: (n_calls,) nanoseconds since the epoch.
        weights: (n_calls,) adjusted counts, 1 where unknown; `known_weight` (n_calls,) where not.
        traces: (n_calls, 2) halves of the trace ids; `spans` (n_calls,) span ids; little-endian.
        fresh: (n_calls,) True for spans that were not seen before.
        kind_of: (n_calls,) index into the calls' kinds.
    """

    def __init__(self, calls: Calls, recent: RecentSpans, now: int) -> None:
        n = len(calls)
        self.calls = calls
        self.now = now
        self.starts, self.ends = _times(calls.starts), _times(calls.ends)
        self.weights = np.ones(n)
        self.known_weight = np.zeros(n, bool)
        if calls.weights:
            at = list(calls.weights)
            self.weights[at] = list(calls.weights.values())
            self.known_weight[at] = True
        self.traces, self.spans = span_keys(calls.trace_ids, calls.span_ids)
        self.fresh = recent.fresh(recent_keys(self.traces, self.spans))
        self.kind_of = np.array(calls.kind_of, np.intp)


def _times(nanoseconds: list[int]) -> NDArray[np.int64]:
    """Times of spans; those beyond int64 (the year 2262) are its greatest."""
    return np.minimum(np.array(nanoseconds, np.uint64), np.uint64(_LAST)).astype(np.int64)


def model_attributes(key: Key) -> Attributes:
    """ml.model.name and ml.model.version."""
    return (names.ML_MODEL_NAME, key[0]), (names.ML_MODEL_VERSION, key[1])


def count_durations(batch: Batch, kinds: list[Attributes], instruments: Instruments) -> None:
    """Add new calls to ml.operation.duration; `kinds` has the series of each kind of call.

    A span without a start, or that ends before it, took no time.
    """
    calls = batch.calls
    at = np.flatnonzero(batch.fresh)
    whole = len(at) == len(calls)
    instruments.observe_durations(
        kinds,
        batch.kind_of[at],
        np.where(batch.starts[at] > 0, np.maximum(batch.ends[at] - batch.starts[at], 0), 0) / _SECOND,
        batch.weights[at],
        batch.ends[at],
        calls.trace_ids if whole else [calls.trace_ids[i] for i in at.tolist()],
        calls.span_ids if whole else [calls.span_ids[i] for i in at.tolist()],
    )


def count_answers(block: Block, weights: NDArray[np.float64], key: Key | None, instruments: Instruments) -> None:
    """Add a block's rows to ml.prediction.count by class; `key` is None for models beyond the limit.

    Classes beyond the first MAX_CLASSES count as "_OTHER", answers that are no known class without a class.
    """
    if block.prediction_kind != PREDICTION_CLASS or block.predictions.shape[1] != 1:
        add_answers(key, "", float(weights.sum()), instruments)
        return
    classes = block.schema.classes
    flat = block.predictions[:, 0]
    inside = np.where((flat >= 0) & (flat < len(classes)), flat, len(classes))
    counts = np.bincount(inside, weights, len(classes) + 1)
    for index in np.flatnonzero(counts).tolist():
        text = ""
        if index < len(classes):
            text = classes[index] if index < MAX_CLASSES else OTHER_CLASS
        add_answers(key, text, float(counts[index]), instruments)


def add_answers(key: Key | None, text: str, weight: float, instruments: Instruments) -> None:
    """Add rows with one answer to ml.prediction.count."""
    attributes: Attributes = OVERFLOW
    if key is not None:
        attributes = model_attributes(key)
        if text:
            attributes = (*attributes, (names.ML_PREDICTION_CLASS, text))
    instruments.count(ML_PREDICTION_COUNT.name, attributes).value += weight


def call_attributes(model: Attributes, operation: str, error: str) -> Attributes:
    """The attributes of a call's duration."""
    attributes: Attributes = (*model, (names.ML_OPERATION_NAME, operation))
    return (*attributes, (names.ERROR_TYPE, error)) if error else attributes
