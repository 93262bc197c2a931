"""Stage 6, part 4: what is judged, as OTLP metrics: drift of the last closed window, bands, estimates, incidents.

In: what is watched of each model version (monitors/watch.py). Out: points beside those of metrics.py. A figure that
cannot be given has no point. Bounded like the drift gauges: `max_features` features a model version.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from opentelemetry.proto.common.v1.common_pb2 import KeyValue

from mlspan.semconv import attributes as names
from mlspan.semconv import metrics as semconv
from mlspan_processor.judge import Judge
from mlspan_processor.metrics import QUALITY, Points, attribute, model_attributes
from mlspan_processor.model import Model
from mlspan_processor.monitors.versions import comparisons
from mlspan_processor.monitors.watch import Watch
from mlspan_processor.quality.bands import bands

DELAYS: Final = ("0.5", "0.95")
SEGMENT_FIGURES: Final = frozenset({"accuracy", "f1", "f1_micro", "hamming_loss", "mae"})
"""Of segments; the others are in the report."""
_Band = tuple[float, float] | None


def add_watch(points: Points, model: Model, watch: Watch, max_features: int) -> None:
    """All gauges of what is watched of a model version."""
    who = model_attributes(model)
    _add_drift(points, watch, who, max_features)
    _add_together(points, watch, who)
    quality, _, _ = model.quality_window()
    if quality.rows:
        known = bands(quality, design_effect=watch.performance.design_effect(quality.rows))
        _add_bands(points, who, "realised", known)
    if watch.performance.windows:
        estimates = watch.performance.windows[-1].estimates
        kind = [*who, attribute(names.ML_QUALITY_KIND, "estimated")]
        for name, estimate in estimates.items():
            if name in QUALITY:
                points.gauge(QUALITY[name], kind, estimate.value)
        ends = {
            name: (estimate.low, estimate.high)
            for name, estimate in estimates.items()
            if estimate.low is not None and estimate.high is not None
        }
        _add_bands(points, who, "estimated", ends)
    for name, figure in watch.custom.items():
        kind = [*who, attribute(names.ML_QUALITY_KIND, "realised"), attribute(names.ML_QUALITY_METRIC, name)]
        points.gauge(semconv.ML_QUALITY_CUSTOM, kind, figure.value)
    add_segments(points, model, watch)
    for quantile in DELAYS:
        pairs = [*who, attribute(names.ML_QUALITY_QUANTILE, quantile)]
        points.gauge(semconv.ML_QUALITY_DELAY, pairs, watch.performance.delays.quantile(float(quantile)))


def add_segments(points: Points, model: Model, watch: Watch) -> None:
    """Realised performance of every segment of the newest labelled rows."""
    who = model_attributes(model)
    kind = attribute(names.ML_QUALITY_KIND, "realised")
    for one in watch.segments():
        pairs = [*who, attribute(names.ML_SEGMENT_NAME, one.segment), attribute(names.ML_SEGMENT_VALUE, one.value)]
        points.gauge(semconv.ML_SEGMENT_ROWS, pairs, one.labels)
        for name, figure in one.figures.items():
            if name in SEGMENT_FIGURES:
                metric = attribute(names.ML_QUALITY_METRIC, name)
                points.gauge(semconv.ML_SEGMENT_PERFORMANCE, [*pairs, kind, metric], figure.value)
    for gaps in watch.fairness:
        for name, gap in gaps.figures.items():
            pairs = [*who, attribute(names.ML_SEGMENT_NAME, gaps.segment), attribute(names.ML_QUALITY_METRIC, name)]
            points.gauge(semconv.ML_SEGMENT_FAIRNESS, pairs, gap.value)


def add_incidents(points: Points, judge: Judge) -> None:
    """Incidents that are open, and how many were opened."""
    counts: dict[tuple[str, str, str], int] = dict.fromkeys(judge.opened, 0)
    for incident in judge.incidents.open:
        place = (incident.model, incident.version, incident.severity)
        counts[place] = counts.get(place, 0) + 1
    for (name, version, severity), count in counts.items():
        pairs = [
            attribute(names.ML_MODEL_NAME, name),
            attribute(names.ML_MODEL_VERSION, version),
            attribute(names.ML_INCIDENT_SEVERITY, severity),
        ]
        points.up_down(semconv.ML_INCIDENT_OPEN, pairs, count)
        points.sum(semconv.ML_INCIDENT_COUNT, pairs, judge.opened.get((name, version, severity), 0), None)


def add_versions(points: Points, model: Model, models: Iterable[Model]) -> None:
    """How much better or worse a model version is than those before it, over the time that both have labels of."""
    for one in comparisons(model, models):
        pairs = [*model_attributes(model), attribute(names.ML_VERSION_BASELINE, one.baseline.version)]
        for row in one.comparison.rows:
            metric = attribute(names.ML_QUALITY_METRIC, row.metric)
            points.gauge(semconv.ML_VERSION_DIFFERENCE, [*pairs, metric], row.difference)


def _add_drift(points: Points, watch: Watch, who: list[KeyValue], max_features: int) -> None:
    window, reference = watch.drift, watch.model.reference
    if window is None or reference is None or len(window.judgement.effect) != len(reference.features):
        return
    judgement = window.judgement
    points.gauge(semconv.ML_DRIFT_EFFECT_THRESHOLD, who, window.limits.min_effect)
    # The answers come last in the layout and are published first, as in metrics.py.
    order = [*range(reference.n_inputs, len(reference.features)), *range(reference.n_inputs)]
    for j in order[:max_features]:
        if judgement.reasons[j]:
            continue
        pairs = [*who, attribute(names.ML_FEATURE_NAME, reference.features[j].name)]
        points.gauge(semconv.ML_DRIFT_P_ADJUSTED, pairs, judgement.p_adjusted[j])
        points.gauge(semconv.ML_DRIFT_EFFECT, pairs, judgement.effect[j])
        points.gauge(semconv.ML_DRIFT_DRIFTED, pairs, float(judgement.drifted[j]))


def _add_together(points: Points, watch: Watch, who: list[KeyValue]) -> None:
    window = watch.together.last
    if window is None or window.judgement.p_value is None:
        return
    judgement = window.judgement
    points.gauge(semconv.ML_DRIFT_MULTIVARIATE_STATISTIC, who, judgement.statistic)
    points.gauge(semconv.ML_DRIFT_MULTIVARIATE_P_VALUE, who, judgement.p_value)
    points.gauge(semconv.ML_DRIFT_MULTIVARIATE_EFFECT, who, judgement.effect)
    points.gauge(semconv.ML_DRIFT_MULTIVARIATE_DRIFTED, who, float(judgement.drifted))


def _add_bands(points: Points, who: list[KeyValue], kind: str, ends: Mapping[str, _Band]) -> None:
    for name, band in ends.items():
        if band is None:
            continue
        pairs = [*who, attribute(names.ML_QUALITY_KIND, kind), attribute(names.ML_QUALITY_METRIC, name)]
        points.gauge(semconv.ML_QUALITY_LOW, pairs, band[0])
        points.gauge(semconv.ML_QUALITY_HIGH, pairs, band[1])
