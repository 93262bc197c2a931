"""Stage 5, labels: the rows of a block as predictions that a label may come for.

In: a block with its batch. Out: Predictions with keys: of the user's own ids where the row has one (in the
payload, or on the span), else of the default id. None for rows that labels are not for.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from mlspan_processor.batch import Batch
from mlspan_processor.identity import id_keys, row_keys
from mlspan_processor.model import Model
from mlspan_processor.pending import Predictions
from mlspan_processor.rows import Block

_GRID: Final = 2.0**30


def predictions_of(
    model: Model,
    batch: Batch,
    block: Block,
    weights: NDArray[np.float64],
    times: NDArray[np.int64],
    used: NDArray[np.bool_],
) -> Predictions | None:
    """The used rows of a block, to be kept; None when there are none or labels are not for them.

    Args:
        model: whose rows.
        batch: their calls.
        block: the rows.
        weights, times, used: (n_rows,) of the block.
    """
    answers = model.answers(block)
    if answers is None or not used.any():
        return None
    predictions, scores, kind = answers
    at = np.flatnonzero(used)
    calls = block.call[at]
    traces, spans = batch.traces[calls], batch.spans[calls]
    keys = row_keys(traces, spans, block.number[at])
    named = np.zeros(len(at), bool)
    ids = block.ids or _ids_on_spans(batch, block)
    if ids:
        position = {row: i for i, row in enumerate(at.tolist())}
        where = [position[row] for row in ids if row in position]
        keys[where] = id_keys([text for row, text in ids.items() if row in position])
        named[where] = True
    return Predictions(
        model.slot,
        keys,
        named,
        times[at],
        predictions[at],
        None if scores is None else scores[at],
        kind,
        _exact(weights[at]),
        traces,
        spans,
    )


def _exact(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights as multiples of 2**-30: sums up to 2**23 are then exact in any order, so that labelled and predicted rows
    add up to the same."""
    return np.round(weights * _GRID) / _GRID


def _ids_on_spans(batch: Batch, block: Block) -> dict[int, str]:
    """Ids by row, from the span attributes of one-row calls."""
    ids = batch.calls.ids
    if not ids or block.n_rows != len(block.firsts):
        return {}
    return {row: ids[call] for row, call in enumerate(block.call.tolist()) if call in ids}
