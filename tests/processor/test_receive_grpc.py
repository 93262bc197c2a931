"""OTLP/gRPC: official clients, garbage, sizes, back-pressure; the bytes handed on are the bytes that came."""

import gzip
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from mlspan_processor.errors import StartError
from mlspan_processor.records import PermanentError, RetryableError, Signal
from mlspan_processor.signals import SIGNALS
from mlspan_processor.testing import Refusing, trace_request
from tests.processor.certificates import make_certificates
from tests.processor.running import Running, build, running


@pytest.fixture(scope="module")
def processor() -> Iterator[Running]:
    """One processor for the tests that leave it as it was."""
    with running() as one:
        yield one


def export(
    target: str, data: bytes, signal: Signal = Signal.TRACES, compression: Any = None, channel: Any = None
) -> bytes:
    """Send bytes as they are."""
    options = [("grpc.max_send_message_length", -1)]
    with channel or grpc.insecure_channel(target, options=options) as one:
        method: Callable[..., bytes] = one.unary_unary(f"/{SIGNALS[signal].service}/Export")
        return method(data, timeout=20, compression=compression)


def refused(target: str, data: bytes, **options: Any) -> tuple[grpc.StatusCode, Status | None]:
    """Return the status code and the details of a refusal."""
    with pytest.raises(grpc.RpcError) as caught:
        export(target, data, **options)
    error: Any = caught.value
    details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin")
    return error.code(), Status.FromString(details) if details is not None else None


def detail(status: Status | None, kind: Any) -> Any:
    """Return the one detail of a kind."""
    assert status is not None
    result = kind()
    assert any(one.Unpack(result) for one in status.details)
    return result


@pytest.mark.parametrize("compression", [None, grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_bytes_pass_unchanged(processor: Running, compression: Any) -> None:
    """The backend gets the very bytes, unknown fields included, compressed on the way or not."""
    # Field 1000 of the request is none of OTLP's: a later version may have it.
    data = trace_request(7) + b"\xc2\x3e\x05later"
    before = len(processor.sink.chunks)
    assert export(processor.grpc, data, compression=compression) == b""
    processor.sink.wait_for(sum(chunk.items for chunk in processor.sink.chunks[:before]) + 7)
    assert processor.sink.chunks[-1].data == data


@pytest.mark.parametrize("signal", list(Signal))
def test_empty_request_succeeds(processor: Running, signal: Signal) -> None:
    """An empty request of any signal is a success and goes nowhere."""
    before = len(processor.sink.chunks)
    assert export(processor.grpc, b"", signal) == b""
    assert len(processor.sink.chunks) == before


def test_official_span_exporter() -> None:
    """opentelemetry-python's exporter delivers spans."""
    with running() as one:
        provider = TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"http://{one.grpc}", insecure=True)))
        for number in range(20):
            with provider.get_tracer("test").start_as_current_span(f"span {number}"):
                pass
        provider.shutdown()
        one.sink.wait_for(20)
        request = ExportTraceServiceRequest.FromString(one.sink.chunks[0].data)
        assert request.resource_spans[0].scope_spans[0].spans[0].name == "span 0"
        assert one.telemetry.value("mlspan_receiver_accepted_spans", transport="grpc") == 20


def test_official_metric_exporter() -> None:
    """opentelemetry-python's exporter delivers metrics, counted in data points."""
    with running() as one:
        exporter = OTLPMetricExporter(f"http://{one.grpc}", insecure=True)
        reader = PeriodicExportingMetricReader(exporter, export_interval_millis=60_000)
        provider = MeterProvider([reader])
        counter = provider.get_meter("test").create_counter("requests")
        counter.add(1, {"a": "1"})
        counter.add(1, {"a": "2"})
        provider.shutdown()
        one.sink.wait_for(2)
        assert one.sink.chunks[0].signal is Signal.METRICS
        assert one.telemetry.value("mlspan_receiver_accepted_metric_points") == 2


def test_garbage_is_invalid_argument(processor: Running) -> None:
    """What is no message is refused for good with a BadRequest, and nothing of it is taken."""
    before = processor.telemetry.value("mlspan_receiver_invalid_requests", reason="malformed")
    # A whole span followed by half a field.
    code, status = refused(processor.grpc, trace_request(3) + b"\x0a\xff")
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert status is not None
    assert status.code == 3
    violation = detail(status, BadRequest).field_violations[0]
    assert "not a valid ExportTraceServiceRequest message" in violation.description
    assert processor.telemetry.value("mlspan_receiver_invalid_requests", reason="malformed") == before + 1


def test_invalid_utf8_is_invalid_argument(processor: Running) -> None:
    """Text that is not UTF-8 is found before any backend sees it."""
    data = trace_request(1, name="latin").replace(b"latin", b"l\xe4tin")
    assert refused(processor.grpc, data)[0] is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("compression", [None, grpc.Compression.Gzip])
def test_oversize_is_resource_exhausted_without_retry(compression: Any) -> None:
    """Too large, also after decompression, is final: RESOURCE_EXHAUSTED and no RetryInfo."""
    grpc_only = "receivers: {otlp: {protocols: {grpc: {max_recv_msg_size_mib: 1}}}}"
    with running(grpc_only) as one:
        code, status = refused(one.grpc, b"\0" * (8 << 20), compression=compression)
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert status is None
        export(one.grpc, trace_request(1))  # and the receiver goes on
        one.sink.wait_for(1)


