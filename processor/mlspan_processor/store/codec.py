"""State that survives, part 1: plain values and numpy arrays as bytes, and statistics objects as plain values.

In: a mapping of None, booleans, numbers, texts, bytes, arrays, and lists and mappings of these. Out: bytes, and the
same mapping back, arrays with their dtype and bit by bit (but for the payload of NaNs and the sign of zeros). Layout:
magic and version, CRC-32 of the rest, length of the head, a JSON head, then the arrays' bytes. An array is written as
narrowly as it can be without loss: one value when all are the same, whole numbers as the smallest unsigned integers
that hold them, doubles that are floats as floats. Nothing is executed when it is read.

Objects (panes' statistics) come as `fields_of` and go back by `fill`: those that have ``snapshot()`` and ``restore()``
say themselves what they are; of others, every attribute is taken. What a newer version has added keeps the value of a
new object, what it has removed is left out.
"""

import json
import struct
import zlib
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_HEAD: Final = struct.Struct("<4sII")
_MAGIC: Final = b"mls1"
_PLAIN: Final = (bool, int, float, str, bytes, type(None))
_UNSIGNED: Final = (np.dtype("<u1"), np.dtype("<u2"), np.dtype("<u4"))
_MAX_DEPTH: Final = 8


class CodecError(ValueError):
    """These bytes, or this object, cannot be read or written."""


def pack(values: Mapping[str, Any]) -> bytes:
    """The mapping as bytes.

    Raises:
        CodecError: a value is of another kind.
    """
    parts: list[bytes] = []
    head = json.dumps(_written(values, parts), ensure_ascii=True, separators=(",", ":")).encode()
    body = b"".join([head, *parts])
    return _HEAD.pack(_MAGIC, zlib.crc32(body), len(head)) + body


def unpack(data: bytes) -> dict[str, Any]:
    """What `pack` was given; arrays may not be written to.

    Raises:
        CodecError: the bytes are not whole, or of another version.
    """
    if len(data) < _HEAD.size:
        raise CodecError("the bytes are cut off")
    magic, checksum, size = _HEAD.unpack_from(data)
    body = memoryview(data)[_HEAD.size :]
    if magic != _MAGIC:
        raise CodecError("the bytes are of another format or version")
    if zlib.crc32(body) != checksum:
        raise CodecError("the bytes are damaged")
    try:
        values = _read(json.loads(bytes(body[:size])), _Buffer(body[size:]))
    except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
        raise CodecError(f"the bytes cannot be read: {error}") from None
    if not isinstance(values, dict):
        raise CodecError("the bytes are no mapping")
    return values


def fields_of(owner: Any, depth: int = 0) -> dict[str, Any]:
    """An object's state as plain values: its `snapshot()`, or its attributes.

    Raises:
        CodecError: an attribute is of another kind, or the object refers to itself.
    """
    if hasattr(owner, "snapshot"):
        return dict(owner.snapshot())
    if depth > _MAX_DEPTH:
        raise CodecError(f"{type(owner).__name__} is nested too deeply")
    fields: dict[str, Any] = {}
    for name in _attributes(owner):
        value = getattr(owner, name)
        if isinstance(value, (*_PLAIN, np.ndarray, np.generic, list, tuple, dict)):
            fields[name] = value
        elif callable(value):
            continue  # a function that was set at construction comes back with a new object
        else:
            fields[name] = fields_of(value, depth + 1)
    return fields


def fill(owner: Any, fields: Mapping[str, Any]) -> None:
    """Give a new object of the same class the state of the one that `fields` came from.

    Raises:
        CodecError: a field does not fit.
    """
    if hasattr(owner, "restore"):
        owner.restore(fields)
        return
    for name in _attributes(owner):
        if name not in fields:
            continue
        fresh, value = getattr(owner, name), fields[name]
        if isinstance(fresh, np.ndarray):
            setattr(owner, name, fitting(value, fresh, f"{type(owner).__name__}.{name}"))
        elif isinstance(fresh, tuple) and isinstance(value, list):
            setattr(owner, name, tuple(value))
        elif isinstance(fresh, set) and isinstance(value, list):
            setattr(owner, name, set(value))
        elif isinstance(fresh, (*_PLAIN, np.generic, list, dict)):
            setattr(owner, name, value)
        elif isinstance(value, Mapping):
            fill(fresh, value)


def fitting(value: Any, fresh: NDArray[Any], name: str) -> NDArray[Any]:
    """A copy of an array that was read, to take the place of `fresh`: of its dtype, and of its shape unless that is
    empty.

    Raises:
        CodecError: it is no array, or of another shape.
    """
    if not isinstance(value, np.ndarray) or (fresh.size and value.shape != fresh.shape) or value.ndim != fresh.ndim:
        raise CodecError(f"{name} is not an array of shape {fresh.shape}")
    return value.astype(fresh.dtype)


