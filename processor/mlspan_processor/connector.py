"""The connector ``mlspan``: chunks in from receivers' threads, one thread that owns the state, chunks out.

Reads trace and log chunks; writes enriched traces, metrics and logs to `outputs`. Requests that mention no
model are handed on in the caller's thread as the bytes that came. The others wait in a bounded queue (full:
RetryableError, so that the sender tries again), are taken up to 64 at a time, and go on in the order they
came, whatever happens to their statistics.
Memory: the queue's bytes, at most 256 requests or 8 MiB parsed, and the state.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any, ClassVar, Final, NamedTuple

from google.protobuf.message import DecodeError

from mlspan_processor import lean
from mlspan_processor.feedback import log_labels
from mlspan_processor.labels import Label, LabelReceipt
from mlspan_processor.records import Chunk, Consumer, ItemError, RetryableError, Signal
from mlspan_processor.settings import MlspanSettings
from mlspan_processor.state import State

MAX_REQUESTS: Final = 256
MAX_BYTES: Final = 8 * 1024 * 1024
"""A batch holds at most so many requests, and hardly more bytes."""
GATHER_SECONDS: Final = 0.05
"""How long the first request of a batch waits for others: what numpy costs, it costs a batch."""
RETRY_AFTER_SECONDS: Final = 1.0
ANSWER_SECONDS: Final = 30.0
FORWARD_SECONDS: Final = 5.0
_FEEDBACK: Final = b"ml.feedback."
_FEEDBACK_LABEL: Final = b"ml.feedback.label"
_FEEDBACK_EVENT: Final = b"ml.feedback"
_MODEL: Final = b"ml.model.name"
_SECOND: Final = 1_000_000_000
_log = logging.getLogger(__name__)


class _Task(NamedTuple):
    """Something to do on the state thread, between chunks."""

    work: Callable[[], Any]
    answer: "Future[Any]"


class MlspanConnector:
    """Model spans to enriched spans, quality and drift."""

    Config: ClassVar[type[MlspanSettings]] = MlspanSettings

    def __init__(
        self,
        config: MlspanSettings | None = None,
        name: str = "mlspan",
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """`clock` returns nanoseconds since the epoch; event time is compared with it."""
        self.config = config or MlspanSettings()
        self.name = name
        self.outputs: dict[Signal, Consumer] = {}
        self._clock = clock
        self._state = State(self.config, clock())
        self._queue: deque[Chunk | _Task] = deque()
        self._queued_bytes = 0
        self._queued_requests = 0
        self._queued_tasks = 0
        self._busy = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._next_flush = clock() + self._interval
        self._counts = dict.fromkeys(
            ("refused_requests", "unforwarded_items", "unreadable_requests", "passed_requests"), 0
        )

    # --- from any thread
    # -----------------------------------------------------------------------------------------

    def consume(self, chunk: Chunk) -> None:
        """Take a validated chunk of traces or logs.

        Raises:
            RetryableError: the queue is full, or (for chunks without a model) what comes next is.
        """
        data = chunk.data
        if chunk.signal is Signal.TRACES:
            concerns_us = _MODEL in data or _FEEDBACK in data
        else:
            concerns_us = chunk.signal is Signal.LOGS and _FEEDBACK_EVENT in data
        if not concerns_us:
            self._counts["passed_requests"] += 1
            output = self.outputs.get(chunk.signal)
            if output is not None:
                output.consume(chunk)
            return
        with self._changed:
            limit = self.config.queue
            if self._queued_requests >= limit.max_requests or (
                self._queued_bytes and self._queued_bytes + len(data) > limit.max_bytes
            ):
                self._counts["refused_requests"] += 1
                raise RetryableError(
                    f'connector "{self.name}": its queue of {limit.max_requests} requests'
                    f" and {limit.max_bytes} bytes is full",
                    RETRY_AFTER_SECONDS,
                )
            if self._closing:
                raise RetryableError(f'connector "{self.name}" is shutting down', RETRY_AFTER_SECONDS)
            self._queue.append(chunk)
            self._queued_bytes += len(data)
            self._queued_requests += 1
            # The state thread waits for the first request, then for a batch: what comes between wakes nobody.
            if len(self._queue) == 1 or self._is_batch():
                self._changed.notify_all()

    def submit_labels(self, labels: list[Label]) -> LabelReceipt:
        """Take labels and say what became of them.

        Raises:
            RetryableError: the state thread did not get to it in time.
        """
        receipt: LabelReceipt = self._ask(lambda: self._state.submit(labels, self._clock()))
        return receipt

    def status(self) -> dict[str, Any]:
        """Models, label counts and counters, JSON-able."""
        status: dict[str, Any] = self._ask(self._state.status)
        status["counters"].update(self._own_counters())
        return status

    def report(
        self, model: str, version: str | None = None, start_ns: int | None = None, end_ns: int | None = None
    ) -> dict[str, Any]:
        """One model version's drift and quality; the trailing windows without start and end.

        Raises:
            KeyError: no such model.
            RetryableError: the state thread did not get to it in time.
        """
        found: dict[str, Any] = self._ask(lambda: self._state.report(model, version, start_ns, end_ns))
        return found

    def counters(self) -> Mapping[str, int | float]:
        """Everything that is counted, by name."""
        return {**self._state.all_counters(), **self._own_counters()}

    def start(self) -> None:
        """Start the state thread; `outputs` is set."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"{self.name}-state", daemon=True)
            self._thread.start()

    def shutdown(self, timeout_seconds: float = 10.0) -> None:
        """Work off the queue, send the last metrics, stop; safe twice and before start."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout_seconds)
        with self._changed:
            left = sum(one.items for one in self._queue if isinstance(one, Chunk))
        if left:
            self._counts["unforwarded_items"] += left
            _log.error('connector "%s": %d items were not handed on when its time was up', self.name, left)

    def drain(self, timeout_seconds: float = 30.0) -> None:
        """Wait until everything taken so far has gone on.

        Raises:
            TimeoutError: it has not, within the time.
        """
        with self._changed:
            idle = self._changed.wait_for(lambda: not self._queue and not self._busy, timeout_seconds)
        if not idle:
            raise TimeoutError(f'connector "{self.name}" still has work after {timeout_seconds} s')

    def flush(self) -> None:
        """Send the metrics now."""
        self._ask(self._flush)

    # --- the state thread
    # ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            taken = self._take()
            if taken is None:
                break
            self._work(taken)
            self._tick_if_due()
        self._guarded("flush", self._flush)

    def _take(self) -> list[Chunk | _Task] | None:
        """A batch of requests; an empty list when it is time to look at the clock; None at the end."""
        with self._changed:
            self._busy = False
            self._changed.notify_all()
            if not self._queue:
                if self._closing:
                    return None
                self._changed.wait(min(1.0, self.config.metrics_flush_interval))
            if self._queue:
                self._changed.wait_for(self._is_batch, GATHER_SECONDS)
            taken: list[Chunk | _Task] = []
            size = 0
            while self._queue and len(taken) < MAX_REQUESTS and size < MAX_BYTES:
                one = self._queue.popleft()
                if isinstance(one, Chunk):
                    size += len(one.data)
                    self._queued_requests -= 1
                else:
                    self._queued_tasks -= 1
                taken.append(one)
            self._queued_bytes -= size
            self._busy = bool(taken)
            return taken

    def _is_batch(self) -> bool:
        """Whether what is queued need not wait for more: it fills a batch, or somebody waits for an answer."""
        return (
            self._closing
            or self._queued_tasks > 0
            or self._queued_requests >= MAX_REQUESTS
            or self._queued_bytes >= MAX_BYTES
        )

    def _work(self, taken: list[Chunk | _Task]) -> None:
        """Chunks between two tasks are one batch."""
        batch: list[Chunk] = []
        for one in taken:
            if isinstance(one, Chunk):
                batch.append(one)
                continue
            self._guarded("batch", partial(self._batch, batch))
            batch = []
            try:
                one.answer.set_result(one.work())
            except Exception as error:  # noqa: BLE001 the one who asked gets it
                one.answer.set_exception(error)
        self._guarded("batch", partial(self._batch, batch))

    def _batch(self, chunks: list[Chunk]) -> None:
        now = self._clock()
        parsed: list[tuple[Chunk, lean.Request | None]] = []
        for chunk in chunks:
            if chunk.signal is Signal.LOGS:
                self._guarded("logs", partial(self._feedback, chunk.data, now))
                parsed.append((chunk, None))
                continue
            try:
                parsed.append((chunk, lean.parse(chunk.data)))
            except DecodeError as error:
                self._counts["unreadable_requests"] += 1
                self._state.warn_once("parse", "a request could not be read", error)
                parsed.append((chunk, None))
        requests = [(request, _FEEDBACK_LABEL in chunk.data) for chunk, request in parsed if request is not None]
        if requests:
            # Whatever becomes of their statistics, the requests have been acknowledged: they go on.
            self._guarded("spans", partial(self._state.process, requests, now))
        for chunk, request in parsed:
            if request is None:
                self._forward(chunk)
            else:
                self._forward(Chunk(chunk.signal, request.SerializeToString(), chunk.items))

    def _feedback(self, data: bytes, now: int) -> None:
        labels = log_labels(data)
        if labels:
            self._state.feedback(labels, now)

    def _forward(self, chunk: Chunk) -> None:
        """Hand on; what comes next may ask for a little time."""
        output = self.outputs.get(chunk.signal)
        if output is None:
            return
        deadline = time.monotonic() + FORWARD_SECONDS
        while True:
            try:
                output.consume(chunk)
                return
            except RetryableError as error:
                wait = min(error.retry_after_seconds or 0.05, 0.5)
                if self._closing or time.monotonic() + wait > deadline:
                    self._lost(chunk, error)
                    return
                time.sleep(wait)
            except Exception as error:  # noqa: BLE001 an output's bug must not stop the thread
                self._lost(chunk, error)
                return

    def _lost(self, chunk: Chunk, error: Exception) -> None:
        self._counts["unforwarded_items"] += chunk.items
        kind = "output" if isinstance(error, ItemError) else type(error).__name__
        self._state.warn_once(f"forward:{chunk.signal.value}:{kind}", f"{chunk.signal.value} not taken", error)

    def _tick_if_due(self) -> None:
        now = self._clock()
        if now >= self._next_flush:
            self._guarded("flush", self._flush)

    def _flush(self) -> None:
        now = self._clock()
        self._next_flush = now + self._interval
        self._guarded("tick", partial(self._state.tick, now))
        for chunk in self._state.flush(now):
            self._forward(chunk)

    def _guarded(self, what: str, work: Callable[[], object]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 nothing stops the state thread
            self._state.counters["failed_blocks"] += 1
            self._state.warn_once(f"{what}:{type(error).__name__}", f"{what}: failed", error)

    def _ask(self, work: Callable[[], Any]) -> Any:
        """Run on the state thread, or here while it does not run."""
        thread = self._thread
        if thread is None or not thread.is_alive() or thread is threading.current_thread():
            return work()
        task = _Task(work, Future())
        with self._changed:
            self._queue.append(task)
            self._queued_tasks += 1
            self._changed.notify_all()
        try:
            return task.answer.result(ANSWER_SECONDS)
        except TimeoutError:
            raise RetryableError(f'connector "{self.name}" is busy', RETRY_AFTER_SECONDS) from None

    @property
    def _interval(self) -> int:
        return int(self.config.metrics_flush_interval * _SECOND)

    def _own_counters(self) -> dict[str, int | float]:
        return {**self._counts, "queued_requests": self._queued_requests, "queued_bytes": self._queued_bytes}
