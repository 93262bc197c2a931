"""Stage 2, capture: what is asked of a single torch tensor: whether it is one, its kind of numbers, its values.

torch is not imported: the tensors' own methods say all that is needed. Guarantee: nothing but views, and copies of the
sampled rows; random state, version counters and gradient graphs stay as they are.
"""

import dataclasses
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mlspan.inputs.base import Indices
from mlspan.inputs.summaries import Layout

MAX_CHILDREN: Final = 16
_NUMPY: Final = {
    **{f"torch.{name}": "f" for name in ("float16", "float32", "float64", "half", "float", "double")},
    **{f"torch.{name}": "i" for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")},
    "torch.bool": "b",
}
"""dtypes that numpy has, and their kind."""


Move = Callable[[NDArray[Any], bool], Any]


_tensor_types: dict[type, bool] = {}
PLAIN_TENSORS: set[type] = set()
_kinds: dict[Any, str] = {}


def is_tensor(value: object) -> bool:
    """Whether it is a torch tensor, without importing torch."""
    kind = type(value)
    found = _tensor_types.get(kind)
    if found is None:
        torch = sys.modules.get("torch")
        found = torch is not None and issubclass(kind, torch.Tensor)
        if len(_tensor_types) >= 256:
            _tensor_types.clear()
        _tensor_types[kind] = found
        if found and kind.__module__ in {"torch", "torch.nn.parameter"}:
            PLAIN_TENSORS.add(kind)
    return found


def is_on_host(tensor: Any) -> bool:
    """Whether the tensor's values lie in the host's memory."""
    found: bool = tensor.is_cpu
    return found


def kind_of(dtype: Any) -> str:
    """ "f", "i" or "b" for what numpy has; else the dtype's text."""
    found = _kinds.get(dtype)
    if found is None:
        found = _kinds[dtype] = _NUMPY.get(str(dtype), str(dtype))
    return found


def array_of(tensor: Any) -> NDArray[Any]:
    """The tensor's own memory as an array, without a copy.

    Raises:
        RuntimeError, TypeError: it cannot be had.
    """
    if tensor.requires_grad:
        tensor = tensor.detach()
    array: NDArray[Any] = tensor.numpy()
    return array


def plain(tensor: Any) -> Any:
    """Values of a few rows as a tensor of a dtype that numpy has: dequantised, and float32 for the narrow floats."""
    tensor = tensor.detach()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if kind_of(tensor.dtype) not in "fib":
        tensor = tensor.float()
    return tensor.resolve_neg()


def take(tensor: Any, rows: Indices | None, layout: Layout) -> NDArray[Any]:
    """(n_rows, n_positions) copied from a tensor on the CPU."""
    if type(tensor) is np.ndarray:
        array = tensor
    elif kind_of(tensor.dtype) not in "fib" or tensor.is_quantized or tensor.is_neg():
        torch = sys.modules["torch"]
        return array_of(plain(pick(tensor, layout, lambda at, _: torch.from_numpy(at), rows)))
    else:
        array = array_of(tensor)
    positions = layout.positions
    if positions is None:
        return array.copy() if rows is None else array[rows]
    if array.flags.c_contiguous:
        flat = array.reshape(len(array), math.prod(layout.shape))
        return flat.take(positions, 1) if rows is None else flat[rows[:, None], positions]
    at = slice(None) if rows is None else rows[:, None]
    if layout.last is not None:
        moved = array.transpose(0, *range(2, array.ndim), 1)
        if moved.flags.c_contiguous:
            flat = moved.reshape(len(array), math.prod(layout.shape))
            return flat.take(layout.last, 1) if rows is None else flat[rows[:, None], layout.last]
    return array[(at, *layout.indices)]


def pick(tensor: Any, layout: Layout | None, move: Move, rows: Indices | None) -> Any:
    """The same by torch, where the tensor is, as a new tensor; without a layout, whole rows.

    Args:
        tensor: on any device.
        layout: which values of a row.
        move: takes an index array to the device; its second argument says whether the array is used again.
        rows: which rows; None: all.
    """
    tensor = tensor.detach()
    if layout is None or layout.positions is None:
        return tensor.clone() if rows is None else tensor.index_select(0, move(rows, False))
    if tensor.is_quantized:  # has no indexing by several tensors
        tensor = (tensor if rows is None else tensor.index_select(0, move(rows, False))).dequantize()
        rows = None
    at = slice(None) if rows is None else move(rows[:, None], False)
    return tensor[(at, *(move(positions, True) for positions in layout.indices))]


def children(value: Any) -> Iterable[tuple[Any, Any]]:
    """Names and values within a mapping, a tuple, a list or a dataclass; of anything else, nothing."""
    if isinstance(value, Mapping):
        return list(value.items())
    if isinstance(value, (tuple, list)):
        fields = getattr(value, "_fields", None)
        items = value[:MAX_CHILDREN]
        return zip(fields, items, strict=False) if fields else enumerate(items)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    return ()
