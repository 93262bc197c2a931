"""Stage 2, capture: what an inference session is fed: a dictionary of arrays.

One matrix is what any matrix is. Of several inputs, each column is called by its input's name; texts are categories;
images, token ids, sequences and wide vectors become summaries, as for torch modules. Guarantee: only arrays and lists
are read, only the sampled rows are copied, nothing is kept. docs/native.md has the rules.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mlspan.inputs.base import Block, Indices
from mlspan.inputs.summaries import MAX_LAYOUTS, Layout, Sequence, Tokens, image, summary, vector
from mlspan.inputs.tensors import MASK, MAX_TABULAR, NO_FEATURES, TOKEN_NAMES, Unreadable
from mlspan.inputs.torch_values import take

MAX_FEEDS: Final = 1_024
_TEXT: Final = "OUST"
_NUMBERS: Final = "fiub"


class FeedPart:
    """One input: its values, what its columns are called, and how it is summarised (None: as it is)."""

    __slots__ = ("array", "layout", "mask", "names")

    def __init__(
        self, array: NDArray[Any], names: tuple[str, ...], layout: Layout | None, mask: NDArray[Any] | None = None
    ) -> None:
        self.array = array
        self.names = names
        self.layout = layout
        self.mask = mask

    def read(self, rows: Indices | None) -> NDArray[Any]:
        """(n_sampled, n_columns) of these rows; None: all."""
        if self.layout is None:
            array = self.array if rows is None else self.array[rows]
            return array.reshape(len(array), len(self.names))
        mask = None if self.mask is None else take(self.mask, rows, self.layout)
        return summary(self.layout, take(self.array, rows, self.layout), mask)


class FeedSource:
    """The inputs of one call, as a `Source`."""

    __slots__ = ("_parts", "columns", "names", "python_columns", "rows")

    def __init__(self, parts: list[FeedPart], rows: int) -> None:
        self._parts = parts
        self.rows = rows
        self.names: tuple[str, ...] = tuple(name for part in parts for name in part.names)
        self.columns = len(self.names)
        # Summaries take longer than columns do: as if their cells were Python's, so that fewer rows are taken.
        costly = (part for part in parts if part.layout is not None or part.array.dtype.kind in _TEXT)
        self.python_columns = sum(len(part.names) for part in costly)

    def read(self, indices: Indices | None, positions: Indices | None, width: int) -> Iterable[Block]:
        """A block for each input, or for each of its columns where they are texts."""
        wanted = np.arange(width) if positions is None else positions
        start = 0
        for part in self._parts:
            end = start + len(part.names)
            slots = np.flatnonzero((wanted >= start) & (wanted < end))
            if len(slots):
                values = part.read(indices)[:, wanted[slots] - start]
                if len(slots) > 1 and values.dtype.kind not in _TEXT:
                    yield Block(slots, values)
                else:
                    for at, slot in enumerate(slots.tolist()):
                        yield Block(slot, values[:, at])
            start = end


def open_feed(feed: object, told: str | None = None, has_names: bool = False) -> object:
    """What a session was fed, for `capture_input`: an array, or a source.

    Args:
        feed: the dictionary, or whatever the user passed in its place.
        told: what the user says that the input is, as `mlspan.inputs.tensors.KINDS` calls it; or None.
        has_names: the user has named the columns.
    """
    if not isinstance(feed, Mapping) or not feed:
        return feed
    if len(feed) > MAX_FEEDS:
        return Unreadable(f"unsupported input: more than {MAX_FEEDS} inputs", 0)
    arrays = {str(name): value if type(value) is np.ndarray else _array(value) for name, value in feed.items()}
    has_tokens = not TOKEN_NAMES.isdisjoint(arrays)
    used = {name: array for name, array in arrays.items() if not (has_tokens and name in NO_FEATURES)}
    first = next(iter(used.values()), None)
    if first is None or not first.ndim:
        what = type(next(iter(feed.values()))).__name__ if first is None else "array without dimensions"
        return Unreadable(f"unsupported input: {what}", 0)
    rows = len(first)
    alone = len(used) == 1
    mask = arrays.get(MASK)
    parts = []
    for name, array in used.items():
        if array is None or not array.ndim or len(array) != rows or array.dtype.kind not in _TEXT + _NUMBERS:
            continue
        kind = _kind(array, name, told, has_names)
        if kind == "columns":
            if alone:
                return array  # as any array
            parts.append(FeedPart(array, _names(name, array.shape[1:]), None))
            continue
        layout = _layout(kind, array.shape[1:])
        names = layout.names if alone else tuple(f"{name}.{feature}" for feature in layout.names)
        fits = kind == "tokens" and mask is not None and mask.shape == array.shape
        parts.append(FeedPart(array, names, layout, mask if fits else None))
    return FeedSource(parts, rows) if parts else Unreadable(f"unsupported input: array of {first.dtype}", rows)


def _array(value: Any) -> NDArray[Any] | None:
    """A list as the array that the session makes of it; nothing else is read."""
    if isinstance(value, np.ndarray):
        return np.asarray(value)
    if not isinstance(value, (list, tuple, np.generic, int, float, str)):
        return None
    try:
        return np.asarray(value)
    except ValueError:  # no rectangle
        return None


def _kind(array: NDArray[Any], name: str, told: str | None, has_names: bool) -> str:
    """One of `mlspan.inputs.tensors.KINDS`, where the array's shape allows it."""
    shape, letter = array.shape[1:], array.dtype.kind
    if letter in _TEXT or not shape:
        return "columns"
    kind = told
    if kind is None or (kind == "tokens" and letter not in "iu"):
        if len(shape) == 1:
            is_tokens = letter in "iu" and name in TOKEN_NAMES
            kind = "tokens" if is_tokens else "columns" if shape[0] <= MAX_TABULAR or has_names else "vector"
        elif len(shape) == 2 and letter == "f":
            kind = "sequence"
        else:
            kind = "image" if len(shape) in {3, 4} else "vector"
    if (kind == "image" and len(shape) < 3) or (kind == "sequence" and len(shape) != 2):
        return "vector"
    return "columns" if kind == "tokens" and len(shape) != 1 else kind


_layouts: dict[tuple[str, tuple[int, ...]], Layout] = {}


def _layout(kind: str, shape: tuple[int, ...]) -> Layout:
    """How such rows are summarised, made once."""
    layout = _layouts.get((kind, shape))
    if layout is None:
        if kind == "image":
            layout = image(shape)
        elif kind == "tokens":
            layout = Tokens(shape, None)
        elif kind == "sequence":
            layout = Sequence(shape)
        else:
            layout = vector(shape)
        if len(_layouts) >= MAX_LAYOUTS:
            _layouts.clear()
        _layouts[kind, shape] = layout
    return layout


def _names(name: str, shape: tuple[int, ...]) -> tuple[str, ...]:
    width = math.prod(shape)
    return (name,) if width == 1 else tuple(f"{name}.{at}" for at in range(width))
