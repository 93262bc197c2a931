"""Stage 6, part 23: what was found bad stays bad until the series is back at the level from before.

In: each verdict on one series. Out: whether its last values are as bad as when that began, whether they are back, or
whether the level has lasted so long that it is the new normal. A detector learns while an outage lasts, so that after
some minutes nothing is rare: it judges further changes, and this the recovery. What it had learnt before is kept, so
that it can judge by the good level again as soon as what lasted is over; what was short stays learnt, since outliers
are part of many a series.
A share is pooled over as many windows as it takes to see the difference; of other values the median counts.
Memory: some numbers and a detector's state (60 kB) a series that is bad.
"""

import statistics
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, Self

from mlspan_processor.anomaly import Verdict
from mlspan_processor.anomaly.base import State
from mlspan_processor.monitors.persistence import BAD, LOOKS

NEW_NORMAL_HOURS: Final = 24
"""A level that has lasted so long, and that the detector finds usual, is believed."""
NEW_NORMAL_LOOKS: Final = 60
"""It must have been seen so often as well: windows of rows may last for hours."""
RUN: Final = 50
"""Values remembered."""
MEDIAN_OF: Final = 10
LASTED: Final = 10
"""Values after which a detector begins to find the bad level usual."""
ENOUGH: Final = 20.0
"""Rows of a share that must be bad at the level that was found: fewer than that happen by chance."""
BACK: Final = 5
"""Looks at the level from before, one after the other, after which it is over."""
_HOUR: Final = 3600 * 10**9
Standing = Literal["open", "bad", "back", "over", "usual"]


@dataclass(slots=True)
class Held:
    """One series.

    Attributes:
        before: what was expected when it began, without the season.
        effect: how far the first values were from it.
        margin: how far from `before` values are as good as before.
        share: whether values are shares of their rows.
        since_ns: when it began.
        sure: whether it has persisted; until then only the detector counts.
        looks: whether the detector found the last values bad.
        seen: looks at it.
        back: the last looks that found it at the level from before, in a row.
        run: the last values and their rows.
        level: of the run, without the season.
        width: values that the level is of.
        learnt: the detector's state before the first bad value; None for detectors that learn nothing.
    """

    before: float
    effect: float
    margin: float
    share: bool
    since_ns: int
    sure: bool = False
    looks: list[bool] = field(default_factory=list)
    seen: int = 0
    back: int = 0
    run: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=RUN))
    level: float = 0.0
    width: int = 1
    learnt: State | None = None

    @classmethod
    def begin(cls, verdict: Verdict, time_ns: int, least: float, share: bool) -> Self | None:
        """From the first bad verdict; None where it does not say what was expected."""
        if verdict.expected is None or not verdict.effect:
            return None
        size = abs(verdict.effect)
        limit = verdict.high if verdict.effect > 0 else verdict.low
        usual = size if limit is None else max(abs(limit - verdict.expected), size / 10)
        margin = max(min(usual, size / 3), min(least, size / 2))
        return cls(verdict.expected - verdict.season, verdict.effect, margin, share, time_ns)

    def see(self, time_ns: int, verdict: Verdict, n: float | None, bad: bool) -> Standing:
        """One more value; `bad`: what the detector says."""
        value = verdict.value
        assert value is not None
        sign = 1 if self.effect > 0 else -1
        self.seen += 1
        # A clock that was set back is believed.
        self.since_ns = min(self.since_ns, time_ns)
        self.run.append((value - verdict.season, 1.0 if n is None else n))
        if self.seen <= MEDIAN_OF:
            # The first bad window may hold little of the outage.
            mean = sum(one * rows for one, rows in self.run) / sum(rows for _, rows in self.run)
            self.effect = sign * max(abs(self.effect), sign * (mean - self.before))
        self.level, self.width = self._level()
        self.looks = [*self.looks, bad][-LOOKS:]
        self.sure |= (bad and verdict.certain) or sum(self.looks) >= BAD
        if not self.sure:
            return "open" if any(self.looks) else "over"
        far = sign * (self.level - self.before)
        if far > self.margin:
            self.back = 0
            old = time_ns - self.since_ns >= NEW_NORMAL_HOURS * _HOUR and self.seen >= NEW_NORMAL_LOOKS
            return "usual" if old and not bad else "bad"
        if bad:
            # The way back is a change too, which the detector may not know from others.
            near = max(-far, abs(value - verdict.season - self.before)) <= self.margin
            return "back" if near else "open"
        self.back += 1
        return "over" if self.back >= BACK else "back"

    @property
    def lasted(self) -> bool:
        """Whether it has persisted for so long that the detector has learnt the bad level."""
        return self.sure and self.seen - self.back >= LASTED

    def against_before(self, verdict: Verdict, bad: bool) -> Verdict:
        """The verdict, told by the level from before; of the run where the detector does not find it bad any more."""
        expected = self.before + verdict.season
        if bad:
            moved = (verdict.expected or 0.0) - expected
            return replace(verdict, expected=expected, effect=(verdict.effect or 0.0) + moved)
        return replace(verdict, expected=expected, effect=self.level - self.before, run=self.width, score=None)

    def _level(self) -> tuple[float, int]:
        """(level of the newest values, how many they are)."""
        if not self.share:
            values = [value for value, _ in self.run][-MEDIAN_OF:]
            return statistics.median(values), len(values)
        hits = rows = 0.0
        width = 0
        for value, n in reversed(self.run):
            hits, rows, width = hits + value * n, rows + n, width + 1
            if rows * abs(self.effect) >= ENOUGH:
                break
        return (hits / rows if rows > 0 else self.before), width

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON takes it."""
        kept = {name: getattr(self, name) for name in self.__slots__ if name != "run"}
        return {**kept, "run": [list(one) for one in self.run]}

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Self:
        """What `to_dict` described."""
        run = deque(((value, n) for value, n in state["run"]), maxlen=RUN)
        return cls(**{**state, "run": run})
