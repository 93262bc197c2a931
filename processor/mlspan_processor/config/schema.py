"""Configuration step 2: the models of everything that is the processor's own.

Keys, defaults and meanings are the Collector's where it has them. Exporters and connectors bring a `Config`
of their own; components.py puts it together with the settings here. The docstring under each field is its
line in docs/configuration.md.
"""

import ipaddress
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from mlspan_processor.config.durations import Duration, PositiveDuration


def split_endpoint(endpoint: str) -> tuple[str, int]:
    """Return host and port; an empty host means every interface.

    >>> split_endpoint("[::1]:4317"), split_endpoint(":4318")
    (('::1', 4317), ('', 4318))

    Raises:
        ValueError: what an endpoint looks like.
    """
    host, colon, port = endpoint.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not port.isdecimal() or int(port) > 65535 or "/" in host:
        raise ValueError('expected host:port, such as "127.0.0.1:4317" or "0.0.0.0:4317"')
    if ":" in bare or bare != host:
        if bare == host:
            raise ValueError('an IPv6 address stands in brackets, "[::1]:4317"')
        try:
            ipaddress.IPv6Address(bare)
        except ValueError:
            raise ValueError(f'"{bare}" is not an IPv6 address') from None
    return bare, int(port)


def _listening(endpoint: str) -> str:
    split_endpoint(endpoint)
    return endpoint


ListenEndpoint = Annotated[str, AfterValidator(_listening)]
"""host:port to listen on."""


class Section(BaseModel):
    """Base of every section: unknown keys are errors, text is no number, and docstrings are descriptions."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _empty_section(cls, data: Any) -> Any:
        """``health_check:`` without anything is the section with its defaults."""
        return {} if data is None else data


class ServerTls(Section):
    """TLS of a receiver."""

    cert_file: str
    """PEM file with the server's certificate chain."""
    key_file: str
    """PEM file with its private key."""
    client_ca_file: str | None = None
    """PEM file with the authorities of client certificates; where set, a client must present one."""


class GrpcServer(Section):
    """OTLP over gRPC."""

    endpoint: ListenEndpoint = "127.0.0.1:4317"
    """host:port to listen on."""
    max_recv_msg_size_mib: int = Field(default=64, ge=1, le=2047)
    """Largest request after decompression; a larger one gets RESOURCE_EXHAUSTED and is not sent again."""
    max_concurrent_streams: int = Field(default=16, ge=1)
    """Requests that one connection may have open; the client holds back the rest."""
    max_concurrent_requests: int = Field(default=32, ge=1, le=1024)
    """Requests that are read at the same time over all connections; flow control holds back the rest."""
    tls: ServerTls | None = None
    """Absent: plain text."""


class Cors(Section):
    """Which web pages may send."""

    allowed_origins: list[str] = Field(default_factory=list)
    """Origins, "https://app.example.com"; "*" within one stands for anything."""
    allowed_headers: list[str] = Field(default_factory=list)
    """Request headers allowed beside Accept, Content-Language, Content-Type and the OTLP ones."""
    max_age: int = Field(default=0, ge=0)
    """Seconds that a browser may remember the answer; 0 leaves it to the browser."""


class HttpServer(Section):
    """OTLP over HTTP, protobuf and JSON; also labels and the report."""

    endpoint: ListenEndpoint = "127.0.0.1:4318"
    """host:port to listen on."""
    max_request_body_size: int = Field(default=20 * 1024 * 1024, ge=1024)
    """Largest body in bytes after decompression; a larger one gets 413."""
    max_concurrent_requests: int = Field(default=64, ge=1)
    """Requests that are handled at the same time; more get 429 with Retry-After. The bodies of ten times as many
    may be under way."""
    read_timeout: PositiveDuration = 60.0
    """How long a client may take to send a body."""
    traces_url_path: str = Field(default="/v1/traces", pattern="^/")
    """Path of traces."""
    metrics_url_path: str = Field(default="/v1/metrics", pattern="^/")
    """Path of metrics."""
    logs_url_path: str = Field(default="/v1/logs", pattern="^/")
    """Path of logs."""
    cors: Cors | None = None
    """Absent: web pages may not send."""
    tls: ServerTls | None = None
    """Absent: plain text."""


