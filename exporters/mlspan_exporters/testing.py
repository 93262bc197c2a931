"""For tests: backends in this process that exporters can talk to, and an exporter that remembers.

The servers listen on free ports of 127.0.0.1, answer everything with success, or with what `answers` holds
for the next requests, and keep what they were sent. `check_exporter` holds a class to the contract of the
entry point group `mlspan_exporter`; run it over an exporter of your own.
"""

import gzip
import threading
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, ClassVar, Self

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from pydantic import BaseModel

from mlspan_processor.records import Chunk, ExportResult, Signal

from .debug_text import count_items
from .otlp_grpc import METHODS
from .settings import Settings
from .wire import ALL_SIGNALS, REJECTED_FIELD, REQUESTS, RESPONSES, Request


@dataclass(frozen=True)
class GrpcAnswer:
    """What the fake gRPC backend answers: success, partial success, or a status other than OK."""

    code: grpc.StatusCode = grpc.StatusCode.OK
    message: str = ""
    rejected: int = 0
    retry_delay_seconds: float | None = None
    delay_seconds: float = 0.0


@dataclass(frozen=True)
class GrpcCall:
    """A call that the fake gRPC backend got."""

    signal: Signal
    request: Request
    data: bytes
    metadata: Mapping[str, str]


class FakeOtlpGrpc:
    """An OTLP backend on gRPC.

    >>> with FakeOtlpGrpc() as backend:
    ...     backend.answers.append(GrpcAnswer(grpc.StatusCode.UNAVAILABLE, "busy", retry_delay_seconds=2))
    """

    def __init__(self, credentials: Any = None, port: int = 0) -> None:
        self.answers: deque[GrpcAnswer] = deque()
        self.calls: list[GrpcCall] = []
        self._server = grpc.server(
            ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)]
        )
        self._server.add_generic_rpc_handlers((_GrpcHandlers(self),))
        if credentials is None:
            self.port: int = self._server.add_insecure_port(f"127.0.0.1:{port}")
        else:
            self.port = self._server.add_secure_port(f"127.0.0.1:{port}", credentials)

    @property
    def endpoint(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop(None).wait()


class _GrpcHandlers(grpc.GenericRpcHandler):  # type: ignore[misc] # grpcio has no types
    def __init__(self, backend: FakeOtlpGrpc) -> None:
        self._backend = backend
        self._signals = {method: signal for signal, method in METHODS.items()}

    def service(self, handler_call_details: Any) -> Any:
        """Return the handler of a method, None for one that OTLP does not have."""
        signal = self._signals.get(handler_call_details.method)
        if signal is None:
            return None
        return grpc.unary_unary_rpc_method_handler(lambda data, context: self._answer(signal, data, context))

    def _answer(self, signal: Signal, data: bytes, context: Any) -> bytes:
        backend = self._backend
        metadata = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        backend.calls.append(GrpcCall(signal, REQUESTS[signal].FromString(data), data, metadata))
        answer = backend.answers.popleft() if backend.answers else GrpcAnswer()
        time.sleep(answer.delay_seconds)
        if answer.code is not grpc.StatusCode.OK:
            if answer.retry_delay_seconds is not None:
                context.set_trailing_metadata((("grpc-status-details-bin", _details(answer)),))
            context.abort(answer.code, answer.message)
        response = RESPONSES[signal]()
        if answer.message or answer.rejected:
            response.partial_success.error_message = answer.message
            setattr(response.partial_success, REJECTED_FIELD[signal], answer.rejected)
        return response.SerializeToString()


def _details(answer: GrpcAnswer) -> bytes:
    delay = Duration()
    delay.FromMilliseconds(int((answer.retry_delay_seconds or 0) * 1000))
    detail = AnyMessage()
    detail.Pack(RetryInfo(retry_delay=delay))
    status = Status(code=answer.code.value[0], message=answer.message, details=[detail])
    return bytes(status.SerializeToString())


@dataclass(frozen=True)
class HttpAnswer:
    """What the fake HTTP backend answers."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_seconds: float = 0.0


@dataclass(frozen=True)
class HttpRequest:
    """A request that the fake HTTP backend got; `body` is unpacked, header names are in lower case."""

    path: str
    headers: Mapping[str, str]
    body: bytes


class FakeHttp:
    """Any backend that is posted to: OTLP, Zipkin, a webhook.

    >>> with FakeHttp() as backend:
    ...     backend.answers.append(HttpAnswer(503, headers={"Retry-After": "3"}))
    """

    def __init__(self, ssl_context: Any = None) -> None:
        self.answers: deque[HttpAnswer] = deque()
        self.requests: list[HttpRequest] = []
        self._server = _HttpServer(self)
        self._scheme = "http"
        if ssl_context is not None:
            self._scheme = "https"
            self._server.socket = ssl_context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )

    @property
    def url(self) -> str:
        """Scheme, host and port."""
        return f"{self._scheme}://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, backend: FakeHttp) -> None:
        self.backend = backend
        super().__init__(("127.0.0.1", 0), _HttpHandler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that break off: tests make them."""


class _HttpHandler(BaseHTTPRequestHandler):
    server: _HttpServer
    protocol_version = "HTTP/1.1"
    timeout = 10

    def do_POST(self) -> None:
        """Keep the request and answer it."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        backend = self.server.backend
        headers = {name.lower(): value for name, value in self.headers.items()}
        backend.requests.append(HttpRequest(self.path, headers, body))
        answer = backend.answers.popleft() if backend.answers else HttpAnswer()
        time.sleep(answer.delay_seconds)
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 the base class's name
        """Say nothing."""


class RecordingSettings(Settings):
    """The recording exporter has no settings."""


class RecordingExporter:
    """Keeps the chunks it is given; raises what `failures` holds for the next calls first."""

    Config: ClassVar[Any] = RecordingSettings
    signals: ClassVar[frozenset[Signal]] = ALL_SIGNALS
    queued: ClassVar[bool] = True

    def __init__(self, config: RecordingSettings | None = None, name: str = "recording") -> None:
        self.config = config or RecordingSettings()
        self.name = name
        self.chunks: list[Chunk] = []
        self.failures: deque[Exception] = deque()
        self.started = False

    def start(self) -> None:
        """Remember that it was called."""
        self.started = True

    def export(self, chunk: Chunk, timeout_seconds: float) -> ExportResult:  # noqa: ARG002 nothing is waited for
        """Keep the chunk, or raise the next failure."""
        if self.failures:
            raise self.failures.popleft()
        self.chunks.append(chunk)
        return ExportResult()

    def shutdown(self) -> None:
        """Remember that it was called."""
        self.started = False


def chunk_of(request: Request) -> Chunk:
    """Return a request as a chunk, with its spans, data points or log records counted."""
    signal = next(signal for signal, kind in REQUESTS.items() if isinstance(request, kind))
    return Chunk(signal, request.SerializeToString(), count_items(request))


def check_exporter(exporter_class: Any, settings: Mapping[str, object]) -> None:
    """Assert what the processor relies on: settings, class attributes, and `shutdown` before start and twice.

    Args:
        exporter_class: what the entry point names.
        settings: the least that its `Config` needs.
    """
    config_class = exporter_class.Config
    assert issubclass(config_class, BaseModel), "Config must be a pydantic model"
    _check_settings(config_class, config_class.__name__)
    assert exporter_class.signals, "signals must name at least one"
    assert exporter_class.signals <= ALL_SIGNALS, "signals must be a set of Signal"
    assert isinstance(exporter_class.queued, bool), "queued must be a bool"
    exporter = exporter_class(config_class.model_validate(dict(settings)), "test/1")
    exporter.shutdown()
    exporter.shutdown()


def _check_settings(model: type[BaseModel], path: str) -> None:
    assert model.model_config.get("extra") == "forbid", f'{path} must refuse unknown keys: extra="forbid"'
    for name, info in model.model_fields.items():
        assert info.description, f"{path}.{name} must have a description"
        for kind in (info.annotation, *getattr(info.annotation, "__args__", ())):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                _check_settings(kind, f"{path}.{name}")
