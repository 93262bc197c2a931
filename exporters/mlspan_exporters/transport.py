"""Stage 8, HTTP requests: one pooled client for the exporters that post.

Reads bodies; gives a `Reply`, or the error that its status calls for. A request has one deadline for
everything: connecting, sending, and reading at most 4 MiB of answer. Redirects are not followed, since an
exporter that follows them may hand credentials on. Proxies come from HTTP_PROXY, HTTPS_PROXY and NO_PROXY.
"""

import gzip
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3

from mlspan_processor.records import PermanentError, RetryableError

from .settings import Headers
from .tls import TlsClientSettings, client_context
from .wire import MAX_RESPONSE_BYTES, user_agent

GZIP_LEVEL: Final = 1
"""500 spans become 4.3 times smaller at level 1 (1 ms), 4.7 times at level 6 (2.3 ms)."""
POOL_CONNECTIONS: Final = 10
"""The queue's default number of threads."""
READ_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Reply:
    """A backend's answer: a status of any class, header names in lower case, at most 4 MiB of data."""

    status: int
    headers: Mapping[str, str]
    data: bytes

    @property
    def content_type(self) -> str:
        """The media type in lower case, "" where there is none."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def retry_after_seconds(self) -> float | None:
        """Retry-After as seconds from now, whether it was given as a number or as a date; None without."""
        return retry_after_seconds(self.headers.get("retry-after", ""), time.time())


class HttpClient:
    """Posts to one host over kept-open connections; may be used from several threads.

    Raises:
        OSError: a certificate file of `tls` cannot be read.
    """

    def __init__(self, url: str, tls: TlsClientSettings, headers: Headers, label: str) -> None:
        self._label = label
        self._headers = {
            "User-Agent": user_agent(),
            **{name: value.get_secret_value() for name, value in headers.items()},
        }
        self._pool = _pool(url, tls)

    def post(self, url: str, body: bytes, content_type: str, *, compress: bool, timeout_seconds: float) -> Reply:
        """Send `body` once and return the answer, whatever its status.

        Raises:
            RetryableError: nobody answered in time; the message names `url`.
        """
        headers = {"Content-Type": content_type, **self._headers}
        if compress:
            body = gzip.compress(body, GZIP_LEVEL, mtime=0)
            headers["Content-Encoding"] = "gzip"
        deadline = time.monotonic() + timeout_seconds
        try:
            response = self._pool.request(
                "POST",
                url,
                body=body,
                headers=headers,
                timeout=urllib3.Timeout(total=timeout_seconds),
                retries=False,
                redirect=False,
                preload_content=False,
            )
            try:
                data = self._read(response, url, deadline)
            finally:
                response.release_conn()
        except urllib3.exceptions.HTTPError as error:
            msg = f"{self._label}: {url}: {reason_of(error)}"
            raise RetryableError(msg) from error
        return Reply(response.status, {k.lower(): v for k, v in response.headers.items()}, data)

    def close(self) -> None:
        """Close the idle connections; safe twice."""
        self._pool.clear()

    def _read(self, response: urllib3.BaseHTTPResponse, url: str, deadline: float) -> bytes:
        parts: list[bytes] = []
        length = 0
        # One read from the socket at a time: a whole block could take any number of timeouts to arrive.
        while part := response.read1(READ_BYTES, decode_content=True):
            parts.append(part)
            length += len(part)
            if length > MAX_RESPONSE_BYTES:
                response.close()
                break
            if time.monotonic() > deadline:
                response.close()
                msg = f"{self._label}: {url}: the answer took longer than the timeout"
                raise RetryableError(msg)
        return b"".join(parts)[:MAX_RESPONSE_BYTES]


def refusal(
    label: str, url: str, reply: Reply, message: str, retryable: frozenset[int]
) -> RetryableError | PermanentError:
    """Return the error of a status that is not 2xx: retryable for those in `retryable`, with Retry-After."""
    text = f"{label}: {url}: HTTP {reply.status}"
    if message:
        text += f": {message}"
    elif 300 <= reply.status < 400:
        text += f': redirects are not followed, set the endpoint to "{reply.headers.get("location", "")}"'
    if reply.status in retryable:
        return RetryableError(text, reply.retry_after_seconds)
    return PermanentError(text)


def readable(data: bytes, limit: int = 200) -> str:
    """Return the beginning of an answer for a message: one line of printable text."""
    text = data[: 4 * limit].decode(errors="replace")
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:limit]


def retry_after_seconds(value: str, now: float) -> float | None:
    """Return Retry-After in seconds from `now` (Unix time), never negative; None where it cannot be read.

    >>> retry_after_seconds("30", 0.0), retry_after_seconds("Thu, 01 Jan 1970 00:01:00 GMT", 0.0)
    (30.0, 60.0)
    """
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (TypeError, ValueError, OverflowError):
        return None


def reason_of(error: urllib3.exceptions.HTTPError) -> str:
    """Return why a request failed, without urllib3's object representations."""
    refused = isinstance(error, urllib3.exceptions.NewConnectionError)  # a subclass of ConnectTimeoutError
    if isinstance(error, urllib3.exceptions.ConnectTimeoutError) and not refused:
        return "no connection within the timeout"
    if isinstance(error, urllib3.exceptions.ReadTimeoutError):
        return "no answer within the timeout"
    cause: BaseException = error
    while (inner := getattr(cause, "original_error", None) or cause.__cause__) is not None:
        cause = inner
    return str(cause) or type(cause).__name__


def check_url(url: str, example: str) -> str:
    """Return `url` where it is an http or https URL with a host; ValueError otherwise."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        # In http://http://host the host is "http", with a colon and no port.
        usable = usable and not parts.netloc.endswith(":") and not any(map(str.isspace, parts.netloc))
    except ValueError:
        usable = False
    if not usable:
        msg = f'endpoint "{url}" is not usable: write an http:// or https:// URL, for example "{example}"'
        raise ValueError(msg)
    return url


def _pool(url: str, tls: TlsClientSettings) -> urllib3.PoolManager:
    parts = urlsplit(url)
    context = client_context(tls) if parts.scheme == "https" else None
    proxy = getproxies().get(parts.scheme)
    options: dict[str, Any] = {"maxsize": POOL_CONNECTIONS}
    if context is not None:
        options["ssl_context"] = context
        if tls.server_name_override is not None:
            options["server_hostname"] = tls.server_name_override
        if tls.insecure_skip_verify:
            options["assert_hostname"] = False
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)  # it is what the user asked for
    if proxy is not None and not proxy_bypass(parts.netloc):
        return urllib3.ProxyManager(proxy, **options)
    return urllib3.PoolManager(**options)
