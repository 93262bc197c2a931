"""Stage 2, capture: which rows of a call leave the process.

Guarantee: uniform without replacement, so that each captured row stands for rows / captured rows of the call. Reads
numpy's own bit generator, seeded by the operating system once per process; the user's random state is not touched.
Calls of up to MAX_SHUFFLED rows take consecutive stretches of one random order, a third of what drawing anew costs:
each stretch is a uniform sample; only which rows of one call and which of the next one are taken hangs together.
Memory: an order for each of at most MAX_ORDERS numbers of rows, 256 KiB.
"""

import os
from typing import Final

import numpy as np
from numpy.typing import NDArray

ALWAYS_ROWS: Final = 64
ROWS_PER_CAPTURED_ROW: Final = 16
CELLS: Final = 16_384
"""Cells of a call, or as many as one and a half in each of its rows hold: what sampling costs grows with the call."""
PYTHON_CELLS: Final = 1_024
"""Cells that cost Python work (hashing a text takes up to a microsecond), or one for eight rows of the call …"""
PYTHON_ROWS: Final = 16
"""… but no fewer rows than this for it."""

MAX_SHUFFLED: Final = 1_024
MAX_ORDERS: Final = 32

_generator: np.random.Generator | None = None
# rows -> a random order of their numbers, and where the next stretch begins. Threads may take the same one: no harm.
_orders: dict[int, tuple[NDArray[np.intp], int]] = {}
_NO_ORDER: Final = (np.empty(0, np.intp), MAX_SHUFFLED + 1)


def row_bound(rows: int, row_bytes: int, max_bytes: int, max_rows: int, python_columns: int) -> int:
    """How many of the call's rows are captured: at least one where there is one.

    Args:
        rows: rows of the call.
        row_bytes: bytes of a captured row.
        max_bytes: bytes that the payload may hold.
        max_rows: the user's bound.
        python_columns: columns whose cells cost Python work.
    """
    max_bytes = min(max_bytes, 4 * max(CELLS, rows * 3 // 2))
    bound = min(rows, ALWAYS_ROWS + rows // ROWS_PER_CAPTURED_ROW, max_rows, max_bytes // row_bytes)
    if python_columns:
        bound = min(bound, max(PYTHON_ROWS, max(PYTHON_CELLS, rows // 8) // python_columns))
    return max(bound, min(rows, 1))


def sample(rows: int, count: int) -> NDArray[np.intp]:
    """`count` of the numbers 0 … rows - 1, ascending."""
    global _generator  # noqa: PLW0603 - one generator per process, renewed after a fork
    if _generator is None:
        _generator = np.random.default_rng()
    if rows > MAX_SHUFFLED:
        chosen = _generator.choice(rows, count, replace=False, shuffle=False)
    else:
        order, start = _orders.get(rows, _NO_ORDER)
        if start + count > rows:
            if len(_orders) >= MAX_ORDERS:
                _orders.clear()
            order, start = _generator.permutation(rows), 0
        _orders[rows] = order, start + count
        chosen = order[start : start + count].copy()
    chosen.sort()
    return chosen


def seed(value: int | None = None) -> None:
    """Make the choice repeatable, for tests; None: random again."""
    global _generator  # noqa: PLW0603
    _generator = None if value is None else np.random.default_rng(value)
    _orders.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=seed)
