"""Stage 8, OTLP messages: what a chunk's bytes are, and what a backend's answer to them means.

Reads `Chunk`s and response bytes; gives protobuf messages and `ExportResult`s. Nothing is kept.
Source: OTLP 1.11, https://opentelemetry.io/docs/specs/otlp/
"""

from importlib.metadata import PackageNotFoundError, version
from typing import Final, TypeAlias, cast

from google.protobuf.message import DecodeError
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

from mlspan_processor.records import Chunk, ExportResult, PermanentError, Signal

Request: TypeAlias = ExportTraceServiceRequest | ExportMetricsServiceRequest | ExportLogsServiceRequest
Response: TypeAlias = ExportTraceServiceResponse | ExportMetricsServiceResponse | ExportLogsServiceResponse

REQUESTS: Final[dict[Signal, type[Request]]] = {
    Signal.TRACES: ExportTraceServiceRequest,
    Signal.METRICS: ExportMetricsServiceRequest,
    Signal.LOGS: ExportLogsServiceRequest,
}
RESPONSES: Final[dict[Signal, type[Response]]] = {
    Signal.TRACES: ExportTraceServiceResponse,
    Signal.METRICS: ExportMetricsServiceResponse,
    Signal.LOGS: ExportLogsServiceResponse,
}
REJECTED_FIELD: Final = {
    Signal.TRACES: "rejected_spans",
    Signal.METRICS: "rejected_data_points",
    Signal.LOGS: "rejected_log_records",
}
ALL_SIGNALS: Final = frozenset(Signal)
MAX_RESPONSE_BYTES: Final = 4 * 1024 * 1024
"""OTLP's bound on an answer; what is longer is cut off (HTTP) or an error (gRPC)."""


def parse(chunk: Chunk) -> Request:
    """Return the chunk as one message; PermanentError where its bytes are none."""
    try:
        return REQUESTS[chunk.signal].FromString(chunk.data)
    except DecodeError as error:
        msg = f"a chunk of {len(chunk.data)} bytes is no OTLP request of {chunk.signal.value}"
        raise PermanentError(msg) from error


def parse_traces(chunk: Chunk) -> ExportTraceServiceRequest:
    """Return a chunk of traces as one message; PermanentError where its bytes are none."""
    return cast(ExportTraceServiceRequest, parse(chunk))


def parse_metrics(chunk: Chunk) -> ExportMetricsServiceRequest:
    """Return a chunk of metrics as one message; PermanentError where its bytes are none."""
    return cast(ExportMetricsServiceRequest, parse(chunk))


def result_of(response: Response, signal: Signal) -> ExportResult:
    """Return what the backend said: a message that is there but empty rejects nothing (Tempo sends that)."""
    partial = response.partial_success
    return ExportResult(int(getattr(partial, REJECTED_FIELD[signal])), partial.error_message)


def parse_response(data: bytes, signal: Signal) -> ExportResult:
    """Return what a backend's answer says; it took the data, so an unreadable one is a remark only."""
    if not data:
        return ExportResult()
    try:
        return result_of(RESPONSES[signal].FromString(data), signal)
    except DecodeError:
        return ExportResult(message=f"the backend took the data but its answer ({len(data)} bytes) is no OTLP")


def user_agent() -> str:
    """Return how we name ourselves to backends, "mlspan/0.1.0"."""
    try:
        return f"mlspan/{version('mlspan')}"
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "mlspan"
