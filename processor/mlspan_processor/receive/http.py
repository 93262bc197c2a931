"""Stage 1: OTLP/HTTP bytes in, back-pressure out; protobuf and JSON on one port.

Every answer of 400 and above has a google.rpc.Status as its body, in the request's own format. The body is
read in the event loop, within the limits of size and time; everything else happens in a few threads, since
pipelines may block. A request that waits for its sender keeps no other one out. Memory: `max_concurrent_requests`
bodies of the largest size that are handled, and as much of those under way. Source: OTLP 1.11, "OTLP/HTTP".
"""

import asyncio
import fnmatch
import logging
import math
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from aiohttp import web

from mlspan_processor.config.schema import Cors, split_endpoint
from mlspan_processor.config.schema import HttpServer as HttpConfig
from mlspan_processor.http_server import HttpServer
from mlspan_processor.receive.body import (
    BodyCodingError,
    BodyCorruptError,
    BodyTooLargeError,
    decompressed,
)
from mlspan_processor.receive.intake import Intake, PipelineBugError
from mlspan_processor.receive.otlp_json import JsonError, to_protobuf
from mlspan_processor.receive.status import Code, status, status_json
from mlspan_processor.records import PermanentError, RetryableError, Signal
from mlspan_processor.signals import SIGNALS

_log = logging.getLogger(__name__)

PROTOBUF = "application/x-protobuf"
JSON = "application/json"
_RETRY_AFTER_SECONDS = 1.0
_MAX_THREADS = 16
_READ_AT_ONCE = 10
"""Bodies that are under way, for each request that is handled; a common limit of open files is 1,024."""
_CORS_HEADERS = (
    "Content-Type",
    "Content-Encoding",
    "Accept",
    "Accept-Language",
    "Content-Language",
    "X-Requested-With",
)

_CODES = {
    400: Code.INVALID_ARGUMENT,
    404: Code.NOT_FOUND,
    405: Code.UNIMPLEMENTED,
    408: Code.DEADLINE_EXCEEDED,
    413: Code.RESOURCE_EXHAUSTED,
    415: Code.INVALID_ARGUMENT,
    429: Code.RESOURCE_EXHAUSTED,
    500: Code.INTERNAL,
    503: Code.UNAVAILABLE,
}

