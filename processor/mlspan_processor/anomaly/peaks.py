"""Stage 6: how rare is a value in a series' whole past, kept as its largest peaks.

A window of some hundred values forgets the burst of last week, and a burst that comes every week is nobody's incident.
So the `KEPT` largest peaks of the last `MEMORY` values are kept too: a peak is the largest value of a run, and runs are
at least `gap` values apart, since ten large values in a row are one event. Their tail is a generalised Pareto
distribution; its share is peaks per value, so that the tail probability is a rate of incidents. One side; give it the
negative for the other. Memory: `KEPT` pairs. Source: peaks over threshold with runs declustering, Coles, 2001.
"""

import math
from bisect import insort
from typing import Final, Self

from mlspan_processor.anomaly.base import State
from mlspan_processor.anomaly.tail import Pareto, fit

KEPT: Final = 30
MEMORY: Final = 20_000
FEWEST: Final = 5


class Peaks:
    """The largest peaks of one side of one statistic."""

    def __init__(self, gap: int) -> None:
        self.gap = gap
        self.top: list[tuple[float, int]] = []
        self.n = 0
        self._running: float | None = None
        self._quiet = 0
        self._fit: Pareto | None = None

    @property
    def ready(self) -> bool:
        """Whether enough is known."""
        return len(self.top) >= FEWEST

    def push(self, value: float) -> None:
        """Learn one value."""
        self.n += 1
        if len(self.top) < KEPT or value > self.top[0][0]:
            self._quiet = 0
            self._running = value if self._running is None else max(self._running, value)
        else:
            self._quiet += 1
        filling = len(self.top) < KEPT and self.n % self.gap == 0
        if self._running is not None and (self._quiet > self.gap or filling):
            insort(self.top, (self._running, self.n))
            self._running = None
            self.top = [peak for peak in self.top[-KEPT:] if peak[1] > self.n - MEMORY]
            self._fit = None

    def probability(self, value: float, floor: float) -> float:
        """Peaks above `value`, per value of the series; 1 while too little is known."""
        if not self.ready or value <= self.top[0][0]:
            return 1.0
        tail = self._tail()
        return min(1.0, tail.probability(value - tail.start, floor))

    def limit(self, probability: float, floor: float) -> float:
        """The value above which peaks are this rare; infinite while too little is known."""
        if not self.ready:
            return math.inf
        tail = self._tail()
        return tail.start + tail.distance(probability, floor)

    def _tail(self) -> Pareto:
        if self._fit is None:
            start = self.top[0][0]
            excesses = [peak - start for peak, _ in self.top[1:]]
            self._fit = fit(excesses, start, (len(excesses) + 1) / min(self.n, MEMORY))
        return self._fit._replace(share=len(self.top) / min(self.n, MEMORY))

    def to_dict(self) -> State:
        """The state, as JSON takes it."""
        return {"gap": self.gap, "top": self.top[:], "n": self.n, "running": self._running, "quiet": self._quiet}

    @classmethod
    def from_dict(cls, state: State) -> Self:
        """The peaks that `to_dict` described."""
        peaks = cls(state["gap"])
        peaks.top = [(value, at) for value, at in state["top"]]
        peaks.n, peaks._running, peaks._quiet = state["n"], state["running"], state["quiet"]
        return peaks
