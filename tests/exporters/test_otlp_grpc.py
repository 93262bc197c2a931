"""OTLP over gRPC against a real server in this process."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from pydantic import ValidationError

from mlspan_exporters.otlp_grpc import OtlpGrpcExporter, OtlpGrpcSettings, retry_delay_seconds, target_of
from mlspan_exporters.testing import FakeOtlpGrpc, GrpcAnswer, chunk_of
from mlspan_processor.records import Chunk, ExportResult, PermanentError, RetryableError, Signal

from . import requests
from .conftest import Certificates

CHUNK = chunk_of(requests.traces())


@contextmanager
def exporter_to(endpoint: str, **settings: Any) -> Iterator[OtlpGrpcExporter]:
    """Give a started exporter in clear text."""
    config = OtlpGrpcSettings.model_validate({"endpoint": endpoint, "tls": {"insecure": True}} | settings)
    exporter = OtlpGrpcExporter(config, "otlp_grpc/test")
    exporter.start()
    try:
        yield exporter
    finally:
        exporter.shutdown()


@pytest.mark.parametrize("name", ["traces", "metrics", "logs"])
def test_bytes_arrive_unchanged_at_the_signals_service(name: str) -> None:
    """A chunk's bytes reach the service of its signal as they were."""
    chunk = chunk_of(getattr(requests, name)())
    with FakeOtlpGrpc() as backend, exporter_to(backend.endpoint) as exporter:
        assert exporter.export(chunk, 5.0) == ExportResult()
    assert [(call.signal, call.data) for call in backend.calls] == [(Signal(name), chunk.data)]


def test_concatenated_requests_arrive_as_one() -> None:
    """A chunk of two joined requests is one call with the spans of both."""
    with FakeOtlpGrpc() as backend, exporter_to(backend.endpoint) as exporter:
        exporter.export(Chunk(Signal.TRACES, CHUNK.data * 2, 4), 5.0)
    assert len(backend.calls[0].request.resource_spans) == 2  # type: ignore[union-attr] # traces


@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_compression_and_headers_are_sent(compression: str) -> None:
    """Headers arrive in lower case, we name ourselves, and both compressions are understood."""
    settings = {"compression": compression, "headers": {"X-Tenant": "eu"}}
    with FakeOtlpGrpc() as backend, exporter_to(backend.endpoint, **settings) as exporter:
        exporter.export(CHUNK, 5.0)
    assert backend.calls[0].metadata["x-tenant"] == "eu"
    assert backend.calls[0].metadata["user-agent"].startswith("mlspan/")
    assert backend.calls[0].data == CHUNK.data


@pytest.mark.parametrize(
    ("endpoint", "compression", "expected"),
    [
        ("localhost:4317", None, False),
        ("127.0.0.1:4317", None, False),
        ("http://[::1]:4317", None, False),
        ("unix:/run/otel.sock", None, False),
        ("dns:///localhost:4317", None, False),
        ("otel.example:4317", None, True),
        ("10.0.0.3:4317", None, True),
        ("localhost:4317", "gzip", True),
        ("otel.example:4317", "none", False),
    ],
)
def test_compression_is_off_only_where_nothing_leaves_the_machine(
    endpoint: str, compression: str | None, expected: bool
) -> None:
    """Unset, compression depends on whether the endpoint is this machine."""
    settings = OtlpGrpcSettings.model_validate({"endpoint": endpoint, "compression": compression})
    assert settings.gzip is expected


@pytest.mark.parametrize(
    ("code", "delay", "error"),
    [
        (grpc.StatusCode.CANCELLED, None, RetryableError),
        (grpc.StatusCode.DEADLINE_EXCEEDED, None, RetryableError),
        (grpc.StatusCode.ABORTED, None, RetryableError),
        (grpc.StatusCode.OUT_OF_RANGE, None, RetryableError),
        (grpc.StatusCode.UNAVAILABLE, None, RetryableError),
        (grpc.StatusCode.UNAVAILABLE, 7.5, RetryableError),
        (grpc.StatusCode.DATA_LOSS, None, RetryableError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, 2.0, RetryableError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, None, PermanentError),
        (grpc.StatusCode.UNKNOWN, None, PermanentError),
        (grpc.StatusCode.INVALID_ARGUMENT, None, PermanentError),
        (grpc.StatusCode.NOT_FOUND, None, PermanentError),
        (grpc.StatusCode.ALREADY_EXISTS, None, PermanentError),
        (grpc.StatusCode.PERMISSION_DENIED, None, PermanentError),
        (grpc.StatusCode.UNAUTHENTICATED, None, PermanentError),
        (grpc.StatusCode.FAILED_PRECONDITION, None, PermanentError),
        (grpc.StatusCode.UNIMPLEMENTED, 1.0, PermanentError),
        (grpc.StatusCode.INTERNAL, None, PermanentError),
    ],
)
def test_status_decides_whether_to_retry(code: grpc.StatusCode, delay: float | None, error: type[Exception]) -> None:
    """Each status code is retryable or permanent as OTLP says; RetryInfo's delay is passed on."""
    with FakeOtlpGrpc() as backend, exporter_to(backend.endpoint) as exporter:
        backend.answers.append(GrpcAnswer(code, "because", retry_delay_seconds=delay))
        with pytest.raises(error) as raised:
            exporter.export(CHUNK, 5.0)
        assert str(raised.value) == f"otlp_grpc/test: {backend.endpoint}: {code.name}: because"
        assert getattr(raised.value, "retry_after_seconds", None) == (delay if error is RetryableError else None)
        assert exporter.export(CHUNK, 5.0) == ExportResult()  # the connection lives on


