"""Stage 6, notifications: one target's messages: a bounded queue, a thread, retries.

In: events, from the state thread, which never waits. Out: HTTP POSTs in order, one a change of incidents. A target that
does not answer harms nobody else: its messages are tried again until `max_elapsed_time`, the oldest make way in a full
queue, and what is lost is counted and logged once in a row. Alertmanager hears of open incidents again and again, since
it takes silence for recovery. Log lines name the target and its host, never the URL or headers.
Memory: at most `queue_size` messages.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final
from urllib.parse import urlsplit

import orjson
import urllib3

from mlspan_processor.events import Event
from mlspan_processor.notify.message import BODIES
from mlspan_processor.notify.settings import Alertmanager, Target
from mlspan_processor.records import ItemError, PermanentError, RetryableError
from mlspan_processor.retry import Backoff

MAX_FIRING: Final = 1_000
"""Incidents that are repeated to Alertmanager."""
_LAST_SECONDS: Final = 1.0
"""Longest wait between attempts once the processor is stopping."""
_TRIED_AGAIN: Final = frozenset({408, 425, 429})
_log = logging.getLogger(__name__)


class Outbox:
    """One target."""

    def __init__(
        self,
        name: str,
        target: Target,
        trace_url: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`name` is "kind/name"; `clock` returns seconds since the epoch."""
        self.name = name
        self.target = target
        self.sent = self.failed = self.dropped = 0
        self._trace_url = trace_url
        self._clock = clock
        self._body, path = BODIES[name.partition("/")[0]]
        url = target.url.get_secret_value()
        self._url = url.rstrip("/") + path if path else url
        self._host = urlsplit(url).hostname or ""
        self._headers = {
            "Content-Type": "application/json",
            "User-Agent": "mlspan",
            **{key: value.get_secret_value() for key, value in target.headers.items()},
        }
        self._pool = urllib3.PoolManager(retries=False)
        self._waiting: deque[list[Event]] = deque()
        self._firing: dict[str, Event] = {}
        self._changed = threading.Condition()
        self._closing = False
        self._abandoned = threading.Event()
        self._failing = False
        self._thread: threading.Thread | None = None

    def put(self, events: Sequence[Event]) -> None:
        """Take one message; never waits."""
        if not events:
            return
        with self._changed:
            self._waiting.append(list(events))
            if len(self._waiting) > self.target.queue_size:
                self._waiting.popleft()
                self.dropped += 1
            self._changed.notify_all()

    def remember(self, events: Sequence[Event]) -> None:
        """Incidents that were open before a restart: only Alertmanager hears of them again."""
        with self._changed:
            self._firing.update({event.id: event for event in events})

    def start(self) -> None:
        """Start the thread."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"notify {self.name}", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Take nothing more and send what waits without long pauses."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def shutdown(self, timeout_seconds: float) -> None:
        """Stop within this time; what is not sent by then is counted as dropped. Safe twice and before start."""
        self.stop()
        if self._thread is not None:
            self._thread.join(timeout_seconds)
        self._abandoned.set()
        with self._changed:
            left = len(self._waiting)
            self._waiting.clear()
            self.dropped += left
        if left:
            _log.error('notify "%s": %d messages were not sent before the end', self.name, left)

    def _run(self) -> None:
        repeat = self.target.repeat_interval if isinstance(self.target, Alertmanager) else None
        while True:
            with self._changed:
                if not self._waiting and not self._closing:
                    self._changed.wait(repeat)
                events = self._waiting.popleft() if self._waiting else None
                if events is None and self._closing:
                    return
                if repeat is not None:
                    events = self._fired(events)
            if events:
                self._send(events)

    def _fired(self, events: list[Event] | None) -> list[Event]:
        """What Alertmanager is to hear: the changes, with the alert of a severity that has changed ended; else all
        that is open."""
        if events is None:
            return [replace(event, change="updated") for event in self._firing.values()]
        result = []
        for event in events:
            known = self._firing.pop(event.id, None)
            if known is not None and known.severity != event.severity:
                result.append(replace(known, change="closed", closed_ns=event.updated_ns))
            if event.change != "closed" and len(self._firing) < MAX_FIRING:
                self._firing[event.id] = event
            result.append(event)
        return result

    def _send(self, events: list[Event]) -> None:
        data = orjson.dumps(self._body(events, self.target, self._trace_url, self._clock()))
        backoff = Backoff(self.target.retry_on_failure)
        started = time.monotonic()
        while True:
            try:
                self._post(data)
            except ItemError as error:
                after = error.retry_after_seconds if isinstance(error, RetryableError) else None
                wait = backoff.next_seconds(after, time.monotonic() - started)
                if isinstance(error, PermanentError) or wait is None or self._abandoned.is_set():
                    self._lost(error)
                    return
                if not self._failing:
                    _log.warning('notify "%s": tries again: %s', self.name, error)
                self._failing = True
                with self._changed:
                    if not self._closing:
                        self._changed.wait_for(lambda: self._closing, wait)
                        continue
                self._abandoned.wait(min(wait, _LAST_SECONDS))
            else:
                self.sent += 1
                if self._failing:
                    _log.info('notify "%s": answers again', self.name)
                self._failing = False
                return

    def _post(self, data: bytes) -> None:
        timeout = urllib3.Timeout(total=self.target.timeout)
        try:
            response = self._pool.request(
                "POST",
                self._url,
                body=data,
                headers=self._headers,
                timeout=timeout,
                redirect=False,
                preload_content=False,
            )
            status, after = response.status, response.headers.get("Retry-After", "")
            response.release_conn()
            response.close()
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            # The text of these errors may hold the URL, which may be a secret.
            raise RetryableError(f"{self._host}: {type(error).__name__}") from None
        if status < 300:
            return
        message = f"{self._host} answers {status}"
        if status in _TRIED_AGAIN or status >= 500:
            raise RetryableError(message, float(after) if after.isdecimal() else None)
        raise PermanentError(message)

    def _lost(self, error: ItemError) -> None:
        self.failed += 1
        _log.error('notify "%s": a message is lost: %s', self.name, error)
