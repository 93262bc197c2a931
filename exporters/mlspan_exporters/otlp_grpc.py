"""Stage 8, OTLP over gRPC: sends a chunk's bytes as they are to a Collector, Jaeger, Tempo or another mlspan.

Reads `Chunk`s of any signal; calls TraceService, MetricsService or LogsService once per chunk. The bytes are
neither parsed nor copied in Python: 500 spans (220 KB) cost about 0.2 ms of CPU, and 3 ms more with gzip,
which gRPC does without holding the interpreter's lock. Keeps one connection; retrying is the queue's task.
Source: OTLP/gRPC 1.11, https://opentelemetry.io/docs/specs/otlp/#otlpgrpc
"""

from ipaddress import ip_address
from typing import Any, ClassVar, Final, Literal, Self
from urllib.parse import urlsplit

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from pydantic import Field, field_validator, model_validator

from mlspan_processor.records import (
    Chunk,
    ExportResult,
    PermanentError,
    RetryableError,
    Signal,
)

from .settings import Duration, Headers, Settings, headers_field
from .tls import TlsClientSettings, read_pem
from .wire import ALL_SIGNALS, MAX_RESPONSE_BYTES, parse_response, user_agent

METHODS: Final = {
    Signal.TRACES: "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    Signal.METRICS: "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    Signal.LOGS: "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
}
RETRYABLE_CODES: Final = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
RESOLVED_SCHEMES: Final = ("dns:", "unix:", "unix-abstract:", "ipv4:", "ipv6:")
CHANNEL_OPTIONS: Final = (
    ("grpc.max_send_message_length", -1),  # the receiver's limit decides
    ("grpc.max_receive_message_length", MAX_RESPONSE_BYTES),
    ("grpc.enable_retries", 0),  # the queue retries; without this, every message is kept for it
    ("grpc.service_config_disable_resolution", 1),
    # A backend that comes back is tried again after seconds; by default the wait grows to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 5000),
)


class KeepaliveSettings(Settings):
    """Pings that find dead connections behind silent firewalls."""

    time: Duration = Field(default=30.0, gt=0, description="Ping after this long without traffic.")
    timeout: Duration = Field(default=10.0, gt=0, description="Close the connection when no answer comes.")
    permit_without_stream: bool = Field(default=False, description="Ping while no request is under way, too.")


class OtlpGrpcSettings(Settings):
    """Settings of the `otlp_grpc` exporter."""

    endpoint: str = Field(
        description="Where to send: host:port, or that behind http:// (clear text) or https:// (TLS)."
    )
    tls: TlsClientSettings = Field(default=TlsClientSettings(), description="How the connection is secured.")
    headers: Headers = headers_field("call")
    compression: Literal["gzip", "none"] | None = Field(
        default=None, description="gzip or none; unset: none if the endpoint is this machine, else gzip."
    )
    keepalive: KeepaliveSettings | None = Field(default=None, description="Pings on the connection; unset: no pings.")
    wait_for_ready: bool = Field(
        default=False, description="Wait for a connection until the timeout instead of failing at once."
    )
    authority: str | None = Field(default=None, description="The :authority header; unset: the endpoint.")

    @field_validator("endpoint")
    @classmethod
    def _reachable(cls, endpoint: str) -> str:
        target_of(endpoint)
        return endpoint

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.tls.insecure_skip_verify:
            msg = (
                "tls.insecure_skip_verify is not possible with gRPC for Python: "
                "set tls.ca_file to the server's certificate, or use otlp_http"
            )
            raise ValueError(msg)
        return self

    @property
    def secure(self) -> bool:
        """Whether TLS is used: the scheme decides, `tls.insecure` where there is none."""
        if self.endpoint.startswith(("http://", "https://")):
            return self.endpoint.startswith("https://")
        return not self.tls.insecure

    @property
    def gzip(self) -> bool:
        """Whether requests are compressed."""
        if self.compression is None:
            return not is_this_machine(target_of(self.endpoint))
        return self.compression == "gzip"


