"""Stages 2 and 3 in one step for the commonest call: one row, one output, nothing odd about it.

Reads what `capture_input` captured and the call's result; writes the payload and the readable answer, byte for byte
what `capture_output` and `pack` make, without numpy in between. Guarantee: whatever is not plain (other types, several
outputs, NaN, ids of the user's) is left to them. Memory: a header of a few bytes per schema and number of classes.
"""

from struct import Struct
from typing import Final

import numpy as np

from mlspan.budget import ByteBudget
from mlspan.captured import Input, Schema
from mlspan.classes import Classes
from mlspan.payload import (
    HEADER,
    MAGIC,
    PREDICTION_CLASS,
    PREDICTION_NUMBER,
    SCORE_NONE,
    SCORE_PROBABILITY,
    VERSION,
)

MAX_CLASSES: Final = 64
_FLOAT32_MAX: Final = float(np.finfo(np.float32).max)
_TAILS: Final = tuple(Struct(f"<i{count}f") for count in range(MAX_CLASSES + 1))
_NUMBER: Final = Struct("<f")


def answer_row(
    operation: str, result: object, captured: Input, classes: Classes | None, max_bytes: int, limiter: ByteBudget
) -> tuple[bytes, str | float, float | None] | None:
    """The payload of a one-row call, the class or number it answered, and that class's probability.

    None for all that the general way has to look at.

    Args:
        operation: the method's name.
        result: what it returned.
        captured: of the same call's input: one row, with cells.
        classes: of the model, or None.
        max_bytes: bound on the payload.
        limiter: the process's byte budget, from which the payload's size is taken when there is an answer.
    """
    schema, cells = captured.schema, captured.row
    if type(result) is not np.ndarray or len(result) != 1 or schema is None:
        return None
    if cells is None:
        if captured.cells is None:
            return None
        cells = captured.cells.tobytes()
    if classes is not None and classes.outputs != 1:
        return None
    if operation == "predict_proba":
        if classes is None or result.ndim != 2 or result.dtype.kind != "f":
            return None
        return answer_probabilities(result.tolist()[0], schema, cells, classes, max_bytes, limiter)
    if operation != "predict" or result.ndim != 1:
        return None
    if classes is not None:
        index = classes.index(result.tolist()[0])
        if index < 0:
            return None
        value: str | float = classes.labels[index]
        head = schema.heads.get(0) or _head(schema, 0, PREDICTION_CLASS, SCORE_NONE, 0)
        tail = _TAILS[0].pack(index)
    else:
        if result.dtype.kind != "f":
            return None
        value = float(result[0])
        if not -_FLOAT32_MAX <= value <= _FLOAT32_MAX:
            return None
        head = schema.heads.get(-1) or _head(schema, -1, PREDICTION_NUMBER, SCORE_NONE, 0)
        tail = _NUMBER.pack(value)
    data = head + cells + tail
    if len(data) > max_bytes or not limiter.take(len(data)):
        return None
    return data, value, None


def answer_probabilities(
    row: list[float], schema: Schema, cells: bytes, classes: Classes, max_bytes: int, limiter: ByteBudget
) -> tuple[bytes, str, float] | None:
    """The same of probabilities that are at hand.

    Args:
        row: one for each class.
        schema: of the captured row.
        cells: its bytes.
        classes: of the model.
        max_bytes: bound on the payload.
        limiter: the process's byte budget.
    """
    if len(row) != len(classes.labels) or not 0 < len(row) <= MAX_CLASSES:
        return None
    score = max(row)
    total = sum(row)
    if total != total or min(row) < 0 or score > 1:  # the first: NaN
        return None
    index = row.index(score)
    head = schema.heads.get(len(row)) or _head(schema, len(row), PREDICTION_CLASS, SCORE_PROBABILITY, len(row))
    data = head + cells + _TAILS[len(row)].pack(index, *row)
    if len(data) > max_bytes or not limiter.take(len(data)):
        return None
    return data, classes.labels[index], score


def _head(schema: Schema, key: int, prediction_kind: int, score_kind: int, scores: int) -> bytes:
    """Header and column bits of a one-row payload, kept at the schema."""
    fields = (MAGIC, VERSION, prediction_kind, score_kind, 1, 1, len(schema.names), 1, scores, 0)
    head = schema.heads[key] = HEADER.pack(*fields) + schema.bits
    return head
