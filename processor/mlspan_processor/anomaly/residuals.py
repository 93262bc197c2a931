"""Stage 6: the machine behind the detectors that learn from a series' history; each watches other statistics.

A value is judged in this order: residual from the level and, where the series has one, from the season; each
statistic's probability (rarity); the smallest one times the number of statistics; against a threshold that falls with
the square root of what has been seen, so that a person is not told more of a series the longer it runs: expected false
incidents grow with √n, and rates fall from one in some hundred values to one in thousands. What is rare must also be
more than counting alone explains, and larger than the least effect that matters. Nothing is said of the first 250
values. Without anomalies .22 false incidents in 1,000 values over nine kinds of series (tests/processor/anomaly), .10
after the first 1,000 values; nearly all of them where tails are so heavy that the fourth moment is infinite.

A level that has moved for good (most of the last `CONFIRM` residuals in the same outer 3 % of history) is believed: the
baseline starts anew from there, the statistics of the noise stay. Who knows that it was an outage may go back to what
had been learnt before (`back_to`). Memory at the default size: about 80 kB.
"""

import math
import statistics
from collections import deque
from dataclasses import asdict, dataclass, replace
from typing import ClassVar, Final, Literal, Self

from mlspan_processor.anomaly.base import Clock, State, Verdict, undecidable, usable
from mlspan_processor.anomaly.baseline import Baseline, Expected
from mlspan_processor.anomaly.counting import Counting, by_chance
from mlspan_processor.anomaly.peaks import MEMORY
from mlspan_processor.anomaly.rarity import (
    LONG,
    REMEMBERED,
    SHORT,
    WARM_UP,
    Rarity,
    floor_of,
    statistic,
    wording,
)

CONFIRM: Final = 60
CONFIRMED: Final = 45
OUTER: Final = 0.03
# A value this many times rarer than the threshold needs no second one: only marginal ones have to persist.
CERTAIN: Final = 2.0
# Half the distance of the quartiles to standard deviation.
TO_SD: Final = 1.4826
# Statistics that are means of so many values.
WIDTHS: Final = {"short": SHORT, "long": LONG}


@dataclass(frozen=True, slots=True)
class Settings:
    """How a series is judged.

    Attributes:
        bar: the threshold after n values is bar / √n. 0.38 is 0.6 % after 4,000 values, over all statistics together.
        direction: which way is bad. Statistics without a direction (spread) count for "both" only.
        counting: whether values are numbers, shares of their rows, or counts.
        min_effect: least difference that matters, in the series' units.
        size: values that make up the recent past.
    """

    bar: float = 0.38
    direction: Literal["both", "up", "down"] = "both"
    counting: Counting = "number"
    min_effect: float = 0.0
    size: int = 500


