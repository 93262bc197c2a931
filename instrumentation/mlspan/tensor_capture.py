"""Stage 2, capture: the input of a torch module as `Input`, at once or when a device has sent it.

Reads what `open_call` found, writes an `Input` and, for a device, the picked rows there. Guarantee: as `capture_input`;
nothing of the user's is kept, since rows are picked into tensors of our own.
"""

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mlspan.budget import ByteBudget
from mlspan.capture import capture_input, choose_rows, row_packer
from mlspan.captured import EMPTY_SCHEMA, Input
from mlspan.columns import to_float32
from mlspan.guard import failed
from mlspan.inputs import Indices, UnsupportedInputError
from mlspan.inputs.devices import Device, device_of
from mlspan.inputs.summaries import summary
from mlspan.inputs.tensors import TensorSource, pick, plain
from mlspan.selection import Selection, selector_of

if TYPE_CHECKING:
    from mlspan.config import Settings

NO_HOOK: Final = "unsupported input: tensor on a device, with a capture hook"
RECORDING: Final = "unsupported input: tensor while a graph is recorded"


class Picked:
    """The sampled rows of an input, on their device.

    Attributes:
        device: where they are.
        tensors: ours; to be fetched.
    """

    __slots__ = ("_selection", "_source", "device", "tensors")

    def __init__(self, source: TensorSource, selection: Selection, device: Device, rows: Indices | None) -> None:
        self.device = device
        self.tensors: list[Any] = []
        self._selection = selection
        for part in source.parts:
            for tensor in (part.tensor, part.mask):
                if tensor is not None:
                    self.tensors.append(plain(pick(tensor, part.layout, device.move, rows)))
        self._source = [(part.layout, part.mask is not None) for part in source.parts]

    def fill(self, captured: Input, arrays: list[Any]) -> None:
        """Put the cells in, once the tensors are here as arrays."""
        waiting = iter(arrays)
        found = [summary(layout, next(waiting), next(waiting) if masked else None) for layout, masked in self._source]
        captured.cells = _selected(found[0] if len(found) == 1 else np.hstack(found), self._selection)


def capture_tensors(
    X: object, feature_names: tuple[str, ...] | None, settings: "Settings", limiter: ByteBudget
) -> tuple[Input, Picked | None]:
    """What is captured of a module's input, before the call. Never raises.

    Args:
        X: what `open_call` answered.
        feature_names, settings, limiter: as `capture_input` takes them.

    Returns:
        The captured rows; of an input on a device, without cells, and the rows there.
    """
    if type(X) is not TensorSource:
        return capture_input(X, feature_names, settings, limiter), None
    selector = selector_of(settings)
    if not selector.content:
        return Input(X.rows, X.columns), None
    problem = X.problem
    if selector.hook is not None:
        if X.device is None:
            return capture_input(X, feature_names, settings, limiter), None
        problem = NO_HOOK
    try:
        names = X.names if X.names is not None else feature_names
        selection = selector.select(names, X.columns)
        if problem is None:
            rows = choose_rows(X.rows, selection.width, selector, limiter, min(X.python_columns, selection.width))
            numbers = None if rows is None else rows.astype(np.uint32)
            captured = Input(X.rows, X.columns, selection.numeric, None, numbers, max_rows=selector.max_rows)
            device = None if X.device is None else device_of(X.parts[0].tensor)
            if device is None and X.rows == 1 and len(X.parts) == 1 and selection.width == X.columns:
                row = _row(X, selection.width)
                if row is not None:
                    captured.row = row
                    return captured, None
            if device is None:
                captured.cells = _selected(X.cells(X.take(rows)), selection)
                return captured, None
            if device.is_readable():
                return captured, Picked(X, selection, device, rows)
            problem = RECORDING
    except (UnsupportedInputError, NotImplementedError, RuntimeError) as error:
        problem = str(error) if isinstance(error, UnsupportedInputError) else "unsupported input: tensor"
    except Exception as error:  # noqa: BLE001 - whatever an input does, the user's call goes on
        failed("capture: tensors")
        problem = f"capture failed: {type(error).__name__}"
    schema = EMPTY_SCHEMA if selector.direct else None
    return Input(X.rows, X.columns, schema, error=problem, max_rows=selector.max_rows), None


def _row(X: TensorSource, width: int) -> bytes | None:
    """The cells of a single row that takes no array to make them; None: the general way."""
    ((raw, mask),) = X.take(None)
    values = None if mask is not None else X.parts[0].layout.row(raw)
    if values is None or len(values) != width:
        return None
    try:
        return row_packer(width)(*values)
    except OverflowError:  # an infinity, as numpy makes one of it
        return None


def _selected(cells: Any, selection: Selection) -> Any:
    """The selected columns as payload cells."""
    if selection.positions is not None:
        cells = cells[:, selection.positions]
    elif selection.width < cells.shape[1]:
        cells = cells[:, : selection.width]
    return to_float32(cells)
