"""Stage 8: chunks in; each exporter's own queue, retries and fan-out, so that a dead backend harms nobody
else.

Guarantee: what `consume` took is sent, or counted as lost with a reason. Memory: the queue's capacity per
exporter and signal. Source: the Collector's exporterhelper.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence

from mlspan_processor.bad_ids import without_bad_ids
from mlspan_processor.config.schema import Queued
from mlspan_processor.records import (
    Chunk,
    Consumer,
    Exporter,
    ItemError,
    PermanentError,
    RetryableError,
    Signal,
)
from mlspan_processor.retry import Backoff
from mlspan_processor.sending_queue import (
    BoundedQueue,
    QueueFullError,
    QueueStoppedError,
    TooLargeError,
    Work,
)
from mlspan_processor.signals import SIGNALS
from mlspan_processor.telemetry import Counter, Telemetry

_log = logging.getLogger(__name__)
_DRAIN_WAIT_SECONDS = 1.0
"""Longest wait between attempts once the processor is stopping."""

_LAST_SECONDS = 0.1
"""How long all threads together may take to end once their time is up."""

Sleep = Callable[[threading.Event, float], object]
"""Waits so many seconds, or until the event is set."""


def _wait(event: threading.Event, seconds: float) -> None:
    event.wait(seconds)


class FanOut:
    """Hands each chunk to every consumer; one that refuses does not keep it from the others.

    As soon as one has taken it, the sender's part is done: a repeated request would double the data there.
    What the others refused they have counted. When none took it the sender hears so: retryable if any of
    the refusals was.
    """

    def __init__(self, consumers: Sequence[Consumer]) -> None:
        self._consumers = tuple(consumers)

    def consume(self, chunk: Chunk) -> None:
        """Hand on; raise RetryableError or PermanentError only if nobody took it."""
        errors: list[ItemError] = []
        for consumer in self._consumers:
            try:
                consumer.consume(chunk)
            except ItemError as error:
                errors.append(error)
            except Exception as error:  # noqa: BLE001  # whatever stands behind
                _log.exception("a bug behind a fan-out: %s", type(error).__name__)
                errors.append(PermanentError(f"{type(error).__name__} while handling {chunk.items} items"))
        if errors and len(errors) == len(self._consumers):
            raise next((error for error in errors if isinstance(error, RetryableError)), errors[0])


class _Sender:
    """One exporter and signal: attempts, retries, counters."""

    def __init__(
        self,
        exporter: Exporter,
        name: str,
        signal: Signal,
        settings: Queued | None,
        telemetry: Telemetry,
        clock: Callable[[], float],
        sleep: Sleep,
    ) -> None:
        self._exporter = exporter
        self.name = name
        self.signal = signal
        self.settings = settings or Queued()
        self._telemetry = telemetry
        self._clock = clock
        self._sleep = sleep
        self.draining = threading.Event()
        """Set once the processor stops: waits get short."""
        self.abandoned = threading.Event()
        """Set when its time is up: no further attempt."""
        self._lost_in_shutdown = self._failed("shutdown")
        self._sent = telemetry.items("mlspan_exporter_sent_{items}", signal, exporter=name)
        self._retries = telemetry.counter("mlspan_exporter_retries", exporter=name)

    def once(self, chunk: Chunk) -> Chunk | None:
        """One attempt; what is to be sent in its place; raise RetryableError (not counted) or PermanentError
        (counted)."""
        try:
            result = self._exporter.export(chunk, self.settings.timeout)
        except RetryableError:
            raise
        except PermanentError as error:
            rest = without_bad_ids(chunk)
            self.lost(chunk.items - (rest.items if rest else 0), "permanent", error)
            if rest and rest.items:
                return rest
            raise
        except Exception as error:
            self._failed("error").add(chunk.items)
            _log.exception('exporter "%s": a bug: %s', self.name, type(error).__name__)
            raise PermanentError(f"{type(error).__name__}: {error}") from error
        rejected = min(result.rejected_items, chunk.items)
        self._sent.add(chunk.items - rejected)
        if rejected:
            self.lost(rejected, "rejected", PermanentError(result.message))
        elif result.message:
            _log.warning('exporter "%s": the backend warns: %s', self.name, result.message)
        return None

    def send(self, chunk: Chunk) -> ItemError | None:
        """Try until it is sent (None) or lost, which is counted; return why."""
        backoff = Backoff(self.settings.retry_on_failure)
        started = self._clock()
        while True:
            try:
                rest = self.once(chunk)
                if rest is None:
                    return None
                chunk = rest
            except PermanentError as error:
                return error
            except RetryableError as error:
                wait = backoff.next_seconds(error.retry_after_seconds, self._clock() - started)
                if self.abandoned.is_set():
                    self.lost(chunk.items, "shutdown", error)
                    return error
                if wait is None:
                    self.lost(chunk.items, "retries", error)
                    return error
                self._retries.add(1)
                is_draining = self.draining.is_set()
                if is_draining:
                    wait = min(wait, _DRAIN_WAIT_SECONDS)
                _log.info('exporter "%s" tries again in %.1f s: %s', self.name, wait, self._why(error))
                self._sleep(self.abandoned if is_draining else self.draining, wait)

    def lost(self, items: int, reason: str, error: Exception) -> None:
        """Count and log items that will not be sent."""
        self._failed(reason).add(items)
        what = SIGNALS[self.signal].items
        _log.error('exporter "%s" lost %d %s (%s): %s', self.name, items, what, reason, self._why(error))

    def _why(self, error: Exception) -> str:
        """The error's text, without the exporter's name that the line has already."""
        return str(error).removeprefix(f"{self.name}: ")

    def _failed(self, reason: str) -> Counter:
        return self._telemetry.items(
            "mlspan_exporter_send_failed_{items}", self.signal, exporter=self.name, reason=reason
        )

    @property
    def lost_in_shutdown(self) -> float:
        """Items whose time was up, in the queue or between two attempts."""
        return self._lost_in_shutdown.value


class DirectExporter:
    """An exporter that answers at once, or whose queue is switched off: the sender's thread does the work."""

    def __init__(
        self,
        exporter: Exporter,
        name: str,
        signal: Signal,
        settings: Queued | None,
        telemetry: Telemetry,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Sleep = _wait,
    ) -> None:
        self._sender = _Sender(exporter, name, signal, settings, telemetry, clock, sleep)
        self._retried = settings is not None

    def consume(self, chunk: Chunk) -> None:
        """Send; raise RetryableError or PermanentError."""
        if not self._retried:
            rest: Chunk | None = chunk
            while rest is not None:
                rest = self._sender.once(rest)
            return
        error = self._sender.send(chunk)
        if error is not None:
            raise error

    def start(self) -> None:
        """Nothing to start."""

    def stop(self) -> None:
        """Shorten waits."""
        self._sender.draining.set()

    def shutdown(self, timeout_seconds: float) -> int:  # noqa: ARG002  # the senders' threads have ended before
        """Nothing waits here."""
        self._sender.draining.set()
        self._sender.abandoned.set()
        return 0


