"""OTLP over HTTP against a real server in this process."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import orjson
import pytest
from google.rpc.status_pb2 import Status
from pydantic import ValidationError

from mlspan_exporters.otlp_http import OtlpHttpExporter, OtlpHttpSettings
from mlspan_exporters.otlp_json import to_json
from mlspan_exporters.testing import FakeHttp, HttpAnswer, chunk_of
from mlspan_exporters.wire import RESPONSES
from mlspan_processor.records import Chunk, ExportResult, PermanentError, RetryableError, Signal

from . import requests

CHUNK = chunk_of(requests.traces())
PROTOBUF = {"Content-Type": "application/x-protobuf"}
JSON = {"Content-Type": "application/json; charset=utf-8"}


@contextmanager
def exporter_to(endpoint: str, **settings: Any) -> Iterator[OtlpHttpExporter]:
    """Give a started exporter."""
    exporter = OtlpHttpExporter(OtlpHttpSettings.model_validate({"endpoint": endpoint} | settings), "otlp_http/test")
    exporter.start()
    try:
        yield exporter
    finally:
        exporter.shutdown()


@pytest.mark.parametrize("compression", ["gzip", "none"])
@pytest.mark.parametrize("name", ["traces", "metrics", "logs"])
def test_protobuf_arrives_unchanged(name: str, compression: str) -> None:
    """A chunk's bytes are posted to the path of its signal, with or without gzip."""
    chunk = chunk_of(getattr(requests, name)())
    with FakeHttp() as backend, exporter_to(backend.url + "/", compression=compression) as exporter:
        assert exporter.export(chunk, 5.0) == ExportResult()
    [request] = backend.requests
    assert (request.path, request.body) == (f"/v1/{name}", chunk.data)
    assert request.headers["content-type"] == "application/x-protobuf"
    assert request.headers.get("content-encoding") == ("gzip" if compression == "gzip" else None)
    assert request.headers["user-agent"].startswith("mlspan/")


def test_json_arrives_as_otlp_json() -> None:
    """With `encoding: json` the body is OTLP's JSON."""
    with FakeHttp() as backend, exporter_to(backend.url, encoding="json", headers={"X-Tenant": "eu"}) as exporter:
        exporter.export(CHUNK, 5.0)
    [request] = backend.requests
    assert request.body == to_json(requests.traces())
    assert request.headers["content-type"] == "application/json"
    assert request.headers["x-tenant"] == "eu"


def test_chunk_that_is_no_otlp_is_permanent() -> None:
    """Bytes that cannot be turned into JSON are never sent."""
    with FakeHttp() as backend, exporter_to(backend.url, encoding="json") as exporter:
        with pytest.raises(PermanentError, match="no OTLP request of traces"):
            exporter.export(Chunk(Signal.TRACES, b"\xff\xff\xff", 1), 5.0)
        assert backend.requests == []


def test_a_signal_may_have_its_own_endpoint() -> None:
    """A signal's own URL is used as it is; a signal without any is refused for good."""
    with FakeHttp() as backend:
        config = OtlpHttpSettings(traces_endpoint=f"{backend.url}/insert/opentelemetry")
        exporter = OtlpHttpExporter(config, "otlp_http")
        exporter.start()
        exporter.export(CHUNK, 5.0)
        with pytest.raises(PermanentError, match="neither endpoint nor logs_endpoint is set"):
            exporter.export(chunk_of(requests.logs()), 5.0)
        exporter.shutdown()
    assert backend.requests[0].path == "/insert/opentelemetry"


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (429, RetryableError),
        (502, RetryableError),
        (503, RetryableError),
        (504, RetryableError),
        (301, PermanentError),
        (400, PermanentError),
        (401, PermanentError),
        (404, PermanentError),
        (408, PermanentError),
        (413, PermanentError),
        (500, PermanentError),
        (501, PermanentError),
    ],
)
def test_status_decides_whether_to_retry(status: int, error: type[Exception]) -> None:
    """429, 502, 503 and 504 are retryable, every other refusal is permanent; both name the URL."""
    body = Status(message="because").SerializeToString()
    with FakeHttp() as backend, exporter_to(backend.url) as exporter:
        backend.answers.append(HttpAnswer(status, body, PROTOBUF))
        with pytest.raises(error) as raised:
            exporter.export(CHUNK, 5.0)
    assert str(raised.value) == f"otlp_http/test: {backend.url}/v1/traces: HTTP {status}: because"


