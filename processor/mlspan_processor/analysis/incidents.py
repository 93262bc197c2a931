"""Batch: alerts of neighbouring windows about the same trouble, as one incident.

In: the judged windows, in order. Out: incidents, by the rules of anomaly.incidents, which the processor uses on its
stream. An alert of a window already holds its level, so that one is enough to open an incident.
"""

from typing import Any, Final

from mlspan_processor.analysis.every import Plan
from mlspan_processor.analysis.result import Incident, Window, moment
from mlspan_processor.anomaly.incidents import Finding, Incidents, Limits

LIMITS: Final = Limits(persistence=(1, 1), recovery=2, cool_down=0)
_KINDS: Final = {"label_drift": "prediction_drift", "multivariate_drift": "feature_drift"}


def incidents_of(windows: tuple[Window, ...], plan: Plan, model: str) -> tuple[Incident, ...]:
    """The incidents over all windows, the first to open first."""
    watch = Incidents(LIMITS)
    found: dict[str, Any] = {}
    for window, span in zip(windows, plan.windows, strict=True):
        findings = [_finding(alert, model, span.start, span.end) for alert in window.alerts]
        for change in watch.step(span.end, findings):
            found[change.incident.id] = change.incident
    for one in watch.open:
        found[one.id] = one
    return tuple(_incident(one, plan.timed) for one in found.values())


def _finding(alert: Any, model: str, start: int, end: int) -> Finding:
    return Finding(
        subject=alert.kind,
        kind=_KINDS.get(alert.kind, alert.kind),
        model=model,
        version="",
        severity=alert.severity,
        value=alert.value,
        expected=alert.reference,
        effect=alert.effect,
        p_value=alert.p_value,
        message=alert.message,
        start_ns=start,
        end_ns=end,
        certain=True,
    )


def _incident(one: Any, timed: bool) -> Incident:
    start = min(subject.since_ns for subject in one.subjects)
    end = max(subject.finding.end_ns for subject in one.subjects)
    return Incident(
        id=one.id,
        start=moment(start, timed),
        end=moment(end, timed),
        status=one.status,
        severity=one.severity,
        subjects=tuple(subject.finding.subject for subject in one.subjects),
        summary=one.summary,
    )
