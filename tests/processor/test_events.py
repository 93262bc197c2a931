"""An incident on the wire: the log event's and the span's exact attributes."""

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from mlspan_processor.anomaly.findings import Change, Finding, Incident, Subject
from mlspan_processor.events import chunks_of, event_of
from mlspan_processor.records import Signal
from tests.processor.helpers import values_of
from tests.processor.notify.receiver import INCIDENT, START, TRACE, event

CLOSED = event(change="closed", closed_ns=START + 120 * 10**9, updated_ns=START + 120 * 10**9)
ATTRIBUTES = {
    "ml.incident.id": INCIDENT,
    "ml.incident.status": "opened",
    "ml.incident.severity": "critical",
    "ml.incident.summary": "accuracy fell from 0.93 to 0.86",
    "ml.model.name": "fraud",
    "ml.model.version": "7",
    "ml.incident.subject": "accuracy",
    "ml.incident.subjects": ["accuracy", "drift age"],
    "ml.incident.value": 0.86,
    "ml.incident.expected": 0.93,
    "ml.incident.effect": -0.07,
    "ml.incident.start": "2023-11-14T22:13:20Z",
    "ml.anomaly.features": ["age"],
    "ml.monitor.names": ["performance"],
}


def test_a_change_is_a_log_event() -> None:
    """Name, severity, time, body and attributes by the semantic conventions; it points at the incident's span."""
    logs, traces = chunks_of([event()], START, "1.2")
    assert (logs.signal, logs.items) == (Signal.LOGS, 1)
    resource = ExportLogsServiceRequest.FromString(logs.data).resource_logs[0]
    assert values_of(resource.resource) == {"service.name": "mlspan"}
    [record] = resource.scope_logs[0].log_records
    assert (record.event_name, record.severity_number, record.severity_text) == ("ml.anomaly", 17, "ERROR")
    assert record.time_unix_nano == START + 60 * 10**9
    assert record.body.string_value == "accuracy fell from 0.93 to 0.86"
    assert values_of(record) == ATTRIBUTES
    span = ExportTraceServiceRequest.FromString(traces.data).resource_spans[0].scope_spans[0].spans[0]
    assert (record.trace_id, record.span_id) == (span.trace_id, span.span_id)


def test_an_incident_is_one_trace_of_two_spans() -> None:
    """The root covers the time until it was told, the child that until it closed; both link the requests."""
    spans = []
    for one in (event(), CLOSED):
        traces = next(chunk for chunk in chunks_of([one], START, "") if chunk.signal is Signal.TRACES)
        [span] = ExportTraceServiceRequest.FromString(traces.data).resource_spans[0].scope_spans[0].spans
        spans.append(span)
    root, child = spans
    assert root.name == child.name == "incident fraud"
    assert root.kind == Span.SPAN_KIND_INTERNAL
    assert root.trace_id == child.trace_id
    assert child.parent_span_id == root.span_id
    assert not root.parent_span_id
    assert (root.start_time_unix_nano, root.end_time_unix_nano) == (START, START + 60 * 10**9)
    assert (child.start_time_unix_nano, child.end_time_unix_nano) == (START + 60 * 10**9, START + 120 * 10**9)
    assert (root.status.code, child.status.code) == (2, 0)
    assert [link.trace_id.hex() for link in root.links] == [TRACE, TRACE]
    assert values_of(child)["ml.incident.status"] == "closed"


def test_an_update_is_no_span() -> None:
    """Only the log tells of updates; nothing at all makes no chunk."""
    [logs] = chunks_of([event(change="updated")], START, "")
    assert logs.signal is Signal.LOGS
    assert chunks_of([], START, "") == []


def test_event_of_a_change() -> None:
    """The most important subject comes first; features are those of drift, missing and unseen."""
    bad = Finding("accuracy", "realised", "fraud", "7", "region=eu", "critical", 0.8, 0.9, -0.1, 0.001, "accuracy 0.8")
    drift = Finding("drift age", "feature_drift", "fraud", "7", message="age moved")
    incident = Incident(
        "cd" * 16, 20, 30, None, "open", "critical", "fraud", "7",
        (Subject(bad, 10), Subject(drift, 15, recovered=True)), ((TRACE, "00" * 8),), "accuracy 0.8",
    )  # fmt: skip
    one = event_of(Change("updated", incident, "wider"), ["performance", "feature drift", "performance"])
    assert (one.subject, one.segment, one.value, one.p_value) == ("accuracy", "region=eu", 0.8, 0.001)
    assert one.details == ("accuracy 0.8", "age moved (recovered)")
    assert one.features == ("age",)
    assert one.monitors == ("feature drift", "performance")
    assert (one.since_ns, one.why) == (10, "wider")
