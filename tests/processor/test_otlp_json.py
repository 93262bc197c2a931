"""OTLP/JSON: its rules against the text of the specification, and against protobuf's own JSON for everything else."""

import base64
import json
from typing import Any

import orjson
import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality

from mlspan_processor.receive.otlp_json import JsonError, to_protobuf
from mlspan_processor.records import Signal
from mlspan_processor.signals import SIGNALS


def span_of(fields: dict[str, Any]) -> Any:
    """Convert a request with one span."""
    document = {"resourceSpans": [{"scopeSpans": [{"spans": [fields]}]}]}
    request = ExportTraceServiceRequest.FromString(to_protobuf(Signal.TRACES, json.dumps(document).encode()))
    return request.resource_spans[0].scope_spans[0].spans[0]


def value_of(value: Any) -> Any:
    """Convert one attribute value."""
    return span_of({"attributes": [{"key": "k", "value": value}]}).attributes[0].value


def test_ids_are_hex_of_any_case() -> None:
    """traceId, spanId and parentSpanId are hex, not base64."""
    span = span_of({"traceId": "5B8EFFF798038103D269B633813FC60c", "spanId": "EEE19B7EC3C1B174", "parentSpanId": ""})
    assert span.trace_id.hex() == "5b8efff798038103d269b633813fc60c"
    assert span.span_id.hex() == "eee19b7ec3c1b174"
    assert span.parent_span_id == b""


def test_ids_of_links_and_logs_are_hex() -> None:
    """Every id field is hex, wherever it stands."""
    span = span_of({"links": [{"traceId": "00" * 16, "spanId": "ff" * 8}]})
    assert span.links[0].span_id == b"\xff" * 8
    body = {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"traceId": "ab" * 16, "severityNumber": 9}]}]}]}
    logs = ExportLogsServiceRequest.FromString(to_protobuf(Signal.LOGS, orjson.dumps(body)))
    record = logs.resource_logs[0].scope_logs[0].log_records[0]
    assert (record.trace_id, record.severity_number) == (b"\xab" * 16, 9)


@pytest.mark.parametrize("value", [1_700_000_000_000_000_001, "1700000000000000001"])
def test_64_bit_integers_are_numbers_or_text(value: object) -> None:
    """Both spellings keep every digit."""
    assert span_of({"startTimeUnixNano": value}).start_time_unix_nano == 1_700_000_000_000_000_001
    assert value_of({"intValue": value}).int_value == 1_700_000_000_000_000_001


@pytest.mark.parametrize("value", [2, "SPAN_KIND_SERVER"])
def test_enums_are_integers_and_names_are_taken(value: object) -> None:
    """OTLP says integers; names, as protobuf writes them, are understood too."""
    assert span_of({"kind": value}).kind == 2


def test_values_of_every_kind() -> None:
    """Strings, numbers, booleans, bytes, arrays and maps become AnyValues."""
    assert value_of({"stringValue": "é"}).string_value == "é"
    assert value_of({"boolValue": True}).bool_value is True
    assert value_of({"doubleValue": 1}).double_value == 1.0
    assert value_of({"doubleValue": "NaN"}).double_value != value_of({"doubleValue": "NaN"}).double_value
    assert value_of({"bytesValue": base64.b64encode(b"\0\xff").decode()}).bytes_value == b"\0\xff"
    array = value_of({"arrayValue": {"values": [{"intValue": "1"}, {"stringValue": "b"}]}}).array_value
    assert [array.values[0].int_value, array.values[1].string_value] == [1, "b"]
    inner = {"key": "a", "value": {"boolValue": False}}
    assert value_of({"kvlistValue": {"values": [inner]}}).kvlist_value.values[0].key == "a"


def test_unknown_keys_nulls_and_original_names_are_ignored() -> None:
    """What is not known is left out, as the specification asks; snake_case keys are not known."""
    span = span_of({"name": "x", "later": {"a": 1}, "kind": None, "trace_id": "zz"})
    assert (span.name, span.kind, span.trace_id) == ("x", 0, b"")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"traceId": "xyz"}, 'Span.traceId: "xyz" is not valid'),
        ({"traceId": 5}, 'Span.traceId: "5" is not valid'),
        ({"name": 5}, 'Span.name: "5" is not valid'),
        ({"kind": "SERVER"}, 'Span.kind: "SERVER" is not valid'),
        ({"startTimeUnixNano": 1.5}, 'Span.startTimeUnixNano: "1.5" is not valid'),
        ({"attributes": {}}, 'Span.attributes: expected an array, got "{}"'),
        ({"status": []}, 'Status: expected an object, got "[]"'),
        ({"attributes": [{"key": "k", "value": {"boolValue": "yes"}}]}, 'AnyValue.boolValue: "yes" is not valid'),
        ({"attributes": [{"key": "k", "value": {"bytesValue": "a"}}]}, 'AnyValue.bytesValue: "a" is not valid'),
    ],
)
def test_bad_values_name_the_field(fields: dict[str, Any], message: str) -> None:
    """A refusal names message, field and value."""
    with pytest.raises(JsonError) as caught:
        span_of(fields)
    assert str(caught.value) == message


def test_values_out_of_range_are_refused() -> None:
    """A number that does not fit its field is bad data."""
    with pytest.raises(JsonError):
        span_of({"startTimeUnixNano": -1})


def test_deep_nesting_is_refused() -> None:
    """A bottomless value is bad data, not a crash."""
    value: dict[str, Any] = {"stringValue": "x"}
    for _ in range(200):
        value = {"arrayValue": {"values": [value]}}
    with pytest.raises(JsonError, match="levels deep"):
        value_of(value)


def test_text_that_is_not_json() -> None:
    """The reason and the place are told."""
    with pytest.raises(JsonError, match=r"not valid JSON: .*line 1 column"):
        to_protobuf(Signal.TRACES, b'{"resourceSpans": [')


def metrics() -> ExportMetricsServiceRequest:
    """Return a request with every kind of metric."""
    request = ExportMetricsServiceRequest()
    scope = request.resource_metrics.add().scope_metrics.add()
    scope.scope.name = "lib"
    gauge = scope.metrics.add(name="g", unit="1").gauge.data_points.add(as_double=1.5, time_unix_nano=2**63)
    gauge.exemplars.add(as_int=-5)
    total = scope.metrics.add(name="s").sum
    total.is_monotonic = True
    total.aggregation_temporality = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
    total.data_points.add(as_int=-3)
    histogram = scope.metrics.add(name="h").histogram.data_points.add(count=3, sum=1.5, min=float("-inf"))
    histogram.bucket_counts.extend([1, 2])
    histogram.explicit_bounds.extend([0.5])
    exponential = scope.metrics.add(name="e").exponential_histogram.data_points.add(scale=-2, zero_count=7)
    exponential.positive.bucket_counts.extend([1, 0, 3])
    scope.metrics.add(name="q").summary.data_points.add().quantile_values.add(quantile=0.5, value=2)
    return request


def test_metrics_agree_with_protobufs_own_json() -> None:
    """Where no ids are involved both conversions give the same message."""
    request = metrics()
    text = json.dumps(json_format.MessageToDict(request, use_integers_for_enums=True)).encode()
    assert SIGNALS[Signal.METRICS].request.FromString(to_protobuf(Signal.METRICS, text)) == request


def test_a_deeply_nested_value_is_told_in_a_message() -> None:
    """A value that Python cannot even print is refused like any other."""
    with pytest.raises(JsonError, match="expected an object"):
        to_protobuf(Signal.TRACES, b'{"resourceSpans":[' + b"[" * 1000 + b"]" * 1000 + b"]}")
