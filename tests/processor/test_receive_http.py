"""OTLP/HTTP: official clients, protobuf and JSON, every refusal with its Status, labels and the report."""

import gzip
import json
import socket
import ssl
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3
from google.rpc.status_pb2 import Status
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from mlspan_processor.errors import StartError
from mlspan_processor.receive.body import DECODERS
from mlspan_processor.records import Consumer, PermanentError, RetryableError, Signal
from mlspan_processor.testing import Refusing, trace_request
from tests.processor.certificates import make_certificates
from tests.processor.running import Running, build, running

PROTOBUF = "application/x-protobuf"
JSON = "application/json"


@pytest.fixture(scope="module")
def processor() -> Iterator[Running]:
    """One processor for the tests that leave it as it was."""
    with running() as one:
        yield one


@pytest.fixture(scope="module")
def pool() -> Iterator[urllib3.PoolManager]:
    """An HTTP client without retries."""
    with urllib3.PoolManager(retries=False, timeout=20) as one:
        yield one


def status_of(response: urllib3.BaseHTTPResponse) -> Status:
    """Return the Status of a refusal, checking that it is there in the request's format."""
    if response.headers["Content-Type"] == PROTOBUF:
        status = Status.FromString(response.data)
    else:
        assert response.headers["Content-Type"].startswith(JSON)
        document = json.loads(response.data)
        status = Status(code=document["code"], message=document["message"])
    assert status.code
    assert status.message
    return status


def post(
    pool: urllib3.PoolManager, url: str, body: bytes, content_type: str | None = PROTOBUF, **headers: str
) -> urllib3.BaseHTTPResponse:
    """POST; header names with underscores for dashes."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    if content_type is not None:
        fields["Content-Type"] = content_type
    return pool.request("POST", url, body=body, headers=fields)


@pytest.mark.parametrize("compression", [Compression.NoCompression, Compression.Gzip, Compression.Deflate])
def test_official_span_exporter(compression: Compression) -> None:
    """opentelemetry-python's exporter delivers spans, compressed or not."""
    with running() as one:
        provider = TracerProvider()
        exporter = OTLPSpanExporter(f"{one.http}/v1/traces", compression=compression)
        provider.add_span_processor(BatchSpanProcessor(exporter))
        for number in range(20):
            with provider.get_tracer("test").start_as_current_span(f"span {number}"):
                pass
        provider.shutdown()
        one.sink.wait_for(20)
        request = ExportTraceServiceRequest.FromString(one.sink.chunks[0].data)
        assert request.resource_spans[0].scope_spans[0].spans[0].name == "span 0"
        assert one.telemetry.value("mlspan_receiver_accepted_spans", transport="http") == 20


def test_protobuf_bytes_pass_unchanged(pool: urllib3.PoolManager) -> None:
    """The backend gets the very bytes, and the answer is an empty protobuf response."""
    with running() as one:
        data = trace_request(7) + b"\xc2\x3e\x05later"
        response = post(pool, f"{one.http}/v1/traces", data)
        assert (response.status, response.headers["Content-Type"]) == (200, PROTOBUF)
        assert ExportTraceServiceResponse.FromString(response.data) == ExportTraceServiceResponse()
        one.sink.wait_for(7)
        assert one.sink.chunks[0].data == data


def test_json_becomes_protobuf(pool: urllib3.PoolManager) -> None:
    """JSON is answered in JSON and handed on as protobuf."""
    span = {"traceId": "5B8EFFF798038103D269B633813FC60C", "spanId": "eee19b7ec3c1b174", "name": "x"}
    document = {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}
    with running() as one:
        response = post(pool, f"{one.http}/v1/traces", json.dumps(document).encode(), "application/json; charset=utf-8")
        assert (response.status, response.data) == (200, b"{}")
        assert response.headers["Content-Type"].startswith(JSON)
        one.sink.wait_for(1)
        request = ExportTraceServiceRequest.FromString(one.sink.chunks[0].data)
        assert request.resource_spans[0].scope_spans[0].spans[0].trace_id.hex() == "5b8efff798038103d269b633813fc60c"


