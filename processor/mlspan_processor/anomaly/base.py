"""Stage 6: what every detector of anomalies on a series is: values in, one verdict a value out.

In: a time in nanoseconds, a value (None or NaN where a window could say nothing) and, where the value is a share or a
count, the number of rows behind it. Out: a Verdict. A detector judges a value before it learns from it; it looks at no
clock, keeps bounded memory, and goes through JSON (`to_dict`, `from_dict`) without losing anything: a detector restored
in the middle of a series says what it would have said.

The same rules hold for all of them, and the contract tests hold them to it:

* None, NaN and infinities are undecidable and change nothing.
* A time that is not later than the last one (a repeated value, a clock that went back) is undecidable and changes
  nothing, until the clock has been behind for `BACKWARD` updates on end: then it is believed, and time goes on there.
* A gap in time is no anomaly: what was learnt stays, since nothing says that the series changed meanwhile.
* Until a detector has learnt enough it is undecidable, and says how much it lacks.
"""

import base64
import math
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Protocol, Self

BACKWARD: Final = 5
UNDECIDABLE: Final = "undecidable, because "
State = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a detector says of one value.

    Attributes:
        score: tail probability in [0, 1], how likely a value at least this far off is while nothing is wrong; small is
            anomalous. 0 or 1 for rules that know no probability; None where nothing can be said.
        threshold: the score at or below which a value is an anomaly.
        is_anomaly: whether it is one; False where nothing can be said.
        reason: why it is one, or "undecidable, because …"; "" for a value like others.
        value: the value judged, None where there was none.
        expected: what the series' past made likely, in the value's units; None where unknown.
        low, high: outside these the value would be an anomaly by itself, in its units; None where there is no such
            limit.
        effect: how far the value, or the run of values judged, is from what was expected, in the value's units.
        certain: whether one such value is enough; the other anomalies need to persist (see incidents).
        rebased: whether the detector has just taken the series' new level for normal.
        run: how many of the last values were judged, as their mean.
        season: what the time of day or week adds to the level, in the value's units.
    """

    score: float | None
    threshold: float
    is_anomaly: bool
    reason: str = ""
    value: float | None = None
    expected: float | None = None
    low: float | None = None
    high: float | None = None
    effect: float | None = None
    certain: bool = False
    rebased: bool = False
    run: int = 1
    season: float = 0.0


Values = Mapping[str, float | None]


class Detector(Protocol):
    """Judges a series, one value after the other."""

    name: ClassVar[str]

    def update(self, time_ns: int, value: float | None, n: float | None = None) -> Verdict:
        """Judge the value, then learn from it. `n`: rows behind it, None if they don't matter."""

    def to_dict(self) -> State:
        """Everything, as JSON takes it."""

    @classmethod
    def from_dict(cls, state: State) -> Self:
        """The detector that `to_dict` described."""


class JointDetector(Protocol):
    """Judges series that belong together, all values of one moment at a time."""

    name: ClassVar[str]

    def update(self, time_ns: int, values: Values) -> Verdict:
        """Judge the values by series name, then learn from them."""

    def to_dict(self) -> State:
        """Everything, as JSON takes it."""

    @classmethod
    def from_dict(cls, state: State) -> Self:
        """The detector that `to_dict` described."""


def undecidable(because: str, threshold: float, value: float | None = None) -> Verdict:
    """The verdict that says nothing, and why."""
    return Verdict(None, threshold, False, UNDECIDABLE + because, value if usable(value) else None)


def usable(value: float | None) -> bool:
    """Whether there is a value."""
    return value is not None and math.isfinite(value)


def packed(numbers: "array[float]") -> str:
    """Doubles as text, as JSON takes it: a third of the size of digits, and exact."""
    return base64.b64encode(numbers.tobytes()).decode()


def unpacked(text: str) -> "array[float]":
    """The doubles that `packed` wrote."""
    numbers = array("d")
    numbers.frombytes(base64.b64decode(text))
    return numbers


class Clock:
    """Tells values in order from repeated ones, and gives in when the clock was set back."""

    def __init__(self, last_ns: int | None = None, behind: int = 0) -> None:
        self.last_ns = last_ns
        self.behind = behind

    def admits(self, time_ns: int) -> bool:
        """Whether a value of this time is next; remembers that it was."""
        if self.last_ns is not None and time_ns <= self.last_ns:
            # A value that is sent again must not pass for a clock that was set back.
            self.behind += time_ns < self.last_ns
            if self.behind < BACKWARD or time_ns == self.last_ns:
                return False
        self.last_ns = time_ns
        self.behind = 0
        return True

    def to_dict(self) -> State:
        """The state, as JSON takes it."""
        return {"last_ns": self.last_ns, "behind": self.behind}

    @classmethod
    def from_dict(cls, state: State) -> Self:
        """The clock that `to_dict` described."""
        return cls(state["last_ns"], state["behind"])
