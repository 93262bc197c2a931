"""OTLP requests that hold one of everything, always the same, for golden files and round trips."""

from typing import Any

from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AggregationTemporality,
    Exemplar,
    ExponentialHistogramDataPoint,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    SummaryDataPoint,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

TRACE_ID = bytes(range(1, 17))
SPAN_ID = bytes(range(17, 25))
PARENT_ID = bytes(range(33, 41))
START_NS = 1_790_000_000_000_000_321
END_NS = START_NS + 1_234_567_000
CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
DELTA = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA


def any_value(value: object) -> AnyValue:
    """Return a Python value as OTLP's; None is the unset value."""
    match value:
        case None:
            return AnyValue()
        case bool():
            return AnyValue(bool_value=value)
        case int():
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case bytes():
            return AnyValue(bytes_value=value)
        case list():
            return AnyValue(array_value=ArrayValue(values=[any_value(item) for item in value]))
        case dict():
            return AnyValue(kvlist_value=KeyValueList(values=attributes(value)))
        case _:
            return AnyValue(string_value=str(value))


def attributes(values: dict[str, Any]) -> list[KeyValue]:
    """Return a dictionary as OTLP's attributes."""
    return [KeyValue(key=key, value=any_value(value)) for key, value in values.items()]


EVERY_VALUE: dict[str, Any] = {
    "text": 'says "hello"\nwith ü',
    "yes": True,
    "whole": -(2**53) - 1,
    "real": 0.1,
    "round": 3.0,
    "not.a.number": float("nan"),
    "infinite": float("-inf"),
    "bytes": b"\x00\xffpayload",
    "list": ["a", 1, 2.5, float("nan"), None, b"\x01"],
    "map": {"inner": {"deep": [True]}, "nothing": None},
    "nothing": None,
    "empty.list": [],
}
RESOURCE = Resource(
    attributes=attributes(
        {
            "service.name": "shop",
            "service.namespace": "eu",
            "service.instance.id": "shop-1",
            "host.name": "node-7",
        }
    )
)


def model_span(**changes: Any) -> Span:
    """Return the span of a model call, with one of everything a span can have."""
    span = Span(
        trace_id=TRACE_ID,
        span_id=SPAN_ID,
        parent_span_id=PARENT_ID,
        trace_state="ot=th:8",
        flags=0x101,
        name="predict fraud-model",
        kind=Span.SPAN_KIND_INTERNAL,
        start_time_unix_nano=START_NS,
        end_time_unix_nano=END_NS,
        attributes=attributes({"ml.model.name": "fraud-model", **EVERY_VALUE}),
        dropped_attributes_count=1,
        events=[
            Span.Event(name="threshold", time_unix_nano=START_NS + 5_000, attributes=attributes({"at": 0.5})),
            Span.Event(name="plain", time_unix_nano=START_NS + 9_000),
        ],
        dropped_events_count=2,
        links=[Span.Link(trace_id=TRACE_ID[::-1], span_id=SPAN_ID[::-1], attributes=attributes({"why": "label"}))],
        dropped_links_count=3,
        status=Status(code=Status.STATUS_CODE_ERROR, message="ValueError"),
    )
    for field, value in changes.items():
        if isinstance(value, Message):
            getattr(span, field).CopyFrom(value)
        else:
            setattr(span, field, value)
    return span


def traces(*spans: Span, resource: Resource = RESOURCE) -> ExportTraceServiceRequest:
    """Return a request of `spans` (by default a model call and the client's span around it)."""
    request = ExportTraceServiceRequest()
    by_resource = request.resource_spans.add(resource=resource)
    by_scope = by_resource.scope_spans.add(schema_url="https://mlspan.dev/schemas/0.1.0")
    by_scope.scope.name = "mlspan"
    by_scope.scope.version = "0.1.0"
    by_scope.scope.attributes.extend(attributes({"ml.model.class": "Forest", "ml.feature.names": ["amount", "age"]}))
    client = Span(
        trace_id=TRACE_ID,
        span_id=PARENT_ID,
        name="GET",
        kind=Span.SPAN_KIND_CLIENT,
        start_time_unix_nano=START_NS,
        end_time_unix_nano=START_NS + 12,
        attributes=attributes({"server.address": "10.0.0.3", "server.port": 8080}),
    )
    by_scope.spans.extend(spans or (model_span(), client))
    return request


def exemplar(value: float, **more: Any) -> Exemplar:
    """Return an exemplar that points at the model call's span."""
    return Exemplar(as_double=value, trace_id=TRACE_ID, span_id=SPAN_ID, time_unix_nano=START_NS, **more)


def counter(*points: NumberDataPoint, temporality: Any = CUMULATIVE, name: str = "ml.prediction.count") -> Metric:
    """Return a rising sum."""
    metric = Metric(name=name, unit="{row}", description='Rows predicted, "by" class.\nAll of them.')
    metric.sum.is_monotonic = True
    metric.sum.aggregation_temporality = temporality
    metric.sum.data_points.extend(points)
    return metric


