"""A tiny OTLP/HTTP receiver for tests: keeps the spans that arrive, as plain objects.

``with OtlpSink() as sink:`` listens on a free port; ``sink.environment()`` is what a process needs to send there.
"""

import gzip
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue


@dataclass(frozen=True)
class ReceivedSpan:
    """One span as it came, ids in hex; `process` is the sender's process.pid or None."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    scope: str
    start: int
    end: int
    attributes: dict[str, Any]
    scope_attributes: dict[str, Any]
    resource: dict[str, Any] = field(default_factory=dict)


def value_of(value: AnyValue) -> Any:
    """The Python value of an OTLP value."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [value_of(item) for item in value.array_value.values]
    return None if kind is None else getattr(value, kind)


def attributes_of(pairs: Any) -> dict[str, Any]:
    """OTLP key-value pairs as a dict."""
    result: dict[str, Any] = {}
    for pair in pairs:
        assert isinstance(pair, KeyValue)
        result[pair.key] = value_of(pair.value)
    return result


class OtlpSink:
    """Listens while the ``with`` block runs."""

    def __init__(self) -> None:
        self.spans: list[ReceivedSpan] = []
        self.events: list[tuple[str, dict[str, Any]]] = []
        self._changed = threading.Condition()
        sink = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                sink._take(self.path, body)
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True

    @property
    def endpoint(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def environment(self) -> dict[str, str]:
        """OpenTelemetry variables of a process that sends its spans here."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
            "OTEL_SERVICE_NAME": "test",
            # Long enough that nothing arrives by the SDK's own clock within a test.
            "OTEL_BSP_SCHEDULE_DELAY": "600000",
        }

    def wait(self, enough: Callable[[list[ReceivedSpan]], bool], seconds: float = 60) -> list[ReceivedSpan]:
        """The spans, as soon as there are enough of them.

        Raises:
            AssertionError: they have not come.
        """
        until = time.monotonic() + seconds
        with self._changed:
            while not enough(self.spans):
                left = until - time.monotonic()
                assert left > 0, f"these came only: {[(span.scope, span.name) for span in self.spans]}"
                self._changed.wait(left)
            return list(self.spans)

    def named(self, prefix: str) -> list[ReceivedSpan]:
        """The spans whose name begins so."""
        with self._changed:
            return [span for span in self.spans if span.name.startswith(prefix)]

    def _take(self, path: str, body: bytes) -> None:
        if path == "/v1/traces":
            request = ExportTraceServiceRequest.FromString(body)
            taken = [
                ReceivedSpan(
                    span.name,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    scoped.scope.name,
                    span.start_time_unix_nano,
                    span.end_time_unix_nano,
                    attributes_of(span.attributes),
                    attributes_of(scoped.scope.attributes),
                    attributes_of(resource.resource.attributes),
                )
                for resource in request.resource_spans
                for scoped in resource.scope_spans
                for span in scoped.spans
            ]
            with self._changed:
                self.spans.extend(taken)
                self._changed.notify_all()
        elif path == "/v1/logs":
            logs = ExportLogsServiceRequest.FromString(body)
            events = [
                (record.event_name, attributes_of(record.attributes))
                for resource in logs.resource_logs
                for scoped in resource.scope_logs
                for record in scoped.log_records
            ]
            with self._changed:
                self.events.extend(events)
                self._changed.notify_all()

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
