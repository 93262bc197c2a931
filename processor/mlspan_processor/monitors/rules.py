"""Stage 6, part 15: one monitor of one model version at work: values of its series to findings, by a detector each.

In: points of closed windows. Out: by subject and segment a finding, or None where the series is fine; nothing where it
is undecidable. A value that is off in the harmless direction, or by less than `min_effect`, is fine; what was bad is
fine when it is back at the level from before (held.py), and judged by that from then on.
Memory: one detector a series (anomaly/), at most `MAX_SERIES`.
"""

from fnmatch import fnmatchcase
from typing import Any, Final, Literal, NamedTuple

from mlspan_processor.anomaly import ChangePoint, History, Joint, Settings, Static
from mlspan_processor.anomaly.base import Detector, JointDetector, Verdict
from mlspan_processor.anomaly.findings import Exemplar, Finding
from mlspan_processor.anomaly.residuals import Residuals
from mlspan_processor.model import Model
from mlspan_processor.monitors.call_share import CallShare
from mlspan_processor.monitors.held import NEW_NORMAL_HOURS, Held
from mlspan_processor.monitors.metrics import Watched, watched
from mlspan_processor.monitors.settings import DEFAULT_LEVEL, Monitor

MAX_SERIES: Final = 500
LEAST_RATIO: Final = 0.5
"""The least change of latency and rate that matters, relative to what was expected, where a monitor does not say."""
SHARES: Final = frozenset({"accuracy", "precision", "recall", "specificity", "balanced_accuracy", "f1"})
"""Figures that are shares of rows, so that the number of rows says how sure they are."""
_DIRECTIONS: Final[dict[str, Literal["both", "up", "down"]]] = {"low": "down", "high": "up", "both": "both"}


class Point(NamedTuple):
    """A value of a series in one window.

    Attributes:
        subject: the series.
        value: None where the window says nothing.
        n: rows behind a share, None for other values.
        start, end: nanoseconds since the epoch.
        segment: "name=value", "" for all rows.
        feature: of a series of a feature.
        exemplars: (trace id, span id) in hex.
    """

    subject: str
    value: float | None
    n: float | None = None
    start: int = 0
    end: int = 0
    segment: str = ""
    feature: str = ""
    exemplars: tuple[Exemplar, ...] = ()


Found = dict[tuple[str, str], Finding | None]


