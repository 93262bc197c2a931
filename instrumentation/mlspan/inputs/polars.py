"""Stage 2, capture: polars data frames and series.

A LazyFrame is not captured: reading a row would run its query a second time.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np

from mlspan.captured import Schema
from mlspan.columns import BOOLEAN, CATEGORICAL, NUMERIC, TextCodes
from mlspan.inputs.base import Block, Indices, Numbers, Selected, matrices, row_of, together

_NUMBERS: Final = frozenset(
    {"Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64", "Float32", "Float64"}
)
_ARRAYS: Final = _NUMBERS | {"Boolean", "Date", "Datetime", "Duration"}
_TEXTS: Final = frozenset({"String", "Utf8", "Categorical", "Enum"})
_ROW_TYPES: Final = {
    **dict.fromkeys(_NUMBERS, NUMERIC),
    "Boolean": BOOLEAN,
    **dict.fromkeys(_TEXTS, CATEGORICAL),
}


class PolarsSource:
    """A polars DataFrame."""

    __slots__ = ("_frame", "_kinds", "columns", "names", "python_columns", "rows")

    def __init__(self, frame: Any) -> None:
        self._frame = frame
        self.rows, self.columns = frame.shape
        self.names = tuple(frame.columns)
        self._kinds = [_base_name(dtype) for dtype in frame.dtypes]
        self.python_columns = sum(kind not in _ARRAYS for kind in self._kinds)

    def row(self, codes: TextCodes, selection: Selected) -> tuple[Schema, Sequence[float]] | None:
        """Schema and cells of the only row, of whose columns all are selected; None: see `read`."""
        types = [_ROW_TYPES.get(kind) for kind in self._kinds]
        return row_of(types, self._frame.row(0), codes, selection)

    def read(self, indices: Indices | None, positions: Indices | None, width: int) -> Iterable[Block]:
        """One matrix for all numbers of a dtype, one block for each other column."""
        if not width:
            return []
        frame, kinds = self._frame, self._kinds
        if positions is not None or width < self.columns:
            at = list(range(width)) if positions is None else positions.tolist()
            frame, kinds = frame[:, at], [kinds[j] for j in at]
        if indices is not None:
            frame = frame[indices]
        if len(set(kinds)) == 1 and kinds[0] in _NUMBERS:
            return [Block(slice(0, width), frame.to_numpy())]
        numbers: Numbers = {}
        blocks: list[Block] = []
        for slot, (kind, column) in enumerate(zip(kinds, frame.get_columns(), strict=True)):
            if kind in _NUMBERS:
                together(numbers, slot, column.to_numpy())
            elif kind == "Boolean" and column.null_count():
                values = [np.nan if value is None else value for value in column.to_list()]
                blocks.append(Block(slot, np.array(values, np.float64), BOOLEAN))
            elif kind in _ARRAYS:
                blocks.append(Block(slot, np.asarray(column.to_numpy())))
            else:
                blocks.append(Block(slot, column.to_list(), CATEGORICAL if kind in _TEXTS else None))
        return blocks + matrices(numbers)


def _base_name(dtype: Any) -> str:
    """Of a dtype, or of the class that stands for one."""
    return str((dtype if isinstance(dtype, type) else type(dtype)).__name__)
