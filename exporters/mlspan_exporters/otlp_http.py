"""Stage 8, OTLP over HTTP: posts chunks to a Collector's port 4318, VictoriaMetrics, Tempo or a vendor.

Reads `Chunk`s of any signal; one POST per chunk, protobuf as it came or OTLP's JSON, gzip by default. Keeps a
pool of connections; retrying is the queue's task.
Source: OTLP/HTTP 1.11, https://opentelemetry.io/docs/specs/otlp/#otlphttp
"""

from typing import Any, ClassVar, Final, Literal, Self

import orjson
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status
from pydantic import Field, field_validator, model_validator

from mlspan_processor.records import Chunk, ExportResult, PermanentError, RetryableError, Signal

from .otlp_json import to_json
from .settings import Headers, Settings, headers_field
from .tls import TlsClientSettings
from .transport import HttpClient, Reply, check_url, readable, refusal
from .wire import ALL_SIGNALS, REJECTED_FIELD, parse, parse_response

PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"
RETRYABLE_STATUSES: Final = frozenset({429, 502, 503, 504})
EXAMPLE: Final = "http://127.0.0.1:4318"


class OtlpHttpSettings(Settings):
    """Settings of the `otlp_http` exporter."""

    endpoint: str | None = Field(
        default=None, description="Base URL; /v1/traces, /v1/metrics and /v1/logs are added to it."
    )
    traces_endpoint: str | None = Field(default=None, description="Full URL for traces, in place of the endpoint's.")
    metrics_endpoint: str | None = Field(default=None, description="Full URL for metrics, in place of the endpoint's.")
    logs_endpoint: str | None = Field(default=None, description="Full URL for logs, in place of the endpoint's.")
    tls: TlsClientSettings = Field(default=TlsClientSettings(), description="How https connections are secured.")
    headers: Headers = headers_field("request")
    compression: Literal["gzip", "none"] = Field(default="gzip", description="gzip or none.")
    encoding: Literal["proto", "json"] = Field(default="proto", description="proto or json (costs much more CPU).")

    @field_validator("endpoint", "traces_endpoint", "metrics_endpoint", "logs_endpoint")
    @classmethod
    def _reachable(cls, url: str | None) -> str | None:
        return None if url is None else check_url(url, EXAMPLE)

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if not any((self.endpoint, self.traces_endpoint, self.metrics_endpoint, self.logs_endpoint)):
            msg = "one of endpoint, traces_endpoint, metrics_endpoint and logs_endpoint must be set"
            raise ValueError(msg)
        return self

    def url(self, signal: Signal) -> str | None:
        """Return where a signal goes; None where neither its endpoint nor the base is set."""
        own: str | None = getattr(self, f"{signal.value}_endpoint")
        if own is None and self.endpoint is not None:
            return f"{self.endpoint.rstrip('/')}/v1/{signal.value}"
        return own


class OtlpHttpExporter:
    """Sends OTLP over HTTP; `export` may be called from several threads."""

    Config: ClassVar[Any] = OtlpHttpSettings
    signals: ClassVar[frozenset[Signal]] = ALL_SIGNALS
    queued: ClassVar[bool] = True

    def __init__(self, config: OtlpHttpSettings, name: str) -> None:
        self._config = config
        self._name = name
        self._clients: dict[Signal, tuple[str, HttpClient]] = {}

    def start(self) -> None:
        """Read the certificates; connections follow with the first requests, so a backend may start later.

        Raises:
            OSError: a certificate file cannot be read.
        """
        config = self._config
        for signal in Signal:
            url = config.url(signal)
            if url is not None:
                self._clients[signal] = (url, HttpClient(url, config.tls, config.headers, self._name))

    def export(self, chunk: Chunk, timeout_seconds: float) -> ExportResult:
        """Send the chunk once and return what the backend said of it.

        Raises:
            RetryableError: for 429, 502, 503 and 504, and when the backend cannot be reached.
            PermanentError: for every other status; the message is that of the backend's `Status`.
        """
        if chunk.signal not in self._clients:
            if self._config.url(chunk.signal) is None:
                msg = f"{self._name}: neither endpoint nor {chunk.signal.value}_endpoint is set"
                raise PermanentError(msg)
            msg = f"{self._name}: is not started"
            raise RetryableError(msg)
        url, client = self._clients[chunk.signal]
        as_json = self._config.encoding == "json"
        reply = client.post(
            url,
            to_json(parse(chunk)) if as_json else chunk.data,
            JSON if as_json else PROTOBUF,
            compress=self._config.compression == "gzip",
            timeout_seconds=timeout_seconds,
        )
        if 200 <= reply.status < 300:
            return accepted(reply, chunk.signal)
        raise refusal(self._name, url, reply, status_message(reply), RETRYABLE_STATUSES)

    def shutdown(self) -> None:
        """Close the connections."""
        for _, client in self._clients.values():
            client.close()
        self._clients = {}


def accepted(reply: Reply, signal: Signal) -> ExportResult:
    """Return the partial success in an answer of 2xx; a proxy's text among the answers says nothing."""
    if reply.content_type == PROTOBUF:
        return parse_response(reply.data, signal)
    if reply.content_type == JSON:
        partial = _json_object(reply.data).get("partialSuccess")
        if isinstance(partial, dict):
            first, *others = REJECTED_FIELD[signal].split("_")
            rejected = partial.get(first + "".join(word.capitalize() for word in others), 0)
            count = int(rejected) if str(rejected).isdecimal() else 0
            return ExportResult(count, str(partial.get("errorMessage", "")))
    return ExportResult()


def status_message(reply: Reply) -> str:
    """Return the message of the `Status` in a refusal, or the beginning of its text."""
    if reply.content_type == PROTOBUF:
        try:
            return readable(Status.FromString(reply.data).message.encode())
        except DecodeError:
            return ""
    if reply.content_type == JSON:
        return readable(str(_json_object(reply.data).get("message", "")).encode())
    return readable(reply.data)


def _json_object(data: bytes) -> dict[str, object]:
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}
