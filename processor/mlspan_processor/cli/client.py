"""HTTP to a running processor: bounded retries, and messages that say what to do."""

import time
from collections.abc import Callable, Mapping
from http.client import BadStatusLine
from typing import Any

import orjson
import urllib3

_ATTEMPTS = 6
_MAX_WAIT_SECONDS = 30.0
_RETRYABLE = frozenset({429, 502, 503, 504})


class ClientError(Exception):
    """The processor cannot be reached, or it refused; the message is for the person who typed the command."""


class Client:
    """One processor's HTTP endpoint.

    Args:
        endpoint: "http://localhost:4318".
        sleep: waits between attempts.
    """

    def __init__(self, endpoint: str, sleep: Callable[[float], None] = time.sleep) -> None:
        if not endpoint.startswith(("http://", "https://")):
            raise ClientError(f'--endpoint "{endpoint}" is no URL; try "http://localhost:4318"')
        self._endpoint = endpoint.rstrip("/")
        self._sleep = sleep
        self._pool = urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(connect=5, read=60))

    def get(self, path: str, parameters: Mapping[str, str] | None = None) -> Any:
        """Return the JSON of a GET; raise ClientError."""
        return self._send("GET", path, fields=dict(parameters or {}))

    def post(self, path: str, body: bytes, content_type: str) -> Any:
        """Return the JSON answer to a POST; raise ClientError."""
        return self._send("POST", path, body=body, headers={"Content-Type": content_type})

    def _send(self, method: str, path: str, **options: Any) -> Any:
        problem = ""
        for attempt in range(_ATTEMPTS):
            wait = float(min(2**attempt, _MAX_WAIT_SECONDS))
            try:
                response = self._pool.request(method, self._endpoint + path, **options)
            except urllib3.exceptions.HTTPError as error:
                if any(isinstance(part, BadStatusLine) for part in error.args):
                    raise ClientError(
                        f"\"{self._endpoint}\" does not speak HTTP/1.1; gRPC's port (4317)? The processor's HTTP port "
                        "is 4318 unless configured otherwise"
                    ) from None
                if method == "GET" or isinstance(error, urllib3.exceptions.NewConnectionError):
                    raise ClientError(
                        f'cannot reach "{self._endpoint}" ({_reason(error)}); is "mlspan run" running there?'
                    ) from None
                problem = _reason(error)
            else:
                if response.status < 400:
                    return orjson.loads(response.data)
                problem = f"{response.status}: {_message(response.data)}"
                if response.status not in _RETRYABLE:
                    raise ClientError(f'"{self._endpoint}{path}" answers {problem}')
                wait = min(float(response.headers.get("Retry-After", wait)), _MAX_WAIT_SECONDS)
            if attempt + 1 < _ATTEMPTS:
                self._sleep(wait)
        raise ClientError(f'"{self._endpoint}{path}" did not take it in {_ATTEMPTS} attempts: {problem}')


def _message(body: bytes) -> str:
    try:
        return str(orjson.loads(body)["message"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return body[:200].decode("utf-8", "replace")


def _reason(error: Exception) -> str:
    return str(error).rpartition(": ")[2] or type(error).__name__