class QueuedExporter:
    """A bounded queue before an exporter, emptied by its own threads."""

    def __init__(
        self,
        exporter: Exporter,
        name: str,
        signal: Signal,
        settings: Queued,
        telemetry: Telemetry,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Sleep = _wait,
    ) -> None:
        self._sender = _Sender(exporter, name, signal, settings, telemetry, clock, sleep)
        self._settings = settings.sending_queue
        self._queue = BoundedQueue(settings.sending_queue, clock)
        self._clock = clock
        self._threads: list[threading.Thread] = []
        self._sending: dict[int, Work] = {}
        self._refused = {
            reason: telemetry.items("mlspan_exporter_enqueue_failed_{items}", signal, exporter=name, reason=reason)
            for reason in ("full", "too_large", "stopping")
        }
        telemetry.observe("mlspan_exporter_queue_size", lambda: self._queue.size, exporter=name, signal=signal.value)
        telemetry.observe(
            "mlspan_exporter_queue_capacity", lambda: self._queue.capacity, exporter=name, signal=signal.value
        )

    def start(self) -> None:
        """Start the threads that send."""
        self._threads = [
            threading.Thread(target=self._work, name=f"{self._sender.name} {index}", daemon=True)
            for index in range(self._settings.num_consumers)
        ]
        for thread in self._threads:
            thread.start()

    def consume(self, chunk: Chunk) -> None:
        """Take the chunk over; see BoundedQueue.put, and SendingQueue.wait_for_result."""
        try:
            ticket = self._queue.put(chunk)
        except QueueFullError as error:
            self._refused["full"].add(chunk.items)
            _log.warning('exporter "%s" refuses %s: %s', self._sender.name, SIGNALS[chunk.signal].items, error)
            raise
        except QueueStoppedError:
            self._refused["stopping"].add(chunk.items)
            raise
        except TooLargeError as error:
            self._refused["too_large"].add(chunk.items)
            _log.warning('exporter "%s" refuses %s: %s', self._sender.name, SIGNALS[chunk.signal].items, error)
            raise
        if self._settings.wait_for_result:
            ticket.wait()

    def stop(self) -> None:
        """Take nothing more, and send what waits without long pauses."""
        self._sender.draining.set()
        self._queue.close()

    def shutdown(self, timeout_seconds: float) -> int:
        """Drain; return how many items were lost for want of time. Safe twice and before start."""
        self.stop()
        deadline = self._clock() + timeout_seconds
        for thread in self._threads:
            thread.join(max(deadline - self._clock(), 0.0))
        self._sender.abandoned.set()
        error = RetryableError("the processor stopped before the backend took it")
        lost = self._queue.abandon(error)
        if lost:
            self._sender.lost(lost, "shutdown", error)
        # What is in flight now ends with its attempt, or is cut off with the process and counted here.
        deadline = self._clock() + _LAST_SECONDS
        for thread in self._threads:
            thread.join(max(deadline - self._clock(), 0.0))
        return self._in_flight() + round(self._sender.lost_in_shutdown)

    def _in_flight(self) -> int:
        return sum(work.chunk.items for work in self._sending.values())

    def _work(self) -> None:
        while (work := self._queue.take()) is not None:
            error: ItemError | None = PermanentError("a bug in the sending queue")
            self._sending[threading.get_ident()] = work
            try:
                error = self._sender.send(work.chunk)
            finally:
                del self._sending[threading.get_ident()]
                self._queue.done(work, error)