class Rule:
    """A monitor whose method is a detector.

    Attributes:
        suffix: what its series are called beyond their metric.
        usual: series whose new level was last taken for normal, and how that is told.
    """

    def __init__(self, monitor: Monitor, suffix: str = "") -> None:
        self.monitor = monitor
        self.suffix = suffix
        self._row = watched(monitor.metric)
        self._detectors: dict[tuple[str, str], Detector] = {}
        self._joint: JointDetector | None = None
        self._held: dict[tuple[str, str], Held] = {}
        self.usual: dict[tuple[str, str], str] = {}

    def apply(self, model: Model, points: list[Point], others: dict[str, list[Point]]) -> Found:
        """Judge new values.

        Args:
            model: whose.
            points: of the monitor's metric.
            others: all points of the window, by metric, for the method joint.
        """
        mine = [point for point in points if self._wanted(point)]
        if self.monitor.uses == "joint":
            return self._together(model, mine, others)
        found: Found = {}
        for point in mine:
            place = (point.subject, point.segment)
            detector = self._detectors.get(place)
            if detector is None:
                if len(self._detectors) >= MAX_SERIES:
                    continue
                detector = self._detectors[place] = made(self.monitor)
            verdict = detector.update(point.end, point.value, point.n)
            if verdict.score is not None or verdict.is_anomaly:
                found[place] = self._judged(model, point, verdict)
        return found

    def _judged(self, model: Model, point: Point, verdict: Verdict) -> Finding | None:
        """What holds after a verdict, the level from before the trouble considered."""
        place = (point.subject, point.segment)
        detector = self._detectors[place]
        bad = self._is_bad(verdict)
        held = self._held.get(place)
        if bad:
            self.usual.pop(place, None)
            if held is None:
                held = Held.begin(verdict, point.end, self._least(verdict), self._is_share)
                if held is not None:
                    self._held[place] = held
                    held.learnt = detector.before if isinstance(detector, Residuals) else None
        if held is None:
            return self._finding(model, point, verdict) if bad else None
        standing = held.see(point.end, verdict, point.n, bad)
        if standing in {"over", "usual"}:
            del self._held[place]
        if standing == "over" and held.lasted and held.learnt is not None and isinstance(detector, Residuals):
            # It has learnt the bad level meanwhile, and would find the next trouble of that kind usual.
            self._detectors[place] = detector.back_to(held.learnt)
        if standing == "usual":
            self.usual[place] = f"taken as the new normal after {NEW_NORMAL_HOURS} hours"
        if standing == "bad":
            return self._finding(model, point, held.against_before(verdict, bad))
        return self._finding(model, point, verdict) if bad and standing == "open" else None

    def _together(self, model: Model, mine: list[Point], others: dict[str, list[Point]]) -> Found:
        if not mine:
            return {}
        if self._joint is None:
            self._joint = Joint(bar=_bar(self.monitor))
        values = {point.subject: point.value for points in others.values() for point in points if not point.segment}
        verdict = self._joint.update(mine[0].end, values)
        if verdict.score is None and not verdict.is_anomaly:
            return {}
        place = (mine[0].subject, mine[0].segment)
        return {place: self._finding(model, mine[0], verdict) if verdict.is_anomaly else None}

    def _wanted(self, point: Point) -> bool:
        if bool(point.segment) != bool(self.monitor.segments):
            return False
        if point.segment and not any(fnmatchcase(point.segment, one) for one in self.monitor.segments):
            return False
        return not point.feature or any(fnmatchcase(point.feature, one) for one in self.monitor.features)

    def _is_bad(self, verdict: Verdict) -> bool:
        if not verdict.is_anomaly:
            return False
        effect = verdict.effect
        if effect is None or self.monitor.uses == "static":
            return True
        harmless = (self._row.bad == "low" and effect > 0) or (self._row.bad == "high" and effect < 0)
        return not harmless and abs(effect) >= self._least(verdict)

    def _least(self, verdict: Verdict) -> float:
        """The least change that matters."""
        if self.monitor.min_effect is None and self._row.unit in {"s", "1/s"}:
            return LEAST_RATIO * abs(verdict.expected or 0.0)
        return self.monitor.min_effect or 0.0

    @property
    def _is_share(self) -> bool:
        return self._row.unit == "share" or self.monitor.metric in SHARES

    def _finding(self, model: Model, point: Point, verdict: Verdict) -> Finding:
        kind = "estimated" if self.monitor.kind == "estimated" else self._row.kind
        return Finding(
            subject=point.subject,
            kind=kind,
            model=model.name,
            version=model.version,
            segment=point.segment,
            severity=self.monitor.severity,
            value=judged_value(point, verdict),
            expected=verdict.expected,
            effect=verdict.effect,
            p_value=verdict.score,
            message=message(self._row, point, verdict),
            start_ns=point.start,
            end_ns=point.end,
            exemplars=point.exemplars,
            certain=verdict.certain,
        )

    def to_dict(self) -> dict[str, Any]:
        """What survives a restart."""
        return {
            "method": self.monitor.uses,
            "detectors": [[list(place), one.to_dict()] for place, one in self._detectors.items()],
            "joint": None if self._joint is None else self._joint.to_dict(),
            "held": [[list(place), one.to_dict()] for place, one in self._held.items()],
            "usual": [[list(place), text] for place, text in self.usual.items()],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on with what `to_dict` described; of another method's detectors nothing is taken."""
        if state["method"] != self.monitor.uses:
            return
        cls = type(made(self.monitor))
        self._detectors = {(place[0], place[1]): cls.from_dict(one) for place, one in state["detectors"]}
        if state["joint"] is not None:
            self._joint = Joint.from_dict(state["joint"])
        self._held = {(place[0], place[1]): Held.from_dict(one) for place, one in state.get("held", [])}
        self.usual = {(place[0], place[1]): text for place, text in state.get("usual", [])}


def made(monitor: Monitor) -> Detector:
    """A detector of the monitor's method."""
    row = watched(monitor.metric)
    if monitor.threshold is not None and monitor.metric == "errors":
        return CallShare(below=monitor.threshold.below, above=monitor.threshold.above)
    if monitor.threshold is not None:
        return Static(below=monitor.threshold.below, above=monitor.threshold.above)
    settings = Settings(
        bar=_bar(monitor),
        direction=_DIRECTIONS[row.bad],
        counting="share" if row.unit == "share" or monitor.metric in SHARES else "number",
        min_effect=monitor.min_effect or 0.0,
    )
    return ChangePoint(settings) if monitor.uses == "change_point" else History(settings)


def _bar(monitor: Monitor) -> float:
    """How rare a value must be: the detectors' own bar, lowered or raised as the level is."""
    return Settings().bar * monitor.level / DEFAULT_LEVEL


def message(row: Watched, point: Point, verdict: Verdict) -> str:
    """The finding in a sentence, with units."""
    where = f" of {point.feature}" if point.feature else f" where {point.segment}" if point.segment else ""
    estimated = "estimated " if point.subject.startswith("estimated ") else ""
    rows = f" over {point.n:,.0f} rows" if point.n else ""
    if verdict.run > 1:
        rows = f" over the last {verdict.run} windows"
    expected = "" if verdict.expected is None else f", expected {quantity(verdict.expected, row.unit)}"
    reason = f" ({verdict.reason})" if verdict.reason and verdict.expected is None else ""
    return f"{estimated}{row.phrase}{where} {quantity(judged_value(point, verdict), row.unit)}{rows}{expected}{reason}"


def judged_value(point: Point, verdict: Verdict) -> float | None:
    """What was judged: the window's value, or the mean of the last windows where that was off."""
    if verdict.run == 1:
        return point.value
    if verdict.expected is None or verdict.effect is None:
        return verdict.value
    return verdict.expected + verdict.effect


def quantity(value: float | None, unit: str) -> str:
    """A value in its unit.

    >>> quantity(0.0213, "share"), quantity(0.125, "s"), quantity(3.0, "1/s"), quantity(0.91234, "")
    ('2.1%', '125 ms', '3 a second', '0.9123')
    """
    if value is None:
        return "unknown"
    match unit:
        case "share":
            return f"{value:.1%}"
        case "s":
            return f"{value * 1000:.3g} ms" if value < 1 else f"{value:.3g} s"
        case "1/s":
            return f"{value:.3g} a second"
        case _:
            return f"{value:.4g}"
