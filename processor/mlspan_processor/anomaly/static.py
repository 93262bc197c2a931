"""Stage 6: limits that a person has set.

A value below `below` or above `above` is an anomaly; both together mean outside of a range. With a recovery limit the
alarm ends only where the value is back inside of that (hysteresis), so that a value that trembles at the limit is one
alarm. Fewer than `min_rows` rows are undecidable. Memory: a few numbers.
"""

from typing import ClassVar, Final, Self

from mlspan_processor.anomaly.base import Clock, State, Verdict, undecidable, usable

# Limits are no probabilities: the score is 0 for an anomaly, else 1.
THRESHOLD: Final = 0.0


class Static:
    """Fixed limits.

    Args:
        below, above: the limits; at least one.
        recover_above: a value that fell below `below` is fine again from here on (≥ below).
        recover_below: a value that rose above `above` is fine again from here on (≤ above).
        min_rows: rows needed behind a value whose rows are known.

    Raises:
        ValueError: there is no limit, or they contradict each other.
    """

    name: ClassVar[str] = "static"

    def __init__(
        self,
        *,
        below: float | None = None,
        above: float | None = None,
        recover_above: float | None = None,
        recover_below: float | None = None,
        min_rows: float = 0.0,
    ) -> None:
        if below is None and above is None:
            raise ValueError('static limits need "below", "above" or both')
        if below is not None and above is not None and below > above:
            raise ValueError(f'"below" must not be larger than "above", but {below:g} > {above:g}')
        if recover_above is not None and (below is None or recover_above < below):
            raise ValueError('"recover_above" needs a "below" that is not larger')
        if recover_below is not None and (above is None or recover_below > above):
            raise ValueError('"recover_below" needs an "above" that is not smaller')
        self.below, self.above = below, above
        self.recover_above, self.recover_below = recover_above, recover_below
        self.min_rows = min_rows
        self._clock = Clock()
        # "below" or "above" while an alarm lasts.
        self._side = ""

    def __repr__(self) -> str:
        return f"Static(below={self.below}, above={self.above})"

    def update(self, time_ns: int, value: float | None, n: float | None = None) -> Verdict:
        """Compare the value with the limits."""
        if value is None or not usable(value):
            return undecidable("there is no value", THRESHOLD)
        if not self._clock.admits(time_ns):
            return undecidable("its time is not later than the last one's", THRESHOLD, value)
        if n is not None and n < self.min_rows:
            return undecidable(f"{n:g} rows are fewer than {self.min_rows:g}", THRESHOLD, value)
        low, high = self.below, self.above
        if self._side == "below" and self.recover_above is not None:
            low = self.recover_above
        if self._side == "above" and self.recover_below is not None:
            high = self.recover_below
        reason, effect, self._side = "", 0.0, ""
        if low is not None and value < low:
            reason, effect, self._side = f"{value:.4g} is below {low:.4g}", value - low, "below"
        elif high is not None and value > high:
            reason, effect, self._side = f"{value:.4g} is above {high:.4g}", value - high, "above"
        return Verdict(
            score=float(not reason),
            threshold=THRESHOLD,
            is_anomaly=bool(reason),
            reason=reason,
            value=value,
            low=low,
            high=high,
            effect=effect,
        )

    def to_dict(self) -> State:
        """Everything, as JSON takes it."""
        return {
            "name": self.name,
            "below": self.below,
            "above": self.above,
            "recover_above": self.recover_above,
            "recover_below": self.recover_below,
            "min_rows": self.min_rows,
            "clock": self._clock.to_dict(),
            "side": self._side,
        }

    @classmethod
    def from_dict(cls, state: State) -> Self:
        """The detector that `to_dict` described."""
        detector = cls(**{key: state[key] for key in ("below", "above", "recover_above", "recover_below", "min_rows")})
        detector._restore(state)
        return detector

    def _restore(self, state: State) -> None:
        self._clock = Clock.from_dict(state["clock"])
        self._side = state["side"]