class OtlpProtocols(Section):
    """The protocols that are named are served; each may be empty."""

    grpc: GrpcServer | None = None
    """OTLP/gRPC."""
    http: HttpServer | None = None
    """OTLP/HTTP."""

    @model_validator(mode="before")
    @classmethod
    def _named_is_served(cls, data: Any) -> Any:
        """``grpc:`` with nothing behind it serves gRPC with its defaults."""
        return {key: {} if value is None else value for key, value in data.items()} if isinstance(data, dict) else data

    @model_validator(mode="after")
    def _at_least_one(self) -> "OtlpProtocols":
        if self.grpc is None and self.http is None:
            raise ValueError('name at least one protocol: "grpc", "http"')
        return self


class OtlpReceiver(Section):
    """Receives traces, metrics and logs."""

    protocols: OtlpProtocols
    """Which protocols are served, and where."""


class MemoryLimiter(Section):
    """Refuses data, with a retryable error, while the process uses too much memory."""

    check_interval: PositiveDuration = 1.0
    """How often memory is measured."""
    limit_mib: int = Field(default=0, ge=0)
    """Most memory in MiB; above it garbage is collected at once. 0: `limit_percentage` decides."""
    spike_limit_mib: int = Field(default=0, ge=0)
    """Refusing starts this far below the limit. 0: a fifth of the limit."""
    limit_percentage: int = Field(default=0, ge=0, le=100)
    """Most memory as a share of the container's or the machine's."""
    spike_limit_percentage: int = Field(default=0, ge=0, le=100)
    """The same for the spike."""

    @model_validator(mode="after")
    def _a_limit(self) -> "MemoryLimiter":
        if not self.limit_mib and not self.limit_percentage:
            raise ValueError('set "limit_mib" or "limit_percentage"')
        if self.limit_mib and self.spike_limit_mib >= self.limit_mib:
            raise ValueError(f'"spike_limit_mib" ({self.spike_limit_mib}) must be below "limit_mib" ({self.limit_mib})')
        if not self.limit_mib and self.spike_limit_percentage >= self.limit_percentage:
            raise ValueError(
                f'"spike_limit_percentage" ({self.spike_limit_percentage}) must be below "limit_percentage"'
                f" ({self.limit_percentage})"
            )
        return self


class Batch(Section):
    """Joins what waits in the queue into larger requests."""

    flush_timeout: PositiveDuration = 0.2
    """A smaller batch leaves after this time."""
    min_size: int = Field(default=8192, ge=0)
    """A batch leaves at once when it has this size, in the unit of `sizer`."""
    max_size: int = Field(default=0, ge=0)
    """Larger ones are split. 0: no limit."""
    sizer: Literal["items", "bytes"] = "items"
    """Unit of the two sizes."""

    @model_validator(mode="after")
    def _ordered(self) -> "Batch":
        if self.max_size and self.max_size < self.min_size:
            raise ValueError(f'"max_size" ({self.max_size}) must not be below "min_size" ({self.min_size})')
        return self


class SendingQueue(Section):
    """The queue before an exporter; each exporter has one per signal."""

    enabled: bool = True
    """False: the sender waits for the backend."""
    num_consumers: int = Field(default=10, ge=1, le=256)
    """Requests in flight to the backend at the same time."""
    queue_size: int = Field(default=1000, ge=1)
    """Most that waits or is being sent, in the unit of `sizer`."""
    sizer: Literal["requests", "items", "bytes"] = "requests"
    """Unit of `queue_size`: requests, items (spans, data points, log records) or bytes."""
    block_on_overflow: bool = False
    """True: a full queue makes the sender wait. False: it is refused and told to try again."""
    wait_for_result: bool = False
    """True: the sender waits until the backend has answered, and hears what it said."""
    batch: Batch | None = None
    """Absent: requests are sent as they came."""

    @model_validator(mode="before")
    @classmethod
    def _named_batches(cls, data: Any) -> Any:
        """``batch:`` with nothing behind it batches with the defaults."""
        return data | {"batch": {}} if isinstance(data, dict) and "batch" in data and data["batch"] is None else data


