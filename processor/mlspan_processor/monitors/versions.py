"""Stage 6, part 16: versions of one model that answer at the same time, compared on their realised performance.

In: the model versions. Out: for each pair whose labelled predictions overlap in time the comparison of
versions/ over that time, the version that was seen first being the baseline; and, window of labels by window, whether
the later one has proved to be worse. Works on the panes' sums.
A window's one-sided p-value becomes an e-value, and the Shiryaev-Roberts sum of their products is the evidence
(drift/sequence.py): of versions that are alike one false alarm is due in RUN_LENGTH windows or more, whatever number of
versions is compared. Rows count as independent. Memory: a number for each of `MAX_VERSIONS` versions.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from scipy.special import ndtr

from mlspan_processor.anomaly.findings import Finding
from mlspan_processor.drift.sequence import RUN_LENGTH, e_values
from mlspan_processor.model import Model
from mlspan_processor.monitors.metrics import VERSIONS, watched
from mlspan_processor.monitors.rules import Point
from mlspan_processor.monitors.settings import DEFAULT_LEVEL, Monitor
from mlspan_processor.monitors.window import Closed
from mlspan_processor.quality.bands import Z95
from mlspan_processor.quality.names import direction, smallest
from mlspan_processor.versions import ComparedMetric, Comparison, compare

MAX_VERSIONS: Final = 5
"""Versions that one is compared with, those seen last."""
MIN_LABELS: Final = 30
_LARGEST: Final = 1e12


class Compared(NamedTuple):
    """Two versions over one stretch of time, nanoseconds since the epoch."""

    baseline: Model
    other: Model
    start: int
    end: int
    comparison: Comparison


def comparisons(model: Model, models: Iterable[Model]) -> list[Compared]:
    """The model version against those of its name that were seen before it."""
    found = []
    for other in _before(model, models):
        overlap = _overlap(model, other)
        if overlap is None:
            continue
        sums = [one.quality.sum(*overlap) for one in (other, model)]
        if min(one.rows for one in sums) >= MIN_LABELS and type(sums[0]) is type(sums[1]):
            found.append(Compared(other, model, *overlap, compare(sums[0], sums[1])))
    return found


def compared(model: Model, models: Iterable[Model]) -> list[dict[str, Any]]:
    """The comparisons, JSON-able."""
    return [
        {
            "baseline": one.baseline.version,
            "start_ns": one.start,
            "end_ns": one.end,
            "labels": list(one.comparison.labels),
            "verdict": one.comparison.verdict,
            "reason": one.comparison.reason,
            "metrics": [row._asdict() for row in one.comparison.rows],
        }
        for one in comparisons(model, models)
    ]


class VersionLook(NamedTuple):
    """One version before, in one window.

    Attributes:
        baseline: its version.
        metric: the model's main figure of both, and their difference.
        loss: how much worse the later one is, positive; `least` the smallest loss that matters.
        p_value: of a later version that is not worse.
        evidence: of all windows so far, in false alarms due: 1 is one in RUN_LENGTH windows over all versions.
        start, end: nanoseconds since the epoch.
    """

    baseline: str
    metric: ComparedMetric
    loss: float
    least: float
    p_value: float
    evidence: float
    start: int
    end: int


class VersionWatch:
    """One model version against those before it, window by window."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}

    def look(self, model: Model, models: Iterable[Model], closed: Closed) -> list[VersionLook]:
        """Compare over the time of a closed window of labels of the later version."""
        found = []
        for other in _before(model, models):
            sums = [one.quality.sum(closed.start, closed.end) for one in (other, model)]
            if min(one.rows for one in sums) < MIN_LABELS or type(sums[0]) is not type(sums[1]):
                continue
            [row, *_] = compare(sums[0], sums[1]).rows
            if row.difference is None or row.low is None or row.high is None or row.a is None or row.b is None:
                continue
            sign = direction(row.metric, row.a, row.b)
            # The end of the interval on the good side says how sure a loss is.
            far = row.high - row.difference if sign > 0 else row.difference - row.low
            loss, least = -sign * row.difference, smallest(row.metric, row.a)
            p = float(ndtr(-loss / (far / Z95))) if far > 0 else 0.5
            found.append((other.version, row, loss, least, p))
        looks = []
        kept: dict[str, float] = {}
        for version, row, loss, least, p in found:
            total = min(float(e_values(np.array([p]))[0]) * (self._sums.get(version, 0.0) + 1), _LARGEST)
            evidence = total / RUN_LENGTH / len(found)
            # What was proved is over once a window is fine again: evidence starts anew.
            kept[version] = 0.0 if evidence >= 1 and loss < least else total
            looks.append(VersionLook(version, row, loss, least, p, evidence, closed.start, closed.end))
        self._sums = {**{version: self._sums[version] for version in self._sums.keys() - kept.keys()}, **kept}
        self._sums = dict(list(self._sums.items())[-MAX_VERSIONS:])
        return looks

    def to_dict(self) -> dict[str, float]:
        """What survives a restart."""
        return dict(self._sums)

    def restore(self, state: dict[str, float]) -> None:
        """Go on with what `to_dict` described."""
        self._sums = {str(version): float(total) for version, total in state.items()}


def version_points(looks: Iterable[VersionLook]) -> dict[str, list[Point]]:
    """The differences as series."""
    points = [
        Point(_subject(one), None if one.metric.difference is None else -one.loss, None, one.start, one.end)
        for one in looks
    ]
    return {VERSIONS: points}


def version_findings(monitor: Monitor, model: Model, looks: Sequence[VersionLook]) -> dict[str, Finding | None]:
    """What a monitor with the method versions says."""
    result: dict[str, Finding | None] = {}
    for one in looks:
        least = one.least if monitor.min_effect is None else monitor.min_effect
        row = one.metric
        result[_subject(one)] = None
        if one.evidence * monitor.level < DEFAULT_LEVEL or one.loss < least:
            continue
        gap = f"{row.difference:+.3g} ({row.low:+.3g} to {row.high:+.3g})"
        result[_subject(one)] = Finding(
            subject=_subject(one),
            kind=watched(VERSIONS).kind,
            model=model.name,
            version=model.version,
            severity=monitor.severity,
            value=row.b,
            expected=row.a,
            effect=row.difference,
            p_value=one.p_value,
            message=f"{row.metric} {row.b:.4g}, {row.a:.4g} of version {one.baseline} at the same time: {gap}",
            start_ns=one.start,
            end_ns=one.end,
            certain=True,
        )
    return result


def _subject(look: VersionLook) -> str:
    return f"{look.metric.metric} against version {look.baseline}"


def _before(model: Model, models: Iterable[Model]) -> list[Model]:
    """Versions of the same model and classes that were seen before this one, those seen last first."""
    classes = model.classes[: model.declared]
    others = [
        one
        for one in models
        if one.name == model.name and one.slot < model.slot and one.quality and one.classes[: one.declared] == classes
    ]
    return sorted(others, key=lambda one: -one.last_seen)[:MAX_VERSIONS]


def _overlap(a: Model, b: Model) -> tuple[int, int] | None:
    """The newest stretch of time in which both have panes of labels."""
    spans = [[pane for pane in model.quality if pane.stats.rows] for model in (a, b)]
    if not all(spans):
        return None
    start = max(panes[0].start for panes in spans)
    end = min(panes[-1].end for panes in spans)
    return (start, end) if start < end else None
