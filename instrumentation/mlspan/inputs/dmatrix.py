"""Stage 2, capture: XGBoost's DMatrix, by its public methods.

What was not stored is missing. Only the sampled rows are copied out of it; a matrix that cannot be sliced (quantised,
or in external memory) is unsupported, unless it is a plain one of which all rows are taken.
"""

from collections.abc import Iterable
from typing import Any, Final

import numpy as np

from mlspan.columns import BOOLEAN, CATEGORICAL, F4
from mlspan.inputs.base import Block, Indices, UnsupportedInputError

_CATEGORY: Final = "c"
_INDICATOR: Final = "i"
_PLAIN: Final = "DMatrix"


class DMatrixSource:
    """(n_rows, n_columns); categories are called by their codes, which is all that the matrix knows of them."""

    __slots__ = ("_matrix", "_types", "columns", "names", "python_columns", "rows")

    def __init__(self, matrix: Any) -> None:
        self._matrix = matrix
        self.rows = int(matrix.num_row())
        self.columns = int(matrix.num_col())
        names = matrix.feature_names
        self.names = None if names is None else tuple(map(str, names))
        self._types = tuple(matrix.feature_types or ())
        self.python_columns = self._types.count(_CATEGORY)

    def read(self, indices: Indices | None, positions: Indices | None, width: int) -> Iterable[Block]:
        """One matrix, or a block for each column where they are of several types."""
        cells = self._cells(indices)
        cells = cells[:, :width] if positions is None else cells[:, positions]
        types = self._types
        if not {_CATEGORY, _INDICATOR} & set(types):
            return [Block(slice(0, width), cells)]
        blocks = []
        for slot in range(width):
            kind = types[slot if positions is None else int(positions[slot])]
            values = cells[:, slot]
            if kind == _CATEGORY:
                codes = [None if code != code else str(int(code)) for code in values.tolist()]
                blocks.append(Block(slot, codes, CATEGORICAL))
            else:
                blocks.append(Block(slot, values, BOOLEAN if kind == _INDICATOR else None))
        return blocks

    def _cells(self, indices: Indices | None) -> Any:
        """(n_sampled, n_columns) float32.

        Raises:
            UnsupportedInputError: the rows cannot be had.
        """
        kind = type(self._matrix).__name__
        is_library = type(self._matrix).__module__.partition(".")[0] == "xgboost"
        if is_library and kind != _PLAIN:  # quantised: bins in the place of values
            raise UnsupportedInputError(f"unsupported input: {kind}")
        try:
            matrix = self._matrix
            if indices is not None:
                matrix = matrix.slice(indices.astype(np.int32), allow_groups=True)
            stored = matrix.get_data()
        except Exception as error:
            raise UnsupportedInputError(f"unsupported input: {kind} that cannot be sliced") from error
        cells = np.full((int(stored.shape[0]), self.columns), np.nan, F4)
        counts = np.diff(stored.indptr.astype(np.int64))
        cells[np.repeat(np.arange(len(counts)), counts), stored.indices.astype(np.intp)] = stored.data
        return cells