@pytest.mark.parametrize(
    ("body", "headers", "text"),
    [
        (b'{"code": 3, "message": "bad span"}', JSON, "HTTP 400: bad span"),
        (b"<html>\n<b>bad</b> gateway", {"Content-Type": "text/html"}, "HTTP 400: <html> <b>bad</b> gateway"),
        (b"\xff\xff", PROTOBUF, "HTTP 400"),
        (b"[1", JSON, "HTTP 400"),
        (b"[1]", JSON, "HTTP 400"),
        (b"", {}, "HTTP 400"),
    ],
)
def test_refusals_message_is_shown_in_whatever_form(body: bytes, headers: dict[str, str], text: str) -> None:
    """The backend's words are part of the error, in protobuf, JSON or text; unreadable ones are left out."""
    with FakeHttp() as backend, exporter_to(backend.url) as exporter:
        backend.answers.append(HttpAnswer(400, body, headers))
        with pytest.raises(PermanentError) as raised:
            exporter.export(CHUNK, 5.0)
    assert str(raised.value).endswith(text)


def test_throttling_tells_when_to_come_back() -> None:
    """Retry-After is passed on as seconds, given as a number or as a date."""
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    with FakeHttp() as backend, exporter_to(backend.url) as exporter:
        delays = []
        for value in ("17", date):
            backend.answers.append(HttpAnswer(429, headers={"Retry-After": value}))
            with pytest.raises(RetryableError) as raised:
                exporter.export(CHUNK, 5.0)
            delays.append(raised.value.retry_after_seconds)
    assert delays[0] == 17.0
    assert delays[1] == pytest.approx(60, abs=10)


def test_slow_backend_is_retryable_after_the_timeout() -> None:
    """A backend that does not answer in time makes a retryable error."""
    with FakeHttp() as backend, exporter_to(backend.url) as exporter:
        backend.answers.append(HttpAnswer(delay_seconds=0.5))
        with pytest.raises(RetryableError, match="no answer within the timeout"):
            exporter.export(CHUNK, 0.1)


@pytest.mark.parametrize("name", ["traces", "metrics", "logs"])
def test_partial_success_is_reported(name: str) -> None:
    """Rejected items are told, from protobuf and from JSON."""
    chunk = chunk_of(getattr(requests, name)())
    field = {"traces": "rejected_spans", "metrics": "rejected_data_points", "logs": "rejected_log_records"}[name]
    response = RESPONSES[chunk.signal]()
    setattr(response.partial_success, field, 1)
    response.partial_success.error_message = "too old"
    with FakeHttp() as backend, exporter_to(backend.url) as exporter:
        backend.answers.append(HttpAnswer(200, response.SerializeToString(), PROTOBUF))
        assert exporter.export(chunk, 5.0) == ExportResult(1, "too old")
        backend.answers.append(HttpAnswer(200, to_json(response), JSON))
        assert exporter.export(chunk, 5.0) == ExportResult(1, "too old")


@pytest.mark.parametrize(
    ("body", "headers", "expected"),
    [
        (b"\x0a\x00", PROTOBUF, ExportResult()),  # there, but empty: Tempo's answer
        (b'{"partialSuccess": {}}', JSON, ExportResult()),
        (b'{"partialSuccess": {"rejectedSpans": "x"}}', JSON, ExportResult()),
        (b'{"partialSuccess": null}', JSON, ExportResult()),
        (b"{}", JSON, ExportResult()),
        (b"nonsense", JSON, ExportResult()),
        (b"<html>", {"Content-Type": "text/html"}, ExportResult()),
        (b"", {}, ExportResult()),
    ],
)
def test_an_empty_or_foreign_answer_rejects_nothing(
    body: bytes, headers: dict[str, str], expected: ExportResult
) -> None:
    """Presence of a partial success alone is no rejection, nor is an answer that cannot be read."""
    with FakeHttp() as backend, exporter_to(backend.url) as exporter:
        backend.answers.append(HttpAnswer(200, body, headers))
        assert exporter.export(CHUNK, 5.0) == expected


def test_unreadable_protobuf_answer_is_remarked() -> None:
    """The data was taken, so a broken answer is a remark and no error."""
    with FakeHttp() as backend, exporter_to(backend.url) as exporter:
        backend.answers.append(HttpAnswer(200, b"\xff\xff", PROTOBUF))
        result = exporter.export(CHUNK, 5.0)
    assert result.rejected_items == 0
    assert "is no OTLP" in result.message


def test_some_endpoint_must_be_set() -> None:
    """Settings without any endpoint are an error."""
    with pytest.raises(ValidationError, match="must be set"):
        OtlpHttpSettings.model_validate({})


def test_fake_backend_keeps_json_readable() -> None:
    """What the fake backend keeps is the unpacked body."""
    with FakeHttp() as backend, exporter_to(backend.url, encoding="json") as exporter:
        exporter.export(CHUNK, 5.0)
    assert orjson.loads(backend.requests[0].body)["resourceSpans"]