class Residuals:
    """Judges a series by its own history.

    Attributes:
        learnt: how many values.
        before: what had been learnt before the last value, where that is an anomaly; for `back_to`.
        baseline: level and season.
    """

    name: ClassVar[str]
    # Which statistics of the residuals from the level, and of those from the season; whether to follow a moved level.
    PLAIN: ClassVar[tuple[str, ...]]
    SEASONAL: ClassVar[tuple[str, ...]]
    FOLLOWS: ClassVar[bool]

    def __init__(self, settings: Settings = Settings()) -> None:
        self.settings = settings
        self.learnt = 0
        self.before: State | None = None
        self.baseline = Baseline(settings.size)
        self._clock = Clock()
        self._past = {key: Rarity(settings.size) for key in self._keys()}
        self._residuals = {stream: deque[float](maxlen=REMEMBERED) for stream in ("plain", "seasonal")}
        # On which side the last residuals lie, and where the sides began when each of them came.
        self._sides: deque[int] = deque(maxlen=CONFIRM)
        self._bounds: deque[tuple[float, float]] = deque(maxlen=CONFIRM)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.settings})"

    @property
    def threshold(self) -> float:
        """At what probability a value is an anomaly, after what has been learnt."""
        return self.settings.bar / math.sqrt(min(max(self.learnt, WARM_UP), MEMORY))

    def update(self, time_ns: int, value: float | None, n: float | None = None) -> Verdict:
        """Judge the value, then learn from it.

        `n`: rows behind the value. Undecidable for no value, for a time that is not next, and for the first values.
        """
        threshold = self.threshold
        if value is None or not usable(value) or (n is not None and not n > 0):
            return undecidable("there is no value", threshold)
        if not self._clock.admits(time_ns):
            return undecidable("its time is not later than the last one's", threshold, value)
        self.learnt += 1
        if not len(self.baseline):
            self.baseline.push(time_ns, value, n)
            return undecidable(f"0 of {WARM_UP} values are known", threshold, value)
        expected = self.baseline.expected(time_ns, n)
        verdict = self._judge(value, expected, threshold, n)
        self.baseline.push(time_ns, value, n)
        return self._follow(verdict) if self.FOLLOWS else verdict

    def back_to(self, before: State) -> Self:
        """A detector that goes on from here with what was learnt at an earlier time; values since are forgotten."""
        detector = type(self).from_dict(before)
        # A clock that was set back meanwhile is known already.
        detector._clock = self._clock
        return detector

    def _without_last(self) -> State:
        """The state before the value that is judged, the statistics of which are not learnt yet."""
        state = self.to_dict()
        state["learnt"] -= 1
        for values in state["residuals"].values():
            del values[-1:]
        return state

    def _keys(self) -> list[str]:
        return [f"plain {name}" for name in self.PLAIN] + [f"seasonal {name}" for name in self.SEASONAL]

    def _judge(self, value: float, expected: Expected, threshold: float, n: float | None) -> Verdict:
        rarest, found = math.inf, ("", 0.0, 0.0)
        enough = threshold / len(self._past)
        learnt: list[tuple[Rarity, float]] = []
        for stream, names in (("plain", self.PLAIN), ("seasonal", self.SEASONAL)):
            residuals = self._residuals[stream]
            if stream == "seasonal" and expected.seasonal is None:
                residuals.clear()
                continue
            base = expected.level if stream == "plain" else expected.value
            residuals.append((value - base) * expected.weight)
            for name in names:
                now = statistic(name, residuals, expected.floor)
                if now is None:
                    continue
                past = self._past[f"{stream} {name}"]
                floor = floor_of(name, expected.floor)
                if past.ready:
                    p, usual = past.probability(now, floor, enough), past.recent.quantile(0.5)
                    if p <= enough and not self._matters(name, value, now, usual, expected, n, enough):
                        p = 1.0
                    if p < rarest:
                        rarest, found = p, (name, now, usual)
                learnt.append((past, now))
        score = min(1.0, rarest * len(self._past))
        anomalous = score <= threshold
        self.before = self._without_last() if anomalous else None
        for past, now in learnt:
            past.push(now)
        main = self._past[self._main(expected)]
        if rarest > 1.0 and not main.ready:
            return undecidable(f"{len(main.recent)} of {WARM_UP} values are known", threshold, value)
        low, high = self._limits(main, expected, enough)
        name, now, usual = found
        return Verdict(
            score=score,
            threshold=threshold,
            is_anomaly=anomalous,
            reason=wording(name, value, now, expected.value, usual) if anomalous else "",
            value=value,
            expected=expected.value,
            low=low,
            high=high,
            effect=now if name in WIDTHS and anomalous else value - expected.value,
            certain=anomalous and score * CERTAIN <= threshold,
            run=WIDTHS.get(name, 1) if anomalous else 1,
            season=expected.value - expected.level,
        )

    def _matters(
        self, name: str, value: float, now: float, usual: float, expected: Expected, n: float | None, level: float
    ) -> bool:
        """In the bad direction, by more than counting explains and more than the least effect."""
        settings = self.settings
        if name == "spread":
            change = abs(math.exp(now) - math.exp(usual))
            return settings.direction == "both" and settings.counting == "number" and change >= settings.min_effect
        width = WIDTHS.get(name, 1)
        effect = now if width > 1 else value - expected.value
        if abs(effect) < settings.min_effect or (
            settings.direction != "both" and (effect > 0) != (settings.direction == "up")
        ):
            return False
        if settings.counting == "number":
            return True
        ranked = self._past[self._main(expected)].recent
        scale = TO_SD * (ranked.quantile(0.75) - ranked.quantile(0.25)) / 2 / math.sqrt(width)
        rows = (n if n is not None else 0.0) * width if settings.counting == "share" else float(width)
        seen = expected.value + effect
        # A rare count's median is 0; its mean says what to expect.
        before = min(expected.value, self.baseline.mean, key=lambda one: abs(one - seen))
        return by_chance(settings.counting, seen, before, scale, rows) <= level

    def _main(self, expected: Expected) -> str:
        """The statistic that is nearest to the value itself."""
        names = self.PLAIN if expected.seasonal is None else self.SEASONAL
        return f"{'plain' if expected.seasonal is None else 'seasonal'} {names[0]}"

    def _limits(self, main: Rarity, expected: Expected, enough: float) -> tuple[float | None, float | None]:
        if not main.ready or self.PLAIN[0] != "point":
            return None, None
        low, high = main.limits(enough, expected.floor)
        down, up = low / expected.weight, high / expected.weight
        return (
            expected.value + down if math.isfinite(down) and self.settings.direction != "up" else None,
            expected.value + up if math.isfinite(up) and self.settings.direction != "down" else None,
        )

    def _follow(self, verdict: Verdict) -> Verdict:
        """Believe a level that has moved for good."""
        stream = "seasonal" if self._residuals["seasonal"] else "plain"
        main = self._past[f"{stream} {(self.SEASONAL if stream == 'seasonal' else self.PLAIN)[0]}"]
        if not main.ready or not self._residuals[stream]:
            return verdict
        residual = self._residuals[stream][-1]
        # The sides of CONFIRM values ago: the values in question must not move what they are held against.
        if len(self._bounds) == CONFIRM:
            low, high = self._bounds[0]
            self._sides.append((residual > high) - (residual < low))
        self._bounds.append((main.recent.quantile(OUTER), main.recent.quantile(1 - OUTER)))
        if abs(sum(self._sides)) < CONFIRMED:
            return verdict
        self.baseline.rebase(CONFIRM, statistics.median(self._residuals[stream]))
        self._sides.clear()
        self._bounds.clear()
        for residuals in self._residuals.values():
            residuals.clear()
        return replace(verdict, rebased=True)

    def to_dict(self) -> State:
        """Everything, as JSON takes it."""
        return {
            "name": self.name,
            "settings": asdict(self.settings),
            "learnt": self.learnt,
            "clock": self._clock.to_dict(),
            "baseline": self.baseline.to_dict(),
            "past": {key: past.to_dict() for key, past in self._past.items()},
            "residuals": {key: list(values) for key, values in self._residuals.items()},
            "sides": list(self._sides),
            "bounds": [list(bounds) for bounds in self._bounds],
        }

    @classmethod
    def from_dict(cls, state: State) -> Self:
        """The detector that `to_dict` described."""
        detector = cls(Settings(**state["settings"]))
        detector.learnt = state["learnt"]
        detector._clock = Clock.from_dict(state["clock"])
        detector.baseline = Baseline.from_dict(state["baseline"])
        detector._past = {key: Rarity.from_dict(past) for key, past in state["past"].items()}
        for key, values in state["residuals"].items():
            detector._residuals[key].extend(values)
        detector._sides.extend(state["sides"])
        detector._bounds.extend((low, high) for low, high in state["bounds"])
        return detector
