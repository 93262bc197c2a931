"""Stage 2, capture: what every kind of input can say of itself.

A folder is a choice: one file for each family of types. Each turns an object that the user passed to a model into a
`Source`, without importing the library, changing or keeping the object, or consuming what can be read only once.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mlspan.captured import Schema
from mlspan.columns import CATEGORICAL, TextCodes, Values

Indices: TypeAlias = NDArray[np.intp]


class UnsupportedInputError(TypeError):
    """The input is not captured; the message says which type and holds no data."""


class Block(NamedTuple):
    """Sampled values of one or several of the selected columns.

    Attributes:
        slot: the selected column that `values` holds, or those of its columns.
        values: one slot: (n_sampled,) of any dtype, a list of Python values, or Categories. Several: (n_sampled,
            n_slots). type: the column type where the values' dtype does not tell; else None.
    """

    slot: int | Indices | slice
    values: Values
    type: str | None = None


Numbers: TypeAlias = dict[np.dtype[Any], tuple[list[int], list[NDArray[Any]]]]
"""Columns of numbers by their dtype: slots and values."""


def together(numbers: Numbers, slot: int, values: NDArray[Any]) -> None:
    """Put a column's values beside those of its dtype."""
    slots, columns = numbers.setdefault(values.dtype, ([], []))
    slots.append(slot)
    columns.append(values)


def matrices(numbers: Numbers) -> list[Block]:
    """A block for each dtype."""
    return [Block(np.array(slots, np.intp), np.array(columns).T) for slots, columns in numbers.values()]


class Selected(Protocol):
    """What a source sees of the columns that are selected: all of them (`mlspan.selection.Selection`).

    Attributes:
        known: the type found so far for each column of Python objects.
        plan: what the source left there for the next row.
    """

    known: list[str | None]
    plan: Any

    def schema(self, types: Sequence[str | None]) -> Schema:
        """The schema of the columns with these types."""


def row_of(
    types: Sequence[str | None], values: Iterable[Any], codes: TextCodes, selection: Selected
) -> tuple[Schema, list[float]] | None:
    """Schema and cells of a single row of Python values; None where a column's type (None) does not tell all."""
    if None in types:
        return None
    cells = [
        codes[value] if kind is CATEGORICAL else np.nan if value is None else value
        for kind, value in zip(types, values, strict=True)
    ]
    return selection.schema(types), cells


class Source(Protocol):
    """One input of a model call."""

    @property
    def rows(self) -> int:
        """Rows."""

    @property
    def columns(self) -> int:
        """Columns, captured or not."""

    @property
    def names(self) -> tuple[str, ...] | None:
        """Their names, or None."""

    @property
    def python_columns(self) -> int:
        """How many columns cost Python work for each cell that is read."""

    def read(self, indices: Indices | None, positions: Indices | None, width: int) -> Iterable[Block]:
        """The sampled rows (None: all) of the columns at `positions` (None: the first `width`)."""
