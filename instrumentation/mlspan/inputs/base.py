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


def matrices(numbers: dict[int, NDArray[Any]], kinds: Sequence[str]) -> list[Block]:
    """The sampled numbers of columns, put together in a block for each of their types.

    Args:
        numbers: slot -> (n_sampled,) values.
        kinds: the type of each selected column.
    """
    if numbers and len(numbers) == len(kinds) == kinds.count(kinds[0]):
        return [Block(slice(0, len(kinds)), np.array(list(numbers.values())).T)]
    slots: dict[str, list[int]] = {}
    for slot in numbers:
        slots.setdefault(kinds[slot], []).append(slot)
    return [Block(np.array(at, np.intp), np.array([numbers[slot] for slot in at]).T) for at in slots.values()]


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
