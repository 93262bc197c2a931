"""Items whose ids a backend refuses do not take the others with them."""

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from mlspan_processor.bad_ids import without_bad_ids
from mlspan_processor.config.schema import Queued
from mlspan_processor.export import DirectExporter
from mlspan_processor.records import Chunk, ExportResult, PermanentError, RetryableError, Signal
from mlspan_processor.signals import validated
from mlspan_processor.telemetry import Telemetry
from mlspan_processor.testing import FakeClock, FakeExporter, trace_chunk

TRACE, SPAN = b"t" * 16, b"s" * 8
BAD = {
    "trace id": Span(trace_id=b"t" * 15, span_id=SPAN),
    "no trace id": Span(span_id=SPAN),
    "span id": Span(trace_id=TRACE, span_id=b"s" * 16),
    "parent": Span(trace_id=TRACE, span_id=SPAN, parent_span_id=b"p"),
    "link's trace": Span(trace_id=TRACE, span_id=SPAN, links=[Span.Link(trace_id=b"t", span_id=SPAN)]),
    "link's span": Span(trace_id=TRACE, span_id=SPAN, links=[Span.Link(trace_id=TRACE, span_id=b"s")]),
}


def traces(*spans: Span) -> Chunk:
    """A chunk of one resource and scope."""
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add(schema_url="resource's")
    resource.resource.attributes.add(key="service.name").value.string_value = "shop"
    scope = resource.scope_spans.add()
    scope.scope.name = "shop"
    scope.spans.extend(spans)
    return validated(Signal.TRACES, request.SerializeToString())


@pytest.mark.parametrize("what", BAD)
def test_spans_with_bad_ids_are_left_out(what: str) -> None:
    """The others stay with their scope and resource; a root span has no parent's id."""
    good = Span(trace_id=TRACE, span_id=SPAN, name="good", links=[Span.Link(trace_id=TRACE, span_id=SPAN)])
    child = Span(trace_id=TRACE, span_id=SPAN, parent_span_id=SPAN, name="child")
    rest = without_bad_ids(traces(good, BAD[what], child))
    assert rest == traces(good, child)
    assert without_bad_ids(rest) is None


def test_records_with_bad_ids_are_left_out() -> None:
    """A log record may have no ids, but none of another length."""
    request = ExportLogsServiceRequest()
    resource = request.resource_logs.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "shop"
    scope = resource.scope_logs.add()
    scope.scope.name = "shop"
    records = scope.log_records
    records.add(trace_id=TRACE, span_id=SPAN)
    records.add()
    right = validated(Signal.LOGS, request.SerializeToString())
    records.add(trace_id=b"t")
    records.add(trace_id=TRACE, span_id=b"s")
    assert without_bad_ids(validated(Signal.LOGS, request.SerializeToString())) == right


def test_chunks_that_cannot_be_looked_into_stay_whole() -> None:
    """Metrics have no ids of their own; what is no OTLP is not touched."""
    assert without_bad_ids(Chunk(Signal.METRICS, b"", 1)) is None
    assert without_bad_ids(Chunk(Signal.TRACES, b"\xff", 1)) is None


class Backend(FakeExporter):
    """Refuses chunks that hold a bad id; else answers as it is told."""

    def export(self, chunk: Chunk, timeout_seconds: float) -> ExportResult:
        """See the class."""
        if without_bad_ids(chunk) is not None:
            self.calls.append("refuse")
            raise PermanentError("invalid length for TraceID")
        return super().export(chunk, timeout_seconds)


@pytest.mark.parametrize("retried", [True, False])
def test_a_refused_chunk_is_sent_without_its_bad_ids(retried: bool) -> None:
    """Only the items with bad ids are lost, and are counted; the rest is tried again as any other chunk."""
    backend, telemetry = Backend(), Telemetry()
    backend.answers = [RetryableError("busy")] if retried else []
    clock = FakeClock()
    settings = Queued() if retried else None
    exporter = DirectExporter(backend, "fake", Signal.TRACES, settings, telemetry, clock=clock, sleep=clock.sleep)
    chunk = traces(*ExportTraceServiceRequest.FromString(trace_chunk(3).data).resource_spans[0].scope_spans[0].spans)
    mixed = Chunk(Signal.TRACES, chunk.data + traces(*BAD.values()).data, 3 + len(BAD))
    exporter.consume(mixed)
    assert [one.items for one in backend.sink.chunks] == [3]
    assert telemetry.value("mlspan_exporter_sent_spans") == 3
    assert telemetry.value("mlspan_exporter_send_failed_spans", reason="permanent") == len(BAD)
    assert backend.calls.count("refuse") == 1


def test_a_chunk_of_bad_ids_alone_is_lost() -> None:
    """Nothing is left to send: the sender hears of it."""
    backend, telemetry = Backend(), Telemetry()
    with pytest.raises(PermanentError, match="invalid length"):
        DirectExporter(backend, "fake", Signal.TRACES, None, telemetry).consume(traces(*BAD.values()))
    assert telemetry.value("mlspan_exporter_send_failed_spans", reason="permanent") == len(BAD)
    assert not backend.sink.chunks
