"""Stage 2, capture: what a pandas data frame holds, block by block.

pandas keeps the columns of one dtype together. Its public methods put them together anew for each question (a row takes
55 µs, the list of dtypes 14, a column 10); what they are put together from is there at once. Guarantee: whatever is not
as it has been since pandas 2 (the attributes, their shapes, their number) is left to the public methods; nothing is
changed or kept.
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlspan.inputs.base import Indices

# How a column is read.
FLOAT: Final = "f"  # numpy numbers
BOOL: Final = "b"
TIME: Final = "t"
CATEGORY: Final = "c"
STRING: Final = "s"
NULLABLE: Final = "n"
NULLABLE_BOOL: Final = "N"
SPARSE: Final = "p"
ARROW: Final = "a"
ARROW_NUMBER: Final = "A"
ARROW_BOOL: Final = "B"
COMPLEX: Final = "x"
OBJECT: Final = "o"

_EXTENSIONS: Final = {
    "CategoricalDtype": CATEGORY,
    "StringDtype": STRING,
    "BooleanDtype": NULLABLE_BOOL,
    "DatetimeTZDtype": TIME,
    "SparseDtype": SPARSE,
    **dict.fromkeys(
        [f"{sign}Int{bits}Dtype" for sign in ("", "U") for bits in (8, 16, 32, 64)] + ["Float32Dtype", "Float64Dtype"],
        NULLABLE,
    ),
}
_KINDS: Final = {**dict.fromkeys("fiu", FLOAT), "b": BOOL, "M": TIME, "m": TIME, "c": COMPLEX}
_ARROW_KINDS: Final = {**dict.fromkeys("iufMm", ARROW_NUMBER), "b": ARROW_BOOL, "U": STRING}


class Part(NamedTuple):
    """Columns of one dtype.

    Attributes:
        places: (n_columns,) theirs in the frame.
        values: (n_columns, n_rows) numpy array, the frame's own memory; or one column's extension array.
        reader: how they are read.
    """

    places: Indices
    values: Any
    reader: str


def parts_of(frame: Any, columns: int) -> list[Part] | None:
    """The frame's blocks, or None where they are not as expected."""
    try:
        parts: list[Part] = []
        for block in frame._mgr.blocks:
            part = _part(block)
            if type(part.values) is not np.ndarray and part.values.ndim == 2:  # periods
                parts += [
                    Part(part.places[at : at + 1], part.values[at], part.reader) for at in range(len(part.places))
                ]
            else:
                parts.append(part)
        rows = len(frame.index)
        for places, values, _ in parts:
            columns -= len(places)
            if values.shape != ((len(places), rows) if type(values) is np.ndarray else (rows,)):
                return None
    except (AttributeError, TypeError, ValueError):
        return None
    return None if columns else parts


def _part(block: Any) -> Part:
    values = block.values
    places: Indices = block.mgr_locs.as_array
    reader = reader_of(values.dtype)
    if type(values) is not np.ndarray:
        if reader == TIME:  # of a time zone as dates in UTC
            values = np.asarray(values, "m8[ns]" if values.dtype.kind == "m" else "M8[ns]").reshape(len(places), -1)
        elif isinstance(values.dtype, np.dtype):
            values = np.asarray(values).reshape(len(places), -1)
    return Part(places, values, reader)


def reader_of(dtype: Any) -> str:
    """How a column of this dtype is read."""
    if isinstance(dtype, np.dtype):
        return _KINDS.get(dtype.kind, OBJECT)
    name = type(dtype).__name__
    if name == "ArrowDtype":
        return _ARROW_KINDS.get(dtype.kind, ARROW)
    return _EXTENSIONS.get(name, OBJECT)


def selected(part: Part, slots: NDArray[np.intp] | None) -> tuple[Indices, Any]:
    """Slots and values of the part's selected columns.

    Args:
        part: of the frame.
        slots: (n_columns,) the slot of each column of the frame, -1 for none; None: all, in their order.
    """
    if slots is None:
        return part.places, part.values
    found: Indices = slots[part.places]
    kept = found >= 0
    if kept.all():
        return found, part.values
    return found[kept], part.values[kept] if type(part.values) is np.ndarray else part.values
