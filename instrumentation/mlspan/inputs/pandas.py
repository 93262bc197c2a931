"""Stage 2, capture: pandas data frames and series, by their blocks, else by their public methods.

What a frame costs is the number of pandas calls, not of cells. A frame of one dtype is an array after one call; others
are read block by block (pandas_blocks.py). Where the blocks are not as we know them, the layout (names, how each column
is read) that is kept for each set of columns saves what can be saved. Memory: at most 256 layouts; columns objects are
referred to weakly.
"""

import weakref
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mlspan.captured import Schema
from mlspan.columns import BOOLEAN, CATEGORICAL, NUMERIC, Categories, TextCodes, Values, number_of
from mlspan.inputs.arrow import arrow_values
from mlspan.inputs.base import Block, Indices, Selected
from mlspan.inputs.pandas_blocks import (
    ARROW,
    ARROW_BOOL,
    ARROW_NUMBER,
    BOOL,
    CATEGORY,
    COMPLEX,
    FLOAT,
    NULLABLE,
    NULLABLE_BOOL,
    OBJECT,
    SPARSE,
    STRING,
    TIME,
    Part,
    parts_of,
    reader_of,
    selected,
)
from mlspan.inputs.pandas_row import plan_of, read_row
from mlspan.inputs.texts import TextSource, looks_like_text

MAX_LAYOUTS: Final = 256

_PYTHON: Final = frozenset({STRING, OBJECT, ARROW})
_ROW_TYPES: Final = {
    **dict.fromkeys((FLOAT, TIME, NULLABLE, SPARSE, ARROW_NUMBER), NUMERIC),
    **dict.fromkeys((BOOL, NULLABLE_BOOL, ARROW_BOOL), BOOLEAN),
    **dict.fromkeys((CATEGORY, STRING), CATEGORICAL),
}


class Layout:
    """What is known of frames with these columns.

    Attributes:
        labels: the columns' own labels.
        names: the same as texts; those of several levels joined by ".".
        distinct: whether a label names one column.
        types: of the labels.
    """

    __slots__ = ("_readers", "distinct", "labels", "names", "types")

    def __init__(self, labels: tuple[Any, ...]) -> None:
        self.labels = labels
        self.names = tuple(map(_name, labels))
        self.distinct = len(set(labels)) == len(labels)
        self.types = tuple(map(type, labels))
        self._readers: dict[tuple[type, ...], str] = {}

    def readers(self, frame: Any) -> tuple[str, bool]:
        """One letter a column: how it is read; and whether all are numpy numbers of one dtype."""
        dtypes = frame.dtypes.tolist()
        kinds = tuple(map(type, dtypes))
        readers = self._readers.get(kinds)
        if readers is None:
            readers = "".join(map(reader_of, dtypes))
            # The class of Arrow-backed dtypes does not tell what they hold.
            if len(self._readers) < MAX_LAYOUTS and "ArrowDtype" not in {kind.__name__ for kind in kinds}:
                self._readers[kinds] = readers
        return readers, readers == FLOAT * len(readers) and len(set(kinds)) == 1


