"""Stage 2: which rows and columns leave the process, and what of the answers.

Reads the argument and the result of one model call, writes `Input` and `Output`: copies of the sampled rows as payload
cells. `pack` makes the payload of both. Guarantee: never raises, changes, keeps or consumes what the user passed; at
most 64 + rows/16 rows, `max_rows` and `max_bytes`, within the process's `ByteBudget`; texts only as codes of a keyed
hash. Memory: what `columns.py`, `selection.py` and `inputs/` say they keep.

docs/capture.md lists what becomes of each type of input and result.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from mlspan.answers import Classes, capture_output, classes_of
from mlspan.budget import ByteBudget
from mlspan.captured import EMPTY_SCHEMA, Input, Output, Schema
from mlspan.columns import (
    BOOLEAN,
    CATEGORICAL,
    F4,
    NUMERIC,
    U4,
    Categories,
    Values,
    encode,
    objects,
    seconds,
    to_float32,
)
from mlspan.guard import failed, warn_once
from mlspan.inputs import BY_ROW, Block, Indices, Source, UnsupportedInputError, names_of, numbers_of, open_input
from mlspan.packing import pack
from mlspan.sampling import row_bound, sample
from mlspan.selection import MAX_COLUMNS, Selection, Selector, distinct, selector_of

if TYPE_CHECKING:
    from mlspan.config import Settings

__all__ = [
    "ByteBudget",
    "Classes",
    "Input",
    "Output",
    "Schema",
    "capture_input",
    "capture_output",
    "classes_of",
    "pack",
]

ANSWER_BYTES: Final = 16
"""Row number, prediction and two scores: what is reckoned for the answers to a row before any are known."""


def capture_input(
    X: object,
    feature_names: tuple[str, ...] | None,
    settings: "Settings",
    limiter: ByteBudget,
    answer_bytes: int = ANSWER_BYTES,
) -> Input:
    """What is captured of the input of a model call, before the call. Never raises.

    Args:
        X: whatever the user passed.
        feature_names: the model's own names of its input columns, for inputs without names; or None.
        settings: bounds, patterns, the hash key and the content hook.
        limiter: the process's byte budget.
        answer_bytes: what the answers to a row will take of the payload; where it was too little, `pack` cuts rows.

    Returns:
        The captured rows. Without content (by the settings, or because the hook dropped it or failed) the schema is
        None; an input of an unsupported type has an empty schema and no cells, so that its answers are captured
        still.
    """
    selector = selector_of(settings)
    rows = columns = 0
    try:
        if selector.direct and (numbers := numbers_of(X)) is not None:
            names, matrix = numbers
            rows, columns = matrix.shape
            selection = selector.select(feature_names if names is None else names, columns)
            if rows == 1 and selection.is_whole and matrix.dtype.char in "fd":
                return Input(1, columns, selection.numeric, None, None, None, selector.max_rows, matrix.tolist()[0])
            return _capture_matrix(matrix, selection, selector, limiter, answer_bytes)
        source = open_input(X)
        rows, columns = source.rows, source.columns
        if not selector.content:
            return Input(rows, columns)
        return _capture_source(source, feature_names, selector, limiter, answer_bytes)
    except HookError as error:
        warn_once("capture: hook", "%s; nothing is captured where it fails", error)
        return Input(rows, columns, error=str(error))
    except UnsupportedInputError as error:
        message = str(error)
    except Exception as error:  # noqa: BLE001 - whatever an input does, the user's call goes on
        failed("capture: input")
        message = f"capture failed: {type(error).__name__}"  # its text might hold data
    schema = EMPTY_SCHEMA if selector.direct else None
    return Input(rows, columns, schema, error=message, max_rows=selector.max_rows)


class HookError(Exception):
    """The content hook failed; nothing is captured."""


def _capture_matrix(
    X: NDArray[Any], selection: Selection, selector: Selector, limiter: ByteBudget, answer_bytes: int
) -> Input:
    """The quick way for the commonest inputs: a two-dimensional array of numbers, or a DataFrame that is one."""
    rows, columns = X.shape
    width = selection.width
    indices = None
    if rows > 1:
        indices = choose_rows(rows, width, selector, limiter, 0, answer_bytes)
        if indices is not None:
            # take() would copy an array that is not contiguous by rows as a whole
            X = X.take(indices, 0) if X.flags.c_contiguous and columns <= 2 * width else X[indices]
    if selection.positions is not None:
        X = X[:, selection.positions]
    elif width < columns:
        X = X[:, :width]
    if X.dtype == F4:  # what take() made is ours already
        cells = X.astype(F4, order="C", copy=indices is None)
    else:
        with np.errstate(over="ignore"):
            cells = X.astype(F4, order="C")
    return Input(rows, columns, selection.numeric, cells, None if indices is None else indices.astype(U4), None)


def _capture_source(
    source: Source, feature_names: tuple[str, ...] | None, selector: Selector, limiter: ByteBudget, answer_bytes: int
) -> Input:
    names = names_of(source, feature_names)
    selection = selector.select(names, source.columns)
    if source.rows == 1 and selection.is_whole and selector.hook is None and isinstance(source, BY_ROW):
        row = source.row(selector.codes, selection)
        if row is not None:
            return Input(1, source.columns, row[0], None, None, None, selector.max_rows, row[1])
    python_columns = min(source.python_columns, selection.width)
    indices = choose_rows(source.rows, selection.width, selector, limiter, python_columns, answer_bytes)
    found = read_cells(source, selection, selector, indices)
    if found is None:
        return Input(source.rows, source.columns)
    schema, cells, left_out = found
    error = f"columns of unsupported type: {left_out}" if left_out else None
    numbers = None if indices is None else indices.astype(U4)
    return Input(source.rows, source.columns, schema, cells, numbers, error)


def read_cells(
    source: Source, selection: Selection, selector: Selector, indices: Indices | None
) -> tuple[Schema, NDArray[Any], int] | None:
    """The sampled rows (None: all) of the selected columns as payload cells, after the content hook.

    Returns:
        The schema, the (n_sampled, n_columns) cells, and how many columns were left out for their type; None when the
        hook wants nothing captured.

    Raises:
        UnsupportedInputError: the input turns out to be of no supported kind.
        HookError: the content hook failed.
    """
    count = source.rows if indices is None else len(indices)
    blocks = source.read(indices, selection.positions, selection.width)
    if selector.hook is not None:
        changed = _ask(selector.hook, blocks, selection, count)
        if changed is None:
            return None
        selection = selector.all_of(distinct([str(name) for name in changed]))
        blocks = [Block(slot, values) for slot, values in enumerate(changed.values())]
    with np.errstate(over="ignore", invalid="ignore"):
        types, cells = _encode(blocks, selection, count, selector)
    if isinstance(types, Schema):
        return types, cells, 0
    schema = selection.schema(types)
    left_out = selection.width - len(schema.names)
    if left_out:
        cells = np.ascontiguousarray(cells[:, [kind is not None for kind in types]])
    return schema, cells, left_out


def choose_rows(
    rows: int,
    width: int,
    selector: Selector,
    limiter: ByteBudget,
    python_columns: int,
    answer_bytes: int = ANSWER_BYTES,
) -> Indices | None:
    """The captured rows, or None for all."""
    max_bytes = min(selector.max_bytes, limiter.allowance()) - 64 - width // 8
    bound = row_bound(rows, 4 * width + answer_bytes, max_bytes, selector.max_rows, python_columns)
    return None if bound >= rows else sample(rows, bound)


def _encode(
    blocks: Any, selection: Selection, count: int, selector: Selector
) -> tuple[Schema | list[str | None], NDArray[Any]]:
    """The cells of all blocks, and their schema or the type of each column (None: unsupported); warnings are off."""
    width = selection.width
    types: list[str | None] = [None] * width
    bits = np.empty((count, width), U4)
    floats = bits.view(F4)
    for slot, values, kind in blocks:
        if isinstance(values, np.ndarray) and values.ndim == 2:
            slots = range(width)[slot] if isinstance(slot, slice) else slot.tolist()
            if kind == CATEGORICAL:  # a single row's texts
                bits[0, slot] = selector.codes.of(values[0], len(slots))
                for at in slots:
                    types[at] = kind
                continue
            letter = values.dtype.kind
            if letter in "fiub" and len(slots) < width and type(values) is np.ndarray:
                floats[:, slot] = values
                kind = kind or (BOOLEAN if letter == "b" else NUMERIC)  # noqa: PLW2901 - what the dtype says
                for at in slots:
                    types[at] = kind
                continue
            known = letter == "O" and any(selection.known[at] == CATEGORICAL for at in slots)
            matrix = _matrix(values, kind, known)
            if matrix is None:
                for at, position in enumerate(slots):
                    _encode_column(position, values[:, at], None, selection, selector, types, bits)
                continue
            if len(slots) == width:
                return selection.numeric if matrix[0] == NUMERIC else selection.boolean, matrix[1]
            floats[:, slot] = matrix[1]
            for at in slots:
                types[at] = matrix[0]
        else:
            _encode_column(slot, values, kind, selection, selector, types, bits)
    return types, bits


def _encode_column(
    slot: int,
    values: Values,
    kind: str | None,
    selection: Selection,
    selector: Selector,
    types: list[str | None],
    bits: NDArray[np.uint32],
) -> None:
    """Write one column's cells and type; of an unsupported one, nothing."""
    if kind is not None and kind != CATEGORICAL:
        types[slot] = kind
        if type(values) is np.ndarray and values.dtype.kind in "fiub":
            bits.view(F4)[:, slot] = values
        else:
            bits[:, slot] = to_float32(np.asarray(values)).view(U4)
        return
    encoded = encode(values, selector.codes, kind or selection.known[slot])
    if encoded is None:
        return
    types[slot] = found = encoded[0]
    if isinstance(values, list) or (isinstance(values, np.ndarray) and values.dtype.kind == "O"):
        selection.known[slot] = found
    bits[:, slot] = encoded[1] if found == CATEGORICAL else encoded[1].view(U4)


