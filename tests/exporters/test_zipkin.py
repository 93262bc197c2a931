"""Zipkin: the mapping of spans, and posting them to a real server in this process."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import pytest
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from mlspan_exporters import zipkin
from mlspan_exporters.testing import FakeHttp, HttpAnswer, chunk_of
from mlspan_exporters.zipkin import ZipkinExporter, ZipkinSettings, bodies
from mlspan_exporters.zipkin_spans import remote_endpoint, zipkin_spans
from mlspan_processor.records import Chunk, ExportResult, PermanentError, RetryableError, Signal

from . import requests
from .golden import assert_golden
from .requests import SPAN_ID, START_NS, TRACE_ID, attributes, model_span


def converted(span: Span, resource: Resource = requests.RESOURCE) -> dict[str, Any]:
    """Return one span as Zipkin's."""
    [found] = zipkin_spans(requests.traces(span, resource=resource), "unknown_service")
    assert found is not None
    return found


@contextmanager
def exporter_to(endpoint: str, **settings: Any) -> Iterator[ZipkinExporter]:
    """Give a started exporter."""
    exporter = ZipkinExporter(ZipkinSettings.model_validate({"endpoint": endpoint} | settings), "zipkin/test")
    exporter.start()
    try:
        yield exporter
    finally:
        exporter.shutdown()


def test_golden() -> None:
    """A span with one of everything, and its caller's, are written as they always were."""
    with FakeHttp() as backend, exporter_to(f"{backend.url}/api/v2/spans") as exporter:
        exporter.export(chunk_of(requests.traces()), 5.0)
    [request] = backend.requests
    assert request.path == "/api/v2/spans"
    assert request.headers["content-type"] == "application/json"
    spans = orjson.loads(request.body)
    assert_golden("zipkin.json", orjson.dumps(spans, option=orjson.OPT_INDENT_2) + b"\n")


def test_every_field_has_the_type_that_zipkin_takes() -> None:
    """Ids are hex, times whole microseconds, tags strings."""
    found = converted(model_span())
    assert found["traceId"] == "0102030405060708090a0b0c0d0e0f10"
    assert found["id"] == "1112131415161718"
    assert found["parentId"] == "2122232425262728"
    assert found["timestamp"] == START_NS // 1000
    assert found["duration"] == 1234567
    assert found["localEndpoint"] == {"serviceName": "shop"}
    assert all(isinstance(value, str) for value in found["tags"].values())
    assert found["annotations"] == [
        {"timestamp": START_NS // 1000 + 5, "value": '"threshold": {"at":0.5}'},
        {"timestamp": START_NS // 1000 + 9, "value": "plain"},
    ]
    assert found["tags"]["otlp.link.0"] == f'{TRACE_ID[::-1].hex()}|{SPAN_ID[::-1].hex()}||{{"why":"label"}}|0'


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (Span.SPAN_KIND_UNSPECIFIED, None),
        (Span.SPAN_KIND_INTERNAL, None),
        (Span.SPAN_KIND_SERVER, "SERVER"),
        (Span.SPAN_KIND_CLIENT, "CLIENT"),
        (Span.SPAN_KIND_PRODUCER, "PRODUCER"),
        (Span.SPAN_KIND_CONSUMER, "CONSUMER"),
    ],
)
def test_kind(kind: Any, expected: str | None) -> None:
    """Kinds keep their names; INTERNAL has none, and is kept as a tag."""
    found = converted(Span(trace_id=TRACE_ID, span_id=SPAN_ID, kind=kind))
    assert found.get("kind") == expected
    assert found["tags"].get("span.kind") == ("internal" if kind == Span.SPAN_KIND_INTERNAL else None)


def test_what_is_empty_is_left_out() -> None:
    """A bare span has no more fields than Zipkin needs."""
    found = converted(Span(trace_id=TRACE_ID, span_id=SPAN_ID, parent_span_id=bytes(8)), Resource())
    assert set(found) == {"traceId", "id", "name", "localEndpoint", "tags"}
    assert found["localEndpoint"] == {"serviceName": "unknown_service"}


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (START_NS, START_NS, 1),
        (START_NS, START_NS + 999, 1),
        (START_NS, START_NS + 2_999, 2),
        (START_NS, START_NS - 1, None),
        (START_NS, 0, None),
        (0, START_NS, None),
    ],
)
def test_duration_is_at_least_one_microsecond(start: int, end: int, expected: int | None) -> None:
    """A short span lasts 1 µs, since Zipkin reads 0 as unknown; an impossible duration is left out."""
    span = Span(trace_id=TRACE_ID, span_id=SPAN_ID, start_time_unix_nano=start, end_time_unix_nano=end)
    assert converted(span).get("duration") == expected


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (Status(), None, None),
        (Status(code=Status.STATUS_CODE_OK, message="ignored"), "OK", None),
        (Status(code=Status.STATUS_CODE_ERROR, message="ValueError"), "ERROR", "ValueError"),
        (Status(code=Status.STATUS_CODE_ERROR), "ERROR", ""),
    ],
)
def test_status_and_error_tags(status: Status, code: str | None, error: str | None) -> None:
    """The tag `error` is there exactly for errors, whatever attribute the span has of that name."""
    span = Span(trace_id=TRACE_ID, span_id=SPAN_ID, attributes=attributes({"error": False}))
    span.status.CopyFrom(status)
    tags = converted(span)["tags"]
    assert tags.get("otel.status_code") == code
    assert tags.get("error") == error


