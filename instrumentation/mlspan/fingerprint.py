"""Stage 1, which model it is: a version for models that were given none, from the fitted state itself.

Reads a model object, writes 12 hexadecimal digits. The same for the same fitted state in any process, run and memory
layout, and after pickling; another one after a fit on other data. Guarantee: never raises, never changes the model, and
looks at no more than 200,000 objects and 64 MiB, of one array at most 8 MiB spread over it evenly, of a torch tensor at
most 8,192 values.

A digest of digests (Merkle, 1987) over what pickling would store: class, parameters and fitted attributes, dictionaries
and sets in sorted order, arrays by dtype, shape and values. Left out: how much of the machine to use (n_jobs, verbose),
the state of random generators, caches, measured times. Functions and classes count by their qualified names, objects
that cannot be pickled by their class.
"""

import functools
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from itertools import islice
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mlspan.guard import failed
from mlspan.inputs.torch_values import array_of, is_tensor, plain

DIGEST_BYTES: Final = 6
MAX_BYTES: Final = 64 << 20
MAX_ARRAY_BYTES: Final = 8 << 20
MAX_OBJECTS: Final = 200_000
MAX_DEPTH: Final = 100
MAX_TENSOR_VALUES: Final = 8_192
MAX_ITEMS: Final = 65_536
"""Items of one list, set or dictionary that are looked at."""

IGNORED: Final = frozenset(
    {
        *("n_jobs", "nthread", "thread_count", "num_threads", "verbose", "memory", "pre_dispatch"),
        *("_sklearn_version", "_stop_words_id", "cv_results_", "refit_time_", "_repr_html_"),
        # pyarrow, pandas and scipy remember here what they found out about their data
        *("_cache", "_has_sorted_indices", "_has_canonical_format"),
    }
)
"""Names of attributes that do not tell one fitted model from another."""

_GENERATORS: Final = (np.random.RandomState, np.random.Generator, np.random.BitGenerator)
_NAMED: Final = (
    *(types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType, type),
    *(np.ufunc, types.MethodDescriptorType, types.WrapperDescriptorType),
)
_SPARSE_PARTS: Final = ("data", "indices", "indptr", "row", "col", "offsets", "rows")
_PROGRAMS: Final = ("torch.jit._script", "torch.jit._trace", "torch.fx.graph_module")
"""Where the classes of modules are from that are programs: they cannot be pickled, or not the same way twice."""
_TREE_QUERY_COUNTERS: Final = 7
"""The state of scikit-learn's KDTree and BallTree begins with so many entries that queries do not change."""


def fingerprint(model: object) -> str:
    """12 hexadecimal digits that stand for this fitted model.

    >>> fingerprint({"a": 1, "b": [2, 3]}) == fingerprint({"b": [2, 3], "a": 1})
    True
    """
    try:
        return _Walk().digest(model, 0).hex()[: 2 * DIGEST_BYTES]
    except Exception:  # noqa: BLE001 - foreign objects may do anything when they are asked for their state
        failed("fingerprint")
        return _hash("class", _qualified(type(model)).encode()).hex()[: 2 * DIGEST_BYTES]


