"""A set of 64-bit keys in sorted arrays, merged as a binary counter adds: the index of predictions that wait
for labels.

Adding n keys sorts them into a run and merges runs of like size (a log-structured merge tree, O'Neil et al.
1996): each key moves at most log2(N) times; a look-up is one binary search in each of at most log2(N) + 1
runs, for many keys at once. Memory: 12 bytes a key (key and position), twice that while the largest runs
merge.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint64]
Positions = NDArray[np.uint32]


class SortedRuns:
    """Keys with a position each; a key may occur with several positions."""

    def __init__(self) -> None:
        self._runs: list[tuple[Keys, Positions]] = []

    def __len__(self) -> int:
        return sum(len(keys) for keys, _ in self._runs)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return sum(keys.nbytes + positions.nbytes for keys, positions in self._runs)

    def add(self, keys: Keys, positions: Positions) -> None:
        """Add keys (n,) in any order, with a position each."""
        if len(keys):
            order = np.argsort(keys)
            self._push(keys[order], positions[order])

    def find(self, keys: Keys) -> tuple[NDArray[np.intp], Positions]:
        """All pairs (index into keys, position) of equal keys."""
        which, where = [np.zeros(0, np.intp)], [np.zeros(0, np.uint32)]
        for run, positions in self._runs:
            left = np.searchsorted(run, keys, "left")
            right = np.searchsorted(run, keys, "right")
            counts = right - left
            hits = np.flatnonzero(counts)
            if len(hits):
                repeats = counts[hits]
                offsets = np.arange(repeats.sum()) - np.repeat(np.cumsum(repeats) - repeats, repeats)
                which.append(np.repeat(hits, repeats))
                where.append(positions[np.repeat(left[hits], repeats) + offsets])
        return np.concatenate(which), np.concatenate(where)

    def keep(self, alive: Callable[[Keys, Positions], NDArray[np.bool_]]) -> None:
        """Rebuild as one run of the entries for which `alive` says True."""
        runs, self._runs = self._runs, []
        kept = [(keys[mask], positions[mask]) for keys, positions in runs for mask in [alive(keys, positions)]]
        if kept:
            keys, positions = (np.concatenate(parts) for parts in zip(*kept, strict=True))
            order = np.argsort(keys, kind="stable")  # sorted stretches merge in linear time
            self._push(keys[order], positions[order])

    def _push(self, keys: Keys, positions: Positions) -> None:
        while self._runs and len(self._runs[-1][0]) < 2 * len(keys):
            older, older_positions = self._runs.pop()
            keys = np.concatenate([older, keys])
            order = np.argsort(keys, kind="stable")  # timsort: two sorted halves merge in linear time
            keys = keys[order]
            positions = np.concatenate([older_positions, positions])[order]
        self._runs.append((keys, positions))
