"""Stage 2, capture: the input of a torch module as `Input`: columns at once, summaries and devices' values later.

Reads what `open_call` found, writes an `Input` and, for a device, the picked rows there. Guarantee: as `capture_input`;
nothing of the user's is kept, since rows are picked into tensors of our own.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mlspan.budget import ByteBudget
from mlspan.capture import capture_input, choose_rows
from mlspan.captured import EMPTY_SCHEMA, Input
from mlspan.columns import to_float32
from mlspan.guard import failed
from mlspan.inputs import Indices, UnsupportedInputError
from mlspan.inputs.devices import Device, device_of
from mlspan.inputs.summaries import Layout, summary
from mlspan.inputs.tensors import TensorSource
from mlspan.inputs.torch_values import pick, plain
from mlspan.selection import Selection, selector_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mlspan.config import Settings
    from mlspan.models import State

NO_HOOK: Final = "unsupported input: tensor on a device, with a capture hook"
RECORDING: Final = "unsupported input: tensor while a graph is recorded"


class Picked:
    """The sampled rows of an input, copied, of which the cells are made later.

    Attributes:
        device: where they are; None: here.
        tensors: ours; to be fetched. Here: (values, mask) of each part.
        size: bytes they take here.
    """

    __slots__ = ("_features", "_parts", "_selection", "device", "size", "tensors")

    def __init__(self, source: TensorSource, selection: Selection, device: Device | None, rows: Indices | None) -> None:
        self.device = device
        self.size = 0
        self._selection = selection
        self._features: NDArray[Any] | None = None
        self._parts = [(part.layout, part.mask is not None) for part in source.parts]
        self.tensors: list[Any]
        if device is None:
            self.tensors = source.take(rows)
            self.size = sum(raw.nbytes for raw, _ in self.tensors)
            return
        self.tensors = [
            plain(pick(tensor, part.layout, device.move, rows))
            for part in source.parts
            for tensor in (part.tensor, part.mask)
            if tensor is not None
        ]

    @property
    def alike(self) -> Layout | None:
        """The layout, where rows of other calls with the same one can be summarised with these."""
        return self._parts[0][0] if self.device is None and len(self._parts) == 1 and not self._parts[0][1] else None

    def fill(self, captured: Input, arrays: list[Any] | None = None) -> None:
        """Put the cells in, once the tensors are here as arrays."""
        found = self._features
        if found is None:
            waiting = iter(arrays or ())
            raws = (
                self.tensors
                if arrays is None
                else [(next(waiting), next(waiting) if masked else None) for _, masked in self._parts]
            )
            parts = [summary(layout, *raw) for (layout, _), raw in zip(self._parts, raws, strict=True)]
            found = parts[0] if len(parts) == 1 else np.hstack(parts)
        captured.cells = _selected(found, self._selection)


def summarise_together(picked: Sequence[Picked]) -> None:
    """Make the features of several calls at once where they are alike; `fill` makes those of the others."""
    groups: dict[tuple[int, Any], list[Picked]] = {}
    for one in picked:
        layout = one.alike
        if layout is not None:
            groups.setdefault((id(layout), one.tensors[0][0].dtype), []).append(one)
    for group in groups.values():
        layout = group[0].alike
        if layout is None or len(group) < 2:
            continue
        raws = [one.tensors[0][0] for one in group]
        features = summary(layout, np.concatenate(raws))
        ends = np.cumsum([len(raw) for raw in raws]).tolist()
        for one, start, end in zip(group, [0, *ends], ends, strict=False):
            one._features = features[start:end]


def capture_tensors(
    X: object, state: "State", settings: "Settings", limiter: ByteBudget
) -> tuple[Input, Picked | None]:
    """What is captured of a module's input, before the call. Never raises.

    Args:
        X: what `open_call` answered.
        state: of the model.
        settings, limiter: as `capture_input` takes them.

    Returns:
        The captured rows; of an input on a device, or one that is summarised, without cells, and the rows themselves.
    """
    if type(X) is not TensorSource:
        return capture_input(X, state.feature_names, settings, limiter, state.answer_bytes), None
    selector = selector_of(settings)
    if not selector.content:
        return Input(X.rows, X.columns), None
    problem = X.problem
    if selector.hook is not None:
        if X.device is None:
            return capture_input(X, state.feature_names, settings, limiter, state.answer_bytes), None
        problem = NO_HOOK
    try:
        names = X.names if X.names is not None else state.feature_names
        selection = selector.select(names, X.columns)
        if problem is None:
            costly = min(X.python_columns, selection.width)
            rows = choose_rows(X.rows, selection.width, selector, limiter, costly, state.answer_bytes)
            numbers = None if rows is None else rows.astype(np.uint32)
            captured = Input(X.rows, X.columns, selection.numeric, None, numbers, max_rows=selector.max_rows)
            device = None if X.device is None else device_of(X.parts[0].tensor)
            if device is None and X.python_columns == 0:
                captured.cells = _selected(X.cells(X.take(rows)), selection)
                return captured, None
            if device is None:
                return captured, Picked(X, selection, None, rows)
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


def _selected(cells: Any, selection: Selection) -> Any:
    """The selected columns as payload cells."""
    if selection.positions is not None:
        cells = cells[:, selection.positions]
    elif selection.width < cells.shape[1]:
        cells = cells[:, : selection.width]
    return to_float32(cells)
