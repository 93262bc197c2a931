"""Stage 6, part 13: everything that is watched of one model version: windows closed, monitors asked, findings kept.

In: rows and labels as they come, panes, windows of calls. Out: what holds now (findings), which monitors said so, and
the last judgement, for metrics and the report. Called at ticks, never per span; a tick does at most so many windows as
it is allowed. Memory: an open window of counts for each size that a monitor asks for, the kept rows (rows.py), the
detectors (a few kB a series).
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mlspan_processor.anomaly.findings import Finding
from mlspan_processor.cells import Reference
from mlspan_processor.drift.judgement import Limits
from mlspan_processor.model import Model
from mlspan_processor.monitors.calls import CallWindow
from mlspan_processor.monitors.drifting import DriftJudge, drift_findings
from mlspan_processor.monitors.figures import (
    Points,
    call_points,
    custom_points,
    drift_points,
    estimated_points,
    quality_points,
    risk_estimated,
    risk_realised,
    segment_points,
)
from mlspan_processor.monitors.groups import fairness_findings, fairness_of_groups, fairness_points
from mlspan_processor.monitors.matching import call_duration, is_for, mark, rank, renamed, suffix_of
from mlspan_processor.monitors.metrics import CUSTOM, GAPS, TOGETHER, VERSIONS
from mlspan_processor.monitors.performance import Background, EstimatedWindow, Performance
from mlspan_processor.monitors.persistence import Persistence
from mlspan_processor.monitors.rows import OpenRows
from mlspan_processor.monitors.rules import Point, Rule
from mlspan_processor.monitors.segments import Segmented
from mlspan_processor.monitors.settings import DEFAULT_LEVEL, Monitor
from mlspan_processor.monitors.specs import Spec, Specs
from mlspan_processor.monitors.together import Together, TogetherWindow, together_findings, together_points
from mlspan_processor.monitors.versions import VersionWatch, version_findings, version_points
from mlspan_processor.monitors.window import Closed, OpenWindow
from mlspan_processor.monitors.words import DriftWindow
from mlspan_processor.pending import Pending, Predictions
from mlspan_processor.quality.custom import CustomMetrics
from mlspan_processor.quality.realised import Realised
from mlspan_processor.reference_sample import in_order
from mlspan_processor.rows import Block
from mlspan_processor.sample import Sample
from mlspan_processor.segments import Fairness, SegmentFigures, figures
from mlspan_processor.settings import MlspanSettings

MATURE: Final = 0.95
"""Share of the labels that must have had time to come before a window of realised performance is judged."""
NEW_LABELS: Final = 100
"""Labels after which the figures of segments are worked out again."""
_SECOND: Final = 1_000_000_000


class Watch:
    """One model version.

    Attributes:
        monitors: those that are for it.
        persistence: what holds now.
        performance: reference, estimates, tests.
        together: all features together.
        drift: the last judged window of the default size, or None.
        fairness: of the rows that `segments` gave its figures of.
        custom: the user's own metrics over the last closed window of labels.
    """

    def __init__(
        self,
        model: Model,
        monitors: tuple[Monitor, ...],
        settings: MlspanSettings,
        background: Background,
        sample_of: Callable[[str, str], Sample | None],
        custom: CustomMetrics,
    ) -> None:
        """`background` runs what takes long; `sample_of` gives the labelled rows beside a model version's profile."""
        self.model = model
        self.monitors = tuple(one for one in monitors if is_for(one, model))
        self.persistence = Persistence()
        self.performance = Performance(settings.reference.learn_rows, background)
        self.rows = OpenRows()
        self.segmented = Segmented(settings.segments)
        self._versions = VersionWatch()
        self._segments: list[SegmentFigures] = []
        self.fairness: list[Fairness] = []
        self.together = Together(settings.reference.learn_rows, background)
        self._settings = settings
        self._specs = Specs(settings.window)
        self._grace = int(settings.window.pane * _SECOND)
        self._reference: Reference | None = None
        self._known = ""
        self._later: dict[tuple[str, str], Finding | None] = {}
        self._sample_of = sample_of
        self._custom = custom
        self._measuring = False
        self._background = background
        self.custom: dict[str, Realised] = {}
        self._judges: dict[tuple[Spec, float], tuple[OpenWindow[Any], DriftJudge]] = {}
        self._labelled: dict[Spec, OpenWindow[Any]] = {}
        self.rules = {one.name: Rule(one, suffix_of(one, self.monitors)) for one in self.monitors}
        self.said: dict[tuple[str, str], set[str]] = {}
        for one in self.monitors:
            if one.uses == "risk" and one.kind == "realised":
                self.performance.ask(one.level, one.min_effect or 0.0)

    @property
    def drift(self) -> DriftWindow | None:
        """The last judged window of the default size."""
        known = self._judges.get((self._specs.rows, DEFAULT_LEVEL))
        return known[1].last if known is not None else None

    @property
    def usual(self) -> dict[tuple[str, str], str]:
        """Series and segments whose new level was taken for normal, and how that is told."""
        return {(name + r.suffix, part): why for r in self.rules.values() for (name, part), why in r.usual.items()}

    # --- as data comes

    def add_rows(
        self,
        block: Block,
        weights: NDArray[np.float64],
        times: NDArray[np.int64],
        used: NDArray[np.bool_],
        predictions: Predictions | None,
    ) -> None:
        """Keep some rows of the open window; see rows.py."""
        if not self.rows.full:
            self.rows.add(self.model, block, weights, times, used, predictions)

    def add_labels(
        self, places: NDArray[np.intp], pending: Pending, now: int, segments: NDArray[np.int16] | None
    ) -> None:
        """Rows whose label has just come; `segments` (n, n_segments) numbers of their values, or None."""
        for chosen, rows in self.performance.labelled(self.model, places, pending, now):
            if segments is not None:
                self.segmented.labelled(rows, segments[chosen])
            elif self._custom.functions:
                self.segmented.labelled(rows, np.full((len(rows.labels), len(self.segmented.names)), -1, np.int16))

    # --- at ticks

    def look(self, now: int, calls: dict[int, CallWindow], most: int, models: Iterable[Model] = ()) -> int:
        """Judge what is over by `now`; returns how many windows that were.

        Args:
            now: nanoseconds since the epoch.
            calls: windows of calls that are over, by their length.
            most: windows that may be judged.
            models: all model versions.
        """
        if self.model.reference is not self._reference:
            self._restart()
        found, self._later = self._later, {}
        done = len(found) + self._look_at_drift(now, most, found) + self._look_at_labels(now, most, found, models)
        for duration, window in calls.items():
            done += 1
            self._apply(call_points(window), found, lambda one, d=duration: call_duration(one) == d)
        done += self._look_at_risk(found)
        for subject, finding in found.items():
            self.persistence.see(subject, finding)
        return done

    def _look_at_drift(self, now: int, most: int, found: dict[tuple[str, str], Finding | None]) -> int:
        reference = self._reference
        if reference is None:
            return 0
        done = 0
        for (spec, level), (window, judge) in self._judges.items():
            default = spec == self._specs.rows
            for closed in window.advance(self.model.drift, now - self._grace, most - done):
                done += 1
                rows = self.rows.take(closed.end) if default and level == DEFAULT_LEVEL else None
                drift = judge.judge(reference, closed, rows)
                for monitor in self.monitors:
                    if self._specs.drift(monitor) == (spec, level) and monitor.uses == "drift":
                        self._add(found, monitor, drift_findings(monitor, self.model, reference, drift))
                self._apply(
                    drift_points(drift, reference),
                    found,
                    lambda one, k=(spec, level): one.uses != "drift" and self._specs.drift(one) == k,
                )
                if rows is not None:
                    self.performance.estimate(rows.sample, drift.start, drift.end, drift.counts.rows, self._estimated)
                    self.together.take(rows, drift, self._joint)
        return done

    def _joint(self, window: TogetherWindow) -> None:
        """All features of a window have been looked at together: seen at the next look, as estimates are."""
        self._apply(together_points(window), self._later, lambda one: one.metric == TOGETHER)
        for monitor in self.monitors:
            if monitor.metric == TOGETHER and monitor.uses == "drift":
                self._add(self._later, monitor, together_findings(monitor, self.model, window))

    def _estimated(self, window: EstimatedWindow) -> None:
        """An estimate is there: what follows from it is seen at the next look."""
        points = estimated_points(window, self.model)
        self._apply(points, self._later, lambda one: one.kind == "estimated" and one.uses != "risk")
        for monitor in self.monitors:
            if monitor.kind == "estimated" and monitor.uses == "risk":
                self._add(self._later, monitor, risk_estimated(monitor, self.model, self.performance, window))

    def _look_at_labels(
        self, now: int, most: int, found: dict[tuple[str, str], Finding | None], models: Iterable[Model]
    ) -> int:
        delay = self.performance.delays.quantile(MATURE)
        if delay is None:
            return 0
        until = now - max(self._grace, int(max(delay, self._settings.labels.mature_after) * _SECOND))
        self.performance.mature(self.model, until)
        done = 0
        for spec, window in self._labelled.items():
            for closed in window.advance(self.model.quality, until, most - done):
                done += 1
                points = quality_points(closed, self.model, tuple(self.performance.wrong))
                self._add_segments(points, closed)
                if spec == self._specs.labels:
                    self._measure_custom(closed)
                    self._look_at_groups(closed, found)
                    self._look_at_versions(closed, found, models)
                self._apply(points, found, lambda one, s=spec: self._specs.labelled(one) == s)
        return done

    def _add_segments(self, points: Points, closed: Closed) -> None:
        """Figures of the segments of a window, where a monitor asks for them."""
        if not any(one.segments for one in self.monitors):
            return
        sample = self.segmented.sample(self.model, closed.start, closed.end)
        if sample is None:
            return
        for name, more in segment_points(figures(sample), closed, self.model).items():
            points.setdefault(name, []).extend(more)

    def _look_at_groups(self, closed: Closed, found: dict[tuple[str, str], Finding | None]) -> None:
        """How alike groups are treated in a window, where group attributes are named."""
        settings = self._settings.segments
        sample = self.segmented.sample(self.model, closed.start, closed.end) if settings.groups else None
        if sample is None:
            return
        known = fairness_of_groups(sample, settings)
        for monitor in self.monitors:
            if monitor.metric in GAPS and monitor.threshold is not None:
                self._add(found, monitor, fairness_findings(monitor, self.model, known, closed))
        points = fairness_points(known, closed)
        self._apply(points, found, lambda one: one.metric in GAPS and one.threshold is None)

    def _look_at_versions(
        self, closed: Closed, found: dict[tuple[str, str], Finding | None], models: Iterable[Model]
    ) -> None:
        """Whether the version is worse than those before it, over the same time."""
        mine = [one for one in self.monitors if one.metric == VERSIONS]
        looks = self._versions.look(self.model, models, closed) if mine else []
        for monitor in mine:
            if monitor.uses == "versions":
                self._add(found, monitor, version_findings(monitor, self.model, looks))
        self._apply(version_points(looks), found, lambda one: one.metric == VERSIONS)

    def _measure_custom(self, closed: Closed) -> None:
        """The user's own metrics of a window, in the background: they may take long."""
        sample = self.segmented.sample(self.model, closed.start, closed.end) if self._custom.functions else None
        if sample is None or self._measuring:
            return
        self._measuring = True

        def measured(found: dict[str, Realised] | None) -> None:
            self._measuring = False
            self.custom = {name: one for name, one in (found or {}).items() if one.value is not None}
            points = custom_points(self.custom, closed)
            self._apply(points, self._later, lambda one: one.metric.startswith(CUSTOM))

        self._background(lambda: self._custom.of_sample(sample), measured)

    def segments(self) -> list[SegmentFigures]:
        """Figures of the segments of the newest labelled rows; worked out again when there are enough new ones."""
        if self.segmented.changes >= NEW_LABELS:
            self.segmented.changes = 0
            sample = self.segmented.sample(self.model)
            self._segments = figures(sample) if sample is not None else []
            self.fairness = fairness_of_groups(sample, self._settings.segments) if sample is not None else []
        return self._segments

    def _look_at_risk(self, found: dict[tuple[str, str], Finding | None]) -> int:
        done = 0
        for monitor in self.monitors:
            if monitor.uses == "risk" and monitor.kind == "realised":
                findings = risk_realised(monitor, self.model, self.performance)
                done += len(findings)
                self._add(found, monitor, findings)
        return done

    def _apply(self, points: dict[str, list[Point]], found: dict[tuple[str, str], Finding | None], mine: Any) -> None:
        """Ask the rules of the monitors that are meant about new values."""
        for monitor in self.monitors:
            if mine(monitor) and monitor.uses not in {"drift", "risk", "versions"}:
                wanted = monitor.metric if monitor.kind == "realised" else f"estimated {monitor.metric}"
                self._add(found, monitor, self.rules[monitor.name].apply(self.model, points.get(wanted, []), points))

    def _add(
        self,
        found: dict[tuple[str, str], Finding | None],
        monitor: Monitor,
        findings: dict[str, Finding | None] | dict[tuple[str, str], Finding | None],
    ) -> None:
        suffix = self.rules[monitor.name].suffix
        for place, finding in findings.items():
            series, segment = place if isinstance(place, tuple) else (place, "")
            key = (series + suffix, segment)
            if finding is not None:
                self.said.setdefault(key, set()).add(monitor.name)
            known = found.get(key)
            if known is None or (finding is not None and rank(finding) > rank(known)):
                found[key] = renamed(finding, key)

    # --- what survives

    def to_dict(self) -> dict[str, Any]:
        """What survives a restart, without rows and the estimator."""
        reference = self._reference
        return {
            "reference": "" if reference is None else mark(reference),
            "drift": [
                [list(spec), level, window.begun, judge.to_dict()]
                for (spec, level), (window, judge) in self._judges.items()
            ],
            "labelled": [[list(spec), window.begun] for spec, window in self._labelled.items()],
            "rules": {name: rule.to_dict() for name, rule in self.rules.items()},
            "persistence": self.persistence.to_dict(),
            "said": [[list(place), sorted(names)] for place, names in self.said.items()],
            "performance": self.performance.to_dict(),
            "versions": self._versions.to_dict(),
        }

    def restore(self, state: dict[str, Any], estimator: bytes, together: bytes) -> None:
        """Go on with what `to_dict`, estimator and detector described; drift only against the same reference."""
        # With its estimator it need not be fitted again.
        self._known = state["reference"] if estimator else ""
        self._restart()
        self.persistence = Persistence.from_dict(state["persistence"])
        self.said = {(place[0], place[1]): set(names) for place, names in state["said"]}
        self.performance.restore(state["performance"], estimator)
        for name, rule in state["rules"].items():
            if name in self.rules:
                self.rules[name].restore(rule)
        self._versions.restore(state.get("versions", {}))
        if together:
            self.together.restore(together)
        for spec, begun in state["labelled"]:
            if (spec[0], spec[1]) in self._labelled:
                self._labelled[spec[0], spec[1]].restart(begun)
        if self._reference is None or mark(self._reference) != state["reference"]:
            return
        for spec, level, begun, judge in state["drift"]:
            known = self._judges.get(((spec[0], spec[1]), level))
            if known is not None:
                known[0].restart(begun)
                known[1].restore(judge)

    # --- which windows

    def _restart(self) -> None:
        """Another reference: drift begins anew."""
        before, self._reference = self._reference, self.model.reference
        if before is not None:
            self.rows.clear()
        if self._reference is not None and self.together.mark != mark(self._reference):
            self.together.restart(mark(self._reference))
        if self._reference is not None and self._known != mark(self._reference):
            self._known = mark(self._reference)
            self._refer(self._reference)
        keys = dict.fromkeys([(self._specs.rows, DEFAULT_LEVEL), *filter(None, map(self._specs.drift, self.monitors))])
        for key in keys:
            (rows, duration), level = key
            known = self._judges.get(key)
            if known is not None:
                known[1].restart()
            window: OpenWindow[Any] = OpenWindow(rows, duration or None)
            self._judges[key] = window, known[1] if known is not None else DriftJudge(Limits(level=level))
        if not self._labelled:
            for spec in dict.fromkeys([self._specs.labels, *filter(None, map(self._specs.labelled, self.monitors))]):
                labels, duration = spec
                self._labelled[spec] = OpenWindow(labels, duration or None)

    def _refer(self, reference: Reference) -> None:
        """Take the labelled rows beside the profile over, where there are any."""
        sample = self._sample_of(self.model.name, self.model.version)
        if sample is None:
            return
        classes = tuple(self.model.classes[: self.model.declared])
        ordered = in_order(sample, tuple(feature.name for feature in reference.profile.features), classes)
        if ordered is not None:
            self.performance.refer(ordered)
            self.together.refer(ordered)
