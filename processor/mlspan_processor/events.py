"""Stage 6, part 4: what an incident looks like on the wire: a log event, a span, and two metrics.

In: changes of incidents. Out: Events (what people and programs are told), and chunks of OTLP made of them.
Every change is a log record ``ml.anomaly``. The span is one trace an incident: its root is sent when the incident opens
(so that Jaeger alone shows it while it lasts) and covers the time from the first bad window to the opening; a child,
sent when it closes, covers the rest. A span cannot be sent twice with another end: backends keep both. Ids follow from
the incident's own id, so that a restart repeats no trace. Both link the requests behind the incident.
Semantic conventions: event.ml.anomaly and span.ml.incident in registry.yaml.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, Final, Literal

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from mlspan.semconv import attributes as names
from mlspan.semconv.events import ML_ANOMALY
from mlspan_processor.anomaly.findings import Change, Severity, Subject
from mlspan_processor.records import Chunk, Signal

MAX_SHOWN: Final = 20
"""Subjects and features that one event names."""
_NUMBERS: Final[dict[str, int]] = {"info": 9, "warning": 13, "critical": 17}
_TEXTS: Final[dict[str, str]] = {"info": "INFO", "warning": "WARN", "critical": "ERROR"}


@dataclass(frozen=True, slots=True)
class Event:
    """A change of an incident, as it is told.

    Attributes:
        id: of the incident, 32 hex digits.
        change: opened, updated or closed.
        severity: info, warning or critical.
        model, version: whose.
        summary: what is wrong, in one or two sentences.
        details: a line for each subject, most important first; each says how much in units.
        why: why it is told now.
        subject: the most important series; `subjects` all of them.
        value, expected, effect, p_value: of the most important one; None where unknown.
        segment: "name=value" of the most important one, "" for all rows.
        features: those among the subjects, most important first.
        monitors: names of the monitors that told of it.
        since_ns, opened_ns, updated_ns, closed_ns: event time; the last is None while open.
        exemplars: (trace id, span id) in hex of requests behind it.
    """

    id: str
    change: Literal["opened", "updated", "closed"]
    severity: Severity
    model: str
    version: str
    summary: str
    details: tuple[str, ...]
    why: str
    subject: str
    subjects: tuple[str, ...]
    value: float | None
    expected: float | None
    effect: float | None
    p_value: float | None
    segment: str
    features: tuple[str, ...]
    monitors: tuple[str, ...]
    since_ns: int
    opened_ns: int
    updated_ns: int
    closed_ns: int | None
    exemplars: tuple[tuple[str, str], ...]


def event_from(fields: Mapping[str, Any]) -> Event:
    """The event whose fields JSON has kept, with lists for its tuples."""
    lists = {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
    pairs = tuple((trace, span) for trace, span in fields["exemplars"])
    return Event(**{**fields, **lists, "exemplars": pairs})


def event_of(change: Change, monitors: Iterable[str] = ()) -> Event:
    """The event of a change; `monitors` are those behind its findings."""
    incident = change.incident
    first = incident.subjects[0].finding if incident.subjects else None
    return Event(
        id=incident.id,
        change=change.kind,
        severity=incident.severity,
        model=incident.model,
        version=incident.version,
        summary=incident.summary,
        details=tuple(_detail(one) for one in incident.subjects[:MAX_SHOWN]),
        why=change.why,
        subject=first.subject if first else "",
        subjects=tuple(dict.fromkeys(one.finding.subject for one in incident.subjects[:MAX_SHOWN])),
        value=first.value if first else None,
        expected=first.expected if first else None,
        effect=first.effect if first else None,
        p_value=first.p_value if first else None,
        segment=first.segment if first else "",
        features=tuple(dict.fromkeys(filter(None, map(_feature, incident.subjects))))[:MAX_SHOWN],
        monitors=tuple(sorted(set(monitors))),
        since_ns=min((one.since_ns for one in incident.subjects), default=incident.opened_ns),
        opened_ns=incident.opened_ns,
        updated_ns=incident.updated_ns,
        closed_ns=incident.closed_ns,
        exemplars=incident.exemplars,
    )


def as_json(event: Event) -> dict[str, Any]:
    """The event for programs: times as RFC 3339, None where there is nothing."""
    return {
        "id": event.id,
        "status": event.change,
        "severity": event.severity,
        "model": {"name": event.model, "version": event.version},
        "summary": event.summary,
        "details": list(event.details),
        "why": event.why,
        "subject": event.subject,
        "subjects": list(event.subjects),
        "value": event.value,
        "expected": event.expected,
        "effect": event.effect,
        "p_value": event.p_value,
        "segment": event.segment,
        "features": list(event.features),
        "monitors": list(event.monitors),
        "since": rfc3339(event.since_ns),
        "opened": rfc3339(event.opened_ns),
        "updated": rfc3339(event.updated_ns),
        "closed": None if event.closed_ns is None else rfc3339(event.closed_ns),
        "exemplars": [{"trace_id": trace, "span_id": span} for trace, span in event.exemplars],
    }


def rfc3339(nanoseconds: int) -> str:
    """A moment as text, to the second, in UTC.

    >>> rfc3339(1_700_000_000_000_000_000)
    '2023-11-14T22:13:20Z'
    """
    seconds = min(max(nanoseconds, 0) // 10**9, 253_402_300_799)
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def chunks_of(events: Sequence[Event], now: int, version: str) -> list[Chunk]:
    """Log records of all events, spans of those that opened or closed.

    Args:
        events: what changed.
        now: nanoseconds since the epoch.
        version: of this processor.
    """
    if not events:
        return []
    logs, traces = ExportLogsServiceRequest(), ExportTraceServiceRequest()
    resource_logs, resource_spans = logs.resource_logs.add(), traces.resource_spans.add()
    scope_logs, scope_spans = resource_logs.scope_logs.add(), resource_spans.scope_spans.add()
    for resource, scope in ((resource_logs, scope_logs), (resource_spans, scope_spans)):
        resource.resource.attributes.append(_pair("service.name", "mlspan"))
        scope.schema_url = names.SCHEMA_URL
        scope.scope.name, scope.scope.version = "mlspan_processor", version
    for event in events:
        pairs = _attributes(event)
        scope_logs.log_records.append(_record(event, pairs, now))
        if event.change != "updated":
            scope_spans.spans.append(_span(event, pairs))
    chunks = [Chunk(Signal.LOGS, logs.SerializeToString(), len(events))]
    if scope_spans.spans:
        chunks.append(Chunk(Signal.TRACES, traces.SerializeToString(), len(scope_spans.spans)))
    return chunks


def trace_of(incident_id: str) -> tuple[bytes, bytes, bytes]:
    """Trace id, id of the span of the opening, id of that of the closing."""
    digest = blake2b(incident_id.encode(), digest_size=32, person=b"mlspan incident").digest()
    return digest[:16], digest[16:24], digest[24:]


def _record(event: Event, pairs: list[KeyValue], now: int) -> LogRecord:
    trace, opening, closing = trace_of(event.id)
    return LogRecord(
        time_unix_nano=event.updated_ns,
        observed_time_unix_nano=now,
        event_name=ML_ANOMALY,
        severity_number=_NUMBERS[event.severity],  # type: ignore[arg-type]  # protobuf's enums are numbers
        severity_text=_TEXTS[event.severity],
        body=AnyValue(string_value=event.summary),
        attributes=pairs,
        trace_id=trace,
        span_id=closing if event.change == "closed" else opening,
    )


def _span(event: Event, pairs: list[KeyValue]) -> Span:
    trace, opening, closing = trace_of(event.id)
    closes = event.change == "closed"
    start = event.opened_ns if closes else min(event.since_ns, event.opened_ns)
    end = (event.closed_ns or event.updated_ns) if closes else event.opened_ns
    return Span(
        trace_id=trace,
        span_id=closing if closes else opening,
        parent_span_id=opening if closes else b"",
        name=f"incident {event.model}",
        kind=Span.SPAN_KIND_INTERNAL,
        start_time_unix_nano=start,
        end_time_unix_nano=max(start, end),
        attributes=pairs,
        links=[
            Span.Link(trace_id=bytes.fromhex(trace_id), span_id=bytes.fromhex(span_id))
            for trace_id, span_id in event.exemplars
        ],
        # Jaeger shows a failed span in red, which is what an open incident should look like.
        status=Status(code=Status.STATUS_CODE_UNSET if closes else Status.STATUS_CODE_ERROR, message=event.summary),
    )


def _attributes(event: Event) -> list[KeyValue]:
    segment, _, segment_value = event.segment.partition("=")
    values: dict[str, str | float | tuple[str, ...] | None] = {
        names.ML_INCIDENT_ID: event.id,
        names.ML_INCIDENT_STATUS: event.change,
        names.ML_INCIDENT_SEVERITY: event.severity,
        names.ML_INCIDENT_SUMMARY: event.summary,
        names.ML_MODEL_NAME: event.model,
        names.ML_MODEL_VERSION: event.version,
        names.ML_INCIDENT_SUBJECT: event.subject,
        names.ML_INCIDENT_SUBJECTS: event.subjects,
        names.ML_INCIDENT_VALUE: event.value,
        names.ML_INCIDENT_EXPECTED: event.expected,
        names.ML_INCIDENT_EFFECT: event.effect,
        names.ML_INCIDENT_P_VALUE: event.p_value,
        names.ML_INCIDENT_START: rfc3339(event.since_ns),
        names.ML_ANOMALY_FEATURES: event.features or None,
        names.ML_SEGMENT_NAME: segment or None,
        names.ML_SEGMENT_VALUE: segment_value or None,
        names.ML_MONITOR_NAMES: event.monitors or None,
    }
    return [_pair(key, value) for key, value in values.items() if value is not None]


def _pair(key: str, value: str | float | tuple[str, ...]) -> KeyValue:
    if isinstance(value, str):
        return KeyValue(key=key, value=AnyValue(string_value=value))
    if isinstance(value, tuple):
        texts = ArrayValue(values=[AnyValue(string_value=text) for text in value])
        return KeyValue(key=key, value=AnyValue(array_value=texts))
    return KeyValue(key=key, value=AnyValue(double_value=value))


def _detail(subject: Subject) -> str:
    return subject.finding.message + (" (recovered)" if subject.recovered else "")


def _feature(subject: Subject) -> str:
    """The feature in a subject such as "drift age"; "" for other subjects."""
    metric, _, feature = subject.finding.subject.partition(" ")
    return feature if metric in {"drift", "missing", "unseen"} else ""
