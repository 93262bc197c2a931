"""An HTTP server in a thread of its own: the OTLP/HTTP receiver, the health check and the own metrics each
have one.

aiohttp runs on the thread's own event loop; starting and stopping are plain blocking calls for the engine.
"""

import asyncio
import logging
import ssl
import threading
from collections.abc import Callable

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from mlspan_processor.config.schema import ServerTls
from mlspan_processor.errors import StartError

_MAX_HEADER_BYTES = 16 * 1024
_LINGERING_SECONDS = 2.0


class _Terse(logging.Filter):
    """What is no HTTP at all (TLS, a port scan) is the sender's mistake: a line, without a traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError):
            record.levelno, record.levelname = logging.WARNING, "WARNING"
            record.msg, record.exc_info = f"{record.getMessage()}: not HTTP: {error.message.splitlines()[0]}", None
            record.args = ()
        return record.levelno >= logging.WARNING


_server_log = logging.getLogger("aiohttp.server")
_server_log.addFilter(_Terse())
# aiohttp tells of the first bytes of a connection that are no HTTP at this level only; the filter lets no more through.
_server_log.setLevel(logging.DEBUG)


class HttpServer:
    """One listening port.

    Args:
        owner: who listens, 'receiver "otlp"', for messages.
        host: address; empty for every interface.
        port: 0 takes a free one.
        application: makes the aiohttp application; called in the server's thread.
        tls: certificate files, or None for plain text.
    """

    def __init__(
        self,
        owner: str,
        host: str,
        port: int,
        application: Callable[[], web.Application],
        tls: ServerTls | None = None,
    ) -> None:
        self._owner = owner
        self._host = host
        self._port = port
        self._application = application
        self._tls = tls
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._started = threading.Event()
        self._error: Exception | None = None
        self._shutdown_seconds = 0.0
        self.endpoint = f"{host}:{port}"
        """host:port; after `start` with the port that was really taken."""

    def start(self) -> None:
        """Listen; raise StartError that names the endpoint."""
        context = server_context(self._tls, self._owner) if self._tls else None
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._main(context)), name=f"http {self._owner}", daemon=True
        )
        self._thread.start()
        self._started.wait()
        if self._error is not None:
            self._thread.join()
            self._thread = None
            reason = getattr(self._error, "strerror", None) or str(self._error)
            raise StartError(f'{self._owner}: cannot listen on "{self.endpoint}" (HTTP): {reason}') from self._error

    def shutdown(self, timeout_seconds: float) -> None:
        """Take no new connection, finish what has begun within the time. Safe twice and before start."""
        thread, self._thread = self._thread, None
        if thread is None or self._loop is None or self._stop is None:
            return
        self._shutdown_seconds = timeout_seconds
        self._loop.call_soon_threadsafe(self._stop.set)
        thread.join(timeout_seconds + 1.0)

    async def _main(self, context: ssl.SSLContext | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        runner = web.AppRunner(
            self._application(),
            access_log=None,
            handle_signals=False,
            # Bodies are decompressed by the receiver, which bounds them.
            auto_decompress=False,
            max_line_size=_MAX_HEADER_BYTES,
            max_field_size=_MAX_HEADER_BYTES,
            # A refused client may still be sending: long enough to read the answer, no longer.
            lingering_time=_LINGERING_SECONDS,
            shutdown_timeout=0.0,
        )
        await runner.setup()
        try:
            site = web.TCPSite(runner, self._host or None, self._port, ssl_context=context)
            await site.start()
            port = runner.addresses[0][1]
            self.endpoint = f"[{self._host}]:{port}" if ":" in self._host else f"{self._host}:{port}"
        except OSError as error:
            self._error = error
            await runner.cleanup()
            return
        finally:
            self._started.set()
        await self._stop.wait()
        runner._shutdown_timeout = self._shutdown_seconds  # known only now
        await runner.cleanup()


def server_context(tls: ServerTls, owner: str) -> ssl.SSLContext:
    """Return the context of a listening socket; raise StartError that names the file."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(tls.cert_file, tls.key_file)
        if tls.client_ca_file:
            context.load_verify_locations(tls.client_ca_file)
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as error:
        files = f'"{tls.cert_file}", "{tls.key_file}"' + (f', "{tls.client_ca_file}"' if tls.client_ca_file else "")
        raise StartError(f"{owner}: cannot use the TLS files {files}: {error.strerror or error}") from None
    return context
