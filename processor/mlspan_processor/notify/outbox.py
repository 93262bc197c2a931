"""Stage 6, notifications: one target's messages: a bounded queue, a thread, retries.

In: events, from the state thread, which never waits. Out: HTTP POSTs in order, one a change of incidents. A target that
does not answer harms nobody else: its messages are tried again until `max_elapsed_time`, and what is lost is counted
and logged once in a row. What is not sent when the processor stops goes to the store. Alertmanager hears of open
incidents again and again, since it takes silence for recovery. Log lines name the target and its host, never the URL or
headers. Memory: see backlog.py.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import orjson
import urllib3

from mlspan_processor.events import Event
from mlspan_processor.notify.backlog import Backlog
from mlspan_processor.notify.message import BODIES
from mlspan_processor.notify.settings import Alertmanager, Target
from mlspan_processor.records import ItemError, PermanentError, RetryableError
from mlspan_processor.retry import Backoff

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
        self.sent = self.failed = 0
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
        self._backlog = Backlog(target)
        self._held: list[Event] = []
        self._repeat_interval = target.repeat_interval if isinstance(target, Alertmanager) else math.inf
        self._due = math.inf
        self._given_up = 0
        self._changed = threading.Condition()
        self._closing = False
        self._abandoned = threading.Event()
        self._failing = False
        self._thread: threading.Thread | None = None

    @property
    def dropped(self) -> int:
        """What the target will never hear of, for want of room or time."""
        return self._backlog.dropped + self._given_up

    @property
    def waiting(self) -> int:
        """Messages that are not told yet."""
        return len(self._backlog)

    def hold(self, events: Sequence[Event]) -> None:
        """Take events that are not to be told before `release`, but are part of the state; never waits."""
        with self._changed:
            self._held += events

    def release(self) -> None:
        """Tell what is held, as one message; never waits."""
        with self._changed:
            held, self._held = self._held, []
            self._backlog.put(held)
            self._changed.notify_all()

    def put(self, events: Sequence[Event]) -> None:
        """Take one message; never waits."""
        self.hold(events)
        self.release()

    def state(self) -> bytes:
        """What is not told yet, and what was told, as JSON."""
        with self._changed:
            state = self._backlog.state()
            return orjson.dumps({**state, "waiting": [*state["waiting"], *([self._held] if self._held else [])]})

    def restore(self, state: Mapping[str, Any]) -> None:
        """What `state` told of an earlier process, before `start`."""
        with self._changed:
            self._backlog.restore(state)

    def remember(self, opened: Sequence[Event], is_all_told: bool) -> None:
        """Incidents that were open before a restart, before `start`: those that the target was not told of, unless
        everything was, it hears now."""
        with self._changed:
            self._backlog.remember(opened, is_all_told)

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
        """Stop within this time; what is not sent by then still waits. Safe twice and before start."""
        self.stop()
        if self._thread is not None:
            self._thread.join(timeout_seconds)
        self._abandoned.set()

    def settle(self, is_kept: bool) -> None:
        """After `shutdown`: whether the state, with what still waits, is kept for the next start; else that is lost."""
        with self._changed:
            left = len(self._backlog)
            if not is_kept:
                self._given_up += self._backlog.clear()
        if left and is_kept:
            _log.warning('notify "%s": %d messages are kept and sent after the next start', self.name, left)
        elif left:
            _log.error('notify "%s": %d messages were not sent before the end', self.name, left)

    def _run(self) -> None:
        # What was told before a restart may be long ago.
        self._due = time.monotonic() + (0.0 if self._backlog.told else self._repeat_interval)
        while not self._abandoned.is_set():
            self._repeat_if_due()
            with self._changed:
                message = self._backlog.take()
                if not message and self._closing:
                    return
                if not message:
                    # Without an end where nothing is repeated.
                    left = max(self._due - time.monotonic(), 0.0)
                    self._changed.wait(left if self._repeat_interval < math.inf else None)
                    continue
            is_sent = self._send(message)
            with self._changed:
                if is_sent:
                    self._backlog.delivered()
                elif is_sent is not None:
                    self._backlog.lost()

    def _repeat_if_due(self) -> None:
        """Tell Alertmanager of all that is open, by time, whatever else there is to tell and to try again."""
        if time.monotonic() < self._due or self._repeat_interval == math.inf:
            return
        self._due = time.monotonic() + self._repeat_interval
        with self._changed:
            events = [] if self._closing else self._backlog.open()
        if not events:
            return
        try:
            self._attempt(events)
        except PermanentError as error:
            self._lost(error)
        except ItemError as error:
            self._again(error)
            self._due = min(self._due, time.monotonic() + self.target.retry_on_failure.max_interval)

    def _send(self, events: list[Event]) -> bool | None:
        """Post until it is taken (True) or lost (False); None where the end came first."""
        backoff = Backoff(self.target.retry_on_failure)
        started = time.monotonic()
        while True:
            try:
                self._attempt(events)
                return True
            except ItemError as error:
                after = error.retry_after_seconds if isinstance(error, RetryableError) else None
                wait = backoff.next_seconds(after, time.monotonic() - started)
                if isinstance(error, PermanentError) or wait is None:
                    self._lost(error)
                    return False
                self._again(error)
            if not self._paused(wait):
                return None
            self._repeat_if_due()

    def _attempt(self, events: list[Event]) -> None:
        # Anew for each attempt: an alert that ended while it was tried again would come resolved.
        self._post(orjson.dumps(self._body(events, self.target, self._trace_url, self._clock())))
        self.sent += 1
        if self._failing:
            _log.info('notify "%s": answers again', self.name)
        self._failing = False

    def _again(self, error: ItemError) -> None:
        if not self._failing:
            _log.warning('notify "%s": tries again: %s', self.name, error)
        self._failing = True

    def _paused(self, seconds: float) -> bool:
        """Wait before the next attempt, briefly while stopping; whether there is to be one."""
        with self._changed:
            if not self._closing and not self._changed.wait_for(lambda: self._closing, seconds):
                return True
        return not self._abandoned.wait(min(seconds, _LAST_SECONDS))

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