@pytest.mark.parametrize("path", ["traces", "metrics", "logs"])
@pytest.mark.parametrize(("content_type", "body"), [(PROTOBUF, b""), (JSON, b"{}")])
def test_empty_request_succeeds(
    processor: Running, pool: urllib3.PoolManager, path: str, content_type: str, body: bytes
) -> None:
    """An empty request of any signal is a success."""
    assert post(pool, f"{processor.http}/v1/{path}", body, content_type).status == 200


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (PROTOBUF, b"\xff\xff\xff"),
        (PROTOBUF, trace_request(2)[:-3]),
        (JSON, b"{"),
        (JSON, b"[]"),
        (JSON, b""),
        (JSON, b'{"resourceSpans": 3}'),
        (JSON, b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"zz"}]}]}]}'),
    ],
)
def test_bad_data_is_400(processor: Running, pool: urllib3.PoolManager, content_type: str, body: bytes) -> None:
    """What cannot be read is refused for good, with a Status in the request's format."""
    response = post(pool, f"{processor.http}/v1/traces", body, content_type)
    assert response.status == 400
    assert status_of(response).code == 3
    assert response.headers["Content-Type"].startswith(content_type)


@pytest.mark.parametrize("coding", sorted(DECODERS))
def test_broken_compression_is_400(processor: Running, pool: urllib3.PoolManager, coding: str) -> None:
    """A body that is not compressed as its header says is bad data; so is one that ends too early."""
    whole = gzip.compress(trace_request(50))
    for body in (b"not compressed", whole[:-20] if coding == "gzip" else b"\x78"):
        assert post(pool, f"{processor.http}/v1/traces", body, Content_Encoding=coding).status == 400


@pytest.mark.parametrize(
    ("method", "path", "content_type", "coding", "expected"),
    [
        ("POST", "/v1/nothing", PROTOBUF, "", 404),
        ("GET", "/", None, "", 404),
        ("GET", "/v1/traces", None, "", 405),
        ("DELETE", "/v1/labels", None, "", 405),
        ("POST", "/v1/traces", "text/plain", "", 415),
        ("POST", "/v1/traces", None, "", 415),
        ("POST", "/v1/traces", PROTOBUF, "snappy", 415),
        ("POST", "/v1/labels", PROTOBUF, "", 415),
    ],
)
def test_refusals_have_a_status(
    processor: Running,
    pool: urllib3.PoolManager,
    method: str,
    path: str,
    content_type: str | None,
    coding: str,
    expected: int,
) -> None:
    """Path, method, type and coding are each refused with their code and a Status body."""
    headers = {"Content-Type": content_type} if content_type else {}
    headers |= {"Content-Encoding": coding} if coding else {}
    response = pool.request(method, processor.http + path, body=b"x" if method == "POST" else None, headers=headers)
    assert response.status == expected
    status_of(response)
    if expected == 405:
        assert "POST" in response.headers["Allow"]


def test_messages_say_what_is_valid(processor: Running, pool: urllib3.PoolManager) -> None:
    """A refusal names the value and the valid ones."""
    response = post(pool, f"{processor.http}/v1/traces", b"", "text/plain")
    assert status_of(response).message == (
        'Content-Type "text/plain" is not supported; valid are application/x-protobuf, application/json'
    )
    response = post(pool, f"{processor.http}/v1/traces", b"x", Content_Encoding="br")
    assert 'Content-Encoding "br" is not supported; valid are gzip, deflate' in status_of(response).message


LIMIT = "receivers: {otlp: {protocols: {http: {max_request_body_size: 100000}}}}"


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("", b"\0" * 100_001),
        ("gzip", gzip.compress(b"\0" * 100_001)),
        ("gzip", gzip.compress(b"\0" * 50_000_000)),
        ("gzip", gzip.compress(b"\0" * 60_000) * 2),
        ("deflate", zlib.compress(b"\0" * 50_000_000)),
    ],
    ids=["plain", "gzip", "bomb", "two members", "deflate"],
)
def test_too_large_is_413(pool: urllib3.PoolManager, coding: str, body: bytes) -> None:
    """The limit holds before and after decompression, and is final."""
    with running(LIMIT) as one:
        response = post(pool, f"{one.http}/v1/traces", body, Content_Encoding=coding)
        assert response.status == 413
        assert "100000 bytes" in status_of(response).message
        assert "Retry-After" not in response.headers
        assert post(pool, f"{one.http}/v1/traces", b"").status == 200


