"""Stage 2, capture: one column's values as payload cells.

Reads sampled values as numpy arrays of any dtype (or `Categories`), writes float32 or category codes with the column's
type: "numeric", "boolean" or "categorical". Guarantee: never changes its input, and text never leaves as text, only as
the code of a keyed hash (`payload.category_code`). Memory: at most 65,536 text codes and 512 category tables per hash
key.

The type follows the dtype. Columns of Python objects follow their values: numbers (and missing) are numeric, True and
False boolean, dates numeric; everything else is categorical by its str(). Missing is NaN, or code 0: None, NaN, NaT,
pandas' NA, masked.
"""

import contextlib
import weakref
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mlspan.payload import category_code

NUMERIC: Final = "numeric"
BOOLEAN: Final = "boolean"
CATEGORICAL: Final = "categorical"

F4: Final = np.dtype("<f4")
U4: Final = np.dtype("<u4")

MAX_TEXT_CODES: Final = 65_536
MAX_CACHED_TEXT: Final = 256
"""Longer texts are hashed every time rather than kept."""
MAX_CATEGORY_TABLES: Final = 512
MAX_TABLE_ENTRIES: Final = 4_096
"""Larger sets of categories are hashed value by value, as far as they occur."""

PLAIN_TEXT: Final = {str, type(None)}
_PLAIN_NUMBERS: Final = {bool, float}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

# What a Python type means for the column that holds it.
_MISSING: Final = 0
_NUMBER: Final = 1
_BOOL: Final = 2
_TIME: Final = 3
_DELTA: Final = 4
_TEXT: Final = 5
_UNSUPPORTED: Final = 6

Encoded = tuple[str, NDArray[Any]]
"""A column's type, and its cells: float32 for numeric and boolean, uint32 for categorical."""


class Categories:
    """A column given as positions in a list of categories (pandas' category, Arrow's dictionary); -1 is missing.

    `labels` has a length, items and an order, as a list or a pandas index has. `owner` is the object whose identity
    stands for the list, so that its codes are hashed once; or None.
    """

    __slots__ = ("labels", "owner", "positions")

    def __init__(self, positions: NDArray[Any], labels: Any, owner: object | None = None) -> None:
        self.positions = positions
        self.labels = labels
        self.owner = owner

    def __len__(self) -> int:
        return len(self.positions)

    def values(self) -> NDArray[Any]:
        """The values themselves, None where missing; (n_rows,) of objects."""
        labels = self.labels
        return objects([None if at < 0 else labels[at] for at in self.positions.tolist()])


Values = NDArray[Any] | list[Any] | Categories
"""What a column's values come as."""


class TextCodes(dict[Any, int]):
    """Text to code under one hash key: `codes[text]`; 0 for what is missing. Bounded."""

    def __init__(self, key: bytes) -> None:
        super().__init__()
        self._key = key
        self._tables: dict[int, tuple[weakref.ref[object], NDArray[np.uint32]]] = {}

    def __missing__(self, value: object) -> int:
        if is_missing(value):
            return 0
        if type(value) is not str:  # never kept under its own key: 1, 1.0 and True are equal, their texts differ
            return self[text_of(value)]
        code = category_code(value, self._key)
        if len(value) <= MAX_CACHED_TEXT:
            if len(self) >= MAX_TEXT_CODES:
                self.clear()
            self[value] = code
        return code

    def of(self, values: Iterable[Any], count: int) -> NDArray[np.uint32]:
        """Codes of `count` values, (count,) uint32."""
        return np.fromiter(map(self.__getitem__, values), U4, count)

    def of_categories(self, column: Categories) -> NDArray[np.uint32]:
        """Codes of a categories column; a small list of categories is hashed once per list."""
        positions = column.positions
        if len(column.labels) > MAX_TABLE_ENTRIES:
            return self.of(column.values(), len(positions))
        codes: NDArray[np.uint32] = self._table(column)[positions + 1]
        return codes

    def of_category(self, position: int, labels: Any) -> int:
        """Code of one value of a categories column, whose list of labels stands for itself."""
        known = self._tables.get(id(labels))
        if known is not None and known[0]() is labels:
            return int(known[1][position + 1])
        return int(self.of_categories(Categories(np.array([position]), labels, labels))[0])

    def _table(self, column: Categories) -> NDArray[np.uint32]:
        owner = column.owner
        known = self._tables.get(id(owner)) if owner is not None else None
        if known is not None and known[0]() is owner:
            return known[1]
        table = self.of([None, *column.labels], len(column.labels) + 1)  # position -1 is missing
        if owner is not None:
            if len(self._tables) >= MAX_CATEGORY_TABLES:
                self._tables.clear()
            # Not every object can be referred to weakly; the labels of the others are hashed anew each time.
            with contextlib.suppress(TypeError):
                self._tables[id(owner)] = (weakref.ref(owner), table)
        return table


