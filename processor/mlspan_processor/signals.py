"""The three signals as OTLP's collector services have them: message classes, names, and how to count items.

Parsing with the official classes (upb) is the validation of stage 1: 0.4 µs per span.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from mlspan_processor.records import Chunk, PermanentError, Signal


@dataclass(frozen=True, slots=True)
class SignalType:
    """What differs between the signals.

    Attributes:
        signal: which one.
        items: the word for its items in metric names.
        service: full name of the gRPC service whose method is Export.
        request: message class of what comes in.
        response: message class of the answer.
        count: items in a parsed request.
        containers: field names from the request down to the repeated items.
    """

    signal: Signal
    items: str
    service: str
    request: type[Message]
    response: type[Message]
    count: Callable[[Any], int]
    containers: tuple[str, str, str]


def _count_spans(request: ExportTraceServiceRequest) -> int:
    return sum(len(scope.spans) for resource in request.resource_spans for scope in resource.scope_spans)


def _count_records(request: ExportLogsServiceRequest) -> int:
    return sum(len(scope.log_records) for resource in request.resource_logs for scope in resource.scope_logs)


def _count_points(request: ExportMetricsServiceRequest) -> int:
    return sum(
        count_points(metric)
        for resource in request.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    )


def count_points(metric: Any) -> int:
    """Return the data points of one metric."""
    kind = metric.WhichOneof("data")
    return len(getattr(metric, kind).data_points) if kind else 0


_PACKAGE = "opentelemetry.proto.collector"

SIGNALS: Mapping[Signal, SignalType] = {
    one.signal: one
    for one in (
        SignalType(
            Signal.TRACES,
            "spans",
            f"{_PACKAGE}.trace.v1.TraceService",
            ExportTraceServiceRequest,
            ExportTraceServiceResponse,
            _count_spans,
            ("resource_spans", "scope_spans", "spans"),
        ),
        SignalType(
            Signal.METRICS,
            "metric_points",
            f"{_PACKAGE}.metrics.v1.MetricsService",
            ExportMetricsServiceRequest,
            ExportMetricsServiceResponse,
            _count_points,
            ("resource_metrics", "scope_metrics", "metrics"),
        ),
        SignalType(
            Signal.LOGS,
            "log_records",
            f"{_PACKAGE}.logs.v1.LogsService",
            ExportLogsServiceRequest,
            ExportLogsServiceResponse,
            _count_records,
            ("resource_logs", "scope_logs", "log_records"),
        ),
    )
}


def validated(signal: Signal, data: bytes) -> Chunk:
    """Return the chunk of a serialised request; its bytes are `data` itself.

    Raises:
        PermanentError: `data` is no such message.
    """
    one = SIGNALS[signal]
    try:
        message = one.request.FromString(data)
    except DecodeError as error:
        raise PermanentError(f"not a valid {one.request.DESCRIPTOR.name} message: {error}") from None
    return Chunk(signal, data, one.count(message))