def _matrix(values: NDArray[Any], kind: str | None, known: bool) -> tuple[str, NDArray[Any]] | None:
    """Type and cells of a matrix whose columns are all numbers or all booleans; None: column by column."""
    letter = values.dtype.kind
    if letter in "fiub":
        return kind or (BOOLEAN if letter == "b" else NUMERIC), to_float32(values)
    if letter in "Mm":
        return NUMERIC, seconds(values)
    if letter == "O" and not known and set(map(type, values.ravel().tolist())) <= {int, float}:
        return NUMERIC, to_float32(values.astype(np.float64))
    return None


def _ask(hook: Any, blocks: Any, selection: Selection, count: int) -> dict[Any, NDArray[Any]] | None:
    """The content hook's answer, checked: columns by name, or None.

    Raises:
        HookError: the hook raised, or answered something else.
    """
    columns: dict[str, NDArray[Any]] = {}
    for slot, values, _ in blocks:
        if isinstance(values, Categories):
            columns[selection.names[slot]] = values.values()
        elif isinstance(values, list):
            columns[selection.names[slot]] = objects(values)
        elif values.ndim == 2:
            slots = range(selection.width)[slot] if isinstance(slot, slice) else slot.tolist()
            for at, name in enumerate(slots):
                columns[selection.names[name]] = np.array(values[:, at])
        else:
            columns[selection.names[slot]] = np.array(values)
    try:
        answer = hook({name: columns[name] for name in selection.names})
        if answer is None:
            return None
        if not isinstance(answer, Mapping):
            raise TypeError("not a mapping")
        changed = {name: _column(values) for name, values in answer.items()}
    except Exception as error:
        raise HookError(f"capture hook failed: {type(error).__name__}") from error
    if len(changed) > MAX_COLUMNS:
        raise HookError("capture hook failed: it answered too many columns")
    if any(values.shape != (count,) for values in changed.values()):
        raise HookError("capture hook failed: it answered columns of another length")
    return changed


def _column(values: Any) -> NDArray[Any]:
    return values if isinstance(values, np.ndarray) else objects(list(values))
