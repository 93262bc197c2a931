"""Stage 1: OTLP/gRPC bytes in, back-pressure out.

Generic handlers without a deserialiser: the request's bytes go on as they came, the parse only validates. A
request is read when a thread is free for it; until then HTTP/2 flow control holds it back in the client, so
memory is bounded by `max_concurrent_requests` requests. grpcio refuses what is too large, also after
decompression, without unpacking it.

Measured for requests of 500 spans (227 KB): 1.0-1.4 ms of CPU with the synchronous server, 1.5 ms with
grpc.aio. Source: OTLP 1.11, "OTLP/gRPC".
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

import grpc

from mlspan_processor.config.schema import GrpcServer, ServerTls, split_endpoint
from mlspan_processor.errors import StartError
from mlspan_processor.http_server import server_context
from mlspan_processor.receive.intake import Intake, MalformedError, PipelineBugError
from mlspan_processor.receive.status import Code, status
from mlspan_processor.records import PermanentError, RetryableError, Signal
from mlspan_processor.signals import SIGNALS

_DEFAULT_RETRY_SECONDS = 1.0
_KEEPALIVE_MS = 60_000
"""A client that has vanished without a word is noticed after this, and its thread is free again."""
_STATUS_KEY = "grpc-status-details-bin"


class GrpcReceiver:
    """One gRPC port."""

    def __init__(self, config: GrpcServer, intake: Intake) -> None:
        self._config = config
        self._intake = intake
        self._server: grpc.Server | None = None
        self._pool: ThreadPoolExecutor | None = None
        self.endpoint = config.endpoint
        """host:port as configured; after `start` with the port that was really taken."""

    def start(self) -> None:
        """Listen; raise StartError that names the endpoint."""
        config = self._config
        self._pool = ThreadPoolExecutor(config.max_concurrent_requests, thread_name_prefix="otlp-grpc")
        server = grpc.server(
            self._pool,
            options=[
                ("grpc.max_receive_message_length", config.max_recv_msg_size_mib << 20),
                ("grpc.max_concurrent_streams", config.max_concurrent_streams),
                # Without this a second processor would share the port in silence.
                ("grpc.so_reuseport", 0),
                ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
                # Clients send pings of their own; do not call that an attack.
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
                ("grpc.keepalive_permit_without_calls", 1),
            ],
        )
        server.add_generic_rpc_handlers(
            [
                grpc.method_handlers_generic_handler(
                    SIGNALS[signal].service,
                    {"Export": grpc.unary_unary_rpc_method_handler(self._handler(signal))},
                )
                for signal in self._intake.consumers
            ]
        )
        host, port = split_endpoint(config.endpoint)
        shown = f"[{host}]" if ":" in host else host or "[::]"
        try:
            if config.tls is None:
                bound = server.add_insecure_port(f"{shown}:{port}")
            else:
                bound = server.add_secure_port(f"{shown}:{port}", _credentials(config.tls, self._intake.receiver))
        except RuntimeError as error:
            raise StartError(
                f'receiver "{self._intake.receiver}": cannot listen on "{config.endpoint}" (gRPC):'
                f" the port is in use or the address is not this machine's ({error})"
            ) from None
        self.endpoint = f"{shown}:{bound}"
        server.start()
        self._server = server

    def shutdown(self, timeout_seconds: float) -> None:
        """Finish what has begun, cut off what lasts longer. Safe twice and before start."""
        if self._server is not None:
            self._server.stop(timeout_seconds).wait()
            self._server = None
        if self._pool is not None:
            self._pool.shutdown(wait=False)
            self._pool = None

    def _handler(self, signal: Signal) -> Callable[[bytes, grpc.ServicerContext], bytes]:
        take = self._intake.take

        def export(data: bytes, context: grpc.ServicerContext) -> bytes:
            try:
                take(signal, data)
            except RetryableError as error:
                _abort(context, Code.UNAVAILABLE, str(error), error.retry_after_seconds or _DEFAULT_RETRY_SECONDS)
            except PipelineBugError as error:
                _abort(context, Code.INTERNAL, str(error))
            except (MalformedError, PermanentError) as error:
                _abort(context, Code.INVALID_ARGUMENT, str(error))
            return b""  # an empty message: full success

        return export


def _abort(context: Any, code: Code, message: str, retry_after_seconds: float | None = None) -> NoReturn:
    detail = status(code, message, retry_after_seconds).SerializeToString()
    context.set_trailing_metadata(((_STATUS_KEY, detail),))
    context.abort(grpc.StatusCode[code.name], message)
    raise AssertionError("abort raises")  # pragma: no cover


def _credentials(tls: ServerTls, receiver: str) -> Any:
    # OpenSSL says what is wrong with the files; gRPC only that it cannot listen.
    server_context(tls, f'receiver "{receiver}"')
    authorities = Path(tls.client_ca_file).read_bytes() if tls.client_ca_file else None
    return grpc.ssl_server_credentials(
        [(Path(tls.key_file).read_bytes(), Path(tls.cert_file).read_bytes())],
        root_certificates=authorities,
        require_client_auth=authorities is not None,
    )