def test_resource_and_scope_become_tags() -> None:
    """Resource attributes and scope are tags of each span; the service's name is not, nor are a scope's lists."""
    tags = converted(Span(trace_id=TRACE_ID, span_id=SPAN_ID))["tags"]
    assert tags == {
        "service.namespace": "eu",
        "service.instance.id": "shop-1",
        "host.name": "node-7",
        "ml.model.class": "Forest",
        "otel.scope.name": "mlspan",
        "otel.scope.version": "0.1.0",
    }


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"peer.service": "db", "server.address": "db.local"}, {"serviceName": "db"}),
        ({"service.peer.name": "db", "server.address": "x"}, {"serviceName": "db"}),
        ({"server.address": "db.local", "server.port": "5432"}, {"serviceName": "db.local", "port": 5432}),
        ({"server.address": "10.0.0.3"}, {"serviceName": "10.0.0.3", "ipv4": "10.0.0.3"}),
        (
            {"network.peer.address": "2001:db8::1", "network.peer.port": "99"},
            {"serviceName": "2001:db8::1", "ipv6": "2001:db8::1", "port": 99},
        ),
        ({"net.peer.name": "old", "net.peer.port": "x"}, {"serviceName": "old"}),
        (
            {"net.sock.peer.addr": "1.2.3.4", "net.sock.peer.port": "70000"},
            {"serviceName": "1.2.3.4", "ipv4": "1.2.3.4"},
        ),
        ({"db.name": "orders", "peer.service": ""}, {"serviceName": "orders"}),
        ({"other": "x"}, None),
    ],
)
def test_remote_endpoint_by_rank(values: dict[str, str], expected: dict[str, Any] | None) -> None:
    """Whom a span called is read from the first attribute of the specification's ranking."""
    assert remote_endpoint(values) == expected


@pytest.mark.parametrize("kind", [Span.SPAN_KIND_SERVER, Span.SPAN_KIND_INTERNAL, Span.SPAN_KIND_CONSUMER])
def test_only_callers_have_a_remote_endpoint(kind: Any) -> None:
    """A server's own address is not taken for a remote one."""
    span = Span(trace_id=TRACE_ID, span_id=SPAN_ID, kind=kind, attributes=attributes({"server.address": "me"}))
    assert "remoteEndpoint" not in converted(span)


def test_spans_without_valid_ids_are_rejected_alone() -> None:
    """A span that Zipkin would refuse with all others is left out and counted."""
    bad = [
        Span(trace_id=TRACE_ID[:8], span_id=SPAN_ID),
        Span(trace_id=bytes(16), span_id=SPAN_ID),
        Span(trace_id=TRACE_ID),
    ]
    with FakeHttp() as backend, exporter_to(backend.url) as exporter:
        result = exporter.export(chunk_of(requests.traces(model_span(), *bad)), 5.0)
        assert result == ExportResult(3, "3 spans have no valid id")
        assert len(orjson.loads(backend.requests[0].body)) == 1
        assert exporter.export(chunk_of(requests.traces(*bad)), 5.0).rejected_items == 3
        assert len(backend.requests) == 1


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, PermanentError),
        (404, PermanentError),
        (413, PermanentError),
        (408, RetryableError),
        (429, RetryableError),
        (500, RetryableError),
        (503, RetryableError),
    ],
)
def test_status_decides_whether_to_retry(status: int, error: type[Exception]) -> None:
    """Refusals are permanent; throttling and failures of the server are retryable; both carry its words."""
    with FakeHttp() as backend, exporter_to(backend.url) as exporter:
        backend.answers.append(HttpAnswer(status, b"Expected a JSON list", {"Retry-After": "4"}))
        with pytest.raises(error) as raised:
            exporter.export(chunk_of(requests.traces()), 5.0)
    assert str(raised.value) == f"zipkin/test: {backend.url}: HTTP {status}: Expected a JSON list"
    assert getattr(raised.value, "retry_after_seconds", 4.0) == 4.0


def test_slow_backend_is_retryable_after_the_timeout() -> None:
    """A Zipkin that does not answer in time makes a retryable error."""
    with FakeHttp() as backend, exporter_to(backend.url) as exporter:
        backend.answers.append(HttpAnswer(delay_seconds=0.5))
        with pytest.raises(RetryableError, match="timeout"):
            exporter.export(chunk_of(requests.traces()), 0.1)


def test_big_chunks_are_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """No request is above the limit; a refused part is counted, and the others arrive."""
    monkeypatch.setattr(zipkin, "bodies", lambda spans: bodies(spans, limit_bytes=5_000))
    spans = [model_span(span_id=bytes([number] * 8)) for number in range(1, 11)]
    chunk = chunk_of(requests.traces(*spans))
    with FakeHttp() as backend, exporter_to(backend.url) as exporter:
        assert exporter.export(chunk, 5.0) == ExportResult()
        sent = [orjson.loads(request.body) for request in backend.requests]
        assert len(sent) > 1
        assert all(len(request.body) <= 5_000 for request in backend.requests)
        assert [span["id"] for part in sent for span in part] == [span.span_id.hex() for span in spans]
        backend.answers += [HttpAnswer(202), HttpAnswer(400, b"bad")]
        result = exporter.export(chunk, 5.0)
    assert result.rejected_items == len(sent[1])
    assert "HTTP 400: bad" in result.message


def test_gzip() -> None:
    """Bodies are compressed where that is set."""
    with FakeHttp() as backend, exporter_to(backend.url, compression="gzip") as exporter:
        exporter.export(chunk_of(requests.traces()), 5.0)
    assert backend.requests[0].headers["content-encoding"] == "gzip"
    assert len(orjson.loads(backend.requests[0].body)) == 2


def test_chunk_that_is_no_otlp_is_permanent() -> None:
    """Bytes that are no OTLP are refused for good."""
    with FakeHttp() as backend, exporter_to(backend.url) as exporter, pytest.raises(PermanentError):
        exporter.export(Chunk(Signal.TRACES, b"\xff", 1), 1.0)
