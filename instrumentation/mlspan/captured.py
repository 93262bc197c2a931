"""Stage 2, capture: what the stages hand to each other: schema, captured input, captured output."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlspan import payload
from mlspan.columns import CATEGORICAL, F4, U4, to_float32

if TYPE_CHECKING:
    from collections.abc import Callable


class Schema:
    """Names and types of the captured columns: immutable, hashable, one object per distinct set of columns.

    Attributes:
        names: of the captured columns, in the payload's order.
        types: "numeric", "boolean" or "categorical" for each.
        bits: the payload's bitmap of categorical columns.
    """

    __slots__ = ("_hash", "bits", "names", "packers", "types")

    def __init__(self, names: tuple[str, ...], types: tuple[str, ...]) -> None:
        self.names = names
        self.types = types
        self.bits = payload.column_bits([kind == CATEGORICAL for kind in types])
        self._hash = hash((names, types))
        self.packers: dict[int, tuple[bytes, Callable[..., bytes]]] = {}  # see `mlspan.single`

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, Schema) and (self.names, self.types) == (other.names, other.types)

    def __repr__(self) -> str:
        return f"Schema(names={self.names!r}, types={self.types!r})"


class Input:
    """What was captured of a call's input; holds copies only.

    Attributes:
        rows: rows of the call; of an input that is not captured, known only after `capture_output`.
        columns: columns of the call, captured or not.
        schema: the captured columns; None when nothing is captured.
        cells: (n_captured, n_columns) float32, or uint32 where a column is categorical; None when only the answers are.
        numbers: the cells of a single row as Python's numbers, codes of categories among them, where they were taken
            so; None: see `cells`.
        indices: (n_captured,) uint32 row numbers, or None when all rows are captured.
        error: why columns or all of the input are not captured, without data; or None.
        max_rows: the user's bound on captured rows.
    """

    __slots__ = ("_cells", "columns", "error", "indices", "max_rows", "numbers", "rows", "schema")

    def __init__(
        self,
        rows: int,
        columns: int,
        schema: Schema | None = None,
        cells: NDArray[Any] | None = None,
        indices: NDArray[np.uint32] | None = None,
        error: str | None = None,
        max_rows: int = 1024,
        numbers: Sequence[float] | None = None,
    ) -> None:
        self.rows = rows
        self.columns = columns
        self.schema = schema
        self._cells = cells
        self.numbers = numbers
        self.indices = indices
        self.error = error
        self.max_rows = max_rows

    @property
    def has_cells(self) -> bool:
        """Whether rows are captured; without making an array of a single row's numbers."""
        return self._cells is not None or self.numbers is not None

    @property
    def cells(self) -> NDArray[Any] | None:
        """See the class."""
        if self._cells is None and self.numbers is not None:
            self._cells = self._row()
        return self._cells

    @cells.setter
    def cells(self, cells: NDArray[Any] | None) -> None:
        self._cells = cells

    def _row(self) -> NDArray[Any]:
        assert self.numbers is not None
        types = () if self.schema is None else self.schema.types
        if CATEGORICAL not in types:
            return to_float32(np.array([self.numbers], np.float64))
        bits = np.empty((1, len(self.numbers)), U4)
        floats = bits.view(F4)
        with np.errstate(over="ignore"):
            for at, (kind, value) in enumerate(zip(types, self.numbers, strict=True)):
                (bits if kind == CATEGORICAL else floats)[0, at] = value
        return bits


class Output:
    """What was captured of a call's result, for the captured rows; holds copies only.

    Attributes:
        prediction_kind, predictions, score_kind, scores: as `payload.encode` takes them.
        value: the class (its text) or the number that a call of one row with one output answered; else None.
        score: the probability of that class, where known; else None.
    """

    __slots__ = ("prediction_kind", "predictions", "score", "score_kind", "scores", "value")

    def __init__(self) -> None:
        self.prediction_kind = payload.PREDICTION_NONE
        self.predictions: NDArray[Any] | None = None
        self.score_kind = payload.SCORE_NONE
        self.scores: NDArray[np.float32] | None = None
        self.value: str | float | None = None
        self.score: float | None = None

    @property
    def row_bytes(self) -> int:
        """Bytes of a payload that a row's number and answers take."""
        width = 1
        for part in (self.predictions, self.scores):
            width += 0 if part is None else part.shape[1]
        return 4 * width


EMPTY_SCHEMA = Schema((), ())
