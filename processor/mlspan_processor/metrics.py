"""Stage 6, part 2: what goes out as OTLP metrics at every flush.

In: the instruments and the model versions. Out: serialised ExportMetricsServiceRequests of at most 5,000
    points each (about 1 MB, below gRPC's 4 MiB default). Gauges that have no value (no reference, no labels,
    one class only) have no point.
Names and units: mlspan.semconv.metrics. Data model:
    https://opentelemetry.io/docs/specs/otel/metrics/data-model/
"""

import math
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1 import metrics_pb2 as pb

from mlspan.semconv import attributes as names
from mlspan.semconv import metrics as semconv
from mlspan.semconv.metrics import DURATION_BUCKETS, Metric
from mlspan_processor.drift import METHODS
from mlspan_processor.instruments import Attributes, Exemplar, Instruments
from mlspan_processor.model import Model
from mlspan_processor.records import Chunk, Signal

MAX_POINTS: Final = 5_000
QUALITY: Final[dict[str, Metric]] = {
    metric.name.removeprefix("ml.quality."): metric
    for metric in (
        semconv.ML_QUALITY_ACCURACY,
        semconv.ML_QUALITY_PRECISION,
        semconv.ML_QUALITY_RECALL,
        semconv.ML_QUALITY_SPECIFICITY,
        semconv.ML_QUALITY_F1,
        semconv.ML_QUALITY_BALANCED_ACCURACY,
        semconv.ML_QUALITY_MCC,
        semconv.ML_QUALITY_ROC_AUC,
        semconv.ML_QUALITY_AVERAGE_PRECISION,
        semconv.ML_QUALITY_LOG_LOSS,
        semconv.ML_QUALITY_BRIER,
        semconv.ML_QUALITY_ECE,
        semconv.ML_QUALITY_HAMMING_LOSS,
        semconv.ML_QUALITY_PRECISION_MICRO,
        semconv.ML_QUALITY_RECALL_MICRO,
        semconv.ML_QUALITY_F1_MICRO,
        semconv.ML_QUALITY_MAE,
        semconv.ML_QUALITY_MSE,
        semconv.ML_QUALITY_RMSE,
        semconv.ML_QUALITY_R2,
        semconv.ML_QUALITY_MAPE,
        semconv.ML_QUALITY_MEDIAN_AE,
        semconv.ML_QUALITY_BIAS,
    )
}
COUNTERS: Final[dict[str, Metric]] = {
    metric.name: metric
    for metric in (
        semconv.ML_PREDICTION_COUNT,
        semconv.ML_ANOMALY_COUNT,
        semconv.ML_QUALITY_OUTCOMES,
        semconv.ML_FEEDBACK_LABELS,
    )
}
_MOST: Final = 1 << 58
LABEL_STATE: Final = "state"


class Points:
    """One flush: points in, requests out."""

    def __init__(self, start: int, now: int, version: str) -> None:
        """`start` of the cumulative series and `now` in nanoseconds; `version` of this processor."""
        self._start = start
        self._now = now
        self._version = version
        self._done: list[Chunk] = []
        self._begin()

    def gauge(self, metric: Metric, attributes: Iterable[KeyValue], value: float | None) -> None:
        """One measurement; nothing when it is None or no number."""
        if value is None or not math.isfinite(value):
            return
        point = self._metric(metric).gauge.data_points.add(time_unix_nano=self._now, as_double=value)
        point.attributes.extend(attributes)

    def sum(self, metric: Metric, attributes: Iterable[KeyValue], value: float, exemplar: Exemplar | None) -> None:
        """One cumulative, monotonic whole number."""
        body = self._metric(metric).sum
        body.is_monotonic = True
        body.aggregation_temporality = pb.AGGREGATION_TEMPORALITY_CUMULATIVE
        point = body.data_points.add(start_time_unix_nano=self._start, time_unix_nano=self._now, as_int=_whole(value))
        point.attributes.extend(attributes)
        if exemplar is not None:
            _add_exemplar(point, exemplar)

    def up_down(self, metric: Metric, attributes: Iterable[KeyValue], value: int) -> None:
        """One cumulative whole number that may fall."""
        body = self._metric(metric).sum
        body.aggregation_temporality = pb.AGGREGATION_TEMPORALITY_CUMULATIVE
        point = body.data_points.add(start_time_unix_nano=self._start, time_unix_nano=self._now, as_int=value)
        point.attributes.extend(attributes)

    def histogram(
        self,
        metric: Metric,
        attributes: Iterable[KeyValue],
        counts: list[float],
        total: float,
        exemplars: Iterable[Exemplar],
    ) -> None:
        """One cumulative histogram over DURATION_BUCKETS."""
        body = self._metric(metric).histogram
        body.aggregation_temporality = pb.AGGREGATION_TEMPORALITY_CUMULATIVE
        buckets = [_whole(count) for count in counts]
        point = body.data_points.add(
            start_time_unix_nano=self._start,
            time_unix_nano=self._now,
            count=sum(buckets),
            sum=total,
            bucket_counts=buckets,
            explicit_bounds=DURATION_BUCKETS,
        )
        point.attributes.extend(attributes)
        for exemplar in exemplars:
            _add_exemplar(point, exemplar)

    def chunks(self) -> list[Chunk]:
        """Everything added, as chunks."""
        self._end()
        return self._done

    def _metric(self, metric: Metric) -> Any:
        if self._count >= MAX_POINTS:
            self._end()
            self._begin()
        self._count += 1
        known = self._metrics.get(metric.name)
        if known is None:
            known = self._metrics[metric.name] = self._scope.metrics.add(
                name=metric.name, unit=metric.unit, description=metric.description
            )
        return known

    def _begin(self) -> None:
        self._count = 0
        self._metrics: dict[str, Any] = {}
        self._request = ExportMetricsServiceRequest()
        resource = self._request.resource_metrics.add()
        resource.resource.attributes.append(attribute("service.name", "mlspan"))
        self._scope = resource.scope_metrics.add(schema_url=names.SCHEMA_URL)
        self._scope.scope.name = "mlspan_processor"
        self._scope.scope.version = self._version

    def _end(self) -> None:
        if self._count:
            self._done.append(Chunk(Signal.METRICS, self._request.SerializeToString(), self._count))
            self._count = 0


