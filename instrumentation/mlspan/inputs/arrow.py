"""Stage 2, capture: Arrow columns: pyarrow tables and record batches, and pandas' Arrow-backed columns.

pyarrow is not imported: the objects' own methods and the text of their types say all that is needed. Null is missing;
lists, structs and maps are not captured.
"""

from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mlspan.columns import BOOLEAN, CATEGORICAL, NUMERIC
from mlspan.inputs.base import Block, Indices

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


class TableSource:
    """A pyarrow Table or RecordBatch."""

    __slots__ = ("_table", "columns", "names", "python_columns", "rows")

    def __init__(self, table: Any) -> None:
        self._table = table
        self.rows = int(table.num_rows)
        self.columns = int(table.num_columns)
        self.names = tuple(map(str, table.schema.names))
        self.python_columns = sum(not str(kind).startswith((*_NUMBERS, *_TIMES, "bool")) for kind in table.schema.types)

    def read(self, indices: Indices | None, positions: Indices | None, width: int) -> Iterable[Block]:
        """One block a column."""
        at = range(width) if positions is None else positions.tolist()
        return [Block(slot, *arrow_values(self._table.column(j), indices)) for slot, j in enumerate(at)]


def arrow_values(column: Any, indices: Indices | None) -> tuple[NDArray[Any] | list[Any], str | None]:
    """The sampled values of an Arrow array or chunked array, and the column type where the dtype does not tell."""
    if getattr(column, "num_chunks", 0) == 1:
        column = column.chunk(0)
    kind = str(column.type)
    if indices is not None and kind in _WITHOUT_COPY and not column.null_count:
        with suppress(AttributeError, ValueError):  # of several chunks; not in one piece
            return column.to_numpy(zero_copy_only=True)[indices], NUMERIC
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