class FrameSource:
    """A pandas DataFrame."""

    __slots__ = (
        *("_frame", "_is_open", "_layout", "_parts", "_python_columns", "_readers", "_uniform"),
        *("columns", "names", "rows"),
    )

    def __init__(self, frame: Any) -> None:
        layout = _layout(frame.columns)
        self._frame = frame
        self._layout = layout
        self.rows = len(frame.index)
        self.names = layout.names
        self.columns = len(layout.names)
        self._is_open = False
        self._readers = ""
        self._uniform = True
        self._parts: list[Part] | None = None
        self._python_columns = 0

    def _open(self) -> None:
        """Look at the columns; a planned row needs no look."""
        if self._is_open:
            return
        self._is_open = True
        self._parts = parts_of(self._frame, self.columns)
        if self._parts is not None:
            self._python_columns = sum(len(part.places) for part in self._parts if part.reader in _PYTHON)
            return
        self._readers, self._uniform = self._layout.readers(self._frame)
        self._python_columns = sum(map(self._readers.count, _PYTHON))

    @property
    def python_columns(self) -> int:
        """How many columns cost Python work for each cell that is read."""
        self._open()
        return self._python_columns

    def row(self, codes: TextCodes, selection: Selected) -> tuple[Schema, Sequence[float]] | None:
        """Schema and cells of the only row, of whose columns all are selected; None: see `read`."""
        plan = selection.plan
        if plan is not None:
            cells = plan.read(self._frame, codes)
            if cells is not None:
                return plan.schema, cells
        self._open()
        found = None if self._parts is None else read_row(self._parts, self.columns, codes, selection.known)
        if found is None or self._parts is None:
            return None
        schema = selection.schema(found[0])
        selection.plan = plan_of(self._parts, schema)
        return schema, found[1]

    def read(self, indices: Indices | None, positions: Indices | None, width: int) -> Iterable[Block]:
        """One matrix for all columns of a dtype of numpy's, one block for each other column."""
        self._open()
        if self._parts is not None:
            slots = None
            if positions is not None or width < self.columns:
                slots = np.full(self.columns, -1, np.intp)
                slots[slice(width) if positions is None else positions] = np.arange(width)
            return self._by_parts(self._parts, indices, slots)
        if self._readers == FLOAT * len(self._readers):
            return [Block(slice(0, width), self._numbers(indices, positions, width))]
        at = list(range(width)) if positions is None else positions.tolist()
        if self.rows == 1:
            return self._row(at)
        return self._by_column(indices, at)

    def _by_parts(self, parts: list[Part], indices: Indices | None, slots: Indices | None) -> Iterable[Block]:
        row: dict[str, tuple[list[int], list[Any]]] = {}
        for part in parts:
            places, values = selected(part, slots)
            if not len(places):
                continue
            reader = part.reader
            if type(values) is np.ndarray and reader != OBJECT:
                yield Block(places, values.T if indices is None else values[:, indices].T)
            elif type(values) is np.ndarray:
                for slot, column in zip(places.tolist(), values, strict=True):
                    yield Block(slot, column if indices is None else column[indices])
            elif self.rows != 1 or reader not in _ROW_TYPES or reader == CATEGORY:
                yield Block(int(places[0]), *_read(reader, values, indices))
            else:
                found = row.setdefault(_ROW_TYPES[reader], ([], []))
                found[0].append(int(places[0]))
                found[1].append(values[0])
        yield from _one_row(row)

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
        slots: dict[str, list[int]] = {NUMERIC: [], BOOLEAN: [], CATEGORICAL: []}
        for slot, j in enumerate(at):
            kind = _ROW_TYPES.get(readers[j])
            if kind is not None:
                slots[kind].append(slot)
            elif readers[j] == COMPLEX:
                yield Block(slot, np.zeros(1, np.complex64))
            else:
                yield Block(slot, [values[j]])
        yield from _one_row({kind: (found, [values[at[slot]] for slot in found]) for kind, found in slots.items()})

    def _by_column(self, indices: Indices | None, at: list[int]) -> Iterable[Block]:
        grouped = [slot for slot, j in enumerate(at) if self._readers[j] == FLOAT]
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


def _one_row(found: dict[str, tuple[list[int], list[Any]]]) -> Iterable[Block]:
    """Python values of a single row: one block for each type; the slots and the values of each."""
    for kind, (slots, row) in found.items():
        if not slots:
            continue
        if kind is CATEGORICAL:
            yield Block(np.array(slots), np.fromiter(row, object, len(row)).reshape(1, -1), CATEGORICAL)
        else:
            yield Block(np.array(slots), np.array([list(map(number_of, row))], np.float64), kind)