def gauge(*points: NumberDataPoint, name: str = "ml.drift.psi", unit: str = "1") -> Metric:
    """Return a gauge."""
    metric = Metric(name=name, unit=unit, description="Population stability index.")
    metric.gauge.data_points.extend(points)
    return metric


def point(value: float, time_ns: int = END_NS, labels: dict[str, Any] | None = None, **more: Any) -> NumberDataPoint:
    """Return a number."""
    held = {"as_int": value} if isinstance(value, int) else {"as_double": value}
    return NumberDataPoint(
        attributes=attributes(labels or {}), start_time_unix_nano=START_NS, time_unix_nano=time_ns, **held, **more
    )


def histogram(*points: HistogramDataPoint, temporality: Any = CUMULATIVE) -> Metric:
    """Return a histogram."""
    metric = Metric(name="ml.operation.duration", unit="s", description="Duration of model calls.")
    metric.histogram.aggregation_temporality = temporality
    metric.histogram.data_points.extend(points)
    return metric


def histogram_point(counts: list[int], time_ns: int = END_NS, **more: Any) -> HistogramDataPoint:
    """Return counts below 0.01, 0.1 and 1 and above."""
    fields: dict[str, Any] = {
        "attributes": attributes({"ml.model.name": "fraud-model"}),
        "time_unix_nano": time_ns,
        "start_time_unix_nano": START_NS,
        "explicit_bounds": [0.01, 0.1, 1],
        "bucket_counts": counts,
        "count": sum(counts),
        "sum": 0.25,
    }
    return HistogramDataPoint(**(fields | more))


def exponential(*points: ExponentialHistogramDataPoint, temporality: Any = CUMULATIVE) -> Metric:
    """Return an exponential histogram."""
    metric = Metric(name="queue.wait", unit="ms")
    metric.exponential_histogram.aggregation_temporality = temporality
    metric.exponential_histogram.data_points.extend(points)
    return metric


def metrics(*items: Metric, resource: Resource = RESOURCE) -> ExportMetricsServiceRequest:
    """Return a request of `items` (by default one of every type)."""
    request = ExportMetricsServiceRequest()
    by_resource = request.resource_metrics.add(resource=resource)
    by_scope = by_resource.scope_metrics.add()
    by_scope.scope.name = "mlspan"
    by_scope.scope.version = "0.1.0"
    by_scope.scope.attributes.extend(attributes({"deployment": "blue"}))
    by_scope.metrics.extend(items or every_metric())
    return request


def every_metric() -> list[Metric]:
    """Return one metric of every type."""
    summary = Metric(name="legacy", unit="By")
    summary.summary.data_points.append(
        SummaryDataPoint(
            time_unix_nano=END_NS,
            count=3,
            sum=6.0,
            quantile_values=[
                SummaryDataPoint.ValueAtQuantile(quantile=0.5, value=2.0),
                SummaryDataPoint.ValueAtQuantile(quantile=1.0, value=3.0),
            ],
        )
    )
    level = Metric(name="queue.size", unit="{item}")
    level.sum.aggregation_temporality = CUMULATIVE
    level.sum.data_points.append(point(-4))
    return [
        counter(
            point(12, labels={"ml.prediction.class": "fraud"}, exemplars=[exemplar(1.0)]),
            point(400, labels={"ml.prediction.class": 'o"k\\'}),
        ),
        gauge(
            point(0.25, labels={"ml.feature.name": "amount"}, exemplars=[exemplar(0.25)]),
            point(float("nan"), labels={"ml.feature.name": "age"}),
        ),
        histogram(
            histogram_point(
                [1, 2, 0, 1],
                exemplars=[
                    exemplar(0.05),
                    exemplar(0.07, filtered_attributes=attributes({"order": "A-1"})),
                    exemplar(7.0),
                ],
            )
        ),
        exponential(
            ExponentialHistogramDataPoint(
                time_unix_nano=END_NS,
                count=8,
                sum=20.0,
                scale=3,
                zero_count=1,
                positive=ExponentialHistogramDataPoint.Buckets(offset=6, bucket_counts=[1, 0, 2, 0, 4]),
            )
        ),
        summary,
        level,
    ]


def logs() -> ExportLogsServiceRequest:
    """Return a request with an event and a plain log record."""
    request = ExportLogsServiceRequest()
    by_scope = request.resource_logs.add(resource=RESOURCE).scope_logs.add()
    by_scope.scope.name = "mlspan"
    by_scope.log_records.add(
        time_unix_nano=END_NS,
        observed_time_unix_nano=END_NS + 1,
        severity_number=13,
        severity_text="WARN",
        event_name="ml.anomaly",
        body=any_value({"score": 0.99}),
        attributes=attributes({"ml.model.name": "fraud-model", "ml.anomaly.score": 0.99}),
        trace_id=TRACE_ID,
        span_id=SPAN_ID,
        flags=1,
    )
    by_scope.log_records.add(time_unix_nano=END_NS, severity_number=9, body=any_value("started"))
    return request