T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class HttpError(Exception):
    """An answer that is no success."""

    def __init__(self, code: int, message: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after_seconds = retry_after_seconds


class HttpReceiver:
    """One HTTP port: the signals' paths, and whatever routes are added (labels and report)."""

    def __init__(self, config: HttpConfig, intake: Intake) -> None:
        self._config = config
        self._intake = intake
        self._active = 0
        self._under_way = 0
        self._bytes_under_way = 0
        self._pool = ThreadPoolExecutor(
            min(_MAX_THREADS, config.max_concurrent_requests), thread_name_prefix="otlp-http"
        )
        host, port = split_endpoint(config.endpoint)
        self._server = HttpServer(f'receiver "{intake.receiver}"', host, port, self._application, config.tls)
        self._routes: list[tuple[str, str, Handler]] = []
        self.intake = intake

    @property
    def endpoint(self) -> str:
        """host:port; after `start` with the port that was really taken."""
        return self._server.endpoint

    def add_route(self, method: str, path: str, handler: Handler) -> None:
        """Serve another path on the same port; before `start`."""
        self._routes.append((method, path, handler))

    def start(self) -> None:
        """Listen; raise StartError that names the endpoint."""
        self._server.start()

    def shutdown(self, timeout_seconds: float) -> None:
        """Take no new request, finish those that have begun. Safe twice and before start."""
        self._server.shutdown(timeout_seconds)
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def read_body(self, request: web.Request) -> bytes:
        """Return the decompressed body within the limits of size and time; raise HttpError."""
        limit = self._config.max_request_body_size
        too_large = HttpError(413, f"the body exceeds max_request_body_size ({limit} bytes after decompression)")
        if (request.content_length or 0) > limit:
            raise too_large
        most = self._config.max_concurrent_requests
        if self._under_way >= _READ_AT_ONCE * most:
            raise self._too_many()
        parts: list[bytes] = []
        total = 0
        # Until its body is there a request is not handled, and must not keep others out: its sender may have stalled.
        self._active -= 1
        self._under_way += 1
        try:
            async with asyncio.timeout(self._config.read_timeout):
                async for part in request.content.iter_any():
                    total += len(part)
                    self._bytes_under_way += len(part)
                    if total > limit:
                        raise too_large
                    if self._bytes_under_way > most * limit:
                        raise self._too_many()
                    parts.append(part)
        except TimeoutError:
            raise HttpError(408, f"the body took longer than read_timeout ({self._config.read_timeout:g} s)") from None
        except (ConnectionError, web.RequestPayloadError):
            self._intake.invalid("disconnected")
            raise HttpError(400, "the body ended too early") from None
        finally:
            self._under_way -= 1
            self._bytes_under_way -= total
            self._active += 1
        if self._active > most:
            raise self._too_many()
        coding = request.headers.get("Content-Encoding", "")
        try:
            if not coding:
                return b"".join(parts)
            return await self.in_thread(lambda: decompressed(b"".join(parts), coding, limit))
        except BodyTooLargeError:
            raise too_large from None
        except BodyCodingError as error:
            raise HttpError(415, str(error)) from None
        except BodyCorruptError as error:
            self._intake.invalid("malformed")
            raise HttpError(400, str(error)) from None

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run `work` outside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def _application(self) -> web.Application:
        application = web.Application(middlewares=[self._answer_errors])
        config = self._config
        paths = {
            Signal.TRACES: config.traces_url_path,
            Signal.METRICS: config.metrics_url_path,
            Signal.LOGS: config.logs_url_path,
        }
        for signal, path in paths.items():
            application.router.add_post(path, self._export(signal))
        for method, path, handler in self._routes:
            application.router.add_route(method, path, handler)
        return application

    def _export(self, signal: Signal) -> Handler:
        async def export(request: web.Request) -> web.Response:
            content_type = request.content_type
            if content_type not in {PROTOBUF, JSON}:
                raise HttpError(415, f'Content-Type "{content_type}" is not supported; valid are {PROTOBUF}, {JSON}')
            if signal not in self._intake.consumers:
                valid = ", ".join(one.value for one in self._intake.consumers)
                raise HttpError(404, f"no pipeline receives {signal.value} here; pipelines receive {valid}")
            body = await self.read_body(request)
            is_json = content_type == JSON
            await self.in_thread(lambda: self._take(signal, body, is_json))
            empty = b"{}" if is_json else SIGNALS[signal].response().SerializeToString()
            return web.Response(body=empty, content_type=content_type)

        return export

    def _take(self, signal: Signal, body: bytes, is_json: bool) -> None:
        if is_json:
            try:
                body = to_protobuf(signal, body)
            except JsonError as error:
                self._intake.invalid("malformed")
                raise HttpError(400, str(error)) from None
        try:
            self._intake.take(signal, body)
        except RetryableError as error:
            raise HttpError(503, str(error), error.retry_after_seconds or _RETRY_AFTER_SECONDS) from None
        except PipelineBugError as error:
            raise HttpError(500, str(error)) from None
        except PermanentError as error:
            raise HttpError(400, str(error)) from None

    @web.middleware
    async def _answer_errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if self._active >= self._config.max_concurrent_requests:
            return self._error(request, self._too_many())
        self._active += 1
        try:
            if request.method == "OPTIONS" and self._config.cors is not None:
                response: web.StreamResponse = web.Response(status=204)
            else:
                response = await handler(request)
        except HttpError as error:
            response = self._error(request, error)
        except web.HTTPNotFound:
            response = self._error(request, HttpError(404, f'there is nothing at "{request.path}"; {self._paths()}'))
        except web.HTTPMethodNotAllowed as error:
            allowed = ", ".join(sorted(error.allowed_methods))
            message = f'{request.method} is not allowed at "{request.path}"; use {allowed}'
            response = self._error(request, HttpError(405, message))
            response.headers["Allow"] = allowed
        except Exception as error:  # noqa: BLE001  # answered with 500
            _log.exception('receiver "%s": a bug in the HTTP receiver', self._intake.receiver)
            response = self._error(request, HttpError(500, f"a bug in the receiver: {type(error).__name__}"))
        finally:
            self._active -= 1
        if self._config.cors is not None:
            _allow_origin(request, response, self._config.cors)
        return response

    def _too_many(self) -> HttpError:
        self._intake.invalid("too_many")
        return HttpError(429, "too many requests at once", _RETRY_AFTER_SECONDS)

    def _paths(self) -> str:
        config = self._config
        return f"OTLP is taken at {config.traces_url_path}, {config.metrics_url_path} and {config.logs_url_path}"

    def _error(self, request: web.Request, error: HttpError) -> web.Response:
        """Return the answer with its Status: protobuf for a protobuf request, else JSON."""
        if error.code in {404, 405, 408, 413, 415}:
            self._intake.invalid({413: "too_large", 415: "content_type", 408: "timeout"}.get(error.code, "path"))
        one = status(_CODES[error.code], str(error), error.retry_after_seconds)
        is_protobuf = request.content_type == PROTOBUF
        response = web.Response(
            status=error.code,
            body=one.SerializeToString() if is_protobuf else status_json(one).encode(),
            content_type=PROTOBUF if is_protobuf else JSON,
        )
        if error.retry_after_seconds is not None:
            response.headers["Retry-After"] = str(max(math.ceil(error.retry_after_seconds), 1))
        if error.code in {408, 413}:
            response.force_close()  # what is left of the body is not read
        return response


def _allow_origin(request: web.Request, response: web.StreamResponse, cors: Cors) -> None:
    """Add the CORS headers when the page's origin is allowed. Source: https://fetch.spec.whatwg.org/#http-cors-protocol."""
    origin = request.headers.get("Origin")
    if origin is None or not any(fnmatch.fnmatchcase(origin, one) for one in cors.allowed_origins):
        return
    response.headers["Access-Control-Allow-Origin"] = origin
    response.headers["Vary"] = "Origin"
    if request.method == "OPTIONS":
        response.headers["Access-Control-Allow-Methods"] = "GET, POST"
        response.headers["Access-Control-Allow-Headers"] = ", ".join([*_CORS_HEADERS, *cors.allowed_headers])
        if cors.max_age:
            response.headers["Access-Control-Max-Age"] = str(cors.max_age)
