"""Stages 2 and 3 in one step for the commonest call: one row, one output, nothing odd about it.

Reads what `capture_input` captured and the call's result; writes the payload and the readable answer, byte for byte
what `capture_output` and `pack` make, without numpy in between. Guarantee: whatever is not plain (other types, several
outputs, NaN, ids of the user's) is left to them. Memory: a header of a few bytes per schema and number of classes.
"""

from collections.abc import Callable
from struct import Struct
from typing import Final

import numpy as np

from mlspan.budget import ByteBudget
from mlspan.captured import Input, Schema
from mlspan.classes import Classes
from mlspan.columns import CATEGORICAL
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
_INDEX: Final = _TAILS[0]
_FLOAT: Final = Struct("<f")
# Keys of `Schema.packers` beside the numbers of classes.
_CLASS: Final = 0
_NUMBER: Final = -1


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
    schema = captured.schema
    if type(result) is not np.ndarray or schema is None:
        return None
    if classes is not None and classes.outputs != 1:
        return None
    if operation == "predict_proba":
        if classes is None or result.ndim != 2 or len(result) != 1 or result.dtype.kind != "f":
            return None
        return answer_probabilities(result.tolist()[0], captured, classes, max_bytes, limiter)
    if operation != "predict" or result.ndim != 1 or len(result) != 1:
        return None
    if classes is not None:
        index = classes.index(result.tolist()[0])
        if index < 0:
            return None
        value: str | float = classes.labels[index]
        head, pack = schema.packers.get(_CLASS) or _packer(schema, _CLASS, PREDICTION_CLASS, SCORE_NONE, "i")
        data = _payload(head, pack, captured, _INDEX, (index,))
    else:
        if result.dtype.kind != "f":
            return None
        value = float(result[0])
        if not -_FLOAT32_MAX <= value <= _FLOAT32_MAX:
            return None
        head, pack = schema.packers.get(_NUMBER) or _packer(schema, _NUMBER, PREDICTION_NUMBER, SCORE_NONE, "f")
        data = _payload(head, pack, captured, _FLOAT, (value,))
    if data is None or len(data) > max_bytes or not limiter.take(len(data)):
        return None
    return data, value, None


def answer_probabilities(
    row: list[float], captured: Input, classes: Classes, max_bytes: int, limiter: ByteBudget
) -> tuple[bytes, str, float] | None:
    """The same of probabilities that are at hand.

    Args:
        row: one for each class.
        captured: of the same call's input.
        classes: of the model.
        max_bytes: bound on the payload.
        limiter: the process's byte budget.
    """
    schema, count = captured.schema, len(row)
    if schema is None or count != len(classes.labels) or not 0 < count <= MAX_CLASSES:
        return None
    score = max(row)
    total = sum(row)
    if total != total or min(row) < 0 or score > 1:  # the first: NaN
        return None
    index = row.index(score)
    if classes.threshold is not None:
        index = classes.answer(row)
        score = row[index]
    head, pack = schema.packers.get(count) or _packer(
        schema, count, PREDICTION_CLASS, SCORE_PROBABILITY, f"i{count}f", count
    )
    numbers = captured.numbers
    if numbers is not None:
        try:
            data = pack(head, *numbers, index, *row)
        except OverflowError:
            return None
    else:
        found = _payload(head, pack, captured, _TAILS[count], (index, *row))
        if found is None:
            return None
        data = found
    if len(data) > max_bytes or not limiter.take(len(data)):
        return None
    return data, classes.labels[index], score


def _payload(
    head: bytes, pack: Callable[..., bytes], captured: Input, tail: Struct, answers: tuple[float, ...]
) -> bytes | None:
    """All parts of a payload in one; None where there are no cells, or where numpy makes infinities of them."""
    if captured.numbers is not None:
        try:
            return pack(head, *captured.numbers, *answers)
        except OverflowError:
            return None
    cells = captured.cells
    return None if cells is None else head + cells.tobytes() + tail.pack(*answers)


def _packer(
    schema: Schema, key: int, prediction_kind: int, score_kind: int, answers: str, scores: int = 0
) -> tuple[bytes, Callable[..., bytes]]:
    """Header and column bits of a one-row payload, and what packs them with row and answers; kept at the schema."""
    width = len(schema.names)
    head = HEADER.pack(MAGIC, VERSION, prediction_kind, score_kind, 1, 1, width, 1, scores, 0) + schema.bits
    cells = "".join("I" if kind == CATEGORICAL else "f" for kind in schema.types)
    found = schema.packers[key] = head, Struct(f"<{len(head)}s{cells}{answers}").pack
    return found
