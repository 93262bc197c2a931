"""Stage 2, capture: lists and tuples of rows.

Rows are lists, tuples or arrays of one length, or dictionaries (as a DictVectorizer takes them: one column a key, in
alphabetical order). Iterators and generators are never touched.
"""

import contextlib
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np

from mlspan.inputs.base import Block, Indices, UnsupportedInputError
from mlspan.inputs.texts import TextSource, looks_like_text

_NUMBERS: Final = frozenset({int, float})
_KEY_ROWS: Final = 64


class RowsSource:
    """A list of rows."""

    __slots__ = ("_rows", "columns", "names", "python_columns", "rows")

    def __init__(self, rows: Sequence[Any]) -> None:
        self._rows = rows
        self.rows = len(rows)
        first = rows[0] if len(rows) else ()
        self.columns = len(_flat(first)) if _is_nested(first) else len(first)
        self.names = None
        plain = isinstance(first, np.ndarray) and first.dtype.kind in "fiub"
        self.python_columns = 0 if plain else self.columns

    def read(self, indices: Indices | None, positions: Indices | None, width: int) -> Iterable[Block]:
        """One matrix where all values are numbers, else one block a column."""
        sampled = list(self._rows) if indices is None else [self._rows[at] for at in indices.tolist()]
        if not all(isinstance(row, (list, tuple, np.ndarray)) for row in sampled):
            raise UnsupportedInputError("unsupported input: rows of different types")
        if sampled and _is_nested(sampled[0]):
            sampled = list(map(_flat, sampled))
        if any(len(row) != self.columns for row in sampled):
            raise UnsupportedInputError("unsupported input: rows of different lengths")
        wanted = slice(0, width) if positions is None else positions
        if sampled and (isinstance(sampled[0], np.ndarray) or {type(value) for value in sampled[0]} <= _NUMBERS):
            with contextlib.suppress(ValueError):  # rows of one length may hold cells of different shapes
                matrix = np.asarray(sampled)
                if matrix.dtype.kind in "fiub":
                    return [Block(slice(0, width), matrix[:, wanted])]
        at = range(width) if positions is None else positions.tolist()
        return [Block(slot, [row[j] for row in sampled]) for slot, j in enumerate(at)]


class DictSource:
    """A list of dictionaries; a key that a row lacks is missing there."""

    __slots__ = ("_keys", "_rows", "columns", "names", "python_columns", "rows")

    def __init__(self, rows: Sequence[Any]) -> None:
        self._rows = rows
        self.rows = len(rows)
        self._keys = sorted({key for row in rows[:_KEY_ROWS] if type(row) is dict for key in row}, key=str)
        self.columns = self.python_columns = len(self._keys)
        self.names = tuple(map(str, self._keys))

    def expect(self, names: Iterable[str]) -> None:
        """Have these columns as well: a request seldom has all the keys that its model knows."""
        lacking = set(names).difference(self.names)
        if lacking:
            self._keys = sorted([*self._keys, *lacking], key=str)
            self.columns = self.python_columns = len(self._keys)
            self.names = tuple(map(str, self._keys))

    def read(self, indices: Indices | None, positions: Indices | None, width: int) -> Iterable[Block]:
        """One block a key."""
        sampled = list(self._rows) if indices is None else [self._rows[at] for at in indices.tolist()]
        if not all(type(row) is dict for row in sampled):
            raise UnsupportedInputError("unsupported input: rows of different types")
        at = range(width) if positions is None else positions.tolist()
        return [Block(slot, [row.get(self._keys[j]) for row in sampled]) for slot, j in enumerate(at)]


def open_list(rows: Sequence[Any]) -> "RowsSource | DictSource | TextSource":
    """A source for a list or tuple.

    Raises:
        UnsupportedInputError: its items are no rows.
    """
    if not len(rows):
        return RowsSource(rows)
    first = rows[0]
    if looks_like_text(rows):
        return TextSource(rows)
    if type(first) is dict:
        return DictSource(rows)
    if isinstance(first, (list, tuple)) or (isinstance(first, np.ndarray) and first.ndim):
        return RowsSource(rows)
    raise UnsupportedInputError(f"unsupported input: {type(rows).__name__} of {type(first).__name__}")


def _is_nested(row: Any) -> bool:
    if isinstance(row, np.ndarray):
        return row.ndim > 1
    return len(row) > 0 and isinstance(row[0], (list, tuple, np.ndarray))


def _flat(row: Any) -> Any:
    """A row of rows as one; a ragged one as it is: its cells are lists then, which are not captured."""
    try:
        return np.asarray(row).ravel()
    except ValueError:
        return row
