"""Stage 2, capture: polars data frames and series.

A LazyFrame is not captured: reading a row would run its query a second time.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mlspan.captured import Schema
from mlspan.columns import BOOLEAN, CATEGORICAL, NUMERIC, TextCodes
from mlspan.inputs.base import Block, Indices, Selected, matrices, row_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
_FEW: Final = 24
"""Rows that are sooner read one by one than column by column."""


class PolarsSource:
    """A polars DataFrame."""

    __slots__ = ("_frame", "_kinds", "columns", "names", "python_columns", "rows")

    def __init__(self, frame: Any) -> None:
        self._frame = frame
        self.rows, self.columns = frame.shape
        self.names = tuple(frame.columns)
        self._kinds, self.python_columns = _kinds(
            # Which are classes where they need no parameters, in some versions.
            tuple([dtype if isinstance(dtype, type) else type(dtype) for dtype in frame.dtypes])
        )

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
        if indices is not None and len(indices) <= _FEW and _ROW_TYPES.keys() >= set(kinds):
            return _by_row([frame.row(at) for at in indices.tolist()], kinds)
        if indices is not None:
            blocks = _in_place(frame.get_columns(), kinds, indices)
            if blocks is not None:
                return blocks
            frame = frame[indices]
        if kinds[0] in _NUMBERS and kinds.count(kinds[0]) == len(kinds):
            return [Block(slice(0, width), frame.to_numpy())]
        return _copied(frame.get_columns(), kinds)


def _by_row(rows: list[tuple[Any, ...]], kinds: Sequence[str]) -> list[Block]:
    """A few rows of Python's values, of which polars makes each in a microsecond for twenty columns."""
    if _NUMBERS.issuperset(kinds):
        return [Block(slice(0, len(kinds)), np.array(rows, np.float64))]
    columns = list(zip(*rows, strict=True))
    slots = [slot for slot, kind in enumerate(kinds) if kind in _NUMBERS]
    blocks = [_cells(slot, list(columns[slot]), kind) for slot, kind in enumerate(kinds) if kind not in _NUMBERS]
    if slots:
        blocks.append(Block(np.array(slots), np.array([columns[slot] for slot in slots], np.float64).T))
    return blocks


def _in_place(columns: Sequence[Any], kinds: Sequence[str], indices: Indices) -> list[Block] | None:
    """The sampled rows, read where they lie; None where a column has missing values, chunks, or would be copied.

    To gather rows of polars' own columns takes half as long again, and a thread of polars' that the caller waits for.
    """
    numbers: dict[int, NDArray[Any]] = {}
    blocks: list[Block] = []
    for slot, (kind, column) in enumerate(zip(kinds, columns, strict=True)):
        if kind not in _ARRAYS or column.null_count():
            return None
        try:
            values = column.to_numpy(allow_copy=False)[indices]
        except RuntimeError:
            return None
        if kind in _NUMBERS:
            numbers[slot] = values
        else:
            blocks.append(Block(slot, values))
    return blocks + matrices(numbers, kinds)


def _copied(columns: Sequence[Any], kinds: Sequence[str]) -> list[Block]:
    """All rows of these columns."""
    numbers: dict[int, NDArray[Any]] = {}
    blocks: list[Block] = []
    for slot, (kind, column) in enumerate(zip(kinds, columns, strict=True)):
        if kind in _NUMBERS:
            numbers[slot] = column.to_numpy()
        elif kind in _ARRAYS and not (kind == "Boolean" and column.null_count()):
            blocks.append(Block(slot, np.asarray(column.to_numpy())))
        else:
            blocks.append(_cells(slot, column.to_list(), kind))
    return blocks + matrices(numbers, kinds)


def _cells(slot: int, values: list[Any], kind: str) -> Block:
    """A column of Python's values."""
    if kind == "Boolean":
        return Block(slot, np.array([np.nan if value is None else value for value in values], np.float64), BOOLEAN)
    return Block(slot, values, CATEGORICAL if kind in _TEXTS else None)


@lru_cache(maxsize=64)
def _kinds(dtypes: tuple[type, ...]) -> tuple[list[str], int]:
    """Names of these types, and how many of them cost Python work."""
    kinds = [dtype.__name__ for dtype in dtypes]
    return kinds, sum(kind not in _ARRAYS for kind in kinds)
