"""Stage 2, capture: a single row of a pandas data frame, as Python values.

Of one row numpy's operations cost more than the values do. Reads the frame's parts; answers the type and the cell of
each column, a number or a category's code, as `Input.numbers` has them. Guarantee: the same types and cells as the row
has within a larger frame; what has no type of its own (objects that are neither text nor number) is left to the general
way. Memory: nothing is kept.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from mlspan.columns import BOOLEAN, CATEGORICAL, NUMERIC, TextCodes, encode, number_of, seconds
from mlspan.inputs.pandas_blocks import (
    ARROW_BOOL,
    ARROW_NUMBER,
    BOOL,
    CATEGORY,
    FLOAT,
    NULLABLE,
    NULLABLE_BOOL,
    OBJECT,
    SPARSE,
    STRING,
    TIME,
    Part,
)

_NUMBERS: Final = {
    **dict.fromkeys((NULLABLE, SPARSE, ARROW_NUMBER), NUMERIC),
    **dict.fromkeys((NULLABLE_BOOL, ARROW_BOOL), BOOLEAN),
}
"""Extension arrays of numbers: the type of their columns."""


def read_row(
    parts: Sequence[Part], width: int, codes: TextCodes, known: list[str | None]
) -> tuple[list[str], list[float]] | None:
    """Type and cell of each column; None: the general way.

    Args:
        parts: of a frame of one row.
        width: its columns.
        codes: where texts get their codes.
        known: the type found so far for each column of Python objects; brought up to date.
    """
    types = [NUMERIC] * width
    cells: list[float] = [0.0] * width
    for places, values, reader in parts:
        if reader == FLOAT:
            for place, value in zip(places.tolist(), values.ravel().tolist(), strict=True):
                cells[place] = value
        elif reader == STRING:
            place = int(places[0])
            types[place] = CATEGORICAL
            # Arrow's texts, four times as fast as pandas gives them
            arrow = getattr(values, "__arrow_array__", None)
            cells[place] = codes[values[0] if arrow is None else arrow()[0].as_py()]
        elif reader == CATEGORY:
            place = int(places[0])
            types[place] = CATEGORICAL
            cells[place] = codes.of_category(values.codes.item(), values.categories)
        elif reader in (BOOL, TIME):
            kind = BOOLEAN if reader == BOOL else NUMERIC
            row = values.ravel() if reader == BOOL else seconds(values.ravel())
            for place, value in zip(places.tolist(), row.tolist(), strict=True):
                cells[place], types[place] = value, kind
        elif reader in _NUMBERS:
            place = int(places[0])
            cells[place], types[place] = number_of(values[0]), _NUMBERS[reader]
        elif reader == OBJECT and type(values) is np.ndarray:
            for place, value in zip(places.tolist(), values.ravel().tolist(), strict=True):
                found = encode([value], codes, known[place])
                if found is None:
                    return None
                types[place] = known[place] = found[0]
                cells[place] = found[1].item()
        else:
            return None
    return types, cells