def test_chunked_body_is_bounded(pool: urllib3.PoolManager) -> None:
    """A body without a length is cut off at the limit."""
    with running(LIMIT) as one:
        host, port = one.http.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as client:
            client.sendall(
                b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n"
            )
            client.sendall(b"20000\r\n" + b"\0" * 0x20000 + b"\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 413")


def test_several_gzip_members_are_one_body(pool: urllib3.PoolManager) -> None:
    """Concatenated gzip members are their concatenated contents."""
    with running() as one:
        body = gzip.compress(trace_request(2)) + gzip.compress(trace_request(3))
        assert post(pool, f"{one.http}/v1/traces", body, Content_Encoding="gzip").status == 200
        one.sink.wait_for(5)


@pytest.mark.parametrize("content_type", [PROTOBUF, JSON])
def test_retryable_is_503_with_retry_after(pool: urllib3.PoolManager, content_type: str) -> None:
    """Back-pressure tells in whole seconds when to come again."""
    span = b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":"x"}]}]}]}'
    with running() as one:
        behind(one, Refusing(RetryableError("the queue is full", 2.5)))
        response = post(
            pool, f"{one.http}/v1/traces", trace_request() if content_type == PROTOBUF else span, content_type
        )
        assert (response.status, response.headers["Retry-After"]) == (503, "3")
        assert status_of(response).code == 14
        assert one.telemetry.value("mlspan_receiver_refused_spans", transport="http") == 1


@pytest.mark.parametrize(("error", "expected"), [(PermanentError("too old"), 400), (ZeroDivisionError("bug"), 500)])
def test_other_failures(pool: urllib3.PoolManager, error: Exception, expected: int) -> None:
    """A refusal for good is 400; a bug behind the receiver 500."""
    with running() as one:
        behind(one, Refusing(error))
        response = post(pool, f"{one.http}/v1/traces", trace_request())
        assert response.status == expected
        status_of(response)


def behind(one: Running, consumer: Consumer) -> None:
    """Put a consumer in the place of the pipelines behind every receiver."""
    for _, receiver in one.engine.parts.receivers:
        intake = receiver._intake  # type: ignore[attr-defined]  # the seam of this test
        intake.consumers.update(dict.fromkeys(Signal, consumer))


def test_slow_body_is_given_up() -> None:
    """A body that does not come within read_timeout is refused and the connection closed."""
    with running("receivers: {otlp: {protocols: {http: {read_timeout: 50ms}}}}") as one:
        host, port = one.http.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as slow:
            slow.sendall(
                b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\n"
                b"Content-Length: 100\r\n\r\nten bytes."
            )
            answer = b""
            while part := slow.recv(4096):
                answer += part
            assert answer.startswith(b"HTTP/1.1 408")


def test_noise_on_the_port(processor: Running, pool: urllib3.PoolManager) -> None:
    """Bytes that are no HTTP harm nobody."""
    host, port = processor.http.removeprefix("http://").split(":")
    for noise in (b"\0" * 1000, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"POST / HTTP/9\r\n" + b"a" * 100_000):
        with socket.create_connection((host, int(port)), timeout=20) as one:
            one.sendall(noise)
    assert post(pool, f"{processor.http}/v1/traces", b"").status == 200