def encode(values: "Values", codes: TextCodes, known: str | None = None) -> Encoded | None:
    """One column's cells.

    Args:
        values: (n_rows,) of any dtype, a list of Python values, or Categories; not changed.
        codes: where texts get their codes.
        known: the type that earlier calls found for this column of Python objects; it only ever moves from boolean to
            numeric to categorical, so that single rows with a missing value do not look like another schema.

    Returns:
        The type and the (n_rows,) cells, or None when such values are not captured (complex numbers, containers,
        objects without a text of their own).
    """
    if isinstance(values, Categories):
        return CATEGORICAL, codes.of_categories(values)
    if isinstance(values, list):
        return _encode_objects(values, codes, known)
    kind = values.dtype.kind
    if kind in "fiu":
        return NUMERIC, to_float32(values)
    if kind == "b":
        return BOOLEAN, to_float32(values)
    if kind in "Mm":
        return NUMERIC, seconds(values)
    if kind == "O":
        return _encode_objects(values.tolist(), codes, known)
    if kind in "UST":  # "T": numpy's strings of variable width
        return CATEGORICAL, codes.of(values.tolist(), len(values))
    return None


def to_float32(values: NDArray[Any]) -> NDArray[np.float32]:
    """A C-ordered float32 copy; out of range becomes infinite, masked becomes NaN, both without a warning."""
    if type(values) is np.ndarray and values.dtype == F4:
        return values.copy()
    with np.errstate(over="ignore", invalid="ignore"):
        if isinstance(values, np.ma.MaskedArray):
            cells = np.ma.getdata(values).astype(F4, order="C")
            cells[np.ma.getmaskarray(values)] = np.nan
            return cells
        return np.asarray(values).astype(F4, order="C")


def seconds(values: NDArray[Any]) -> NDArray[np.float32]:
    """datetime64 as seconds since 1970 (UTC), timedelta64 as seconds, NaT as NaN.

    float32 resolves today's dates to about two minutes: enough for distributions, not for joining on time.
    """
    data = np.ma.getdata(values)
    origin = np.datetime64(0, "s") if data.dtype.kind == "M" else np.timedelta64(0, "s")
    try:
        cells = to_float32((data - origin) / np.timedelta64(1, "s"))
    except (TypeError, OverflowError):  # months and years have no length in seconds
        return np.full(data.shape, np.nan, F4)
    cells[np.isnat(data) | np.ma.getmaskarray(values)] = np.nan
    return cells


def objects(values: Sequence[Any]) -> NDArray[Any]:
    """(n,) array of objects; unlike np.array it never looks into nested sequences."""
    return np.fromiter(values, object, len(values))


def is_missing(value: object) -> bool:
    """None, NaN, NaT, pandas' NA; never an ambiguous comparison.

    >>> is_missing(float("nan")), is_missing(0), is_missing("")
    (True, False, False)
    """
    kind = type(value)
    if kind is str or kind is int:
        return False
    if value is None:
        return True
    if kind is float or isinstance(value, (float, np.floating, np.datetime64, np.timedelta64)):
        return bool(value != value)  # NaN and NaT are what differs from itself
    if isinstance(value, Decimal):
        return value.is_nan()
    return _meaning(kind) == _MISSING


