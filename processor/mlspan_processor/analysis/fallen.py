"""Batch, part 10b: has performance fallen, by labels or by the estimate?

In: Evidence. Out: at most one alert of each kind, which names all metrics that have fallen. Realised: worse than the
reference by more than the smallest loss that matters, and chance explains that at most as often as the level says. Of
shares (accuracy, F1) the conditional distribution says how often (drift.shares): of a model that is nearly always right
five errors among forty rows are rare, but not as rare as the normal tail says that bands rest on. Of others it is the
level at which both bands just touch. Bands are widened where the losses depend on their neighbours. Estimated: lower by
as much; beyond what the labels of as many unchanged rows would vary (an estimate varies less); and below the reference
with 90 % confidence by its own band, which also holds what the estimator itself may be wrong by.
"""

import math
from dataclasses import dataclass
from typing import Final

from scipy.special import ndtr, ndtri

from mlspan_processor.analysis.evidence import Evidence, p_text, text
from mlspan_processor.analysis.levels import ALERTING, CRITICAL, ESTIMATED_LEVEL, REALISED_LEVEL, SEGMENTS_LEVEL
from mlspan_processor.analysis.result import Alert, Metric, Severity
from mlspan_processor.analysis.truth import stretched, widened
from mlspan_processor.drift.shares import risen
from mlspan_processor.quality.bands import Z95, Interval, p_value, rows_behind, share
from mlspan_processor.quality.names import BETTER, LOWER, smallest

MIN_LABELS: Final = 30
"""Labels below which performance does not alert."""
_SHARES: Final = frozenset({"accuracy", "f1"})
"""Metrics that are shares of rows, or nearly."""
Z90: Final = 1.2815515655446004
"""Standard normal deviations that a one-sided 90 % band reaches."""


@dataclass(frozen=True, slots=True)
class Fall:
    """A metric that has fallen; `loss` is how far, positive, and `tolerances` the same in tolerances."""

    name: str
    value: float
    before: float
    loss: float
    tolerances: float
    p_value: float


def realised_alert(evidence: Evidence) -> Alert | None:
    """Whether labels prove that performance has fallen, as a whole or in a segment."""
    task = evidence.sample.task
    names = ALERTING.get(task, ())
    level = REALISED_LEVEL / max(1, len(names))
    now, before = evidence.truth, evidence.prepared.truth
    falls = []
    for name in names:
        metric, intervals = evidence.metrics.get(name), (now.intervals.get(name), before.intervals.get(name))
        if metric is None or None in intervals or metric.labels < MIN_LABELS:
            continue
        bands = [widened(one, evidence.loss_dependence) for one in intervals if one is not None]
        if (one := _fall(name, metric.realised, metric.reference, bands[0], bands[1], level)) is not None:
            falls.append(one)
    where = _segments(evidence)
    if not falls and not where:
        return None
    falls.sort(key=lambda one: one.p_value)
    if falls:
        worst = falls[0]
        told = "; ".join(f"{one.name} is {text(one.value)}, was {text(one.before)}" for one in falls)
        labels = evidence.metrics[worst.name].labels
        message = f"{told} in the reference ({labels:,} labels, p {p_text(worst.p_value)})"
        if where:
            message += "; " + "; ".join(
                f"in {place}: {text(one.value)}, was {text(one.before)}" for place, one in where[:3]
            )
        subject = ", ".join(one.name for one in falls)
    else:
        place, worst = where[0]
        more = f", and in {len(where) - 1} more segments" if len(where) > 1 else ""
        message = (
            f"{worst.name} of {place} is {text(worst.value)}, was {text(worst.before)} in the reference"
            f" (p {p_text(worst.p_value)}){more}"
        )
        subject = f"{worst.name} of {place}"
    severity: Severity = "critical" if falls and worst.tolerances >= CRITICAL else "warning"
    sign = 1 if BETTER[worst.name] == LOWER else -1
    return Alert("realised", severity, subject, message, worst.value, worst.before, sign * worst.loss, worst.p_value)


