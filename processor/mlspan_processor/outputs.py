"""Stage 4, part 5: answers and labels of several outputs (multilabel), one number a row.

In: a block's predictions and scores, or a label; the outputs' names. Out: which outputs hold, as the sum of 2**k over
them: a double holds 53 of these exactly, so that rows of such models wait for their labels in the same columns as all
others. Scores become probabilities of the outputs: where a payload has an index of "0" and "1" for each output, its
scores are of the index that was predicted.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mlspan.payload import PREDICTION_CLASS, PREDICTION_NONE, SCORE_NONE, SCORE_PROBABILITY
from mlspan_processor.quality.base import Labelled
from mlspan_processor.rows import Block

MAX_OUTPUTS: Final = 53
"""Outputs of a model whose labels are joined."""
SEPARATOR: Final = ";"
"""Between the names of outputs in a label that is one text; alone it says that none holds."""
POSITIVE: Final = ("1", "1.0", "True")
_SHOWN: Final = 10
Label = str | float | tuple[str, ...] | tuple[bool, ...]


def packed(values: NDArray[Any]) -> NDArray[np.float64]:
    """(n,) sums of 2**k over the outputs that hold, of (n, n_outputs); NaN for rows with a NaN."""
    sums = (values > 0) @ np.exp2(np.arange(values.shape[1]))
    return np.where(np.isnan(values).any(axis=1), np.nan, sums)


def unpacked(sums: NDArray[np.floating], n_outputs: int) -> NDArray[np.float64]:
    """(n, n_outputs) of 0 and 1 from (n,) sums; NaN rows for NaN."""
    missing = np.isnan(sums)
    bits = np.where(missing, 0.0, sums).astype(np.int64)[:, None] >> np.arange(n_outputs)
    return np.where(missing[:, None], np.nan, (bits & 1).astype(np.float64))


def unpacked_batch(batch: Labelled, n_outputs: int) -> Labelled:
    """Labelled rows as quality takes them."""
    labels, predictions = unpacked(batch.labels, n_outputs), unpacked(batch.predictions, n_outputs)
    return batch._replace(labels=labels, predictions=predictions)


def outputs_of(block: Block) -> tuple[str, ...]:
    """The outputs of a block of a multilabel model; () where it has others, or more than can be joined."""
    names = block.schema.outputs
    wide = {block.predictions.shape[1], block.scores.shape[1]} - {0}
    return names if 1 < len(names) <= MAX_OUTPUTS and wide == {len(names)} else ()


def answers_of(block: Block) -> tuple[NDArray[np.float64], NDArray[np.float32] | None, int]:
    """What a label can be compared with: packed predictions (n_rows,), scores (n_rows, n_outputs) or None, their
    kind."""
    scores = block.scores if block.scores.shape[1] else None
    kind = block.score_kind if scores is not None else SCORE_NONE
    if block.prediction_kind == PREDICTION_NONE or not block.predictions.shape[1]:
        return np.full(block.n_rows, np.nan), scores, kind
    if block.prediction_kind != PREDICTION_CLASS:
        return packed(block.predictions.astype(np.float64)), scores, kind
    positive = [i for i, text in enumerate(block.schema.classes) if text in POSITIVE]
    holds = np.isin(block.predictions, positive)
    if scores is not None and kind == SCORE_PROBABILITY:
        scores = np.where(holds, scores, 1 - scores).astype(np.float32)
    return packed(np.where(block.predictions < 0, np.nan, holds.astype(np.float64))), scores, kind


def truth_of(label: Label, outputs: Sequence[str]) -> float | str:
    """A label as a packed number; or why it is none for a model with these outputs."""
    known = ", ".join(f'"{name}"' for name in outputs[:_SHOWN]) + (", …" if len(outputs) > _SHOWN else "")
    if isinstance(label, float):
        return f'label "{label:g}" is one number; must say which of the outputs {known} hold'
    if isinstance(label, str):
        label = tuple(name for one in label.split(SEPARATOR) if (name := one.strip()))
    if label and all(isinstance(one, bool) for one in label):
        if len(label) != len(outputs):
            return f"label has {len(label)} values; must have {len(outputs)}, one for each of the outputs {known}"
        return float(sum(1 << k for k, holds in enumerate(label) if holds))
    places = {name: k for k, name in enumerate(outputs)}
    strange = [one for one in label if one not in places]
    if strange:
        return f'label names the output "{strange[0]}"; must be some of {known}'
    return float(sum(1 << places[name] for name in {str(one) for one in label}))
