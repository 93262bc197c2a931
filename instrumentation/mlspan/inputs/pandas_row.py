"""Stage 2, capture: a single row of a pandas data frame, as Python values.

Of one row numpy's operations cost more than the values do. Reads the frame's parts; answers the type and the cell of
each column, a number or a category's code, as `Input.numbers` has them. Rows of frames that are put together like the
one before are read by a `Plan`, in half the time. Guarantee: the same types and cells as the row has within a larger
frame; what has no type of its own (objects that are neither text nor number) is left to the general way. Memory: one
plan for each set of columns.
"""

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, Final, NamedTuple

import numpy as np

from mlspan.captured import Schema
from mlspan.columns import BOOLEAN, CATEGORICAL, NUMERIC, PLAIN_TEXT, TextCodes, encode, number_of, seconds
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


def _text(values: Any, codes: TextCodes) -> float:
    return codes[values[0]]


def _arrow_text(values: Any, codes: TextCodes) -> float:
    # four times as fast as pandas gives it
    return codes[values.__arrow_array__()[0].as_py()]


def _category(values: Any, codes: TextCodes) -> float:
    return codes.of_category(values.codes.item(), values.categories)


def _number(values: Any, codes: TextCodes) -> float:  # noqa: ARG001 - one signature for all readers
    return number_of(values[0])


_Reader = Callable[[Any, TextCodes], float]

_READERS: Final[dict[str, tuple[str, _Reader]]] = {
    **dict.fromkeys((NULLABLE, SPARSE, ARROW_NUMBER), (NUMERIC, _number)),
    **dict.fromkeys((NULLABLE_BOOL, ARROW_BOOL), (BOOLEAN, _number)),
    CATEGORY: (CATEGORICAL, _category),
    STRING: (CATEGORICAL, _text),
}
"""Extension arrays: the type of their columns, and what reads the only cell."""
_PLANNED: Final = {FLOAT, BOOL, OBJECT, STRING, CATEGORY, NULLABLE, NULLABLE_BOOL}
"""What the class of the array, or numpy's dtype, tells all about."""


def _reader(part: Part) -> _Reader:
    is_arrow = part.reader == STRING and hasattr(part.values, "__arrow_array__")
    return _arrow_text if is_arrow else _READERS[part.reader][1]


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
    for part in parts:
        places, values, reader = part
        if reader == FLOAT:
            for place, value in zip(places.tolist(), values.ravel().tolist(), strict=True):
                cells[place] = value
        elif reader in _READERS:
            place = int(places[0])
            types[place] = _READERS[reader][0]
            cells[place] = _reader(part)(values, codes)
        elif reader in (BOOL, TIME):
            kind = BOOLEAN if reader == BOOL else NUMERIC
            row = values.ravel() if reader == BOOL else seconds(values.ravel())
            for place, value in zip(places.tolist(), row.tolist(), strict=True):
                cells[place], types[place] = value, kind
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


class Planned(NamedTuple):
    """One block of a frame.

    Attributes:
        kind: numpy's dtype, or the class of the extension array.
        places: the bytes of the places of its columns.
        read: for an extension array; None for numbers and texts in numpy's.
        is_text: whether these are texts.
    """

    kind: Any
    places: bytes
    read: _Reader | None
    is_text: bool


class Plan:
    """How to read the only row of a frame that is put together like the one the plan was made from.

    Attributes:
        schema: of such rows.
    """

    __slots__ = ("_blocks", "_in_order", "schema")

    def __init__(self, parts: Sequence[Part], schema: Schema) -> None:
        self.schema = schema
        self._blocks = []
        for part in parts:
            places, values, reader = part
            is_array = type(values) is np.ndarray
            self._blocks.append(
                Planned(
                    values.dtype if is_array else type(values),
                    places.tobytes(),
                    None if is_array else _reader(part),
                    reader == OBJECT,
                )
            )
        order = np.concatenate([part.places for part in parts])
        at = np.argsort(order, kind="stable").tolist()
        self._in_order: Callable[[list[float]], tuple[float, ...]] = tuple
        if at != list(range(len(at))):
            self._in_order = itemgetter(*at)

    def read(self, frame: Any, codes: TextCodes) -> tuple[float, ...] | None:
        """The cells of the row as `read_row` makes them; None where the frame is another than planned for."""
        row: list[float] = []
        try:
            blocks = frame._mgr.blocks
            if len(blocks) != len(self._blocks):
                return None
            for block, (kind, places, read, is_text) in zip(blocks, self._blocks, strict=True):
                values = block.values
                if block.mgr_locs.as_array.tobytes() != places:
                    return None
                if read is not None:
                    if type(values) is not kind:
                        return None
                    row.append(read(values, codes))
                    continue
                if type(values) is not np.ndarray or values.dtype is not kind:
                    return None
                items = values.ravel().tolist()
                if is_text:
                    if not set(map(type, items)) <= PLAIN_TEXT:
                        return None
                    items = [codes[item] for item in items]
                row += items
        except (AttributeError, TypeError, ValueError):  # not as it has been since pandas 2
            return None
        return self._in_order(row) if len(row) == len(self.schema.names) else None


def plan_of(parts: Sequence[Part], schema: Schema) -> Plan | None:
    """The plan for rows like one that `read_row` has read; None where the next one may have other types.

    Args:
        parts: of the frame of one row.
        schema: of all its columns.
    """
    for places, values, reader in parts:
        if reader not in _PLANNED or type(values).__name__ == "ArrowExtensionArray":
            return None
        if reader == OBJECT and any(schema.types[place] != CATEGORICAL for place in places.tolist()):
            return None
    return Plan(parts, schema)
