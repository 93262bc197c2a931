"""The connector ``mlspan``: chunks in from receivers' threads, one thread that owns the state, chunks out.

Reads trace and log chunks; writes enriched traces, metrics and logs to `outputs`. Requests that mention no
model are handed on in the caller's thread as the bytes that came. The others wait in a bounded queue (inbox.py;
full: RetryableError, so that the sender tries again), are taken in batches, and go on in the order they
came, whatever happens to their statistics. Requests that carry labels are written down before they are acknowledged,
where there is a store (see store/).
Memory: the queue's bytes, at most 256 requests or 8 MiB parsed, and the state.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final

from google.protobuf.message import DecodeError

from mlspan_processor import lean
from mlspan_processor.feedback import log_items, log_labels
from mlspan_processor.inbox import RETRY_AFTER_SECONDS, Inbox, Task
from mlspan_processor.labels import Label, LabelReceipt
from mlspan_processor.records import Chunk, Consumer, ItemError, RetryableError, Signal
from mlspan_processor.settings import MlspanSettings
from mlspan_processor.state import State
from mlspan_processor.store.journal import NOT_WRITTEN, Entry, labels_from_bytes, labels_to_bytes
from mlspan_processor.store.opening import open_keeper

if TYPE_CHECKING:
    from pathlib import Path

    from mlspan_processor.store.keeper import Keeper

FORWARD_SECONDS: Final = 5.0
NOTIFY_SECONDS: Final = 2.0
LABELS: Final = "labels"
"""Kind of a journal entry with labels that came by `submit_labels`."""
_FEEDBACK: Final = b"ml.feedback."
_FEEDBACK_LABEL: Final = b"ml.feedback.label"
_FEEDBACK_EVENT: Final = b"ml.feedback"
_MODEL: Final = b"ml.model.name"
_SECOND: Final = 1_000_000_000
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Labelled(Chunk):
    """A chunk that may carry labels; `entry` is its number in the journal."""

    entry: int = NOT_WRITTEN


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
        self._inbox = Inbox(name, self.config.queue.max_requests, self.config.queue.max_bytes)
        self._thread: threading.Thread | None = None
        self.state_dir: Path | None = None
        """Where the state's file is when the settings do not say; None: in memory."""
        self._keeper: Keeper | None = None
        self._notify_seconds = NOTIFY_SECONDS
        self._next_flush = clock() + self._interval
        self._counts = dict.fromkeys(("unforwarded_items", "unreadable_requests", "passed_requests"), 0)

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
        if chunk.signal is Signal.LOGS or _FEEDBACK_LABEL in data:
            self._inbox.put(chunk, partial(self._written_down, chunk))
        else:
            self._inbox.put(chunk)

    def submit_labels(self, labels: list[Label]) -> LabelReceipt:
        """Take labels and say what became of them.

        Raises:
            RetryableError: the state thread did not get to it in time.
        """
        entry = self._write_down(LABELS, labels_to_bytes(labels)) if self._keeper else NOT_WRITTEN
        if entry != NOT_WRITTEN and self._inbox.stopped:
            raise RetryableError(f'connector "{self.name}" has shut down', RETRY_AFTER_SECONDS)
        receipt: LabelReceipt = self._ask(partial(self._submit, labels, entry))
        return replace(receipt, durable=entry != NOT_WRITTEN)

    def status(self) -> dict[str, Any]:
        """Models, label counts and counters, JSON-able."""
        status: dict[str, Any] = self._ask(self._state.status)
        status["counters"].update(self._own_counters())
        keeper = self._keeper
        status["store"] = {"path": str(keeper.path) if keeper else None, "problems": self.problems()}
        return status

    def problems(self) -> list[str]:
        """What a person should know, though the processor runs: state that is not on disk."""
        return [self._keeper.problem] if self._keeper is not None and self._keeper.problem else []

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

    def incidents(self) -> dict[str, Any]:
        """Incidents that are open, and the last closed ones, JSON-able.

        Raises:
            RetryableError: the state thread did not get to it in time.
        """
        found: dict[str, Any] = self._ask(self._state.judge.report)
        return found

    def counters(self) -> Mapping[str, int | float]:
        """Everything that is counted, by name."""
        return {**self._state.all_counters(), **self._own_counters()}

    def start(self) -> None:
        """Take over the state of an earlier process, and start the state thread; `outputs` is set.

        Raises:
            StartError: the state's file cannot be used.
        """
        if self._thread is None:
            self._open()
            self._state.judge.notifier.start()
            self._thread = threading.Thread(target=self._run, name=f"{self.name}-state", daemon=True)
            self._thread.start()

    def shutdown(self, timeout_seconds: float = 10.0) -> None:
        """Work off the queue, send the last metrics, stop; safe twice and before start."""
        # What the last look has opened or closed is told, even where it takes a moment longer.
        self._notify_seconds = min(timeout_seconds, NOTIFY_SECONDS)
        self._inbox.close()
        if self._thread is not None:
            self._thread.join(timeout_seconds + self._notify_seconds)
        elif self._keeper is not None:
            self._keeper.close()
        self._state.judge.notifier.shutdown(0.0)
        left = self._inbox.left()
        if left:
            self._counts["unforwarded_items"] += left
            _log.error('connector "%s": %d items were not handed on when its time was up', self.name, left)

    def drain(self, timeout_seconds: float = 30.0) -> None:
        """Wait until everything taken so far has gone on.

        Raises:
            TimeoutError: it has not, within the time.
        """
        if not self._inbox.drain(timeout_seconds):
            raise TimeoutError(f'connector "{self.name}" still has work after {timeout_seconds} s')

    def flush(self) -> None:
        """Send the metrics now."""
        self._ask(self._flush)

    # --- the state thread
    # ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            taken = self._inbox.take(min(1.0, self.config.metrics_flush_interval))
            if taken is None:
                break
            self._work(taken)
            self._tick_if_due()
        self._guarded("flush", self._flush)
        self._inbox.stop()
        # Before the targets get their time: whoever stops us may not wait that long.
        is_saved = self._save_all()
        notifier = self._state.judge.notifier
        notifier.shutdown(self._notify_seconds)
        notifier.settle(self._save_all() or is_saved)
        if self._keeper is not None:
            self._keeper.close()

    def _save_all(self) -> bool:
        """Whether everything is on disk."""
        saved: list[bool] = []
        keeper = self._keeper
        if keeper is not None:
            self._guarded("save", lambda: saved.append(keeper.save(self._state, self._clock())))
        return saved == [True]

    def _work(self, taken: list[Chunk | Task]) -> None:
        """Chunks between two tasks are one batch."""
        batch: list[Chunk] = []
        for one in taken:
            if isinstance(one, Chunk):
                batch.append(one)
                continue
            self._finish(batch)
            batch = []
            try:
                one.answer.set_result(one.work())
            except Exception as error:  # noqa: BLE001 the one who asked gets it
                one.answer.set_exception(error)
        self._finish(batch)

    def _finish(self, chunks: list[Chunk]) -> None:
        self._guarded("batch", partial(self._batch, chunks))
        if self._keeper is not None:
            for chunk in chunks:
                if isinstance(chunk, _Labelled):
                    self._keeper.journal.applied(chunk.entry)

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
        requests = [(request, isinstance(chunk, _Labelled)) for chunk, request in parsed if request is not None]
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

    def _forward(self, chunk: Chunk, deadline: float = math.inf) -> None:
        """Hand on; what comes next may ask for a little time."""
        output = self.outputs.get(chunk.signal)
        if output is None:
            return
        deadline = min(deadline, time.monotonic() + FORWARD_SECONDS)
        while True:
            try:
                output.consume(chunk)
                return
            except RetryableError as error:
                wait = min(error.retry_after_seconds or 0.05, 0.5)
                if self._inbox.closing or time.monotonic() + wait > deadline:
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

    def _submit(self, labels: list[Label], entry: int) -> LabelReceipt:
        receipt = self._state.submit(labels, self._clock())
        if self._keeper is not None:
            self._keeper.journal.applied(entry)
        return receipt

    def _tick_if_due(self) -> None:
        now = self._clock()
        # A clock that was set back must not put it off.
        if not self._next_flush - self._interval <= now < self._next_flush:
            self._guarded("flush", self._flush)
        if self._keeper is not None and self._keeper.is_due(now):
            self._guarded("save", partial(self._keeper.save, self._state, now))

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
        return self._inbox.ask(work)

    # --- the store
    # ------------------------------------------------------------------------------------------------

    def _written_down(self, chunk: Chunk) -> _Labelled:
        return _Labelled(chunk.signal, chunk.data, chunk.items, self._write_down(chunk.signal.value, chunk.data))

    def _write_down(self, kind: str, data: bytes) -> int:
        """Keep a request with labels until their effect is on disk; its number in the journal."""
        return NOT_WRITTEN if self._keeper is None else self._keeper.write_down(kind, data, self._clock())

    def _open(self) -> None:
        """Read the state of an earlier process, and apply the labels that had not been saved."""
        now = self._clock()
        self._keeper = keeper = open_keeper(self.config, self.name, self.state_dir)
        if keeper is None:
            return
        try:
            keeper.restore(self._state, now)
        except Exception as error:  # noqa: BLE001 whatever is in the file must not keep the processor from starting
            _log.debug("what could not be read", exc_info=error)
            keeper.begin_anew(f"{type(error).__name__}: {error}")
            self._state = State(self.config, now)
            keeper.restore(self._state, now)
        self._state.save = partial(keeper.save, self._state)
        deadline = time.monotonic() + FORWARD_SECONDS
        for entry in keeper.left_over():
            self._guarded("journal", partial(self._again, entry, deadline))
            keeper.journal.applied(entry.number)

    def _again(self, entry: Entry, deadline: float) -> None:
        """Apply and hand on a request that an earlier process had acknowledged.

        Whether it had gone on nobody knows: twice is better than never.
        """
        if entry.kind == LABELS:
            self._state.submit(labels_from_bytes(entry.data), entry.at)
        elif entry.kind == Signal.LOGS.value:
            self._guarded("logs", partial(self._feedback, entry.data, entry.at))
            self._forward(Chunk(Signal.LOGS, entry.data, log_items(entry.data)), deadline)
        else:
            request = lean.parse(entry.data)
            spans = sum(len(scope.spans) for resource in request.resource_spans for scope in resource.scope_spans)
            self._guarded("spans", partial(self._state.process, [(request, True)], entry.at))
            self._forward(Chunk(Signal.TRACES, request.SerializeToString(), spans), deadline)

    @property
    def _interval(self) -> int:
        return int(self.config.metrics_flush_interval * _SECOND)

    def _own_counters(self) -> dict[str, int | float]:
        kept = self._keeper.counters() if self._keeper is not None else {}
        return {**self._counts, **kept, **self._inbox.counters()}