def _segments(evidence: Evidence) -> list[tuple[str, Fall]]:
    """Values of segments in which the task's first metric has fallen, the surest first."""
    task = evidence.sample.task
    name = next(iter(ALERTING.get(task, ())), "")
    pairs = [
        (f"{column}={value}", group.metrics[name])
        for column, groups in evidence.segments.items()
        for value, group in groups.items()
        if name in group.metrics and group.metrics[name].reference is not None
    ]
    found = []
    for place, one in pairs:
        now = _band(name, one.realised, one.realised_low, one.realised_high, evidence.loss_dependence)
        was = _band(name, one.reference, one.reference_low, one.reference_high, evidence.loss_dependence)
        level = SEGMENTS_LEVEL / len(pairs)
        if one.labels < MIN_LABELS:
            continue
        if (fallen := _fall(name, one.realised, one.reference, now, was, level)) is not None:
            found.append((place, fallen))
    return sorted(found, key=lambda pair: pair[1].p_value)


def _band(name: str, value: float | None, low: float | None, high: float | None, dependence: float) -> Interval | None:
    """The band of a segment's figure at any level: exact for accuracy, else the 95 % band stretched."""
    if value is None or low is None or high is None:
        return None
    rows = rows_behind(value, (low, high), Z95) if name == "accuracy" else None
    return widened(stretched(value, low, high, Z95) if rows is None else share(value, rows), dependence)


def estimated_alert(evidence: Evidence) -> Alert | None:
    """Whether performance has fallen by the estimate."""
    names = ALERTING.get(evidence.sample.task, ())
    level = ESTIMATED_LEVEL / max(1, len(names))
    falls = [one for name in names if (one := _estimated_fall(evidence, name, level)) is not None]
    if not falls:
        return None
    falls.sort(key=lambda one: -one.tolerances)
    worst = falls[0]
    bands = ((evidence.metrics[one.name].low, evidence.metrics[one.name].high) for one in falls)
    told = "; ".join(
        f"{one.name} is estimated at {text(one.value)} ({text(low)} to {text(high)}), was {text(one.before)}"
        for one, (low, high) in zip(falls, bands, strict=True)
    )
    sign = 1 if BETTER[worst.name] == LOWER else -1
    subject = ", ".join(one.name for one in falls)
    message = f"{told} in the reference"
    return Alert("estimated", "warning", subject, message, worst.value, worst.before, sign * worst.loss, worst.p_value)


def _estimated_fall(evidence: Evidence, name: str, level: float) -> Fall | None:
    metric = evidence.metrics.get(name, Metric())
    value, before = metric.estimated, metric.reference
    up = BETTER[name] != LOWER
    nearest, end = (metric.high, metric.reference_low) if up else (metric.low, metric.reference_high)
    if value is None or before is None or nearest is None or end is None:
        return None
    loss, tolerance = (before - value) if up else (value - before), smallest(name, before)
    unsure = abs(nearest - value) / Z95 * Z90
    if loss <= tolerance or loss <= unsure:
        return None
    # As many labelled rows as the window has would vary by the reference's band, widened by the root of the ratio.
    rows = evidence.prepared.truth.realised[name].labels / max(1, len(evidence.sample))
    error = abs(before - end) / Z95 * math.sqrt((1 + rows) * evidence.loss_dependence)
    p = float(ndtr(-loss / error)) if error > 0 else 0.0
    return Fall(name, value, before, loss, loss / tolerance, p) if p < level else None


def _fall(
    name: str,
    value: float | None,
    before: float | None,
    window: Interval | None,
    was: Interval | None,
    level: float,
) -> Fall | None:
    """Whether a realised metric is worse than the reference by more than its tolerance and beyond chance."""
    if value is None or before is None or window is None or was is None:
        return None
    tolerance = smallest(name, before)
    loss = (value - before) if BETTER[name] == LOWER else (before - value)
    if loss <= tolerance:
        return None
    p = _share_p(before, was, value, window, level) if name in _SHARES else _p_of_bands(before, was, value, window)
    return Fall(name, value, before, loss, loss / tolerance, p) if p is not None and p < level else None


def _share_p(before: float, was: Interval, value: float, window: Interval, level: float) -> float | None:
    """One-sided p-value of a share that fell, at the rows that the bands at this level speak of."""
    z = -float(ndtri(level))
    bands = was(z), window(z)
    if bands[0] is None or bands[1] is None:
        return None
    m, n = rows_behind(before, bands[0], z), rows_behind(value, bands[1], z)
    return None if m is None or n is None else float(risen((1 - value) * n, n, (1 - before) * m, m))


def _p_of_bands(before: float, was: Interval, value: float, window: Interval) -> float | None:
    p = p_value(before, was, value, window)
    return None if p is None else p / 2