class OtlpGrpcExporter:
    """Sends OTLP over gRPC; `export` may be called from several threads."""

    Config: ClassVar[Any] = OtlpGrpcSettings
    signals: ClassVar[frozenset[Signal]] = ALL_SIGNALS
    queued: ClassVar[bool] = True

    def __init__(self, config: OtlpGrpcSettings, name: str) -> None:
        self._config = config
        self._name = name
        self._channel: Any = None
        self._calls: dict[Signal, Any] = {}
        self._metadata = tuple((key.lower(), value.get_secret_value()) for key, value in config.headers.items())

    def start(self) -> None:
        """Open the channel; the connection follows with the first call, so a backend may start later.

        Raises:
            OSError: a certificate file cannot be read.
        """
        config = self._config
        target = target_of(config.endpoint)
        compression = grpc.Compression.Gzip if config.gzip else grpc.Compression.NoCompression
        if config.secure:
            self._channel = grpc.secure_channel(target, self._credentials(), self._options(), compression)
        else:
            self._channel = grpc.insecure_channel(target, self._options(), compression)
        # No serializer and no deserializer: bytes pass through.
        self._calls = {signal: self._channel.unary_unary(method) for signal, method in METHODS.items()}

    def export(self, chunk: Chunk, timeout_seconds: float) -> ExportResult:
        """Send the chunk once and return what the backend said of it.

        Raises:
            RetryableError: for the codes that OTLP calls retryable, and when the backend cannot be reached.
            PermanentError: for every other status code.
        """
        call = self._calls.get(chunk.signal)
        if call is None:
            msg = f"{self._name}: is not started"
            raise RetryableError(msg)
        try:
            answer = call(
                chunk.data,
                timeout=timeout_seconds,
                metadata=self._metadata,
                wait_for_ready=self._config.wait_for_ready,
            )
        except grpc.RpcError as error:
            raise self._failure(error) from error
        except ValueError as error:  # the channel was closed under the call
            msg = f"{self._name}: {self._config.endpoint}: {error}"
            raise RetryableError(msg) from error
        return parse_response(answer, chunk.signal)

    def shutdown(self) -> None:
        """Close the connection; calls under way end with a retryable error."""
        channel, self._channel = self._channel, None
        self._calls = {}
        if channel is not None:
            channel.close()

    def _options(self) -> list[tuple[str, int | str]]:
        options: list[tuple[str, int | str]] = [
            *CHANNEL_OPTIONS,
            ("grpc.primary_user_agent", user_agent()),
        ]
        keepalive = self._config.keepalive
        if keepalive is not None:
            options += [
                ("grpc.keepalive_time_ms", int(keepalive.time * 1000)),
                ("grpc.keepalive_timeout_ms", int(keepalive.timeout * 1000)),
                ("grpc.keepalive_permit_without_calls", int(keepalive.permit_without_stream)),
                ("grpc.http2.max_pings_without_data", 0),
            ]
        if self._config.authority is not None:
            options.append(("grpc.default_authority", self._config.authority))
        if self._config.secure and self._config.tls.server_name_override is not None:
            options.append(("grpc.ssl_target_name_override", self._config.tls.server_name_override))
        return options

    def _credentials(self) -> Any:
        tls = self._config.tls
        return grpc.ssl_channel_credentials(
            root_certificates=read_pem(tls.ca_file, "ca_file"),
            private_key=read_pem(tls.key_file, "key_file"),
            certificate_chain=read_pem(tls.cert_file, "cert_file"),
        )

    def _failure(self, error: Any) -> RetryableError | PermanentError:
        code: grpc.StatusCode = error.code()
        delay = retry_delay_seconds(error.trailing_metadata())
        message = f"{self._name}: {self._config.endpoint}: {code.name}: {error.details()}"
        if code in RETRYABLE_CODES:
            return RetryableError(message, delay)
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            # Only with RetryInfo is the backend overloaded; without, the request is too large for it.
            return PermanentError(message) if delay is None else RetryableError(message, delay)
        return PermanentError(message)


def target_of(endpoint: str) -> str:
    """Return what gRPC connects to: the endpoint without `http://` or `https://`.

    >>> target_of("https://otel.example:4317")
    'otel.example:4317'

    Raises:
        ValueError: there is no host and port.
    """
    if endpoint.startswith(RESOLVED_SCHEMES):
        return endpoint
    scheme, _, rest = endpoint.rpartition("://")
    expected = 'write host:port, for example "127.0.0.1:4317" or "https://otel.example:4317"'
    if scheme not in ("", "http", "https"):
        msg = f'endpoint "{endpoint}" has the unknown scheme "{scheme}": {expected}'
        raise ValueError(msg)
    try:
        parts = urlsplit(f"//{rest}")
        usable = bool(parts.hostname) and parts.port is not None and parts.path in ("", "/") and not parts.query
    except ValueError:
        usable = False
    if not usable:
        msg = f'endpoint "{endpoint}" is not usable: {expected}'
        raise ValueError(msg)
    return rest.rstrip("/")


def is_this_machine(target: str) -> bool:
    """Tell whether data sent to `target` stays on this machine, where compressing it gains nothing."""
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    host = urlsplit(f"//{target.removeprefix('ipv4:').removeprefix('ipv6:').removeprefix('dns:').lstrip('/')}").hostname
    try:
        return host == "localhost" or ip_address(host or "").is_loopback
    except ValueError:
        return False


def retry_delay_seconds(metadata: Any) -> float | None:
    """Return the delay of a `RetryInfo` in `grpc-status-details-bin`, None where there is none."""
    for key, value in metadata or ():
        if key == "grpc-status-details-bin":
            try:
                for detail in Status.FromString(value).details:
                    info = RetryInfo()
                    if detail.Is(RetryInfo.DESCRIPTOR) and detail.Unpack(info):
                        return float(info.retry_delay.ToMilliseconds()) / 1000
            except DecodeError:
                return None
    return None
