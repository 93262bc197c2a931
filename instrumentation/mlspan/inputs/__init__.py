"""Stage 2, capture: opens what a model was called with as a `Source`, by the type's own library.

No library is imported: a type is recognised by the module that defined it or one of its bases. Anything that must be
computed, consumed or fetched to be read (generators, dask, LazyFrame, tensors on a device) is unsupported and not
touched; docs/capture.md lists what becomes of each type.
"""

from collections.abc import Callable
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from mlspan.inputs.arrays import ArraySource, open_array
from mlspan.inputs.arrow import TableSource
from mlspan.inputs.base import Block, Indices, Source, UnsupportedInputError
from mlspan.inputs.dmatrix import DMatrixSource
from mlspan.inputs.lists import DictSource, open_list
from mlspan.inputs.pandas import FrameSource, open_series
from mlspan.inputs.pandas import numbers_of as frame_numbers_of
from mlspan.inputs.polars import PolarsSource
from mlspan.inputs.sparse import SparseSource
from mlspan.inputs.texts import TextSource

__all__ = [
    "BY_ROW",
    "ArraySource",
    "Block",
    "FrameSource",
    "Indices",
    "Source",
    "UnsupportedInputError",
    "names_of",
    "numbers_of",
    "open_input",
]

_Opener = Callable[[Any], Source]

MAX_TYPES: Final = 256
BY_ROW: Final = (FrameSource, PolarsSource, TableSource)
"""Sources that may know a quicker way to read a single row."""


def _open_polars_series(series: Any) -> Source:
    name = series.name or "x0"
    if str(series.dtype) in {"String", "Utf8"}:
        return TextSource(series, name)
    return PolarsSource(series.to_frame(name))


def _open_tensor(tensor: Any) -> Source:
    if tensor.device.type != "cpu":
        raise UnsupportedInputError("unsupported input: tensor that is not on the CPU")
    return open_array(tensor.detach().numpy())


def _as_it_is(source: Source) -> Source:
    return source


def _open_array_like(value: Any) -> Source:
    return open_array(np.asarray(value))


OPENERS: Final[dict[tuple[str, str], _Opener]] = {
    ("numpy", "ndarray"): open_array,
    ("pandas", "DataFrame"): FrameSource,
    ("pandas", "Series"): open_series,
    ("polars", "DataFrame"): PolarsSource,
    ("polars", "Series"): _open_polars_series,
    ("pyarrow", "Table"): TableSource,
    ("pyarrow", "RecordBatch"): TableSource,
    ("scipy", "spmatrix"): SparseSource,
    ("scipy", "sparray"): SparseSource,
    ("torch", "Tensor"): _open_tensor,
    ("mlspan", "TensorSource"): _as_it_is,
    ("mlspan", "Unreadable"): _as_it_is,
    ("mlspan", "FeedSource"): _as_it_is,
    ("xgboost", "DMatrix"): DMatrixSource,
    ("builtins", "list"): open_list,
    ("builtins", "tuple"): open_list,
    ("array", "array"): _open_array_like,
    ("builtins", "memoryview"): _open_array_like,
}
"""By top-level module and class name, of the type or of one of its bases."""

_LAZY: Final = ("compute", "collect", "persist")
"""What has one of these would be computed by being read."""
_ON_A_DEVICE: Final = "__cuda_array_interface__"
"""What has this lies in a GPU's memory, and refuses to be read as numpy's."""

_openers: dict[type, _Opener | None] = {}


def numbers_of(X: object) -> tuple[tuple[str, ...] | None, NDArray[Any]] | None:
    """Names and values of an input that is a matrix of numbers already; None for all that has to be opened."""
    if type(X) is np.ndarray:
        return (None, X) if X.ndim == 2 and X.dtype.kind in "fiu" else None
    return frame_numbers_of(X) if _openers.get(type(X)) is FrameSource else None


def names_of(source: Source, feature_names: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """What the columns are called: by the input itself, else as the model knows them; None: by neither."""
    if feature_names is not None and isinstance(source, DictSource):
        source.expect(feature_names)
    return source.names if source.names is not None else feature_names


def open_input(X: object) -> Source:
    """The source for any input of a model.

    Raises:
        UnsupportedInputError: such inputs are not captured.
    """
    kind = type(X)
    try:
        opener = _openers[kind]
    except KeyError:
        opener = _find(kind)
        if len(_openers) >= MAX_TYPES:
            _openers.clear()
        _openers[kind] = opener
    if opener is None:
        raise UnsupportedInputError(f"unsupported input: {kind.__name__}")
    return opener(X)


def _find(kind: type) -> _Opener | None:
    for base in kind.__mro__:
        opener = OPENERS.get((base.__module__.partition(".")[0], base.__name__))
        if opener is not None:
            return opener
    if any(hasattr(kind, name) for name in (*_LAZY, _ON_A_DEVICE)):
        return None
    if hasattr(kind, "__array_interface__") or (hasattr(kind, "__array__") and hasattr(kind, "shape")):
        return cast(_Opener, _open_array_like)
    return None
