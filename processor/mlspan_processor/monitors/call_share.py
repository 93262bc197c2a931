"""Stage 6, part 26: limits on a share of calls, of which a quiet model has few.

One call of one that raises is 100 %, and says nothing. Windows are therefore put together, the newest first, until
their calls decide: at least `FEWEST` of them, and a share beyond the limit (or within it) that chance alone would make
in one of `1 / CHANCE` cases; with `MANY` calls the share itself decides. Until then nothing is said.
Memory: the last `WINDOWS` windows.
"""

from collections import deque
from dataclasses import replace
from typing import Final, Self

from scipy.special import betainc

from mlspan_processor.anomaly import Static, Verdict
from mlspan_processor.anomaly.base import State, undecidable

FEWEST: Final = 5.0
MANY: Final = 100.0
CHANCE: Final = 0.04
"""Five of five calls are more than half of all, by this measure; five of six are not."""
WINDOWS: Final = 60


class CallShare(Static):
    """Fixed limits on the share of the last calls."""

    def __init__(self, *, below: float | None = None, above: float | None = None) -> None:
        super().__init__(below=below, above=above)
        self._windows: deque[tuple[float, float]] = deque(maxlen=WINDOWS)

    def update(self, time_ns: int, value: float | None, n: float | None = None) -> Verdict:
        """Compare the share of the newest calls with the limits, as many of them as it takes."""
        verdict = super().update(time_ns, value, n)
        if verdict.score is None or value is None or not n:
            return verdict
        self._windows.append((value, n))
        hits = calls = 0.0
        for width, (share, rows) in enumerate(reversed(self._windows), start=1):
            hits, calls = hits + share * rows, calls + rows
            if calls < FEWEST:
                continue
            sides = [_side(hits, calls, limit) for limit in (self.below, self.above) if limit is not None]
            if 0 not in sides:
                return self._decided(verdict, hits / calls, width)
        return undecidable(f"{calls:g} calls do not tell", verdict.threshold, value)

    def _decided(self, verdict: Verdict, share: float, width: int) -> Verdict:
        reason, effect = "", 0.0
        if self.below is not None and share < self.below:
            reason, effect = f"{share:.4g} is below {self.below:.4g}", share - self.below
        elif self.above is not None and share > self.above:
            reason, effect = f"{share:.4g} is above {self.above:.4g}", share - self.above
        bad = bool(reason)
        return replace(
            verdict, score=float(not bad), is_anomaly=bad, reason=reason, value=share, effect=effect, run=width
        )

    def to_dict(self) -> State:
        """Everything, as JSON takes it."""
        return {**super().to_dict(), "windows": [list(one) for one in self._windows]}

    @classmethod
    def from_dict(cls, state: State) -> Self:
        """The detector that `to_dict` described, or that a Static of older versions did."""
        detector = cls(below=state["below"], above=state["above"])
        detector._restore(state)
        detector._windows.extend((share, rows) for share, rows in state.get("windows", []))
        return detector


def _side(hits: float, calls: float, limit: float) -> int:
    """1: the share is above the limit, -1: it is not, 0: the calls do not tell."""
    if calls >= MANY:
        return 1 if hits > limit * calls else -1
    limit = min(max(limit, 0.0), 1.0)
    # How likely so many, or so few, are at the limit: the binomial distribution, for weighted calls too.
    if hits > 0 and betainc(hits, calls - hits + 1, limit) <= CHANCE:
        return 1
    return -1 if hits < calls and betainc(calls - hits, hits + 1, 1 - limit) <= CHANCE else 0
