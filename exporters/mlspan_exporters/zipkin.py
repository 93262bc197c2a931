"""Stage 8, Zipkin: posts spans as v2 JSON, which Zipkin takes on 9411 and so do many that speak its language.

Reads `Chunk`s of traces; one or several POSTs per chunk, each of at most 5 MiB before compression. About
40,000 spans a second and core. A span sent twice after a retry is harmless, since Zipkin merges by id.
Source: https://zipkin.io/zipkin-api/ (POST /api/v2/spans); the mapping is in `zipkin_spans.py`.
"""

from collections.abc import Iterator
from typing import Any, ClassVar, Final, Literal

import orjson
from pydantic import Field, field_validator

from mlspan_processor.records import Chunk, ExportResult, PermanentError, RetryableError, Signal

from .settings import Headers, Settings, headers_field
from .tls import TlsClientSettings
from .transport import HttpClient, check_url, readable, refusal
from .wire import parse_traces
from .zipkin_spans import zipkin_spans

MAX_REQUEST_BYTES: Final = 5 * 1024 * 1024
"""Half of what Zipkin's server takes by default."""
RETRYABLE_STATUSES: Final = frozenset({408, 429, *range(500, 600)})
EXAMPLE: Final = "http://127.0.0.1:9411/api/v2/spans"


class ZipkinSettings(Settings):
    """Settings of the `zipkin` exporter."""

    endpoint: str = Field(description=f"Full URL that spans are posted to, {EXAMPLE}.")
    format: Literal["json"] = Field(default="json", description="json, Zipkin's v2 format; there is no other.")
    default_service_name: str = Field(
        default="unknown_service", min_length=1, description="Service name of spans whose resource has none."
    )
    tls: TlsClientSettings = Field(default=TlsClientSettings(), description="How https connections are secured.")
    headers: Headers = headers_field("request")
    compression: Literal["gzip", "none"] = Field(default="none", description="gzip or none.")

    @field_validator("endpoint")
    @classmethod
    def _reachable(cls, url: str) -> str:
        return check_url(url, EXAMPLE)


class ZipkinExporter:
    """Sends spans to Zipkin; `export` may be called from several threads."""

    Config: ClassVar[Any] = ZipkinSettings
    signals: ClassVar[frozenset[Signal]] = frozenset({Signal.TRACES})
    queued: ClassVar[bool] = True

    def __init__(self, config: ZipkinSettings, name: str) -> None:
        self._config = config
        self._name = name
        self._client: HttpClient | None = None

    def start(self) -> None:
        """Read the certificates; connections follow with the first requests, so Zipkin may start later.

        Raises:
            OSError: a certificate file cannot be read.
        """
        self._client = HttpClient(self._config.endpoint, self._config.tls, self._config.headers, self._name)

    def export(self, chunk: Chunk, timeout_seconds: float) -> ExportResult:
        """Send the chunk once; spans without a valid id, and those of refused parts, are rejected.

        Raises:
            RetryableError: Zipkin cannot be reached, or answers 408, 429 or 5xx.
            PermanentError: Zipkin refuses all of it with another status.
        """
        client = self._client
        if client is None:
            msg = f"{self._name}: is not started"
            raise RetryableError(msg)
        spans = list(zipkin_spans(parse_traces(chunk), self._config.default_service_name))
        valid = [orjson.dumps(span) for span in spans if span is not None]
        rejected = len(spans) - len(valid)
        message = f"{rejected} spans have no valid id" if rejected else ""
        refused: PermanentError | None = None
        sent = False
        for body, count in bodies(valid):
            try:
                self._post(client, body, timeout_seconds)
                sent = True
            except PermanentError as error:
                refused = error
                rejected += count
                message = str(error)
        if refused is not None and not sent:
            raise refused
        return ExportResult(rejected, message)

    def shutdown(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _post(self, client: HttpClient, body: bytes, timeout_seconds: float) -> None:
        reply = client.post(
            self._config.endpoint,
            body,
            "application/json",
            compress=self._config.compression == "gzip",
            timeout_seconds=timeout_seconds,
        )
        if not 200 <= reply.status < 300:
            raise refusal(self._name, self._config.endpoint, reply, readable(reply.data), RETRYABLE_STATUSES)


def bodies(spans: list[bytes], limit_bytes: int = MAX_REQUEST_BYTES) -> Iterator[tuple[bytes, int]]:
    """Yield JSON lists of spans with their count, each below the limit unless a single span is above it.

    >>> list(bodies([b"{}", b"{}", b"{}"], limit_bytes=7))
    [(b'[{},{}]', 2), (b'[{}]', 1)]
    """
    part: list[bytes] = []
    length = 1
    for span in spans:
        if part and length + len(span) + 1 > limit_bytes:
            yield b"[" + b",".join(part) + b"]", len(part)
            part, length = [], 1
        part.append(span)
        length += len(span) + 1
    if part:
        yield b"[" + b",".join(part) + b"]", len(part)
