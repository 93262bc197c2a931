"""Stage 6: what a series is expected to be: its level, its season where it has one, the rows usually behind a value.

The level is the median of the last values since the level was last found to have moved. `floor` is the smallest scale
that is told apart from none: a hundredth of the level, so that a constant series has a scale too.
Memory: some hundred numbers and the season's.
"""

import math
from typing import Final, NamedTuple, Self

from mlspan_processor.anomaly.base import State
from mlspan_processor.anomaly.season import Season
from mlspan_processor.anomaly.tail import Tail

LEAST: Final = 1e-9
LEAST_RATIO: Final = 0.01


class Expected(NamedTuple):
    """What is likely at one moment.

    Attributes:
        level: without a season.
        seasonal: with it; None while the series has none.
        season: "day" or "week", "" without.
        floor: the least scale, in the series' units.
        weight: in (0, 1]: a value from fewer rows than usual counts for less.
    """

    level: float
    seasonal: float | None
    season: str
    floor: float
    weight: float

    @property
    def value(self) -> float:
        """The best guess."""
        return self.level if self.seasonal is None else self.seasonal


class Baseline:
    """Level, season and usual number of rows of one series."""

    def __init__(self, size: int) -> None:
        self.values = Tail(size)
        self.rows = Tail(size)
        self.season = Season()

    def __len__(self) -> int:
        return len(self.values)

    def expected(self, time_ns: int, n: float | None) -> Expected:
        """Before the value of this time is learnt; at least one value must have been."""
        level = self.values.quantile(0.5)
        seasonal, season = self.season.expected(time_ns, level)
        weight = 1.0
        if n is not None and len(self.rows):
            usual = self.rows.quantile(0.5)
            weight = min(1.0, (n / usual) ** 0.5) if usual > 0 else 1.0
        return Expected(level, seasonal if season else None, season, max(LEAST_RATIO * abs(level), LEAST), weight)

    def push(self, time_ns: int, value: float, n: float | None) -> None:
        """Learn the value."""
        if len(self.values):
            self.season.push(time_ns, value, self.values.quantile(0.5))
        self.values.push(value)
        if n is not None:
            self.rows.push(n)

    def rebase(self, n: int, by: float) -> None:
        """The level has moved by so much: only the last n values count, and the season moves along."""
        self.values.keep(n)
        self.season.shift(by)

    @property
    def mean(self) -> float:
        """Of the last values; what counts are expected at, where the median is 0."""
        return math.fsum(self.values.ranked) / len(self.values)

    def to_dict(self) -> State:
        """The state, as JSON takes it."""
        return {"values": self.values.to_dict(), "rows": self.rows.to_dict(), "season": self.season.to_dict()}

    @classmethod
    def from_dict(cls, state: State) -> Self:
        """The baseline that `to_dict` described."""
        baseline = cls(state["values"]["size"])
        baseline.values = Tail.from_dict(state["values"])
        baseline.rows = Tail.from_dict(state["rows"])
        baseline.season = Season.from_dict(state["season"])
        return baseline
