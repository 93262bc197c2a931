"""Stage 2, capture: polars data frames and series.

A LazyFrame is not captured: reading a row would run its query a second time.
"""

from collections.abc import Iterable
from typing import Any, Final

import numpy as np

from mlspan.columns import CATEGORICAL
from mlspan.inputs.base import Block, Indices

_ARRAYS: Final = frozenset(
    {
        *("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64", "Float32", "Float64"),
        *("Boolean", "Date", "Datetime", "Duration"),
    }
)

_TEXTS: Final = frozenset({"String", "Utf8", "Categorical", "Enum"})


class PolarsSource:
    """A polars DataFrame."""

    __slots__ = ("_frame", "columns", "names", "python_columns", "rows")

    def __init__(self, frame: Any) -> None:
        self._frame = frame
        self.rows, self.columns = frame.shape
        self.names = tuple(frame.columns)
        self.python_columns = sum(_base_name(dtype) not in _ARRAYS for dtype in frame.dtypes)

    def read(self, indices: Indices | None, positions: Indices | None, width: int) -> Iterable[Block]:
        """One block a column."""
        frame = self._frame
        at = list(range(width)) if positions is None else positions.tolist()
        if len(at) < self.columns:
            frame = frame[:, at]
        if indices is not None:
            frame = frame[indices]
        return [_block(slot, column) for slot, column in enumerate(frame.get_columns())]


def _block(slot: int, column: Any) -> Block:
    name = _base_name(column.dtype)
    if name in _ARRAYS and not (name == "Boolean" and column.null_count()):
        return Block(slot, np.asarray(column.to_numpy()))
    return Block(slot, column.to_list(), CATEGORICAL if name in _TEXTS else None)


def _base_name(dtype: Any) -> str:
    return str(dtype.base_type().__name__)