def test_many_clients_at_once(pool: urllib3.PoolManager) -> None:
    """Everything that was acknowledged to concurrent clients arrives."""
    with running("exporters: {fake: {sending_queue: {queue_size: 3}}}") as one:
        accepted = []

        def send() -> None:
            with urllib3.PoolManager(retries=False, timeout=20) as client:
                for _ in range(20):
                    status = post(client, f"{one.http}/v1/traces", trace_request(10)).status
                    assert status in {200, 503}
                    accepted.append(10 * (status == 200))

        threads = [threading.Thread(target=send) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        one.sink.wait_for(sum(accepted))
        assert one.sink.items == sum(accepted) == one.telemetry.value("mlspan_receiver_accepted_spans")
        assert len(accepted) == 100


def test_cors(pool: urllib3.PoolManager) -> None:
    """A browser's preflight is answered for allowed origins only."""
    cors = "cors: {allowed_origins: ['https://*.example.com'], allowed_headers: [X-Mine], max_age: 7200}"
    with running(f"receivers: {{otlp: {{protocols: {{http: {{{cors}}}}}}}}}") as one:
        url = f"{one.http}/v1/traces"
        asking = {"Access-Control-Request-Method": "POST"}
        good = pool.request("OPTIONS", url, headers={"Origin": "https://app.example.com", **asking})
        assert good.status == 204
        assert good.headers["Access-Control-Allow-Origin"] == "https://app.example.com"
        assert "X-Mine" in good.headers["Access-Control-Allow-Headers"]
        assert good.headers["Access-Control-Max-Age"] == "7200"
        assert "Access-Control-Allow-Origin" in post(pool, url, b"", Origin="https://app.example.com").headers
        bad = pool.request("OPTIONS", url, headers={"Origin": "https://example.org", **asking})
        assert "Access-Control-Allow-Origin" not in bad.headers


def test_without_cors_preflight_is_refused(processor: Running, pool: urllib3.PoolManager) -> None:
    """Without the setting web pages may not send."""
    assert pool.request("OPTIONS", f"{processor.http}/v1/traces", headers={"Origin": "https://a"}).status == 405


def test_tls(tmp_path: Path) -> None:
    """With a certificate and a client authority only clients that present one are served."""
    files = make_certificates(tmp_path)
    tls = f"{{cert_file: {files.cert}, key_file: {files.key}, client_ca_file: {files.authority}}}"
    with running(f"receivers: {{otlp: {{protocols: {{http: {{tls: {tls}}}}}}}}}") as one:
        url = one.http.replace("http://127.0.0.1", "https://localhost") + "/v1/traces"
        with urllib3.PoolManager(
            retries=False, ca_certs=str(files.authority), cert_file=str(files.cert), key_file=str(files.key)
        ) as known:
            assert post(known, url, b"").status == 200
        with (
            urllib3.PoolManager(retries=False, ca_certs=str(files.authority)) as unknown,
            pytest.raises((urllib3.exceptions.HTTPError, ssl.SSLError, OSError)),
        ):
            post(unknown, url, b"")


def test_missing_certificate_fails_the_start(tmp_path: Path) -> None:
    """The start says which files it could not use."""
    tls = f"{{cert_file: {tmp_path}/a.pem, key_file: {tmp_path}/b.pem}}"
    engine = build(f"receivers: {{otlp: {{protocols: {{http: {{tls: {tls}}}}}}}}}")
    with pytest.raises(StartError, match=r"cannot use the TLS files .*a\.pem.*No such file"):
        engine.start()


def test_port_in_use_is_named() -> None:
    """The start fails with the receiver and its endpoint."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = f"127.0.0.1:{taken.getsockname()[1]}"
        engine = build(f'receivers: {{otlp: {{protocols: {{http: {{endpoint: "{endpoint}"}}}}}}}}')
        with pytest.raises(StartError, match=f'receiver "otlp": cannot listen on "{endpoint}"'):
            engine.start()


def test_a_sender_that_vanishes_is_no_bug(caplog: pytest.LogCaptureFixture) -> None:
    """A connection lost within a body, and bytes that are no HTTP, are counted or told in a line."""
    with running() as one:
        host, port = one.http.removeprefix("http://").split(":")
        head = f"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: {PROTOBUF}\r\nContent-Length: 100\r\n\r\nabc"
        for sent in (head.encode(), b"\x16\x03\x01 no HTTP\r\n\r\n"):
            with socket.create_connection((host, int(port)), timeout=20) as connection:
                connection.sendall(sent)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1000):
                    pass
        assert one.telemetry.value("mlspan_receiver_invalid_requests", reason="disconnected") == 1
    assert "not HTTP" in caplog.text
    assert "a bug" not in caplog.text
    assert "Traceback" not in caplog.text