def _attributes(owner: Any) -> list[str]:
    names = [name for kind in type(owner).__mro__ for name in getattr(kind, "__slots__", ())]
    names += getattr(owner, "__dict__", {})
    if not names:
        raise CodecError(f"{type(owner).__name__} cannot be written")
    return sorted(name for name in dict.fromkeys(names) if name != "__weakref__" and hasattr(owner, name))


def _written(value: Any, parts: list[bytes], depth: int = 0) -> Any:
    if depth > _MAX_DEPTH:
        raise CodecError("values are nested too deeply")
    match value:
        case None | bool() | int() | float() | str():
            return value
        case np.generic():
            return value.item()
        case bytes():
            parts.append(value)
            return {"bytes": len(value)}
        case np.ndarray():
            return {"array": _written_array(value, parts)}
        case list() | tuple():
            return [_written(one, parts, depth + 1) for one in value]
        case Mapping():
            if not all(isinstance(key, str) for key in value):
                pairs = [
                    [_written(key, parts, depth + 1), _written(one, parts, depth + 1)] for key, one in value.items()
                ]
                return {"pairs": pairs}
            return {"map": {key: _written(one, parts, depth + 1) for key, one in value.items()}}
        case _:
            raise CodecError(f"{type(value).__name__} cannot be written")


def _written_array(array: NDArray[Any], parts: list[bytes]) -> list[Any]:
    """[dtype, shape, dtype as written, what was taken off whole numbers] and the bytes; shape 1 stands for all the
    same."""
    if array.dtype.kind not in "biuf":
        raise CodecError(f"an array of {array.dtype} cannot be written")
    array = np.ascontiguousarray(array)
    dtype = array.dtype.newbyteorder("<")
    narrow, base = _narrowed(array.astype(dtype, copy=False).ravel())
    parts.append(narrow.tobytes())
    return [dtype.str, list(array.shape), narrow.dtype.str, base, len(narrow)]


def _narrowed(flat: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """The same numbers, less `base`, in a smaller dtype where there is one."""
    if len(flat) < 2:
        return flat, 0
    if flat.dtype.itemsize > 1:
        bits = flat.view(f"<u{flat.dtype.itemsize}") if flat.dtype.itemsize <= 8 else None
        if bits is not None and bits[0] == bits[-1] and (bits == bits[0]).all():
            return flat[:1], 0
    elif (flat == flat[0]).all():
        return flat[:1], 0
    if flat.dtype.kind in "iu" and flat.dtype.itemsize > 1:
        low, high = int(flat.min()), int(flat.max())
        for dtype in _UNSIGNED:
            if dtype.itemsize < flat.dtype.itemsize and high - low <= np.iinfo(dtype).max:
                return (flat - flat.dtype.type(low)).astype(dtype), low
    elif flat.dtype == np.dtype("<f8"):
        least, most = float(flat.min()), float(flat.max())
        if least >= 0 and most < 1 << 32:
            smallest = next(dtype for dtype in _UNSIGNED if most <= np.iinfo(dtype).max)
            whole = flat.astype(smallest)
            if (whole == flat).all():
                return whole, 0
        with np.errstate(over="ignore", invalid="ignore"):
            floats = flat.astype("<f4")
            if np.array_equal(floats.astype("<f8"), flat, equal_nan=True):
                return floats, 0
    return flat, 0


class _Buffer:
    """Bytes that are read one part after the other."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> memoryview:
        start, self._at = self._at, self._at + size
        if size < 0 or self._at > len(self._data):
            raise ValueError("an array is cut off")
        return self._data[start : self._at]


def _read(value: Any, buffer: _Buffer) -> Any:
    if isinstance(value, list):
        return [_read(one, buffer) for one in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    match kind:
        case "map":
            return {key: _read(one, buffer) for key, one in content.items()}
        case "pairs":
            return {_read(key, buffer): _read(one, buffer) for key, one in content}
        case "bytes":
            return bytes(buffer.take(content))
        case "array":
            return _read_array(content, buffer)
        case _:
            raise ValueError(f'"{kind}" is not known')


def _read_array(content: list[Any], buffer: _Buffer) -> NDArray[Any]:
    name, shape, written_as, base, length = content
    dtype, written = np.dtype(name), np.dtype(written_as)
    if dtype.kind not in "biuf" or written.kind not in "biuf":
        raise ValueError(f'an array of "{name}"')
    flat = np.frombuffer(buffer.take(length * written.itemsize), written)
    numbers = flat.astype(dtype, copy=False)
    if base:
        numbers = numbers + dtype.type(base)
    size = int(np.prod(shape, dtype=np.int64))
    if length != size:
        if length != 1:
            raise ValueError("an array of another length")
        numbers = np.broadcast_to(numbers, (size,))
    return numbers.reshape(shape)
