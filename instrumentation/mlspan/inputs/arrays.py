"""Stage 2, capture: numpy arrays, and what is an array without a copy.

More than two dimensions are flattened behind the rows. One-dimensional arrays of text are documents (`TextSource`).
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlspan.inputs.base import Block, Indices, UnsupportedInputError
from mlspan.inputs.texts import TextSource, looks_like_text


class ArraySource:
    """(n_rows, n_columns) of one dtype."""

    __slots__ = ("_array", "columns", "names", "python_columns", "rows")

    def __init__(self, array: NDArray[Any], names: tuple[str, ...] | None = None) -> None:
        self._array = array
        self.rows, self.columns = array.shape
        self.names = names
        self.python_columns = self.columns if array.dtype.kind in "OUST" else 0

    def read(self, indices: Indices | None, positions: Indices | None, width: int) -> Iterable[Block]:
        """One matrix."""
        array = self._array
        if positions is None:
            array = array[:, :width] if width < self.columns else array
            sampled = array if indices is None else array[indices]
        elif indices is None:
            sampled = array[:, positions]
        else:
            sampled = array[indices[:, None], positions]
        return [Block(slice(0, width), sampled)]


class RecordSource:
    """(n_rows,) of a structured dtype: one column a field."""

    __slots__ = ("_array", "columns", "names", "python_columns", "rows")

    def __init__(self, array: NDArray[Any]) -> None:
        fields = array.dtype.names or ()
        self._array = array
        self.rows = array.shape[0]
        self.columns = len(fields)
        self.names = fields
        self.python_columns = sum(array.dtype[field].kind in "OUST" for field in fields)

    def read(self, indices: Indices | None, positions: Indices | None, width: int) -> Iterable[Block]:
        """One block a field; fields that are arrays themselves come as objects, which are not captured."""
        fields = self.names
        for slot in range(width):
            values = self._array[fields[slot if positions is None else positions[slot]]]
            sampled = values if indices is None else values[indices]
            if sampled.ndim > 1:
                sampled = np.empty(len(sampled), "V1")
            yield Block(slot, sampled)


def open_array(array: NDArray[Any]) -> "ArraySource | RecordSource | TextSource":
    """A source for a numpy array of any shape and dtype.

    Raises:
        UnsupportedInputError: an array without dimensions.
    """
    if isinstance(array, np.matrix):
        array = np.asarray(array)
    if array.ndim == 0:
        raise UnsupportedInputError("unsupported input: array without dimensions")
    if array.ndim == 1:
        if array.dtype.names:
            return RecordSource(array)
        if looks_like_text(array):
            return TextSource(array)
        return ArraySource(array.reshape(-1, 1))
    if array.ndim > 2:
        columns = int(np.prod(array.shape[1:]))
        return NestedSource(array, columns)
    if array.dtype.names:
        raise UnsupportedInputError("unsupported input: structured array of more than one dimension")
    return ArraySource(array)


class NestedSource(ArraySource):
    """(n_rows, …): three or more dimensions, flattened after sampling so that a strided array is not copied whole."""

    __slots__ = ()

    def __init__(self, array: NDArray[Any], columns: int) -> None:
        self._array = array
        self.rows = array.shape[0]
        self.columns = columns
        self.names = None
        self.python_columns = columns if array.dtype.kind in "OUST" else 0

    def read(self, indices: Indices | None, positions: Indices | None, width: int) -> Iterable[Block]:
        """The sampled rows, flattened, then as a matrix."""
        sampled = self._array if indices is None else self._array[indices]
        return ArraySource(sampled.reshape(len(sampled), self.columns)).read(None, positions, width)
