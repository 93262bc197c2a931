"""Stage 2, capture: what a torch module was called with.

Finds the tensors among the arguments (also within dictionaries, tuples, lists, dataclasses), decides what each of them
is (columns, image, token ids, sequence, vector) and reads sampled rows of them. Guarantee: torch is not imported, no
operation but views and copies of the sampled rows is asked of it, nothing is kept after the call; tensors whose values
cannot be read say so as an `UnsupportedInputError`. docs/torch.md has the rules.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mlspan.inputs.base import Block, Indices, UnsupportedInputError
from mlspan.inputs.summaries import MAX_LAYOUTS, Columns, Layout, Sequence, Tokens, image, summary, vector
from mlspan.inputs.torch_values import PLAIN_TENSORS, array_of, children, is_on_host, is_tensor, kind_of, take

KINDS: Final = ("columns", "image", "tokens", "sequence", "vector")
MAX_TABULAR: Final = 256
"""Wider matrices of numbers are embeddings, unless the user named the columns or said that they are columns."""
MAX_TENSORS: Final = 16
MAX_DEPTH: Final = 3
TOKEN_NAMES: Final = frozenset(
    {"input_ids", "decoder_input_ids", "token_ids", "tokens", "ids", "text", "src", "tgt", "input_tokens"}
)
MASK: Final = "attention_mask"
UNREADABLE: Final = "unsupported input: tensor whose values cannot be read"
NO_FEATURES: Final = frozenset(
    {
        *("labels", "label", "targets", "target", "y", MASK, "token_type_ids", "position_ids", "cache_position"),
        *("decoder_attention_mask", "head_mask", "past_key_values", "mask", "src_mask", "tgt_mask"),
        *("src_key_padding_mask", "tgt_key_padding_mask", "offsets"),
    }
)
"""Arguments that are no features: labels that a loss is computed from, masks, positions."""


class About:
    """What is known of a module before it is called.

    Attributes:
        parameters: names of what its ``forward`` takes.
        told: what the user says that its input is: one of KINDS, or None.
        embeddings: how many tables of embeddings it holds.
        pad: the id that stands for padding, or None.
        has_names: the user has named the columns.
    """

    __slots__ = ("embeddings", "has_names", "layouts", "pad", "parameters", "told")

    def __init__(
        self,
        parameters: tuple[str, ...] = (),
        told: str | None = None,
        embeddings: int = 0,
        pad: int | None = None,
        has_names: bool = False,
    ) -> None:
        self.parameters = parameters
        self.told = told
        self.embeddings = embeddings
        self.pad = pad
        self.has_names = has_names
        # How plain tensors of a dtype and shape were read, where one was the only argument.
        self.layouts: dict[Any, Layout] = {}


class Part:
    """One tensor of the call (or its memory as an array), and how it is read; `mask` says where its padding is."""

    __slots__ = ("layout", "mask", "tensor")

    def __init__(self, tensor: Any, layout: Layout, mask: Any = None) -> None:
        self.tensor = tensor
        self.layout = layout
        self.mask = mask

    def take(self, rows: Indices | None) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """Copies of the values of these rows (None: all), of a tensor on the CPU."""
        layout = self.layout
        mask = None if self.mask is None else take(self.mask, rows, layout)
        return take(self.tensor, rows, layout), mask


class TensorSource:
    """The tensors of one call, as a `Source`.

    Attributes:
        parts: at least one.
        device: the device that all of them are on; None for the CPU.
        problem: why their values cannot be read, or None.
    """

    __slots__ = ("columns", "device", "names", "parts", "problem", "python_columns", "rows")

    def __init__(self, parts: list[Part], rows: int, device: Any, problem: str | None) -> None:
        self.parts = parts
        self.rows = rows
        self.device = device
        self.problem = problem
        first = parts[0].layout
        self.names: tuple[str, ...] | None
        # Summaries take longer than columns do: as if their cells were Python's, so that fewer rows are taken.
        if len(parts) == 1 and type(first) is not Columns:
            self.names = first.names
            self.columns = self.python_columns = len(first.names)
            return
        self.columns = sum(_width(part.layout) for part in parts)
        self.names = _names_of(parts) if len(parts) > 1 or first.names else None
        self.python_columns = 0 if all(type(part.layout) is Columns for part in parts) else self.columns

    def read(self, indices: Indices | None, positions: Indices | None, width: int) -> Iterable[Block]:
        """One matrix."""
        cells = self.cells(self.take(indices))
        return [Block(slice(0, width), cells[:, :width] if positions is None else cells[:, positions])]

    def take(self, rows: Indices | None) -> list[tuple[NDArray[Any], NDArray[Any] | None]]:
        """Copies of the values that are read, of tensors on the CPU.

        Raises:
            UnsupportedInputError: they cannot be read.
        """
        if self.problem is not None:
            raise UnsupportedInputError(self.problem)
        try:
            return [part.take(rows) for part in self.parts]
        except (RuntimeError, TypeError, NotImplementedError) as error:
            # What is a tensor only by its class: within vmap, under a mode, of a subclass.
            raise UnsupportedInputError(UNREADABLE) from error

    def cells(self, taken: list[tuple[NDArray[Any], NDArray[Any] | None]]) -> NDArray[Any]:
        """(n_rows, n_columns) features of what was taken."""
        found = [summary(part.layout, *raw) for part, raw in zip(self.parts, taken, strict=True)]
        return found[0] if len(found) == 1 else np.hstack(found)


def open_call(args: tuple[Any, ...], kwargs: Mapping[str, Any], about: About) -> object:
    """What the module was called with, for `capture_input`: an array, a `TensorSource`, or the argument as it is.

    Args:
        args: positional arguments, without the module.
        kwargs: keyword arguments.
        about: what is known of the module.
    """
    if len(args) == 1 and not kwargs and type(args[0]) in PLAIN_TENSORS:
        quick = _open_quickly(args[0], about)
        if quick is not None:
            return quick
    try:
        return _open(args, kwargs, about)
    except (RuntimeError, TypeError, NotImplementedError, AttributeError):
        # A tensor by its class only, which answers what it is asked as it likes.
        return Unreadable(UNREADABLE, 0)


def _open(args: tuple[Any, ...], kwargs: Mapping[str, Any], about: About) -> object:
    if len(args) == 1 and not kwargs and is_tensor(args[0]):
        found: list[tuple[str, Any]] = [("", args[0])]
    else:
        found = list(_tensors(args, kwargs, about.parameters))
        if not found:
            return args[0] if args else next(iter(kwargs.values()), None)
        if len(found) == 1:
            found = [("", found[0][1])] if found[0][0] not in TOKEN_NAMES else found
    masks = {name: value for name, value in found if name.rpartition(".")[2] == MASK}
    used = [(name, value) for name, value in found if name.rpartition(".")[2] not in NO_FEATURES]
    used = used or found[:1]
    alone = len(used) == 1
    first = used[0][1]
    if first.dim() == 0:
        return Unreadable("unsupported input: tensor without dimensions", 0)
    if first.is_nested:
        return Unreadable("unsupported input: nested tensor", int(first.size(0)))
    if alone and first.dim() == 1 and _is_one_row(used[0][0], first, about):
        first = first.detach()[None]
        used = [(used[0][0], first)]
    rows = int(first.shape[0])
    problem = _problem(first)
    device = None if is_on_host(first) else first.device
    if alone and problem is None and device is None and type(first) in PLAIN_TENSORS:
        array = _quick_columns(first, used[0][0], about)
        if array is not None:
            if not used[0][0] and first.dim() == 2:
                _remember(about, first, _COLUMNS)
            return array
    parts = []
    for name, tensor in used:
        if tensor.dim() == 0 or tensor.is_nested or tensor.shape[0] != rows:
            continue
        other = _problem(tensor)
        if other is not None or tensor.device != first.device:
            problem = problem or other or "unsupported input: tensors on several devices"
        short = name.rpartition(".")[2]
        layout = _layout(tensor, short, "" if alone else name, about)
        mask = masks.get(MASK) if type(layout) is Tokens else None
        parts.append(Part(tensor, layout, mask if mask is not None and mask.shape == tensor.shape else None))
        if alone and not name and type(layout) is not Columns and kind_of(tensor.dtype) in "fib":
            _remember(about, tensor, layout)
    return TensorSource(parts, rows, device, problem) if parts else Unreadable(problem or UNREADABLE, rows)


def _open_quickly(tensor: Any, about: About) -> object:
    """The same for the commonest call: one plain tensor on the CPU, of a shape that was seen before."""
    if not is_on_host(tensor) or tensor.requires_grad:
        return None
    try:
        layout = about.layouts.get((tensor.dtype, tensor.shape[1:]))
        if layout is None:
            return None
        array = tensor.numpy()
    except (RuntimeError, TypeError):
        return None
    return array if layout is _COLUMNS else TensorSource([Part(array, layout)], len(array), None, None)


def _remember(about: About, tensor: Any, layout: Layout) -> None:
    if len(about.layouts) >= MAX_LAYOUTS:
        about.layouts.clear()
    about.layouts[tensor.dtype, tensor.shape[1:]] = layout


_COLUMNS: Final = Columns((), ())
_layouts: dict[Any, Layout] = {}


def _quick_columns(tensor: Any, name: str, about: About) -> NDArray[Any] | None:
    """A matrix of columns, which needs no source of its own."""
    kind = kind_of(tensor.dtype)
    if kind not in "fib" or tensor.dim() > 2 or tensor.is_neg():
        return None
    width = tensor.shape[1] if tensor.dim() == 2 else 1
    if _is(tensor, kind, width, name, about) != "columns":
        return None
    try:
        array = array_of(tensor)
    except (RuntimeError, TypeError):
        return None
    return array if array.ndim == 2 else array.reshape(-1, 1)


def _is(tensor: Any, kind: str, width: int, name: str, about: About) -> str:
    """One of KINDS."""
    dimensions = tensor.dim()
    if about.told is not None and (about.told != "tokens" or kind == "i"):
        return about.told
    if dimensions <= 2:
        if kind == "i" and dimensions == 2 and (name in TOKEN_NAMES or 0 < about.embeddings < width):
            return "tokens"
        return "columns" if width <= MAX_TABULAR or about.has_names else "vector"
    if dimensions == 3 and kind != "i":
        return "sequence"
    return "image" if dimensions in {4, 5} else "vector"


def _layout(tensor: Any, name: str, prefix: str, about: About) -> Layout:
    """The layout of such tensors, made once."""
    shape = tuple(map(int, tensor.shape[1:]))
    dtype = kind_of(tensor.dtype)
    kind = _is(tensor, dtype, shape[0] if shape else 1, name, about)
    if (kind == "image" and len(shape) < 3) or (kind == "sequence" and len(shape) != 2):
        kind = "vector" if shape else "columns"
    if (kind == "tokens" and len(shape) != 1) or (kind == "vector" and not shape):
        kind = "columns"
    pad = about.pad if kind == "tokens" else None
    key = (kind, shape, pad, prefix)
    layout = _layouts.get(key)
    if layout is None:
        if kind == "image":
            layout = image(shape)
        elif kind == "tokens":
            layout = Tokens(shape, pad)
        elif kind == "sequence":
            layout = Sequence(shape)
        elif kind == "vector":
            layout = vector(shape)
        else:
            layout = Columns(_column_names(prefix, shape), shape)
        if prefix and kind != "columns":
            layout.names = tuple(f"{prefix}.{feature}" for feature in layout.names)
        if len(_layouts) >= MAX_LAYOUTS:
            _layouts.clear()
        _layouts[key] = layout
    return layout


def _column_names(prefix: str, shape: tuple[int, ...]) -> tuple[str, ...]:
    if not prefix:
        return ()
    width = int(np.prod(shape))
    return (prefix,) if width == 1 else tuple(f"{prefix}.{at}" for at in range(width))


def _width(layout: Layout) -> int:
    return int(np.prod(layout.shape)) if type(layout) is Columns else len(layout.names)


def _names_of(parts: list[Part]) -> tuple[str, ...]:
    if len(parts) == 1:
        return parts[0].layout.names
    return tuple(name for part in parts for name in part.layout.names)


def _is_one_row(name: str, tensor: Any, about: About) -> bool:
    """Whether one dimension is one row of features, without a batch, rather than a number a row."""
    if kind_of(tensor.dtype) == "i":
        return name in TOKEN_NAMES or about.told == "tokens"
    return about.told in {None, "columns", "vector"} and str(tensor.layout) == "torch.strided"


def _problem(tensor: Any) -> str | None:
    """Why its values cannot be read."""
    if tensor.is_nested:
        return "unsupported input: nested tensor"
    if tensor.layout is not _strided and not _is_strided(tensor.layout):
        return "unsupported input: sparse tensor"
    kind = tensor.device.type
    if kind not in {"cpu", "cuda"}:
        return "unsupported input: tensor without data" if kind == "meta" else f"unsupported input: tensor on {kind}"
    if tensor.dtype.is_complex:
        return "unsupported input: complex tensor"
    return None


_strided: Any = None


def _is_strided(layout: Any) -> bool:
    global _strided  # noqa: PLW0603 - the one such object, learnt from the first tensor
    if str(layout) == "torch.strided":
        _strided = layout
        return True
    return False


class Unreadable:
    """An input of which nothing but its rows is known."""

    __slots__ = ("columns", "names", "problem", "python_columns", "rows")

    def __init__(self, problem: str, rows: int) -> None:
        self.problem = problem
        self.rows = rows
        self.columns = self.python_columns = 0
        self.names = None

    def read(self, indices: Indices | None, positions: Indices | None, width: int) -> Iterable[Block]:  # noqa: ARG002
        """Never.

        Raises:
            UnsupportedInputError: always.
        """
        raise UnsupportedInputError(self.problem)


def _tensors(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], parameters: tuple[str, ...]
) -> Iterator[tuple[str, Any]]:
    """Names and tensors, MAX_TENSORS of them at most."""
    left = [MAX_TENSORS]
    alone = len(args) + len(kwargs) == 1
    for at, value in enumerate(args):
        name = parameters[at] if at < len(parameters) else f"x{at}"
        yield from _within(name, value, 0, left, alone)
    for name, value in kwargs.items():
        yield from _within(name, value, 0, left, alone and not is_tensor(value))


def _within(name: str, value: Any, depth: int, left: list[int], bare: bool = False) -> Iterator[tuple[str, Any]]:
    if left[0] <= 0:
        return
    if is_tensor(value):
        left[0] -= 1
        yield name, value
        return
    if depth < MAX_DEPTH:
        for key, item in children(value):
            yield from _within(str(key) if bare else f"{name}.{key}", item, depth + 1, left)
