"""Stage 6: how rare is a value among the last ones: their own two tails, continued by extreme-value theory.

Values in, two-sided tail probabilities out; each side from its own tail, since what a series does upwards says nothing
about what it does downwards. Among the values seen, ranks; beyond the outermost twentieth, a generalised Pareto
distribution (SPOT's idea over a sliding window, so that it follows a series that changes). Its shape is at least 1/k
for k exceedances: the predictive tail of an exponential that was seen k times is Lomax's with that shape, so that a
short past never claims great rarity. No assumption on the body: the same level means the same share of alarms on
counts, shares and latencies. Memory: 16 bytes a value. Source: Siffer et al., KDD 2017; moments of Hosking &
Wallis, Technometrics 29, 1987.
"""

import math
from array import array
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable
from typing import Final, NamedTuple, Self

from mlspan_processor.anomaly.base import State, packed, unpacked

OUTER: Final = 0.05
FEWEST: Final = 10
REFIT: Final = 10
HEAVIEST: Final = 0.6


class Pareto(NamedTuple):
    """The tail beyond `start`: its scale and shape, and the share of values in it."""

    start: float
    scale: float
    shape: float
    share: float

    def probability(self, beyond: float, floor: float) -> float:
        """Of a value more than `beyond` ≥ 0 past the start; `floor`: the least scale."""
        log = -math.log1p(self.shape * beyond / max(self.scale, floor)) / self.shape
        return self.share * math.exp(max(log, -700.0))

    def distance(self, probability: float, floor: float) -> float:
        """How far past the start the tail probability is this."""
        return max(math.expm1(self.shape * math.log(self.share / probability)) / self.shape, 0.0) * max(
            self.scale, floor
        )


def fit(excesses: list[float], start: float, share: float) -> Pareto:
    """By probability-weighted moments; `excesses` ≥ 0 in rising order, at least one."""
    k = len(excesses)
    mean = sum(excesses) / k
    weighted = sum((1 - (i + 0.65) / k) * excess for i, excess in enumerate(excesses)) / k
    gap = mean - 2 * weighted
    shape = min(max(2 - mean / gap if gap > 0 else 0.0, 1 / k), max(HEAVIEST, 1 / k))
    return Pareto(start, mean * (1 - min(shape, HEAVIEST)), shape, share)


class Tail:
    """The last `size` values of one statistic, and their two tails."""

    def __init__(self, size: int, values: Iterable[float] = ()) -> None:
        self.size = size
        # A ring: once full, `_oldest` is the place of the oldest value.
        self._ring = array("d", values)
        self._oldest = 0
        self.ranked = array("d", sorted(self._ring))
        self._fits: tuple[Pareto, Pareto] | None = None
        self._age = 0

    def __len__(self) -> int:
        return len(self._ring)

    def push(self, value: float) -> None:
        """Learn one value, forget the oldest beyond `size`."""
        if len(self._ring) < self.size:
            self._ring.append(value)
        else:
            del self.ranked[bisect_left(self.ranked, self._ring[self._oldest])]
            self._ring[self._oldest] = value
            self._oldest = (self._oldest + 1) % self.size
        insort(self.ranked, value)
        self._age += 1
        if self._age >= REFIT:
            self._fits = None

    def in_order(self) -> "array[float]":
        """The values, oldest first."""
        return self._ring[self._oldest :] + self._ring[: self._oldest]

    def keep(self, n: int) -> None:
        """Forget all but the last n values."""
        self._ring = self.in_order()[-n:]
        self._oldest = 0
        self.ranked = array("d", sorted(self._ring))
        self._fits = None

    def quantile(self, q: float) -> float:
        """The q-quantile by rank; NaN of nothing."""
        return self.ranked[min(int(q * len(self.ranked)), len(self.ranked) - 1)] if self.ranked else math.nan

    def probability(self, value: float, floor: float) -> float:
        """Two-sided tail probability in [0, 1] of one more value; `floor` > 0: the least scale of a tail."""
        n = len(self.ranked)
        above = n - bisect_left(self.ranked, value)
        below = bisect_right(self.ranked, value)
        outer = _outer(n)
        if above >= outer and below >= outer:
            return min(1.0, 2 * (min(above, below) + 1) / (n + 1))
        lower, upper = self._tails()
        beyond = upper.probability(max(value - upper.start, 0.0), floor)
        if below < outer:
            beyond = lower.probability(max(lower.start - value, 0.0), floor)
        return min(1.0, 2 * beyond)

    def limits(self, probability: float, floor: float) -> tuple[float, float]:
        """The values below and above which the two-sided tail probability is less than this."""
        lower, upper = self._tails()
        return (
            lower.start - lower.distance(probability / 2, floor),
            upper.start + upper.distance(probability / 2, floor),
        )

    def _tails(self) -> tuple[Pareto, Pareto]:
        if self._fits is None:
            n = len(self.ranked)
            k = _outer(n)
            low, high = self.ranked[k], self.ranked[n - k - 1]
            share = (k + 1) / (n + 1)
            self._fits = (
                fit([low - value for value in reversed(self.ranked[:k])], low, share),
                fit([value - high for value in self.ranked[n - k :]], high, share),
            )
            self._age = 0
        return self._fits

    def to_dict(self) -> State:
        """The state, as JSON takes it."""
        fits = None if self._fits is None else [list(one) for one in self._fits]
        return {"size": self.size, "values": packed(self.in_order()), "fits": fits, "age": self._age}

    @classmethod
    def from_dict(cls, state: State) -> Self:
        """The tail that `to_dict` described."""
        tail = cls(state["size"], unpacked(state["values"]))
        if state["fits"] is not None:
            lower, upper = state["fits"]
            tail._fits = (Pareto(*lower), Pareto(*upper))
        tail._age = state["age"]
        return tail


def _outer(n: int) -> int:
    return min(max(FEWEST, int(OUTER * n)), max(n - 1, 1))