def text_of(value: object) -> str:
    """The text whose hash is the value's code: str() of the Python value.

    >>> text_of(np.float64(1.0)), text_of(np.bool_(True)), text_of(b"UA")
    ('1.0', 'True', 'UA')
    """
    if isinstance(value, np.generic) and not isinstance(value, (np.datetime64, np.timedelta64)):
        value = value.item()
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value)


def number_of(value: object) -> float:
    """A number, date or duration as float; NaN for what is missing or none of these."""
    if type(value) in _PLAIN_NUMBERS:
        return float(value)  # type: ignore[arg-type] # an int or float, as just seen
    if is_missing(value):
        return np.nan
    try:
        if isinstance(value, timedelta):
            return value.total_seconds()
        if isinstance(value, datetime):
            aware = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
            return (aware - _EPOCH).total_seconds()
        if isinstance(value, date):
            return float(value.toordinal() - _EPOCH.toordinal()) * 86_400.0
        if isinstance(value, (np.datetime64, np.timedelta64)):
            return float(seconds(np.asarray(value).reshape(1))[0])
        return float(value)  # type: ignore[arg-type] # whatever cannot be converted raises, and is caught
    except OverflowError:
        return np.inf if value > 0 else -np.inf  # type: ignore[operator] # only numbers overflow
    except (TypeError, ValueError):
        return np.nan


def numbers_of(values: Sequence[Any]) -> NDArray[np.float32]:
    """`number_of` for each value, (n,) float32."""
    return to_float32(np.fromiter(map(number_of, values), np.float64, len(values)))


def _encode_objects(items: list[Any], codes: TextCodes, known: str | None) -> Encoded | None:
    kinds = set(map(type, items))
    if known == CATEGORICAL and kinds <= PLAIN_TEXT:
        return CATEGORICAL, codes.of(items, len(items))
    if not kinds <= PLAIN_TEXT:
        items = [None if is_missing(item) else item for item in items]
        kinds = set(map(type, items))
    meanings = {_meaning(kind) for kind in kinds} - {_MISSING}
    if _UNSUPPORTED in meanings:
        return None
    if known != CATEGORICAL:
        if not meanings:
            return known or NUMERIC, np.full(len(items), np.nan, F4)
        if meanings == {_BOOL} and known != NUMERIC:
            return BOOLEAN, numbers_of(items)
        if meanings <= {_NUMBER, _BOOL} or meanings in ({_TIME}, {_DELTA}):
            return NUMERIC, numbers_of(items)
    return CATEGORICAL, codes.of(items, len(items))


_meanings: dict[type, int] = {}


def _meaning(kind: type) -> int:
    """What the type means, remembered for at most 1,024 types."""
    meaning = _meanings.get(kind)
    if meaning is None:
        meaning = _classify(kind)
        if len(_meanings) < 1_024:
            _meanings[kind] = meaning
    return meaning


def _classify(kind: type) -> int:
    if kind is type(None) or kind.__name__ in {"NAType", "NaTType"} or kind is type(np.ma.masked):
        return _MISSING
    for bases, meaning in (
        ((str, bytes), _TEXT),
        ((bool, np.bool_), _BOOL),
        ((complex, np.complexfloating), _UNSUPPORTED),
        ((timedelta, np.timedelta64), _DELTA),
        ((date, np.datetime64), _TIME),
        ((int, float, np.integer, np.floating, Decimal, Fraction), _NUMBER),
        ((list, tuple, dict, set, frozenset, np.ndarray, bytearray, memoryview), _UNSUPPORTED),
        ((time,), _TEXT),
    ):
        if issubclass(kind, bases):
            return meaning
    members = {name for base in kind.__mro__[:-1] for name in vars(base)}
    if members & {"__len__", "__iter__", "__getitem__"} or kind.__hash__ is None:
        return _UNSUPPORTED
    # A text that is only the object's address says nothing.
    return _TEXT if members & {"__str__", "__repr__"} else _UNSUPPORTED
