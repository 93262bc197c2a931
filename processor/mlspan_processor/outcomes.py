"""Stage 5, counts: calls flagged as anomalous and labelled predictions by whether they were right, with exemplars.

In: what a block's scores or a label's rows say. Out: counts in the instruments. Work is per batch.
"""

import numpy as np
from numpy.typing import NDArray

from mlspan.semconv import attributes as names
from mlspan.semconv import metrics as semconv
from mlspan_processor.annotate import Judged
from mlspan_processor.batch import Batch, model_attributes
from mlspan_processor.instruments import Exemplar, Instruments
from mlspan_processor.model import Model
from mlspan_processor.pending import Pending
from mlspan_processor.rows import Block


def count_flagged(model: Model, batch: Batch, block: Block, judged: Judged, instruments: Instruments) -> None:
    """Count a block's flagged calls."""
    calls = block.call[block.firsts]
    flagged = np.flatnonzero(judged.flags & batch.fresh[calls])
    if not len(flagged):
        return
    count = instruments.count(semconv.ML_ANOMALY_COUNT.name, model_attributes(model.key))
    count.value += float(batch.weights[calls[flagged]].sum())
    call, score = int(calls[flagged[-1]]), float(judged.scores[flagged[-1]])
    count.exemplar = Exemplar(score, int(batch.ends[call]), batch.calls.trace_ids[call], batch.calls.span_ids[call])


def count_outcomes(model: Model, places: NDArray[np.intp], pending: Pending, instruments: Instruments) -> None:
    """Count labelled predictions of a classifier as right or wrong.

    Args:
        model: whose.
        places: (n,) of the rows in the ring.
        pending: the ring.
        instruments: where to count.
    """
    if not model.classes:
        return
    columns = pending.columns
    predictions, labels = columns["prediction"][places], columns["label"][places]
    known = ~np.isnan(predictions)
    right = predictions == labels
    for outcome, mask in (("correct", known & right), ("incorrect", known & ~right)):
        at = places[mask]
        if not len(at):
            continue
        attributes = (*model_attributes(model.key), (names.ML_QUALITY_OUTCOME, outcome))
        count = instruments.count(semconv.ML_QUALITY_OUTCOMES.name, attributes)
        count.value += float(columns["weight"][at].sum())
        place = int(at[-1])
        trace = b"".join(int(columns[half][place]).to_bytes(8, "little") for half in ("trace_0", "trace_1"))
        span = int(columns["span"][place]).to_bytes(8, "little")
        count.exemplar = Exemplar(1.0, int(columns["time"][place]), trace, span)
