"""Stage 6, part 14: values of closed windows as points of series, findings of performance against the reference.

In: windows of calls, drift, labels, estimates. Out: points by metric (as monitors name it; estimates as "estimated …"),
findings of the method risk.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from mlspan_processor.anomaly.findings import Exemplar, Finding
from mlspan_processor.cells import Reference
from mlspan_processor.model import Model
from mlspan_processor.monitors.calls import CallWindow
from mlspan_processor.monitors.drifting import subject_of
from mlspan_processor.monitors.metrics import CUSTOM, METRICS
from mlspan_processor.monitors.performance import EstimatedWindow, Performance, figure_of
from mlspan_processor.monitors.rules import SHARES, Point
from mlspan_processor.monitors.settings import Monitor
from mlspan_processor.monitors.window import Closed
from mlspan_processor.monitors.words import DriftWindow, finite
from mlspan_processor.quality.realised import Realised
from mlspan_processor.segments import SegmentFigures

TOLERANCE: Final = 0.02
"""How much worse than the reference a share may be; other figures by RELATIVE_TOLERANCE of their reference."""
RELATIVE_TOLERANCE: Final = 0.1
Points = dict[str, list[Point]]


def main_figure(model: Model) -> str:
    """The figure that "performance" stands for."""
    if model.kind == "multilabel":
        return "hamming_loss"
    return "accuracy" if model.declared else "mae"


def call_points(window: CallWindow) -> Points:
    """errors, latency and rate of a window of calls."""
    failed = tuple((one.trace_id.hex(), one.span_id.hex()) for one in window.failed)
    start, end = window.start, window.end
    return {
        "errors": [Point("errors", window.error_share, window.calls, start, end, exemplars=failed)],
        "latency": [Point("latency", window.latency, None, start, end)],
        "rate": [Point("rate", window.rate, None, start, end)],
    }


def drift_points(window: DriftWindow, reference: Reference) -> Points:
    """drift, prediction_drift, missing and unseen of every feature."""
    judgement, drift = window.judgement, window.judgement.drift
    points: Points = {"drift": [], "prediction_drift": [], "missing": [], "unseen": []}
    for j, feature in enumerate(reference.features):
        n = float(drift.rows[j])
        values = {"missing": drift.missing[j], "unseen": drift.unseen[j]}
        values["drift" if j < reference.n_inputs else "prediction_drift"] = judgement.effect[j]
        for metric, value in values.items():
            share = n if metric in {"missing", "unseen"} else None
            subject = subject_of(metric, feature.name)
            points[metric].append(Point(subject, finite(value), share, window.start, window.end, feature=feature.name))
    return points


def quality_points(closed: Closed, model: Model, wrong: tuple[Exemplar, ...]) -> Points:
    """Every realised figure of a window of labels, and the labelled share of its rows."""
    quality: Any = closed.stats
    points: Points = {}
    for name, figure in quality.figures().items():
        n = quality.effective if name in SHARES else None
        points[name] = [Point(name, figure.value, n, closed.start, closed.end, exemplars=wrong)]
    main = points.get(main_figure(model))
    if main:
        points["performance"] = [main[0]._replace(subject="performance")]
    coverage = Point("label_coverage", quality.coverage, quality.predicted, closed.start, closed.end)
    points["label_coverage"] = [coverage]
    return points


def segment_points(segments: Sequence[SegmentFigures], closed: Closed, model: Model) -> Points:
    """Realised figures of every segment in a window of labels."""
    points: Points = {}
    for one in segments:
        place = f"{one.segment}={one.value}"
        for name, figure in one.figures.items():
            n = float(figure.labels) if name in SHARES else None
            point = Point(name, figure.value, n, closed.start, closed.end, segment=place)
            points.setdefault(name, []).append(point)
            if name == main_figure(model):
                points.setdefault("performance", []).append(point._replace(subject="performance"))
    return points


def custom_points(figures: Mapping[str, Realised], closed: Closed) -> Points:
    """The user's own metrics of a window of labels."""
    return {
        f"{CUSTOM}{name}": [Point(f"{CUSTOM}{name}", one.value, None, closed.start, closed.end)]
        for name, one in figures.items()
    }


def estimated_points(window: EstimatedWindow, model: Model) -> Points:
    """Every estimated figure of a window."""
    points: Points = {}
    for name, estimate in window.estimates.items():
        n = window.rows if name in SHARES else None
        points[f"estimated {name}"] = [Point(f"estimated {name}", estimate.value, n, window.start, window.end)]
    main = points.get(f"estimated {main_figure(model)}")
    if main:
        points["estimated performance"] = [main[0]._replace(subject="estimated performance")]
    return points


def risk_realised(monitor: Monitor, model: Model, performance: Performance) -> dict[str, Finding | None]:
    """Whether the labels prove that performance is worse than the reference; nothing while that is undecidable."""
    test = performance.tests.get((monitor.level, monitor.min_effect or 0.0))
    if test is None:
        return {}
    verdict = test.verdict()
    if verdict.reason or verdict.risk is None:
        return {}
    metric = main_figure(model)
    if not verdict.alarm:
        return {metric: None}
    now = figure_of(test, metric, verdict.risk)
    ends = sorted(figure_of(test, metric, risk) for risk in (verdict.low, verdict.high) if risk is not None)
    band = f" ({ends[0]:.4g} to {ends[1]:.4g})" if len(ends) == 2 else ""
    before = performance.figures.get(metric)
    message = f"{METRICS[metric].phrase} {now:.4g}{band} over the last labels, {_shown(before)} {performance.origin}"
    last = performance.last_label_ns
    return {
        metric: Finding(
            subject=metric,
            kind="realised",
            model=model.name,
            version=model.version,
            severity=monitor.severity,
            value=now,
            expected=before,
            effect=None if before is None else now - before,
            p_value=min(1.0, 1 / verdict.e_value) if verdict.e_value > 0 else 1.0,
            message=message,
            start_ns=performance.since_ns or last,
            end_ns=last,
            exemplars=tuple(performance.wrong),
            certain=True,
        )
    }


def risk_estimated(
    monitor: Monitor, model: Model, performance: Performance, window: EstimatedWindow
) -> dict[str, Finding | None]:
    """Whether the whole band of an estimate is worse than the reference by more than the tolerance."""
    metric = main_figure(model) if monitor.metric == "performance" else monitor.metric
    estimate, before = window.estimates.get(metric), performance.figures.get(metric)
    subject = f"estimated {metric}"
    if estimate is None or before is None or None in (estimate.value, estimate.low, estimate.high):
        return {}
    assert estimate.value is not None
    assert estimate.low is not None
    assert estimate.high is not None
    tolerance = monitor.min_effect or (TOLERANCE if metric in SHARES else RELATIVE_TOLERANCE * abs(before))
    bad_low = METRICS[metric].bad == "low"
    worse = estimate.high < before - tolerance if bad_low else estimate.low > before + tolerance
    if not worse:
        return {subject: None}
    phrase = METRICS[metric].phrase
    band = f"{estimate.value:.4g} ({estimate.low:.4g} to {estimate.high:.4g})"
    return {
        subject: Finding(
            subject=subject,
            kind="estimated",
            model=model.name,
            version=model.version,
            severity=monitor.severity,
            value=estimate.value,
            expected=before,
            effect=estimate.value - before,
            message=f"estimated {phrase} {band} over {window.rows:,.0f} rows, {before:.4g} {performance.origin}",
            start_ns=window.start,
            end_ns=window.end,
        )
    }


def _shown(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"