class Retry(Section):
    """What happens after a failure that may pass."""

    enabled: bool = True
    """False: the data is dropped at the first failure."""
    initial_interval: PositiveDuration = 5.0
    """Wait before the first retry."""
    randomization_factor: float = Field(default=0.5, ge=0, le=1)
    """Each wait is drawn from its value times 1 ± this."""
    multiplier: float = Field(default=1.5, ge=1)
    """Each wait is this much longer than the one before."""
    max_interval: PositiveDuration = 30.0
    """Longest wait, unless the backend asks for more."""
    max_elapsed_time: Duration = 300.0
    """After this time the data is dropped and counted. 0: never."""


class Queued(Section):
    """The settings that every exporter with a queue has beside its own."""

    sending_queue: SendingQueue = Field(default_factory=SendingQueue)
    """The queue before the backend."""
    retry_on_failure: Retry = Field(default_factory=Retry)
    """Retries."""
    timeout: PositiveDuration = 5.0
    """How long one attempt may take."""


class HealthCheck(Section):
    """Answers 200 when everything has started, 503 before and while stopping."""

    endpoint: ListenEndpoint = "127.0.0.1:13133"
    """host:port to listen on."""
    path: str = Field(default="/", pattern="^/")
    """The path that answers."""


class PrometheusReader(Section):
    """Serves the processor's own metrics at /metrics."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(default=8888, ge=0, le=65535)
    """Port to listen on."""


class PullExporter(Section):
    """How own metrics are scraped."""

    prometheus: PrometheusReader
    """Prometheus text."""


class PullReader(Section):
    """A reader that is scraped."""

    exporter: PullExporter
    """The format."""


class MetricReader(Section):
    """One way to read the processor's own metrics."""

    pull: PullReader
    """Scraped."""


class OwnMetrics(Section):
    """Metrics about the processor itself."""

    level: Literal["none", "basic", "normal", "detailed"] = "normal"
    """"none" serves no metrics; the others are the same here."""
    readers: list[MetricReader] = Field(
        default_factory=lambda: [MetricReader(pull=PullReader(exporter=PullExporter(prometheus=PrometheusReader())))]
    )
    """Where they are served."""


class OwnLogs(Section):
    """What the processor says on stderr."""

    level: Literal["debug", "info", "warn", "error"] = "info"
    """The least that is written."""
    encoding: Literal["console", "json"] = "console"
    """"json": one object a line."""


class Telemetry(Section):
    """The processor about itself."""

    logs: OwnLogs = Field(default_factory=OwnLogs)
    """Logs."""
    metrics: OwnMetrics = Field(default_factory=OwnMetrics)
    """Metrics."""


class Pipeline(Section):
    """One way of the data: receivers, then processors in order, then every exporter."""

    receivers: list[str] = Field(min_length=1)
    """Receivers, or connectors that this pipeline reads from."""
    processors: list[str] = Field(default_factory=list)
    """Processors, in order."""
    exporters: list[str] = Field(min_length=1)
    """Exporters, or connectors that this pipeline feeds."""


class Service(Section):
    """What runs."""

    extensions: list[str] = Field(default_factory=list)
    """Extensions that run."""
    pipelines: dict[str, Pipeline] = Field(min_length=1)
    """By "signal" or "signal/name"; signals are traces, metrics and logs."""
    telemetry: Telemetry = Field(default_factory=Telemetry)
    """The processor about itself."""
    shutdown_timeout: PositiveDuration = 30.0
    """How long stopping may take; what is not sent by then is dropped and counted."""
