"""Stage 2, capture: pandas data frames and series, by their public methods only.

What a frame costs is the number of pandas calls, not of cells: a column by name takes 10 µs, the list of dtypes 14
µs, a whole frame of one dtype as an array 1 µs. So the layout (names, how each column is read) is kept for each set
of columns, frames of numbers are read in one call, and one-row frames of mixed columns as one row. Memory: at most
256 layouts; columns objects are referred to weakly.
"""

import weakref
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mlspan.columns import BOOLEAN, CATEGORICAL, NUMERIC, Categories, Values, number_of
from mlspan.inputs.arrow import arrow_values
from mlspan.inputs.base import Block, Indices
from mlspan.inputs.texts import TextSource, looks_like_text

MAX_LAYOUTS: Final = 256

# How a column is read.
_FLOAT: Final = "f"  # numpy numbers
_BOOL: Final = "b"
_TIME: Final = "t"
_CATEGORY: Final = "c"
_STRING: Final = "s"
_NULLABLE: Final = "n"
_NULLABLE_BOOL: Final = "N"
_SPARSE: Final = "p"
_ARROW: Final = "a"
_ARROW_NUMBER: Final = "A"
_ARROW_BOOL: Final = "B"
_COMPLEX: Final = "x"
_OBJECT: Final = "o"

_EXTENSIONS: Final = {
    "CategoricalDtype": _CATEGORY,
    "StringDtype": _STRING,
    "BooleanDtype": _NULLABLE_BOOL,
    "DatetimeTZDtype": _TIME,
    "SparseDtype": _SPARSE,
    **dict.fromkeys(
        [f"{sign}Int{bits}Dtype" for sign in ("", "U") for bits in (8, 16, 32, 64)] + ["Float32Dtype", "Float64Dtype"],
        _NULLABLE,
    ),
}
_PYTHON: Final = frozenset({_STRING, _OBJECT, _ARROW})
_ROW_TYPES: Final = {
    **dict.fromkeys((_FLOAT, _TIME, _NULLABLE, _SPARSE, _ARROW_NUMBER), NUMERIC),
    **dict.fromkeys((_BOOL, _NULLABLE_BOOL, _ARROW_BOOL), BOOLEAN),
    **dict.fromkeys((_CATEGORY, _STRING), CATEGORICAL),
}


class Layout:
    """What is known of frames with these columns.

    Attributes:
        labels: the columns' own labels.
        names: the same as texts; those of several levels joined by ".".
        distinct: whether a label names one column.
        uniform: whether the last frame held numpy numbers of one dtype, so that the next may be an array already.
    """

    __slots__ = ("_readers", "distinct", "labels", "names", "uniform")

    def __init__(self, labels: tuple[Any, ...]) -> None:
        self.labels = labels
        self.names = tuple(map(_name, labels))
        self.distinct = len(set(labels)) == len(labels)
        self.uniform = False
        self._readers: dict[tuple[type, ...], str] = {}

    def readers(self, frame: Any) -> tuple[str, bool]:
        """One letter a column: how it is read; and whether all are numpy numbers of one dtype."""
        dtypes = frame.dtypes.tolist()
        kinds = tuple(map(type, dtypes))
        readers = self._readers.get(kinds)
        if readers is None:
            readers = "".join(map(_reader, dtypes))
            # The class of Arrow-backed dtypes does not tell what they hold.
            if len(self._readers) < MAX_LAYOUTS and "ArrowDtype" not in {kind.__name__ for kind in kinds}:
                self._readers[kinds] = readers
        uniform = self.uniform = readers == _FLOAT * len(readers) and len(set(kinds)) == 1
        return readers, uniform


class FrameSource:
    """A pandas DataFrame."""

    __slots__ = (
        *("_frame", "_layout", "_readers", "_uniform"),
        *("columns", "names", "python_columns", "rows"),
    )

    def __init__(self, frame: Any) -> None:
        layout = _layout(frame.columns)
        self._frame = frame
        self._layout = layout
        self.rows = len(frame.index)
        self.names = layout.names
        self.columns = len(layout.names)
        self.python_columns = 0
        self._readers = ""
        self._uniform = True
        self._readers, self._uniform = layout.readers(frame)
        self.python_columns = sum(map(self._readers.count, _PYTHON))

    def read(self, indices: Indices | None, positions: Indices | None, width: int) -> Iterable[Block]:
        """One matrix of all columns that are numpy numbers, one block for each other column."""
        if self._readers == _FLOAT * len(self._readers):
            return [Block(slice(0, width), self._numbers(indices, positions, width))]
        at = list(range(width)) if positions is None else positions.tolist()
        if self.rows == 1:
            return self._row(at)
        return self._by_column(indices, at)

    def _numbers(self, indices: Indices | None, positions: Indices | None, width: int) -> NDArray[Any]:
        frame = self._frame
        if not self._uniform and indices is not None:
            frame = frame.take(indices)
            indices = None
        array: NDArray[Any] = frame.to_numpy()
        if positions is not None:
            return array[:, positions] if indices is None else array[indices[:, None], positions]
        if width < self.columns:
            array = array[:, :width]
        return array if indices is None else array[indices]

    def _row(self, at: list[int]) -> Iterable[Block]:
        """A single row, as Python values: one block for each kind of column."""
        values = self._frame.iloc[0].tolist()
        readers = self._readers
        slots: dict[str | None, list[int]] = {NUMERIC: [], BOOLEAN: [], CATEGORICAL: []}
        for slot, j in enumerate(at):
            kind = _ROW_TYPES.get(readers[j])
            if kind is not None:
                slots[kind].append(slot)
            elif readers[j] == _COMPLEX:
                yield Block(slot, np.zeros(1, np.complex64))
            else:
                yield Block(slot, [values[j]])
        for kind, found in slots.items():
            if found:
                row = [values[at[slot]] for slot in found]
                if kind is CATEGORICAL:
                    yield Block(np.array(found), np.fromiter(row, object, len(row)).reshape(1, -1), CATEGORICAL)
                else:
                    yield Block(np.array(found), np.array([list(map(number_of, row))], np.float64), kind)

    def _by_column(self, indices: Indices | None, at: list[int]) -> Iterable[Block]:
        grouped = [slot for slot, j in enumerate(at) if self._readers[j] == _FLOAT]
        if len(grouped) > 4:  # cheaper together
            frame = self._frame.take([at[slot] for slot in grouped], axis=1)
            if indices is not None:
                frame = frame.take(indices)
            yield Block(np.array(grouped), frame.to_numpy())
        else:
            grouped = []
        done = set(grouped)
        for slot, j in enumerate(at):
            if slot not in done:
                yield Block(slot, *_read(self._readers[j], self._column(j), indices))

    def _column(self, j: int) -> Any:
        """The column's extension array."""
        if self._layout.distinct:
            return self._frame[self._layout.labels[j]].array
        return self._frame.iloc[:, j].array


