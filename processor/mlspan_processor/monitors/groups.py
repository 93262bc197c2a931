"""Stage 6, part 21: whether groups are treated alike, in closed windows of labels and over the newest labelled rows.

In: labelled rows with their segments, of which `segments.groups` are groups of people. Out: rates and gaps
(segments/fairness.py), points of series, findings of monitors. A group attribute need not be a feature: it may be an
attribute of the resource, or a column that is captured and that the reference lacks. A gap passes a threshold where all
of its simultaneous 95 % band does, so that small groups raise nothing.
"""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

from mlspan_processor.anomaly.findings import Finding
from mlspan_processor.model import Model
from mlspan_processor.monitors.metrics import watched
from mlspan_processor.monitors.rules import Point
from mlspan_processor.monitors.settings import Monitor
from mlspan_processor.monitors.window import Closed
from mlspan_processor.sample import Sample
from mlspan_processor.segments import Fairness, fairness, undecided
from mlspan_processor.settings import Segments


def fairness_of_groups(sample: Sample, settings: Segments) -> list[Fairness]:
    """Rates and gaps by each group attribute; those of a model without the favourable class have a reason each."""
    favourable = settings.favourable
    if favourable is not None and favourable not in sample.classes:
        reason = f'undecidable, because the model has no class "{favourable}"'
        return [Fairness(name, "", (), undecided(reason)) for name in settings.groups]
    return [fairness(sample, name, favourable=favourable) for name in settings.groups if name in sample.segments]


def fairness_points(found: Iterable[Fairness], closed: Closed) -> dict[str, list[Point]]:
    """Every gap of every group attribute, its subject being "gap attribute"."""
    points: dict[str, list[Point]] = {}
    for one in found:
        for name, figure in one.figures.items():
            point = Point(f"{name} {one.segment}", figure.value, None, closed.start, closed.end, feature=one.segment)
            points.setdefault(name, []).append(point)
    return points


def fairness_findings(
    monitor: Monitor, model: Model, found: Sequence[Fairness], closed: Closed
) -> dict[str, Finding | None]:
    """By subject what a monitor with a threshold says; nothing where a gap is undecidable."""
    result: dict[str, Finding | None] = {}
    for one in found:
        figure = one.figures[monitor.metric]
        named = any(fnmatchcase(one.segment, pattern) for pattern in monitor.features)
        if not named or figure.value is None or figure.low is None or figure.high is None:
            continue
        limit = _passed(monitor, figure.low, figure.high)
        subject = f"{monitor.metric} {one.segment}"
        result[subject] = None
        if limit is None:
            continue
        row = watched(monitor.metric)
        groups = " and ".join(f'"{group}"' for group in figure.groups)
        band = f"{figure.value:.3g} ({figure.low:.3g} to {figure.high:.3g})"
        result[subject] = Finding(
            subject=subject,
            kind=row.kind,
            model=model.name,
            version=model.version,
            severity=monitor.severity,
            value=figure.value,
            expected=limit,
            effect=figure.value - limit,
            message=f"{row.phrase} of {one.segment} {band} between {groups}, limit {limit:g}",
            start_ns=closed.start,
            end_ns=closed.end,
        )
    return result


def fairness_report(found: Iterable[Fairness]) -> dict[str, Any]:
    """By group attribute, JSON-able."""
    return {one.segment: one.to_dict() for one in found}


def _passed(monitor: Monitor, low: float, high: float) -> float | None:
    """The limit that the whole band has passed, or None."""
    threshold = monitor.threshold
    if threshold is None:
        return None
    if threshold.below is not None and high < threshold.below:
        return threshold.below
    return threshold.above if threshold.above is not None and low > threshold.above else None