def numbers_of(frame: Any) -> tuple[tuple[str, ...], NDArray[Any]] | None:
    """Names and values of a frame that is one block of numbers, without a copy; None for any other frame."""
    try:
        blocks = frame._mgr.blocks
        if len(blocks) != 1:
            return None
        values = blocks[0].values
    except (AttributeError, TypeError):  # not as it has been since pandas 2
        return None
    if type(values) is not np.ndarray or values.dtype.kind not in "fiu" or values.ndim != 2:
        return None
    columns = frame.columns
    known = _by_columns.get(id(columns))
    layout = known[1] if known is not None and known[0]() is columns else _layout(columns)
    return (layout.names, values.T) if len(values) == len(layout.names) else None


def open_series(series: Any) -> "FrameSource | TextSource":
    """A series of texts is documents; of anything else, one column."""
    name = "x0" if series.name is None else _name(series.name)
    if reader_of(series.dtype) in _PYTHON and looks_like_text(series.head(16).tolist()):
        return TextSource(series.array, name)
    return FrameSource(series.to_frame(name))


def _read(reader: str, array: Any, indices: Indices | None) -> tuple[Values, str | None]:
    """The sampled values of one column, and its type where the dtype does not tell."""
    if reader == CATEGORY:
        codes = np.asarray(array.codes)
        labels = array.categories
        return Categories(codes if indices is None else codes[indices], labels, labels), None
    if reader in (STRING, ARROW, ARROW_NUMBER, ARROW_BOOL) and hasattr(array, "__arrow_array__"):
        values, kind = arrow_values(array.__arrow_array__(), indices)
        return values, CATEGORICAL if reader == STRING else kind
    if reader in (FLOAT, BOOL, COMPLEX) or isinstance(array.dtype, np.dtype):
        plain = array.to_numpy()
        return plain if indices is None else plain[indices], None
    sampled = array if indices is None else array.take(indices)
    if reader == TIME:  # a time zone's dates as dates in UTC
        kind = "m8" if getattr(array.dtype, "kind", "M") == "m" else "M8"
        return np.asarray(sampled, f"{kind}[ns]"), None
    if reader in (NULLABLE, NULLABLE_BOOL):
        numbers = sampled.to_numpy(np.float64, na_value=np.nan)
        return numbers, BOOLEAN if reader == NULLABLE_BOOL else NUMERIC
    if reader == SPARSE:
        return np.asarray(sampled), None
    return sampled.tolist(), CATEGORICAL if reader == STRING else None


def _name(label: Any) -> str:
    return ".".join(map(str, label)) if isinstance(label, tuple) else str(label)


_by_columns: dict[int, "tuple[weakref.ref[Any], Layout]"] = {}
_by_labels: dict[tuple[Any, ...], Layout] = {}
_last: tuple[Any, Layout] = (None, Layout(()))


def _layout(columns: Any) -> Layout:
    """The layout of frames with these columns: the same object, or equal labels."""
    known = _by_columns.get(id(columns))
    if known is not None and known[0]() is columns:
        return known[1]
    global _last  # noqa: PLW0603 - of the call before, which most likely had the same columns
    arrow = getattr(columns.array, "__arrow_array__", None) if columns.nlevels == 1 else None
    texts = None if arrow is None else arrow()
    if texts is not None and type(texts) is type(_last[0]) and texts.equals(_last[0]):
        # A list of an index of Arrow's texts takes 20 µs, a comparison one.
        return _remember(columns, _last[1])
    labels = tuple(columns.tolist())
    layout = _by_labels.get(labels)
    if layout is None or layout.types != tuple(map(type, labels)):
        if len(_by_labels) >= MAX_LAYOUTS:
            _by_labels.clear()
        layout = _by_labels[labels] = Layout(labels)
    if texts is not None:
        _last = texts, layout
    return _remember(columns, layout)


def _remember(columns: Any, layout: Layout) -> Layout:
    if len(_by_columns) >= MAX_LAYOUTS:
        _by_columns.clear()
    _by_columns[id(columns)] = (weakref.ref(columns), layout)
    return layout
