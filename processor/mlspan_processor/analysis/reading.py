"""Batch, part 7: the features of each window's rows, from one pass over the file.

In: a Source, an Encoder and the rows of each group (the windows, or the whole reference). Out: each group's cells as
soon as its last row was read. Memory: the cells of the groups that are open at once, 4 bytes each, at most `MAX_CELLS`:
beyond that (a window of millions of rows, or a file whose times are in no order) each large group is a uniform random
sample of its rows, which `chosen` draws beforehand.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mlspan_processor.analysis.encode import Encoder
from mlspan_processor.analysis.source import Source

MAX_CELLS: Final = 60_000_000
"""Cells held at once: 240 MB, 1.2 million rows of 50 features."""
MIN_ROWS: Final = 10_000
"""A group of up to so many rows is never thinned."""

Rows = NDArray[np.intp]


def chosen(groups: Sequence[Rows], n_features: int, seed: int, most: int | None = None) -> list[Rows]:
    """The rows of each group that are read: all, or a uniform sample of the large groups, in the same order.

    Args:
        groups: (n,) row numbers of each.
        n_features: columns to be held.
        seed: of the draw; the same rows give the same sample.
        most: rows of a group, or None for what `MAX_CELLS` allows.
    """
    limit = most if most is not None else _limit(groups, max(1, n_features))
    rng = np.random.default_rng(seed)
    return [rows if len(rows) <= limit else rows[np.sort(rng.permutation(len(rows))[:limit])] for rows in groups]


def cells_of_groups(
    source: Source,
    encoder: Encoder,
    groups: Sequence[Rows],
    total: int,
    progress: Callable[[int], None] | None = None,
) -> Iterator[tuple[int, NDArray[np.uint32]]]:
    """(group, (n_features, n_group_rows) cells in the group's order), each group once, as it is complete.

    Args:
        source: what to read.
        encoder: of its columns.
        groups: row numbers, each row in at most one group.
        total: rows of the source.
        progress: called with the rows of every batch.
    """
    group_of = np.full(total, -1, np.int32)
    slot_of = np.zeros(total, np.int32)
    for index, rows in enumerate(groups):
        group_of[rows] = index
        slot_of[rows] = np.arange(len(rows))
    missing = [len(rows) for rows in groups]
    open_groups: dict[int, NDArray[np.uint32]] = {}
    if not encoder.names:
        for index, rows in enumerate(groups):
            yield index, np.zeros((0, len(rows)), np.uint32)
        return
    at = 0
    for batch in source.batches(encoder.names):
        owners = group_of[at : at + batch.num_rows]
        slots = slot_of[at : at + batch.num_rows]
        used = np.flatnonzero(owners >= 0)
        if len(used):
            cells = encoder.encode(batch, None if len(used) == len(owners) else used)
            yield from _spread(cells, owners[used], slots[used], groups, missing, open_groups)
        at += batch.num_rows
        if progress is not None:
            progress(batch.num_rows)


def _spread(
    cells: NDArray[np.uint32],
    owners: NDArray[np.int32],
    slots: NDArray[np.int32],
    groups: Sequence[Rows],
    missing: list[int],
    open_groups: dict[int, NDArray[np.uint32]],
) -> Iterator[tuple[int, NDArray[Any]]]:
    order = np.argsort(owners, kind="stable")
    cuts = np.flatnonzero(np.diff(owners[order])) + 1
    for part in np.split(order, cuts):
        index = int(owners[part[0]])
        held = open_groups.get(index)
        if held is None:
            held = open_groups[index] = np.zeros((len(cells), len(groups[index])), np.uint32)
        held[:, slots[part]] = cells[:, part]
        missing[index] -= len(part)
        if not missing[index]:
            yield index, open_groups.pop(index)


def _limit(groups: Sequence[Rows], n_features: int) -> int:
    """The most rows of one group with which the groups open at once hold no more than MAX_CELLS."""
    sizes = np.array([len(rows) for rows in groups])
    first = np.array([rows.min() for rows in groups])
    last = np.array([rows.max() for rows in groups])
    allowed = MAX_CELLS // n_features

    def held(limit: int) -> int:
        capped = np.minimum(sizes, limit)
        order = np.argsort(np.concatenate([first, last]), kind="stable")
        return int(np.cumsum(np.concatenate([capped, -capped])[order]).max())

    limit = int(sizes.max())
    while limit > MIN_ROWS and held(limit) > allowed:
        limit = max(MIN_ROWS, limit * 3 // 4)
    return limit