def test_slow_backend_is_retryable_after_the_timeout() -> None:
    """A backend that does not answer in time makes a retryable error."""
    with FakeOtlpGrpc() as backend, exporter_to(backend.endpoint) as exporter:
        backend.answers.append(GrpcAnswer(delay_seconds=0.5))
        with pytest.raises(RetryableError, match="DEADLINE_EXCEEDED"):
            exporter.export(CHUNK, 0.1)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (GrpcAnswer(rejected=1, message="too old"), ExportResult(1, "too old")),
        (GrpcAnswer(message="deprecated field"), ExportResult(0, "deprecated field")),
    ],
)
@pytest.mark.parametrize("name", ["traces", "metrics", "logs"])
def test_partial_success_is_reported(name: str, answer: GrpcAnswer, expected: ExportResult) -> None:
    """Rejected items and remarks are told; a remark alone rejects nothing."""
    with FakeOtlpGrpc() as backend, exporter_to(backend.endpoint) as exporter:
        backend.answers.append(answer)
        assert exporter.export(chunk_of(getattr(requests, name)()), 5.0) == expected


def test_backend_that_comes_back_is_reached_again() -> None:
    """After a backend's restart on the same port the same exporter sends again."""
    with FakeOtlpGrpc() as first:
        port = first.port
        with exporter_to(first.endpoint) as exporter:
            exporter.export(CHUNK, 5.0)
            first.__exit__(None, None, None)
            with pytest.raises(RetryableError):
                exporter.export(CHUNK, 1.0)
            with FakeOtlpGrpc(port=port) as second:
                for _ in range(20):
                    try:
                        exporter.export(CHUNK, 5.0)
                        break
                    except RetryableError:
                        second.answers.clear()
                        _pause()
                assert len(second.calls) == 1


def _pause() -> None:
    import time

    time.sleep(0.25)


def test_mutual_tls(certificates: Certificates) -> None:
    """With an authority and a client certificate both sides trust each other; without the authority none does."""
    credentials = grpc.ssl_server_credentials(
        [(certificates.server_key.read_bytes(), certificates.server_cert.read_bytes())],
        certificates.ca.read_bytes(),
        require_client_auth=True,
    )
    tls = {
        "ca_file": str(certificates.ca),
        "cert_file": str(certificates.client_cert),
        "key_file": str(certificates.client_key),
        "server_name_override": "backend.test",
    }
    with FakeOtlpGrpc(credentials) as backend:
        with exporter_to(f"https://{backend.endpoint}", tls=tls) as exporter:
            assert exporter.export(CHUNK, 5.0) == ExportResult()
        with exporter_to(backend.endpoint, tls={}) as exporter, pytest.raises(RetryableError):
            exporter.export(CHUNK, 2.0)
    assert len(backend.calls) == 1


@pytest.mark.parametrize(
    ("endpoint", "insecure", "secure"),
    [
        ("http://collector:4317", False, False),
        ("https://collector:4317", True, True),
        ("collector:4317", False, True),
        ("collector:4317", True, False),
    ],
)
def test_scheme_decides_over_insecure(endpoint: str, insecure: bool, secure: bool) -> None:
    """As in the Collector, a scheme decides whether TLS is used, and `tls.insecure` where there is none."""
    settings = OtlpGrpcSettings.model_validate({"endpoint": endpoint, "tls": {"insecure": insecure}})
    assert settings.secure is secure


@pytest.mark.parametrize("endpoint", ["collector", "collector:", "ftp://collector:21", "http://c:4317/v1", "", ":4317"])
def test_endpoint_that_cannot_be_is_refused(endpoint: str) -> None:
    """An endpoint without host and port is an error that repeats it and shows a right one."""
    with pytest.raises(ValidationError, match=re.escape(f'endpoint "{endpoint}"') + ".*write host:port"):
        OtlpGrpcSettings(endpoint=endpoint)


def test_resolver_targets_pass() -> None:
    """Targets in gRPC's own notation are taken as they are."""
    assert target_of("dns:///collector:4317") == "dns:///collector:4317"
    assert target_of("http://collector:4317/") == "collector:4317"


def test_skipping_verification_is_refused_with_the_reason() -> None:
    """What gRPC for Python cannot do is a configuration error."""
    with pytest.raises(ValidationError, match="not possible with gRPC for Python"):
        OtlpGrpcSettings.model_validate({"endpoint": "c:4317", "tls": {"insecure_skip_verify": True}})


def test_unreadable_details_are_no_delay() -> None:
    """A broken status detail is treated as none."""
    assert retry_delay_seconds([("grpc-status-details-bin", b"\xff\xff")]) is None
    assert retry_delay_seconds(None) is None


def test_keepalive_and_authority_are_taken() -> None:
    """The Collector's keepalive block and authority work."""
    settings = {"keepalive": {"time": "10s", "timeout": "5s", "permit_without_stream": True}, "authority": "otel"}
    with FakeOtlpGrpc() as backend, exporter_to(backend.endpoint, **settings) as exporter:
        assert exporter.export(CHUNK, 5.0) == ExportResult()


def test_closing_under_a_call_is_retryable() -> None:
    """A call that meets the shutdown asks to be sent again."""
    with FakeOtlpGrpc() as backend, exporter_to(backend.endpoint) as exporter:
        call = exporter._calls[Signal.TRACES]
        exporter.shutdown()
        exporter._calls = {Signal.TRACES: call}
        with pytest.raises(RetryableError, match="closed"):
            exporter.export(CHUNK, 1.0)