def attribute(key: str, value: str | bool) -> KeyValue:
    """A KeyValue."""
    if isinstance(value, bool):
        return KeyValue(key=key, value=AnyValue(bool_value=value))
    return KeyValue(key=key, value=AnyValue(string_value=value))


def add_instruments(points: Points, instruments: Instruments) -> None:
    """All cumulative series."""
    for attributes, histogram in instruments.durations.items():
        points.histogram(
            semconv.ML_OPERATION_DURATION,
            _pairs(attributes),
            histogram.counts.tolist(),
            histogram.sum,
            histogram.exemplars.values(),
        )
    for name, series in instruments.counts.items():
        for attributes, count in series.items():
            points.sum(COUNTERS[name], _pairs(attributes), count.value, count.exemplar)


def add_model(points: Points, model: Model, max_features: int) -> int:
    """All gauges of a model version; returns how many features went unpublished."""
    who = model_attributes(model)
    if model.spans:
        points.gauge(semconv.ML_WEIGHT_UNKNOWN_RATIO, who, model.unknown_weight / model.spans)
    skipped = _add_drift(points, model, who, max_features)
    _add_quality(points, model, who)
    return skipped


def model_attributes(model: Model) -> list[KeyValue]:
    """ml.model.name and ml.model.version."""
    return [
        attribute(names.ML_MODEL_NAME, model.name),
        attribute(names.ML_MODEL_VERSION, model.version),
    ]


def _add_drift(points: Points, model: Model, who: list[KeyValue], max_features: int) -> int:
    if model.reference is None:
        return 0
    counts, _, _ = model.drift_window()
    drift = model.measure(counts)
    if drift is None:
        return 0
    points.gauge(semconv.ML_DRIFT_WINDOW_ROWS, who, counts.rows)
    features = model.reference.layout.names
    # The answers come last in the layout and are published first: they say more than any single feature.
    inputs = model.reference.n_inputs
    order = [*range(inputs, len(features)), *range(inputs)]
    for i in order[:max_features]:
        if drift.rows[i] <= 0:
            continue
        pairs = [*who, attribute(names.ML_FEATURE_NAME, features[i])]
        for name, method in METHODS.items():
            points.gauge(method.metric, pairs, drift.scores[name][i])
        points.gauge(semconv.ML_DRIFT_P_VALUE, pairs, drift.p_value[i])
        points.gauge(semconv.ML_FEATURE_MISSING_RATIO, pairs, drift.missing[i])
        points.gauge(semconv.ML_FEATURE_UNSEEN_RATIO, pairs, drift.unseen[i])
    return max(0, len(order) - max_features)


def _add_quality(points: Points, model: Model, who: list[KeyValue]) -> None:
    if model.reference is not None:
        promised = [*who, attribute(names.ML_QUALITY_KIND, "reference")]
        for name, value in model.reference.profile.performance.items():
            if name in QUALITY:
                points.gauge(QUALITY[name], promised, value)
    quality, _, _ = model.quality_window()
    if not quality.predicted:
        return
    points.gauge(semconv.ML_QUALITY_LABELS, who, quality.rows)
    points.gauge(semconv.ML_QUALITY_COVERAGE, who, quality.coverage)
    if quality.rows:
        realised = [*who, attribute(names.ML_QUALITY_KIND, "realised")]
        for name, figure in quality.figures().items():
            if name in QUALITY:
                points.gauge(QUALITY[name], realised, figure.value)


def _pairs(attributes: Attributes) -> Iterator[KeyValue]:
    return (attribute(key, value) for key, value in attributes)


def own_version() -> str:
    """The version of this processor."""
    try:
        return version("mlspan")
    except PackageNotFoundError:  # run from a source tree
        return "0"


def _whole(value: float) -> int:
    """A count as OTLP can hold it: weights of 2**56 are valid, and a sum of buckets must fit as well."""
    return min(round(value), _MOST)


def _add_exemplar(point: Any, exemplar: Exemplar) -> None:
    # A backend refuses the whole request over an id of another length.
    if (len(exemplar.trace_id), len(exemplar.span_id)) != (16, 8):
        return
    point.exemplars.add(
        time_unix_nano=exemplar.time,
        as_double=exemplar.value,
        trace_id=exemplar.trace_id,
        span_id=exemplar.span_id,
    )
