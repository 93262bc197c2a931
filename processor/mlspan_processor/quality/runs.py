"""Stage 5: how many independent losses the losses of neighbouring rows are worth, whatever the length of their runs.

Models err in runs: for as long as the storm lasts, for one customer, for one sensor. In: losses in the order of the
predictions, as they come. Out: the design effect d >= 1: n losses tell as much about the risk as n / d independent
ones. Blocks of 16 to 4,096 rows, each four times the one before: d is the block means' variance over what independent
rows would have, the largest of the sizes; less one standard error, so that independent rows keep their number. The
variance comes from successive differences (von Neumann) without the two largest, so that a risk that has risen once, at
a block's end or within it, is no run. `cautious` is d for bets: as long as there are few of the largest blocks, more by
as much as the last step from one size to the next brought. What is long past fades: 64 blocks of each size. Memory
700 bytes; cost five sums a row.
Source: Kish, Survey Sampling, 1965; von Neumann, Ann. Math. Stat. 12, 1941; Flegal & Jones, Ann. Stat. 38, 2010 (batch
means).
"""

import math
from collections.abc import Mapping
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
SIZES: Final = (16, 64, 256, 1024, 4096)
MIN_DIFFERENCES: Final = 7.5
"""Eight of them, faded."""
MAX_GROWTH: Final = 4.0
CERTAIN: Final = 2.0
"""What independent losses hardly ever seem to be worth."""
_FADE: Final = 1 - 1 / 64
# How many of k faded squares (first row) the two largest are worth, for independent normal means; from 20,000 draws.
_TWO_LARGEST: Final = (
    (7.58, 9.33, 12.66, 17.29, 24.1, 29.91, 40.64, 64.0),
    (4.89, 5.4, 6.12, 6.83, 7.53, 7.78, 8.0, 8.3),
)


class _Blocks:
    """Blocks of one size.

    Attributes:
        total, squares, filled: of the block that is not full yet.
        last: mean of the one before, None at the start.
        differences, largest, second, count: squared differences of neighbouring means: sum, the two largest, number;
            faded.
        mean, square, blocks: sums over blocks of the mean loss and the mean squared loss, and their number; faded.
    """

    __slots__ = (
        *("blocks", "count", "differences", "filled", "largest", "last", "mean", "second"),
        *("size", "square", "squares", "total"),
    )

    def __init__(self, size: int) -> None:
        self.size = size
        self.total = self.squares = self.differences = self.largest = self.second = self.count = 0.0
        self.mean = self.square = self.blocks = 0.0
        self.filled = 0
        self.last: float | None = None

    def add(self, losses: Floats) -> None:
        start = 0
        while start < len(losses):
            part = losses[start : start + self.size - self.filled]
            start += len(part)
            self.total += float(part.sum())
            self.squares += float(part @ part)
            self.filled += len(part)
            if self.filled == self.size:
                self._close()

    def _close(self) -> None:
        mean, square = self.total / self.size, self.squares / self.size
        if self.last is not None:
            difference = (mean - self.last) ** 2
            self.differences = self.differences * _FADE + difference
            two = sorted((self.largest * _FADE, self.second * _FADE, difference))
            self.largest, self.second = two[2], two[1]
            self.count = self.count * _FADE + 1
        self.mean, self.square = self.mean * _FADE + mean, self.square * _FADE + square
        self.blocks = self.blocks * _FADE + 1
        self.last, self.total, self.squares, self.filled = mean, 0.0, 0.0, 0

    def effect(self) -> float | None:
        """The means' variance over that of independent rows; None where there are too few."""
        if self.count < MIN_DIFFERENCES:
            return None
        variance = self.square / self.blocks - (self.mean / self.blocks) ** 2
        if variance <= 1e-12:
            return None
        others = self.count - float(np.interp(self.count, *_TWO_LARGEST))
        return self.size * (self.differences - self.largest - self.second) / others / 2 / variance


class Runs:
    """Design effect of a sequence of losses.

    Attributes:
        design_effect: at least 1; `cautious` at least that.
    """

    def __init__(self) -> None:
        self._sizes = [_Blocks(size) for size in SIZES]
        self._sure: list[float] = []
        self.design_effect = self.cautious = 1.0

    def add(self, losses: Floats) -> None:
        """Add losses (n,), finite, in the order of their predictions."""
        for blocks in self._sizes:
            blocks.add(losses)
        self._estimate()

    def within(self, rows: float) -> float:
        """The design effect of so many rows on end: longer runs show in none of their differences."""
        return max([1.0, *(sure for size, sure in zip(SIZES, self._sure, strict=False) if size <= rows)])

    def _estimate(self) -> None:
        effect = before = growth = 1.0
        self._sure = []
        for blocks in self._sizes:
            found = blocks.effect()
            if found is None:
                break
            # Successive differences share a mean: three of them tell as much as two independent ones.
            sure = found * (1 - math.sqrt(3 / blocks.count))
            self._sure.append(sure)
            effect, growth, before = max(effect, sure), min(max(sure / before, 1.0), MAX_GROWTH), max(found, 1.0)
        else:
            growth = 1.0
        self.design_effect, self.cautious = effect, effect * growth if effect > CERTAIN else effect

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON takes it."""
        return {"sizes": [{name: getattr(blocks, name) for name in blocks.__slots__} for blocks in self._sizes]}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Self:
        """What `to_dict` described."""
        runs = cls()
        for blocks, own in zip(runs._sizes, state["sizes"], strict=True):
            for name, value in own.items():
                setattr(blocks, name, value)
        runs._estimate()
        return runs
