"""Stage 2, capture: polars data frames and series.

A LazyFrame is not captured: reading a row would run its query a second time.
"""

from collections.abc import Iterable
from typing import Any, Final

import numpy as np

from mlspan.columns import CATEGORICAL
from mlspan.inputs.base import Block, Indices

_NUMBERS: Final = frozenset(
    {"Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64", "Float32", "Float64"}
)
_ARRAYS: Final = _NUMBERS | {"Boolean", "Date", "Datetime", "Duration"}

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
        columns = self._frame.get_columns()
        at = list(range(width)) if positions is None else positions.tolist()
        if indices is None:
            return [_block(slot, columns[j]) for slot, j in enumerate(at)]
        # Numbers are sampled from the columns' own memory: polars takes longer to gather them.
        numbers = np.empty((width, len(indices)), np.float32)
        known: list[int] = []
        others: list[int] = []
        with np.errstate(over="ignore", invalid="ignore"):
            for slot, j in enumerate(at):
                column = columns[j]
                if _base_name(column.dtype) in _NUMBERS and not column.null_count() and column.n_chunks() == 1:
                    numbers[len(known)] = column.to_numpy()[indices]
                    known.append(slot)
                else:
                    others.append(slot)
        blocks = [Block(np.array(known, np.intp), numbers[: len(known)].T)] if known else []
        if others:
            gathered = self._frame[:, [at[slot] for slot in others]][indices].get_columns()
            blocks += [_block(slot, column) for slot, column in zip(others, gathered, strict=True)]
        return blocks


def _block(slot: int, column: Any) -> Block:
    name = _base_name(column.dtype)
    if name in _ARRAYS and not (name == "Boolean" and column.null_count()):
        return Block(slot, np.asarray(column.to_numpy()))
    return Block(slot, column.to_list(), CATEGORICAL if name in _TEXTS else None)


def _base_name(dtype: Any) -> str:
    return str(dtype.base_type().__name__)
