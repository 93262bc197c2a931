"""Weighted counts over a large range of cells of which few are filled: sorted cell numbers beside their
counts.

Adding n counts to m filled cells costs O((n + m) log(n + m)) in one numpy pass. Memory: 16 bytes a filled
cell.
"""

import numpy as np
from numpy.typing import NDArray


class SparseCounts:
    """Counts by cell number."""

    __slots__ = ("cells", "counts")

    def __init__(self) -> None:
        self.cells: NDArray[np.int64] = np.zeros(0, np.int64)
        self.counts: NDArray[np.float64] = np.zeros(0)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return self.cells.nbytes + self.counts.nbytes

    def add(self, cells: NDArray[np.int64], counts: NDArray[np.float64]) -> None:
        """Add counts (n,) to cells (n,), in any order, with repeats."""
        if not len(cells):
            return
        self.cells, which = np.unique(np.concatenate([self.cells, cells]), return_inverse=True)
        self.counts = np.bincount(which, np.concatenate([self.counts, counts])).astype(np.float64, copy=False)

    def merge(self, other: "SparseCounts") -> None:
        """Add another's counts."""
        self.add(other.cells, other.counts)

    def dense(self, start: int, size: int) -> NDArray[np.float64]:
        """Counts (size,) of the cells from `start` on."""
        left, right = np.searchsorted(self.cells, [start, start + size])
        dense = np.zeros(size)
        dense[self.cells[left:right] - start] = self.counts[left:right]
        return dense
