"""Stage 2, capture: Arrow columns: pyarrow tables and record batches, and pandas' Arrow-backed columns.

pyarrow is not imported: the objects' own methods and the text of their types say all that is needed. Null is missing;
lists, structs and maps are not captured.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mlspan.captured import Schema
from mlspan.columns import BOOLEAN, CATEGORICAL, NUMERIC, TextCodes
from mlspan.inputs.base import Block, Indices, Selected, matrices, row_of

_NUMBERS: Final = ("int", "uint", "float", "double", "halffloat")
_WITHOUT_COPY: Final = frozenset(
    {"float", "double", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))}
)
"""Numbers that are numpy's as they lie there."""
_PLAIN_TEXTS: Final = frozenset({"string", "large_string"})
_FEW: Final = 32
"""Texts that are sooner read one by one than gathered: to call a function of Arrow's takes as long as reading fifty."""
_TEXTS: Final = ("string", "large_string", "dictionary")
_TIMES: Final = ("timestamp", "date", "duration")
_ARRAYS: Final = (*_NUMBERS, *_TIMES, "bool")
_ROW_TYPES: Final = {
    **dict.fromkeys(_WITHOUT_COPY, NUMERIC),
    "bool": BOOLEAN,
    **dict.fromkeys(_PLAIN_TEXTS, CATEGORICAL),
}


class TableSource:
    """A pyarrow Table or RecordBatch."""

    __slots__ = ("_kinds", "_table", "columns", "names", "python_columns", "rows")

    def __init__(self, table: Any) -> None:
        self._table = table
        self.rows = int(table.num_rows)
        self.columns = int(table.num_columns)
        self.names, self._kinds, self.python_columns = _described(table.schema)

    def row(self, codes: TextCodes, selection: Selected) -> tuple[Schema, Sequence[float]] | None:
        """Schema and cells of the only row, of whose columns all are selected; None: see `read`."""
        types = [_ROW_TYPES.get(kind) for kind in self._kinds]
        return row_of(types, (column[0].as_py() for column in self._table.columns), codes, selection)

    def read(self, indices: Indices | None, positions: Indices | None, width: int) -> Iterable[Block]:
        """One matrix for all numbers of a dtype that lie there as numpy has them, one block for each other column."""
        columns = self._columns()
        at = list(range(width)) if positions is None else positions.tolist()
        if indices is None:
            return [Block(slot, *arrow_values(columns[j], None)) for slot, j in enumerate(at)]
        kinds = self._kinds if positions is None and width == self.columns else [self._kinds[j] for j in at]
        numbers: dict[int, NDArray[Any]] = {}
        blocks: list[Block] = []
        gaps: list[int] = []
        for slot, (j, kind) in enumerate(zip(at, kinds, strict=True)):
            values = _in_place(columns[j], kind)
            if values is not None:
                numbers[slot] = values[indices]
            elif kind in _WITHOUT_COPY:
                gaps.append(slot)
            else:
                blocks.append(Block(slot, *arrow_values(columns[j], indices)))
        if gaps:  # numbers of which some are missing: gathered together, each by itself takes ten times as long
            taken = self._table.select([at[slot] for slot in gaps]).take(indices)
            for slot, column in zip(gaps, taken.columns, strict=True):
                numbers[slot] = column.to_numpy(zero_copy_only=False)
        return blocks + matrices(numbers, kinds)

    def _columns(self) -> list[Any]:
        """Arrays where the table is in one piece, else chunked ones."""
        if hasattr(self._table, "to_batches"):
            batches = self._table.to_batches()
            if len(batches) == 1:
                # The same arrays as the batch's columns, a third sooner.
                return list(batches[0].to_struct_array().flatten())
        return list(self._table.columns)


# Of the table before, which most likely had the same columns: to look at each takes half a microsecond.
_last: tuple[Any, tuple[tuple[str, ...], list[str], int]] = (None, ((), [], 0))


def _described(schema: Any) -> tuple[tuple[str, ...], list[str], int]:
    """Names, types and number of columns that cost Python work."""
    global _last  # noqa: PLW0603 - of the table before, which most likely had the same columns
    last, found = _last
    if last is not None and schema.equals(last):
        return found
    kinds = list(map(str, schema.types))
    python_columns = sum(not kind.startswith(_ARRAYS) for kind in kinds if kind not in _WITHOUT_COPY)
    found = tuple(map(str, schema.names)), kinds, python_columns
    _last = schema.remove_metadata(), found
    return found


def _in_place(column: Any, kind: str) -> NDArray[Any] | None:
    """The numbers of an array without missing ones, in Arrow's own memory; None for any other column."""
    if kind in _WITHOUT_COPY and not column.null_count:
        try:
            values: NDArray[Any] = column.to_numpy(zero_copy_only=True)
        except (AttributeError, TypeError, ValueError):  # of several chunks; not in one piece
            return None
        return values
    return None


def arrow_values(column: Any, indices: Indices | None) -> tuple[NDArray[Any] | list[Any], str | None]:
    """The sampled values of an Arrow array or chunked array, and the column type where the dtype does not tell."""
    if getattr(column, "num_chunks", 0) == 1:
        column = column.chunk(0)
    kind = str(column.type)
    if indices is not None and (values := _in_place(column, kind)) is not None:
        return values[indices], NUMERIC
    if kind in _PLAIN_TEXTS and indices is not None and len(indices) <= _FEW:
        return [column[at].as_py() for at in indices.tolist()], CATEGORICAL
    sampled = column if indices is None else column.take(indices)
    if kind.startswith(_NUMBERS):
        return np.asarray(sampled.to_numpy(zero_copy_only=False)), NUMERIC
    if kind.startswith("bool"):
        values = sampled.to_numpy(zero_copy_only=False)
        if values.dtype.kind == "O":  # nulls among them
            values = np.array([np.nan if value is None else value for value in values.tolist()], np.float64)
        return values, BOOLEAN
    if kind.startswith(_TIMES):
        return np.asarray(sampled.to_numpy(zero_copy_only=False)), None
    return sampled.to_pylist(), CATEGORICAL if kind.startswith(_TEXTS) else None
