"""Stage 8, Prometheus server: a small HTTP server for one page.

Reads scrapes, GET or HEAD of /metrics; answers with what `page` returns, gzipped where that is accepted. A
thread per connection and at most 32 connections; one that is silent for a minute is closed. Binding looks up
no names.
"""

import gzip
import logging
import socket
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any, Final
from urllib.parse import urlsplit

from .openmetrics import CLASSIC_TYPE, OPENMETRICS_TYPE, prefers_openmetrics

LOGGER = logging.getLogger(__name__)
PATH: Final = "/metrics"
MAX_CONNECTIONS: Final = 32
IDLE_SECONDS: Final = 60.0
"""Longer than usual scrape intervals, so that Prometheus keeps its connection."""
GZIP_LEVEL: Final = 1
MIN_GZIP_BYTES: Final = 1024


class PageServer(ThreadingHTTPServer):
    """A thread per connection, and no more than 32 of them."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, host: str, port: int, page: Callable[..., bytes]) -> None:
        self.page = page
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        """Bind without the look-up of our own name, which may take seconds."""
        TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Refuse a connection beyond the limit."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Give the place free when the connection ends."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 the base class's signature
        """Say nothing above debug level of clients that break off."""
        LOGGER.debug("a scrape from %s broke off: %r", client_address, sys.exception())


class _Handler(BaseHTTPRequestHandler):
    """GET and HEAD of /metrics."""

    server: PageServer
    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS

    def do_GET(self) -> None:
        """Answer a scrape."""
        if urlsplit(self.path).path != PATH:
            self._answer(404, "text/plain; charset=utf-8", f"metrics are at {PATH}\n".encode())
            return
        openmetrics = prefers_openmetrics(self.headers.get("Accept", ""))
        body = self.server.page(openmetrics=openmetrics)
        # The exporter may not answer in OpenMetrics at all.
        content_type = OPENMETRICS_TYPE if body.endswith(b"# EOF\n") else CLASSIC_TYPE
        self._answer(200, content_type, body)

    do_HEAD = do_GET  # noqa: N815 the base class's name

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 the base class's name
        """Say nothing above debug level of single scrapes."""
        LOGGER.debug(format, *args)

    def _answer(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Vary", "Accept, Accept-Encoding")
        if len(body) >= MIN_GZIP_BYTES and accepts_gzip(self.headers.get("Accept-Encoding", "")):
            body = gzip.compress(body, GZIP_LEVEL, mtime=0)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def host_and_port(endpoint: str) -> tuple[str, int]:
    """Return where to listen; the host "" is every address.

    >>> host_and_port("[::1]:9464"), host_and_port(":9464")
    (('::1', 9464), ('', 9464))

    Raises:
        ValueError: there is no port.
    """
    try:
        parts = urlsplit(f"//{endpoint}")
        port = parts.port
        usable = parts.netloc == endpoint
    except ValueError:
        usable, port = False, None
    if port is None or not usable:
        msg = f'endpoint "{endpoint}" is not usable: write host:port, for example "127.0.0.1:9464"'
        raise ValueError(msg)
    return parts.hostname or "", port


def accepts_gzip(header: str) -> bool:
    """Tell whether an Accept-Encoding header takes gzip.

    >>> accepts_gzip("gzip, deflate"), accepts_gzip("gzip;q=0"), accepts_gzip("")
    (True, False, False)
    """
    for part in header.split(","):
        name, _, quality = part.replace(" ", "").lower().partition(";")
        if name in ("gzip", "*"):
            return quality not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
