"""Stage 6, part 9: drift of closed windows of one model version, against its reference.

In: closed windows of counts, the rows among them. Out: what holds for every feature and answer; findings for monitors.
The two gates are those of drift/judgement.py; across windows drift/sequence.py decides, so that a level of all time is
kept. How much neighbours depend on each other is measured on the window's rows and taken for that of the reference's,
which have lost their order; without rows they count as independent.
"""

from fnmatch import fnmatchcase
from typing import Any, Final

import numpy as np

from mlspan_processor.anomaly.findings import Finding
from mlspan_processor.cells import CellCounts, Reference
from mlspan_processor.drift import Table
from mlspan_processor.drift.dependence import design_effect
from mlspan_processor.drift.judgement import Limits, judge
from mlspan_processor.drift.sequence import Sequence
from mlspan_processor.model import Model
from mlspan_processor.monitors.metrics import watched
from mlspan_processor.monitors.rows import Rows
from mlspan_processor.monitors.settings import Monitor
from mlspan_processor.monitors.window import Closed
from mlspan_processor.monitors.words import DriftWindow, describe, exemplars, expected_of, finite, value_of

MAX_FINDINGS: Final = 20
"""Features of one window that are told, those with the largest effect."""
_MIN_DEPENDENT: Final = 50
"""Rows below which dependence is not measured."""


class DriftJudge:
    """Windows of one size over one model version."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.sequence = Sequence()
        self.last: DriftWindow | None = None

    def judge(self, reference: Reference, closed: Closed, rows: Rows | None) -> DriftWindow:
        """Judge a window."""
        counts: CellCounts = closed.stats
        weights = reference.profile.weights
        ratio = weights.total / weights.squares if weights.squares else 1.0
        table = Table.of(reference.layout, counts.counts, counts.effective_ratio, ratio)
        dependence = np.ones(len(reference.layout))
        if rows is not None and rows.cells.shape[1] >= _MIN_DEPENDENT:
            dependence = design_effect(reference.layout, rows.cells)
        judgement = judge(table, self.limits, dependence, dependence)
        look = self.sequence.look(judgement, closed.start, closed.end)
        self.last = DriftWindow(judgement, self.limits, look, counts, closed.start, closed.end, rows)
        return self.last

    def restart(self) -> None:
        """Begin anew, as when the reference has changed."""
        self.sequence = Sequence()
        self.last = None

    def to_dict(self) -> dict[str, Any]:
        """What survives a restart."""
        return self.sequence.to_dict()

    def restore(self, state: dict[str, Any]) -> None:
        """Go on with what `to_dict` described."""
        self.sequence = Sequence.from_dict(state)


def drift_findings(
    monitor: Monitor, model: Model, reference: Reference, window: DriftWindow
) -> dict[str, Finding | None]:
    """By subject the finding of a monitor with the method drift, None where a feature is fine."""
    row = watched(monitor.metric)
    judgement = window.judgement
    verdict = {"missing": judgement.missing, "unseen": judgement.unseen}.get(monitor.metric, judgement.values)
    alarming = set(window.look.features) if window.look.alarm else set()
    result: dict[str, Finding | None] = {}
    order = np.argsort(-np.nan_to_num(verdict.effect))
    told = 0
    for j in order.tolist():
        name = reference.features[j].name
        is_answer = j >= reference.n_inputs
        if is_answer != (monitor.metric == "prediction_drift"):
            continue
        if not is_answer and not any(fnmatchcase(name, pattern) for pattern in monitor.features):
            continue
        if not np.isfinite(verdict.p_adjusted[j]):
            continue
        subject = subject_of(monitor.metric, name)
        large = monitor.min_effect is None or abs(float(verdict.effect[j])) >= monitor.min_effect
        bad = bool(verdict.drifted[j]) and large and told < MAX_FINDINGS
        result[subject] = None
        if bad:
            told += 1
            result[subject] = Finding(
                subject=subject,
                kind=row.kind,
                model=model.name,
                version=model.version,
                severity=monitor.severity,
                value=finite(value_of(monitor.metric, window, reference, j)),
                expected=finite(expected_of(monitor.metric, window, reference, j)),
                effect=finite(verdict.effect[j]),
                p_value=finite(verdict.p_adjusted[j]),
                message=describe(monitor.metric, window, reference, j),
                start_ns=window.start,
                end_ns=window.end,
                exemplars=exemplars(window, reference, j),
                certain=name in alarming,
            )
    return result


def subject_of(metric: str, feature: str) -> str:
    """The series' name."""
    return feature + " drift" if metric == "prediction_drift" else f"{metric} {feature}"
