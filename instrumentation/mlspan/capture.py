"""Stage 2: which rows and columns leave the process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlspan import payload
from mlspan.budget import ByteBudget

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from mlspan.config import Settings

__all__ = ["ByteBudget", "Classes", "Input", "Output", "Schema", "capture_input", "capture_output", "classes_of", "pack"]


class Schema(NamedTuple):
    """Names and types of the captured columns; hashable, one object per distinct set of columns."""

    names: tuple[str, ...]
    types: tuple[str, ...]
    bits: bytes


class Input:
    """What was captured of a call's input."""

    __slots__ = ("cells", "columns", "error", "indices", "rows", "schema")

    def __init__(
        self,
        rows: int,
        columns: int,
        schema: Schema | None = None,
        cells: NDArray[Any] | None = None,
        indices: NDArray[np.uint32] | None = None,
        error: str | None = None,
    ) -> None:
        self.rows = rows
        self.columns = columns
        self.schema = schema
        self.cells = cells
        self.indices = indices
        self.error = error


class Output:
    """What was captured of a call's result."""

    __slots__ = ("prediction_kind", "predictions", "score", "score_kind", "scores", "value")

    def __init__(self) -> None:
        self.prediction_kind = payload.PREDICTION_NONE
        self.predictions: NDArray[Any] | None = None
        self.score_kind = payload.SCORE_NONE
        self.scores: NDArray[np.float32] | None = None
        self.value: str | float | None = None
        self.score: float | None = None


class Classes:
    """The classes of one fitted model: texts, and how to find a prediction among them."""

    __slots__ = ("labels",)

    def __init__(self, labels: tuple[str, ...]) -> None:
        self.labels = labels


def classes_of(model: object) -> Classes | None:
    """The classes of a fitted model (its `classes_`), or None; call once per fitted model. Never raises."""
    return None


def capture_input(
    X: object, feature_names: tuple[str, ...] | None, settings: Settings, limiter: ByteBudget
) -> Input:
    """Before the user's call; never raises."""
    if isinstance(X, np.ndarray) and X.ndim == 2 and X.dtype.kind == "f":
        names = feature_names or tuple(f"x{i}" for i in range(X.shape[1]))
        schema = Schema(names, ("numeric",) * X.shape[1], payload.column_bits([False] * X.shape[1]))
        return Input(X.shape[0], X.shape[1], schema, X[:64].astype("<f4"), np.arange(min(64, len(X)), dtype="<u4"))
    return Input(0, 0, error="not written yet")


def capture_output(
    operation: str,
    result: object,
    captured: Input,
    classes: Classes | None,
    probabilities: object = None,
) -> Output:
    """After the user's call; never raises; keeps no reference to `result`.

    Args:
        probabilities: of the same rows, when a nested predict_proba of the same call was seen; else None.
    """
    return Output()


def pack(
    captured: Input, output: Output, settings: Settings, limiter: ByteBudget, ids: Sequence[str] | None = None
) -> bytes | None:
    """The payload of the call (ids: one text per row of the call, "" for none); None when nothing was captured or the
    budget has no room. Shrinks the rows to the budget first. Never raises."""
    if captured.cells is None or captured.schema is None:
        return None
    return payload.encode(captured.rows, captured.cells, captured.schema.bits, indices=captured.indices)
