"""Stage 2, capture: scipy sparse matrices and arrays.

Only the sampled rows of the first columns become dense. Formats without row access (COO, DIA, BSR) are converted to
CSR, which copies, and so only up to a million stored values.
"""

from collections.abc import Iterable
from typing import Any, Final

import numpy as np

from mlspan.inputs.base import Block, Indices, UnsupportedInputError

MAX_CONVERTED_VALUES: Final = 1_000_000
_BY_ROW: Final = frozenset({"csr", "lil"})


class SparseSource:
    """(n_rows, n_columns); what is not stored is 0."""

    __slots__ = ("_matrix", "columns", "names", "python_columns", "rows")

    def __init__(self, matrix: Any) -> None:
        if len(matrix.shape) != 2:
            raise UnsupportedInputError("unsupported input: sparse array of other than two dimensions")
        if matrix.format not in _BY_ROW and matrix.nnz > MAX_CONVERTED_VALUES:
            raise UnsupportedInputError(
                f"unsupported input: {matrix.format} with more than {MAX_CONVERTED_VALUES} stored values; csr is"
            )
        self._matrix = matrix
        self.rows, self.columns = map(int, matrix.shape)
        self.names = None
        self.python_columns = 0

    def read(self, indices: Indices | None, positions: Indices | None, width: int) -> Iterable[Block]:
        """One dense matrix."""
        matrix = self._matrix
        if matrix.format not in _BY_ROW:
            matrix = matrix.tocsr()
        if indices is not None:
            matrix = matrix[indices]
        if positions is not None:
            matrix = matrix[:, positions]
        elif width < self.columns:
            matrix = matrix[:, :width]
        return [Block(slice(0, width), np.asarray(matrix.toarray()))]
