"""The pooled HTTP client: deadlines, TLS, proxies, what its messages say."""

import ssl
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from mlspan_exporters.testing import FakeHttp, HttpAnswer
from mlspan_exporters.tls import TlsClientSettings
from mlspan_exporters.transport import HttpClient, check_url, readable, refusal, retry_after_seconds
from mlspan_exporters.wire import MAX_RESPONSE_BYTES
from mlspan_processor.config.check import check
from mlspan_processor.errors import ConfigError
from mlspan_processor.records import PermanentError, RetryableError

from .conftest import Certificates


def client_to(url: str, tls: TlsClientSettings | None = None) -> HttpClient:
    """Return a client of one host."""
    return HttpClient(url, tls or TlsClientSettings(), {}, "test")


def post(client: HttpClient, url: str, timeout_seconds: float = 5.0) -> int:
    """Post a few bytes and return the status."""
    return client.post(url, b"data", "text/plain", compress=False, timeout_seconds=timeout_seconds).status


def test_slow_answer_is_retryable() -> None:
    """Who does not answer in time is named."""
    with FakeHttp() as backend:
        backend.answers.append(HttpAnswer(delay_seconds=0.5))
        with pytest.raises(RetryableError, match=rf"test: {backend.url}: no answer within the timeout"):
            post(client_to(backend.url), backend.url, 0.1)


def test_dripping_answer_ends_at_the_deadline() -> None:
    """An answer that comes byte by byte does not hold the sender longer than the timeout."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
                for _ in range(20):
                    try:
                        connection.sendall(b"x")
                    except OSError:
                        return
                    time.sleep(0.05)

        threading.Thread(target=drip, daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(RetryableError, match="timeout"):
            post(client_to(url), url, 0.2)


def test_long_answer_is_cut() -> None:
    """Of an answer no more than 4 MiB are kept."""
    with FakeHttp() as backend:
        backend.answers.append(HttpAnswer(body=b"x" * (MAX_RESPONSE_BYTES + 100_000)))
        reply = client_to(backend.url).post(backend.url, b"", "text/plain", compress=False, timeout_seconds=10.0)
    assert len(reply.data) == MAX_RESPONSE_BYTES


def test_connection_is_kept() -> None:
    """Several requests share a connection."""
    with FakeHttp() as backend:
        client = client_to(backend.url)
        assert [post(client, backend.url) for _ in range(3)] == [200] * 3
        assert sum(pool.num_connections for pool in _pools(client)) == 1


def _pools(client: HttpClient) -> list[Any]:
    pools = client._pool.pools
    return [pools[key] for key in pools.keys()]  # noqa: SIM118 the container cannot be iterated


def test_redirect_is_not_followed() -> None:
    """A redirect is a permanent refusal that names where it leads."""
    with FakeHttp() as backend:
        backend.answers.append(HttpAnswer(301, headers={"Location": "https://elsewhere/v1/traces"}))
        client = client_to(backend.url)
        reply = client.post(backend.url, b"", "text/plain", compress=False, timeout_seconds=5.0)
    error = refusal("test", backend.url, reply, "", frozenset({503}))
    assert isinstance(error, PermanentError)
    assert 'set the endpoint to "https://elsewhere/v1/traces"' in str(error)
    assert len(backend.requests) == 1


def server_context(certificates: Certificates, *, ask_client: bool) -> ssl.SSLContext:
    """Return the context of a TLS backend."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificates.ca)
    context.load_cert_chain(certificates.server_cert, certificates.server_key)
    context.verify_mode = ssl.CERT_REQUIRED if ask_client else ssl.CERT_NONE
    return context


def test_tls_with_authority_and_client_certificate(certificates: Certificates) -> None:
    """A backend behind TLS is reached with its authority, a client certificate, and an override of its name."""
    tls = TlsClientSettings(
        ca_file=str(certificates.ca),
        cert_file=str(certificates.client_cert),
        key_file=str(certificates.client_key),
        server_name_override="backend.test",
    )
    with FakeHttp(server_context(certificates, ask_client=True)) as backend:
        assert post(client_to(backend.url, tls), backend.url) == 200