class _Walk:
    """One walk over a model: its bounds, and the digests of what it has passed."""

    def __init__(self) -> None:
        self._bytes = MAX_BYTES
        self._objects = MAX_OBJECTS
        # The objects are kept, so that no id is given to another one during the walk.
        self._known: dict[int, tuple[object, bytes]] = {}
        self._open: set[int] = set()

    def digest(self, value: Any, depth: int) -> bytes:
        """The digest of any object; bounded, cycles included."""
        simple = self._simple(value)
        if simple is not None:
            return simple
        key = id(value)
        known = self._known.get(key)
        if known is not None:
            return known[1]
        self._objects -= 1
        if key in self._open or depth > MAX_DEPTH or self._objects < 0:
            return _hash("again" if key in self._open else "bound", _qualified(type(value)).encode())
        self._open.add(key)
        try:
            found = self._compound(value, depth + 1)
        finally:
            self._open.discard(key)
        self._known[key] = (value, found)
        return found

    def _simple(self, value: Any) -> bytes | None:
        kind = type(value)
        if value is None or kind in {bool, int, float, complex}:
            return _hash(kind.__name__, repr(value).encode())
        if kind is str:
            return _hash("str", value.encode("utf-8", "surrogatepass"))
        if kind is bytes or kind is bytearray:
            return _hash("bytes", self._take(np.frombuffer(value, np.uint8)))
        if isinstance(value, np.generic):
            return _hash(value.dtype.str, value.tobytes())
        return None

    def _compound(self, value: Any, depth: int) -> bytes:
        if isinstance(value, np.ndarray):
            return self._array(value, depth)
        if isinstance(value, np.dtype):
            return _hash("dtype", str(value).encode())
        if isinstance(value, _GENERATORS):
            return _hash("generator")
        if isinstance(value, _NAMED):
            return _hash("name", _qualified(value).encode())
        kind = type(value)
        if isinstance(value, dict):  # attributes of a subclass are not pickled by all (scikit-learn's Bunch)
            return _hash(_qualified(kind), self._mapping(value, depth))
        if kind in {list, tuple}:
            return _hash(kind.__name__, self._sequence(value, depth))
        if kind in {set, frozenset}:
            return _hash("set", self._unordered(value, depth))
        if is_tensor(value):
            return _hash(_qualified(kind), self.digest(_tensor_state(value), depth))
        if kind.__module__.startswith(_PROGRAMS):
            return _hash(_qualified(kind), self.digest(_program_state(value), depth))
        library = kind.__module__.partition(".")[0]
        special = _SPECIAL.get((library, kind.__name__))
        if special is not None:
            return _hash(_qualified(kind), self.digest(special(value), depth))
        if library == "scipy" and hasattr(value, "nnz") and hasattr(value, "format"):
            parts = {name: getattr(value, name) for name in _SPARSE_PARTS if hasattr(value, name)}
            return _hash(f"sparse {value.format} {value.shape}", self._mapping(parts, depth))
        if library in {"pandas", "polars"} and hasattr(value, "to_numpy"):
            return self._frame(value, depth)
        return self._object(value, depth)

    def _object(self, value: Any, depth: int) -> bytes:
        """Any other object: what pickling would store of it."""
        kind = _qualified(type(value))
        try:
            reduced = value.__reduce_ex__(2)
        except Exception:  # noqa: BLE001 - it cannot be pickled: its class must do, with what it shows
            return _hash(kind, self._state(value, getattr(value, "__dict__", None), depth))
        if isinstance(reduced, str):
            return _hash(kind, reduced.encode())
        _, arguments, state, items, pairs = (*reduced, None, None, None, None)[:5]
        return _hash(
            kind,
            self.digest(arguments, depth),
            self._state(value, state, depth),
            b"" if items is None else self._sequence(list(islice(items, MAX_ITEMS)), depth),
            b"" if pairs is None else self._mapping(dict(islice(pairs, MAX_ITEMS)), depth),
        )

    def _state(self, value: object, state: Any, depth: int) -> bytes:
        """An object's state, without what does not tell models apart."""
        if isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], dict) and _names(state[0]):
            state = {**(state[0] or {}), **state[1]}  # __dict__ and __slots__
        if not (isinstance(state, dict) and _names(state)):
            return self.digest(state, depth)
        kind = type(value)
        kept = {
            name: part
            for name, part in state.items()
            if name not in IGNORED and not isinstance(getattr(kind, name, None), functools.cached_property)
        }
        return self._mapping(kept, depth)

    def _sequence(self, values: Sequence[Any], depth: int) -> bytes:
        step = -(-len(values) // MAX_ITEMS) or 1
        parts = [self.digest(value, depth) for value in values[::step]]
        return _hash(str(len(values)), *parts)

    def _unordered(self, values: Iterable[Any], depth: int) -> bytes:
        return _hash("", *sorted(self.digest(value, depth) for value in values))

    def _mapping(self, values: Mapping[Any, Any], depth: int) -> bytes:
        names = sorted(values) if _names(values) else None
        if names is None:
            pairs = (self.digest(key, depth) + self.digest(part, depth) for key, part in values.items())
            return _hash(str(len(values)), *sorted(islice(pairs, MAX_ITEMS)))
        step = -(-len(names) // MAX_ITEMS) or 1
        parts = [self.digest(name, depth) + self.digest(values[name], depth) for name in names[::step]]
        return _hash(str(len(names)), *parts)

    def _array(self, array: NDArray[Any], depth: int) -> bytes:
        if isinstance(array, np.ma.MaskedArray):
            mask = self._array(np.ma.getmaskarray(array), depth)
            return _hash("masked", mask, self._array(array.filled(array.fill_value), depth))
        head = f"array {array.dtype.newbyteorder('<').str} {array.shape}"
        if array.dtype.names:  # by field: the bytes between fields are anything
            fields = array.dtype.names
            return _hash(head, *(self._array(array[field], depth) for field in fields))
        if array.dtype.hasobject:
            return _hash(head, self._sequence(array.ravel().tolist(), depth))
        return _hash(head, self._take(array))

    def _take(self, array: NDArray[Any]) -> bytes:
        """The array's bytes in C order and little-endian; of a big one, evenly spread elements."""
        room = max(min(self._bytes, MAX_ARRAY_BYTES), 4_096)
        if array.nbytes > room:
            step = -(-array.nbytes // room)
            array = (array.reshape(-1) if array.flags.c_contiguous else array.flat)[::step]
        self._bytes -= array.nbytes
        if array.dtype.byteorder == ">":
            array = array.astype(array.dtype.newbyteorder("<"))
        return array.tobytes()

    def _frame(self, frame: Any, depth: int) -> bytes:
        """A data frame, series or index."""
        columns = getattr(frame, "columns", None)
        names = [] if columns is None else list(map(str, columns))
        return _hash(
            _qualified(type(frame)), self._sequence(names, depth), self._array(np.asarray(frame.to_numpy()), depth)
        )


def _hash(tag: str, *parts: bytes) -> bytes:
    """A digest of the tag and parts, each with its length, so that none runs into the next."""
    hasher = blake2b(digest_size=16)
    for part in (tag.encode(), *parts):
        hasher.update(len(part).to_bytes(8, "little"))
        hasher.update(part)
    return hasher.digest()


def _names(values: Any) -> bool:
    """Whether all keys are texts; of None, yes: an empty state."""
    return values is None or (isinstance(values, Mapping) and all(type(key) is str for key in values))


def _qualified(value: Any) -> str:
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None) or type(value).__qualname__
    return f"{getattr(value, '__module__', '') or ''}.{name}"


def _lightgbm_trees(booster: Any) -> str:
    """The trees as text, without the parameters behind them, which hold the number of threads."""
    text: str = booster.model_to_string(num_iteration=-1)
    return text.partition("\nend of trees")[0]


def _tensor_state(tensor: Any) -> Any:
    """What kind of tensor it is, and some of its values, evenly spread: no more leave the device that they are on."""
    head = str(tensor.dtype), tuple(tensor.shape)
    try:
        flat = tensor.detach().reshape(-1)
        values = flat[:: -(-flat.numel() // MAX_TENSOR_VALUES) or 1]
        if tensor.is_complex():
            return *head, values.resolve_conj().resolve_neg().cpu().numpy()
        return *head, array_of(plain(values).cpu())
    except (RuntimeError, TypeError, ValueError, NotImplementedError, AttributeError):
        return head  # without data, sparse, or of a class of its own


def _program_state(program: Any) -> Any:
    """Of a scripted, traced or exported module: its parameters, and the program as text where there is one."""
    return dict(program.state_dict()), str(getattr(program, "code", ""))


def _tree_state(tree: Any) -> Any:
    return tree.__getstate__()[:_TREE_QUERY_COUNTERS]


_SPECIAL: Final[dict[tuple[str, str], Callable[[Any], Any]]] = {
    ("xgboost", "Booster"): lambda booster: bytes(booster.save_raw("ubj")),
    ("lightgbm", "Booster"): _lightgbm_trees,
    **{("sklearn", name + bits): _tree_state for name in ("KDTree", "BallTree") for bits in ("", "32", "64")},
}
"""Objects whose pickled state is not stable, by library and class name."""
