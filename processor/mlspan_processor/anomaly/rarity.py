"""Stage 6: one statistic of a series, and how rare its values are: rare in the last window *and* in the whole past.

Six statistics, each of the residuals (value less expected), told apart by what they see first:

    point    the residual itself                              an outlier
    jump     residual less the median of the five before it   a sudden step in a series that wanders
    short    mean of the last 10 residuals                    a burst
    long     mean of the last 50                              a level that has moved
    spread   log of the mean change from value to value       noise that grew, a line that went flat
             over the last 40

Each keeps a Tail (the last values) and Peaks (the whole past) for both sides; its probability is the larger of the two.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Final, Self

from mlspan_processor.anomaly.base import State
from mlspan_processor.anomaly.peaks import FEWEST, Peaks
from mlspan_processor.anomaly.tail import Tail

SHORT: Final = 10
LONG: Final = 50
SPREAD: Final = 40
BEFORE: Final = 5
REMEMBERED: Final = max(SHORT, LONG, SPREAD) + 1
GAP: Final = 50
# Values of a statistic before it is used: the fewest peaks.
WARM_UP: Final = FEWEST * GAP
# Least scale of a logarithm: five per cent.
SPREAD_FLOOR: Final = 0.05


def statistic(name: str, residuals: Sequence[float], floor: float) -> float | None:
    """The statistic at the last of these residuals (at most REMEMBERED); None while there are too few."""
    n = len(residuals)
    if name == "point":
        return residuals[-1]
    if name == "jump":
        return residuals[-1] - sorted(residuals[i] for i in range(-BEFORE - 1, -1))[BEFORE // 2] if n > BEFORE else None
    if name == "spread":
        if n <= SPREAD:
            return None
        last = list(residuals)[-SPREAD - 1 :]
        change = sum(abs(b - a) for a, b in pairwise(last)) / SPREAD
        # A tenth of the floor: what is all but flat is as good as flat.
        return math.log(change + 0.1 * floor)
    width = SHORT if name == "short" else LONG
    return math.fsum(list(residuals)[-width:]) / width if n >= width else None


def floor_of(name: str, floor: float) -> float:
    """The statistic's least scale, from the residuals'."""
    floors: dict[str, float] = {
        "short": floor / math.sqrt(SHORT),
        "long": floor / math.sqrt(LONG),
        "spread": SPREAD_FLOOR,
    }
    return floors.get(name, floor)


class Rarity:
    """The past of one statistic."""

    def __init__(self, size: int) -> None:
        self.recent = Tail(size)
        self.up = Peaks(GAP)
        self.down = Peaks(GAP)

    @property
    def ready(self) -> bool:
        """Whether enough is known."""
        return len(self.recent) >= WARM_UP and self.up.ready and self.down.ready

    def probability(self, value: float, floor: float, enough: float) -> float:
        """Two-sided tail probability of a value; the whole past is only asked where the window's is below `enough`."""
        recent = self.recent.probability(value, floor)
        if recent > enough:
            return recent
        if value > self.recent.quantile(0.5):
            return max(recent, min(1.0, 2 * self.up.probability(value, floor)))
        return max(recent, min(1.0, 2 * self.down.probability(-value, floor)))

    def limits(self, probability: float, floor: float) -> tuple[float, float]:
        """Values below and above which the probability is less than this."""
        low, high = self.recent.limits(probability, floor)
        return (
            min(low, -self.down.limit(probability / 2, floor)),
            max(high, self.up.limit(probability / 2, floor)),
        )

    def push(self, value: float) -> None:
        """Learn one value."""
        self.recent.push(value)
        self.up.push(value)
        self.down.push(-value)

    def to_dict(self) -> State:
        """The state, as JSON takes it."""
        return {"recent": self.recent.to_dict(), "up": self.up.to_dict(), "down": self.down.to_dict()}

    @classmethod
    def from_dict(cls, state: State) -> Self:
        """The statistic that `to_dict` described."""
        rarity = cls(state["recent"]["size"])
        rarity.recent = Tail.from_dict(state["recent"])
        rarity.up, rarity.down = Peaks.from_dict(state["up"]), Peaks.from_dict(state["down"])
        return rarity


def wording(name: str, value: float, statistic_now: float, expected: float, usual: float) -> str:
    """Why a value is an anomaly, for a person. `usual`: the statistic's median."""
    if name == "spread":
        ratio = math.exp(min(max(statistic_now - usual, -50.0), 50.0))
        if ratio < 0.05:
            return "values no longer change"
        return f"values change {ratio:.2g} times as much as before from one to the next"
    if name in {"short", "long"}:
        width = SHORT if name == "short" else LONG
        return f"the last {width} values are off by {statistic_now:+.3g} in the mean"
    if name == "jump":
        return f"{value:.4g} is a step of {statistic_now:+.3g}"
    return f"{value:.4g} where {expected:.4g} was expected"
