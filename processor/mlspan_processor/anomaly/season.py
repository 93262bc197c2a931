"""Stage 6: what the time of day and the day of the week make likely.

Three ways to expect a value are held side by side: the median of the last values, the median of the last days at this
time of day, and of the last weeks at this time of the week. Each is judged by how far it was off before it saw the
value; a season is used while it is clearly better than none, so that noise is not taken for one and nothing has to be
configured. Time is UTC: after a change to summer time the days are off by an hour until most of a slot's visits lie
behind it. Memory: at most 96 × 7 + 168 × 4 numbers.
"""

import math
import statistics
from array import array
from typing import Final, Self

import numpy as np

from mlspan_processor.anomaly.base import State, packed, unpacked

NS: Final = 1_000_000_000
# (name, length, slot) in nanoseconds, and visits remembered.
SEASONS: Final = (("day", 86_400 * NS, 900 * NS, 7), ("week", 7 * 86_400 * NS, 3_600 * NS, 4))
# Visits before a slot says something; share of the other's error that counts as clearly better; values by which it must
# have been shown, as a share of the slots; memory of errors.
ENOUGH: Final = 2
CLEARLY: Final = 0.8
SHOWN: Final = 0.25
FORGET: Final = 0.005
# Values of one visit that count.
AT_ONCE: Final = 64


class _Slots:
    """The last visits to each slot of one season, and their medians."""

    def __init__(self, length: int, slot: int, visits: int) -> None:
        self.length, self.slot = length, slot
        self.past = np.full((length // slot, visits), np.nan)
        self.medians = np.full(len(self.past), np.nan)
        self.visit = -1
        self.values: list[float] = []

    def expected(self, time_ns: int) -> float:
        """NaN where too little is known."""
        return float(self.medians[time_ns % self.length // self.slot])

    def push(self, time_ns: int, value: float) -> None:
        visit = time_ns // self.slot
        if visit != self.visit:
            self._close()
            self.visit = visit
        if len(self.values) < AT_ONCE:
            self.values.append(value)

    def _close(self) -> None:
        """The running visit ends: its median becomes part of its slot's past."""
        if self.values:
            slot = self.visit % len(self.past)
            past = self.past[slot]
            past[:-1] = past[1:]
            past[-1] = statistics.median(self.values)
            known = past[~np.isnan(past)]
            if len(known) >= ENOUGH:
                self.medians[slot] = statistics.median(known.tolist())
            self.values = []

    def to_dict(self) -> State:
        past = packed(array("d", self.past.tobytes()))
        return {"past": past, "visit": self.visit, "values": self.values[:]}

    def restore(self, state: State) -> None:
        self.past = np.array(unpacked(state["past"])).reshape(self.past.shape)
        for slot, past in enumerate(self.past):
            known = past[~np.isnan(past)]
            if len(known) >= ENOUGH:
                self.medians[slot] = statistics.median(known.tolist())
        self.visit, self.values = state["visit"], list(state["values"])


class Season:
    """The expected value, from whichever season has been right."""

    def __init__(self) -> None:
        self.slots = [_Slots(length, slot, visits) for _, length, slot, visits in SEASONS]
        # Mean absolute errors of [season, none] over the values at which the season had something to say.
        self.errors = [[0.0, 0.0] for _ in SEASONS]
        self.seen = [0 for _ in SEASONS]

    def expected(self, time_ns: int, level: float) -> tuple[float, str]:
        """(expected value, "", "day" or "week"), given the series' level."""
        best, share, name = level, 1.0, ""
        for i, slots in enumerate(self.slots):
            season, none = self.errors[i]
            value = slots.expected(time_ns)
            if math.isnan(value) or self.seen[i] < SHOWN * len(slots.past) or none <= 0 or season > CLEARLY * none:
                continue
            if season / none < share:
                best, share, name = value, season / none, SEASONS[i][0]
        return best, name

    def push(self, time_ns: int, value: float, level: float) -> None:
        """Learn the value; `level` is what one would have expected without a season."""
        for i, slots in enumerate(self.slots):
            expected = slots.expected(time_ns)
            if not math.isnan(expected):
                errors = self.errors[i]
                # Forgetting begins once there is something to forget: a plain mean until then.
                rate = max(FORGET, 1 / (self.seen[i] + 1))
                errors[0] += rate * (abs(value - expected) - errors[0])
                errors[1] += rate * (abs(value - level) - errors[1])
                self.seen[i] += 1
            slots.push(time_ns, value)

    def shift(self, by: float) -> None:
        """The series has moved, and is taken to move as before from there."""
        for slots in self.slots:
            slots.past += by
            slots.medians += by

    def to_dict(self) -> State:
        """The state, as JSON takes it."""
        return {
            "slots": [one.to_dict() for one in self.slots],
            "errors": [errors[:] for errors in self.errors],
            "seen": self.seen[:],
        }

    @classmethod
    def from_dict(cls, state: State) -> Self:
        """The season that `to_dict` described."""
        season = cls()
        for slots, kept in zip(season.slots, state["slots"], strict=True):
            slots.restore(kept)
        season.errors, season.seen = [list(e) for e in state["errors"]], list(state["seen"])
        return season