def numbers_of(frame: Any) -> tuple[tuple[str, ...], NDArray[Any]] | None:
    """Names and values of a frame that is one block of numbers, without a copy; None for any other frame.

    For frames with columns that were seen before only: the first time, `FrameSource` finds out what they hold.
    """
    columns = frame.columns
    known = _by_columns.get(id(columns))
    layout = known[1] if known is not None and known[0]() is columns else _layout(columns)
    if not layout.uniform:
        return None
    array: NDArray[Any] = frame.values  # to_numpy() takes longer for the same
    # The frame's own memory is one block of numbers: the same twice, and read-only from pandas 3 on (so is a single
    # column of anything). What was put together anew is not: the dtypes may have changed under the same names.
    if array.dtype.kind in "fiu" and (
        (not array.flags.writeable and len(layout.names) > 1) or np.may_share_memory(array, frame.to_numpy())
    ):
        return layout.names, array
    return None


def open_series(series: Any) -> "FrameSource | TextSource":
    """A series of texts is documents; of anything else, one column."""
    name = "x0" if series.name is None else _name(series.name)
    if _reader(series.dtype) in _PYTHON and looks_like_text(series.head(16).tolist()):
        return TextSource(series.array, name)
    return FrameSource(series.to_frame(name))


def _read(reader: str, array: Any, indices: Indices | None) -> tuple[Values, str | None]:
    """The sampled values of one column, and its type where the dtype does not tell."""
    if reader == _CATEGORY:
        codes = np.asarray(array.codes)
        labels = array.categories
        return Categories(codes if indices is None else codes[indices], labels, labels), None
    if reader in (_STRING, _ARROW, _ARROW_NUMBER, _ARROW_BOOL) and hasattr(array, "__arrow_array__"):
        values, kind = arrow_values(array.__arrow_array__(), indices)
        return values, CATEGORICAL if reader == _STRING else kind
    if reader in (_FLOAT, _BOOL, _COMPLEX) or isinstance(array.dtype, np.dtype):
        plain = array.to_numpy()
        return plain if indices is None else plain[indices], None
    sampled = array if indices is None else array.take(indices)
    if reader == _TIME:  # a time zone's dates as dates in UTC
        kind = "m8" if getattr(array.dtype, "kind", "M") == "m" else "M8"
        return np.asarray(sampled, f"{kind}[ns]"), None
    if reader in (_NULLABLE, _NULLABLE_BOOL):
        numbers = sampled.to_numpy(np.float64, na_value=np.nan)
        return numbers, BOOLEAN if reader == _NULLABLE_BOOL else NUMERIC
    if reader == _SPARSE:
        return np.asarray(sampled), None
    return sampled.tolist(), CATEGORICAL if reader == _STRING else None


def _reader(dtype: Any) -> str:
    if isinstance(dtype, np.dtype):
        if dtype.kind in "fiu":
            return _FLOAT
        return {"b": _BOOL, "M": _TIME, "m": _TIME, "c": _COMPLEX}.get(dtype.kind, _OBJECT)
    name = type(dtype).__name__
    if name == "ArrowDtype":
        numbers = dict.fromkeys("iufMm", _ARROW_NUMBER)
        return {**numbers, "b": _ARROW_BOOL, "U": _STRING}.get(dtype.kind, _ARROW)
    return _EXTENSIONS.get(name, _OBJECT)


def _name(label: Any) -> str:
    return ".".join(map(str, label)) if isinstance(label, tuple) else str(label)


_by_columns: dict[int, "tuple[weakref.ref[Any], Layout]"] = {}
_by_labels: dict[tuple[Any, ...], Layout] = {}


def _layout(columns: Any) -> Layout:
    """The layout of frames with these columns: the same object, or equal labels."""
    known = _by_columns.get(id(columns))
    if known is not None and known[0]() is columns:
        return known[1]
    labels = tuple(columns.tolist())
    layout = _by_labels.get(labels)
    if layout is None or tuple(map(type, layout.labels)) != tuple(map(type, labels)):
        if len(_by_labels) >= MAX_LAYOUTS:
            _by_labels.clear()
        layout = _by_labels[labels] = Layout(labels)
    if len(_by_columns) >= MAX_LAYOUTS:
        _by_columns.clear()
    _by_columns[id(columns)] = (weakref.ref(columns), layout)
    return layout