def test_unknown_authority_is_refused_unless_told(certificates: Certificates) -> None:
    """A certificate that nobody vouches for stops the request; insecure_skip_verify lets it pass."""
    with FakeHttp(server_context(certificates, ask_client=False)) as backend:
        with pytest.raises(RetryableError, match="CERTIFICATE_VERIFY_FAILED"):
            post(client_to(backend.url), backend.url)
        skipping = TlsClientSettings(insecure_skip_verify=True)
        assert post(client_to(backend.url, skipping), backend.url) == 200


def test_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP_PROXY is honoured, and NO_PROXY over it."""
    with FakeHttp() as proxy, FakeHttp() as backend:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert post(client_to(backend.url), backend.url) == 200
        assert (len(proxy.requests), len(backend.requests)) == (0, 1)
        assert post(client_to("http://collector.test:4318"), "http://collector.test:4318/v1/traces") == 200
        assert proxy.requests[0].path == "http://collector.test:4318/v1/traces"


def test_retry_after_is_a_number_or_a_date() -> None:
    """Retry-After is read in both forms; a date that is past is now, nonsense is none."""
    now = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
    later = format_datetime(now + timedelta(seconds=90), usegmt=True)
    assert retry_after_seconds("120", now.timestamp()) == 120.0
    assert retry_after_seconds(later, now.timestamp()) == 90.0
    assert retry_after_seconds("Thu, 01 Jan 1970 00:00:00 GMT", now.timestamp()) == 0.0
    assert retry_after_seconds("soon", 0.0) is None
    assert retry_after_seconds("", 0.0) is None


def test_message_of_a_backend_is_made_readable() -> None:
    """What a backend answers is shown as one short line."""
    assert readable(b"bad\n  request\x00\xff" + b"y" * 1000, limit=20) == "bad request �yyyyyyy"


@pytest.mark.parametrize(
    "url",
    [
        "collector:4318",
        "ftp://collector",
        "http://",
        "http://c:99999",
        "",
        "http://http://host/",
        "https://http://host:4318",
        "http://host:/v1",
        "http://my host:4318",
    ],
)
def test_url_that_cannot_be_is_refused(url: str) -> None:
    """An endpoint that is no URL is an error that repeats it and shows a right one."""
    with pytest.raises(ValueError, match=r'endpoint ".*" is not usable: write an http:// or https:// URL'):
        check_url(url, "http://127.0.0.1:4318")


@pytest.mark.parametrize("url", ["http://http:4318", "https://[::1]:4318/otlp", "http://user:pw@host/a://b"])
def test_url_that_is_odd_is_taken(url: str) -> None:
    """A service may be called "http", and a path may hold what looks like a scheme."""
    assert check_url(url, "http://127.0.0.1:4318") == url


@pytest.mark.parametrize(
    ("exporter", "key"), [("zipkin", "endpoint"), ("otlp_http", "endpoint"), ("otlp_http", "logs_endpoint")]
)
def test_url_with_two_schemes_stops_the_start(exporter: str, key: str) -> None:
    """The problem names the key's path, the value and what is valid."""
    configuration = {
        "receivers": {"otlp": {"protocols": {"grpc": None}}},
        "exporters": {exporter: {key: "http://http://host/"}},
        "service": {"pipelines": {"traces": {"receivers": ["otlp"], "exporters": [exporter]}}},
    }
    with pytest.raises(ConfigError) as caught:
        check(configuration)
    [problem] = map(str, caught.value.problems)
    assert problem.startswith(f'exporters::{exporter}::{key}: "http://http://host/" is not valid: ')
    assert "write an http:// or https:// URL, for example" in problem