def test_retryable_is_unavailable_with_retry_info() -> None:
    """Back-pressure tells when to come again, and counts what was refused."""
    with running() as one:
        refusing(one, RetryableError("the queue is full", 2.5))
        code, status = refused(one.grpc, trace_request(4))
        assert code is grpc.StatusCode.UNAVAILABLE
        assert detail(status, RetryInfo).retry_delay.ToNanoseconds() == 2_500_000_000
        assert one.telemetry.value("mlspan_receiver_refused_spans", transport="grpc") == 4
        refusing(one, RetryableError("no hint"))
        assert detail(refused(one.grpc, trace_request())[1], RetryInfo).retry_delay.seconds == 1


def test_permanent_is_invalid_argument() -> None:
    """A refusal for good is not retryable."""
    with running() as one:
        refusing(one, PermanentError("too old"))
        code, status = refused(one.grpc, trace_request(4))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert status is not None
        assert status.message == "too old"
        assert one.telemetry.value("mlspan_receiver_failed_spans") == 4


def test_a_bug_behind_the_receiver_is_internal() -> None:
    """Any other exception is answered INTERNAL, and the receiver goes on."""
    with running() as one:
        refusing(one, ZeroDivisionError("secret detail"))
        code, status = refused(one.grpc, trace_request(4))
        assert code is grpc.StatusCode.INTERNAL
        assert status is not None
        assert status.message == "ZeroDivisionError while handling 4 spans"


def refusing(one: Running, error: Exception) -> None:
    """Have the pipelines behind every receiver raise."""
    for _, receiver in one.engine.parts.receivers:
        intake = receiver._intake  # type: ignore[attr-defined]  # the seam of this test
        intake.consumers.update(dict.fromkeys(Signal, Refusing(error)))


def test_signal_without_a_pipeline_is_unimplemented() -> None:
    """A service is only offered when a pipeline takes its signal."""
    engine = build("service: {pipelines: {metrics: {receivers: [mlspan]}}}")
    engine.start()
    try:
        target = engine.parts.receivers[0][1].endpoint
        assert refused(target, b"", signal=Signal.METRICS)[0] is grpc.StatusCode.UNIMPLEMENTED
    finally:
        engine.shutdown(5)


def test_not_grpc_at_all(processor: Running) -> None:
    """Noise and HTTP/1 on the port harm nobody."""
    host, port = processor.grpc.rsplit(":", 1)
    for noise in (b"\0" * 1000, b"GET / HTTP/1.1\r\n\r\n", bytes(range(256)) * 50):
        with socket.create_connection((host, int(port)), timeout=10) as one:
            one.sendall(noise)
    assert export(processor.grpc, b"") == b""


def test_slow_clients_do_not_stop_others(processor: Running) -> None:
    """Twenty requests that never end leave the receiver free for the next."""
    host, port = processor.grpc.rsplit(":", 1)
    slow = [half_request(host, int(port)) for _ in range(20)]
    try:
        assert export(processor.grpc, b"") == b""
    finally:
        for one in slow:
            one.close()


def half_request(host: str, port: int) -> socket.socket:
    """Open a connection that announces a message of 1,000 bytes and sends ten. Source: RFC 9113, RFC 7541."""
    path = f"/{SIGNALS[Signal.TRACES].service}/Export"
    headers = b"".join(
        b"\x00" + bytes([len(key)]) + key.encode() + bytes([len(value)]) + value.encode()
        for key, value in (
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "x"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        )
    )

    def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload

    one = socket.create_connection((host, port), timeout=10)
    one.sendall(
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        + frame(4, 0, 0, b"")
        + frame(1, 4, 1, headers)
        + frame(0, 0, 1, b"\0" + struct.pack(">I", 1000) + b"\0" * 10)
    )
    return one


def test_port_in_use_is_named() -> None:
    """The start fails with the receiver and its endpoint, and nothing keeps running."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = f"127.0.0.1:{taken.getsockname()[1]}"
        engine = build(f'receivers: {{otlp: {{protocols: {{grpc: {{endpoint: "{endpoint}"}}}}}}}}')
        with pytest.raises(StartError, match=f'receiver "otlp": cannot listen on "{endpoint}"'):
            engine.start()
        assert engine.parts.exporters["fake"].calls == ["start", "shutdown"]  # type: ignore[attr-defined]  # the fake


def test_tls(tmp_path: Path) -> None:
    """With a certificate and a client authority only clients that present one are served."""
    files = make_certificates(tmp_path)
    tls = f"{{cert_file: {files.cert}, key_file: {files.key}, client_ca_file: {files.authority}}}"
    with running(f"receivers: {{otlp: {{protocols: {{grpc: {{tls: {tls}}}}}}}}}") as one:
        port = one.grpc.rsplit(":", 1)[1]
        root = files.authority.read_bytes()
        known = grpc.ssl_channel_credentials(root, files.key.read_bytes(), files.cert.read_bytes())
        assert export("", b"", channel=grpc.secure_channel(f"localhost:{port}", known)) == b""
        unknown = grpc.ssl_channel_credentials(root)
        assert (
            refused("", b"", channel=grpc.secure_channel(f"localhost:{port}", unknown))[0]
            is grpc.StatusCode.UNAVAILABLE
        )


def test_tls_files_that_are_none(tmp_path: Path) -> None:
    """What is wrong with the files is said, not that the port is in use."""
    file = tmp_path / "a.pem"
    for reason in ("No such file", "PEM"):
        engine = build(
            f"receivers: {{otlp: {{protocols: {{grpc: {{tls: {{cert_file: {file}, key_file: {file}}}}}}}}}}}"
        )
        with pytest.raises(StartError, match=rf'receiver "otlp": cannot use the TLS files .*a\.pem.*{reason}'):
            engine.start()
        file.write_text("garbage")


def test_gzip_bytes_without_the_header_are_garbage(processor: Running) -> None:
    """Compressed bytes that do not say so are no message."""
    assert refused(processor.grpc, gzip.compress(trace_request()))[0] is grpc.StatusCode.INVALID_ARGUMENT
