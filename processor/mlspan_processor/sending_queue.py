"""The bounded queue before an exporter: chunks in from receiver threads, batches out to its workers.

One worker at a time waits at the queue and takes the next batch, the others wait for their turn: a chunk
wakes exactly one thread. What is being sent still counts as in the queue, so that the bound is a bound on
memory.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from mlspan_processor.batching import SIZERS, join, split
from mlspan_processor.config.schema import SendingQueue
from mlspan_processor.records import Chunk, ItemError, PermanentError, RetryableError

RETRY_AFTER_SECONDS = 1.0
"""What a sender is asked to wait when the queue is full."""


class QueueFullError(RetryableError):
    """Nothing was taken."""


class QueueStoppedError(RetryableError):
    """The processor is stopping; nothing was taken."""


class TooLargeError(PermanentError):
    """One request is larger than the whole queue."""


class Ticket:
    """A sender's view of one chunk: how it ended."""

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._parts = 1
        self._error: ItemError | None = None
        self._lock = threading.Lock()

    def split(self, parts: int) -> None:
        """The chunk has become several."""
        with self._lock:
            self._parts += parts - 1

    def end(self, error: ItemError | None) -> None:
        """One part has been sent, or is lost."""
        with self._lock:
            self._parts -= 1
            self._error = self._error or error
            if self._parts == 0:
                self._ended.set()

    def wait(self) -> None:
        """Return when all is sent; raise what became of it otherwise."""
        self._ended.wait()
        if self._error is not None:
            raise self._error


@dataclass(slots=True)
class _Entry:
    chunk: Chunk
    size: int
    """In the unit of the queue's sizer; 0 for all parts of a split chunk but the last."""
    arrived: float
    ticket: Ticket


@dataclass(slots=True)
class Work:
    """What a worker has to send; `BoundedQueue.done` must follow."""

    chunk: Chunk
    size: int
    tickets: list[Ticket]


class BoundedQueue:
    """See the module's docstring. Safe from any thread."""

    def __init__(self, settings: SendingQueue, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._size = SIZERS[settings.sizer]
        self._batch = settings.batch
        self._batch_size = SIZERS[settings.batch.sizer] if settings.batch else SIZERS["requests"]
        self._lock = threading.Lock()
        self._arrival = threading.Condition(self._lock)
        self._space = threading.Condition(self._lock)
        self._turn = threading.Lock()
        self._entries: deque[_Entry] = deque()
        self._waiting_batch = 0
        self._used = 0
        self._closed = False

    @property
    def size(self) -> int:
        """Waiting or being sent."""
        return self._used

    @property
    def capacity(self) -> int:
        """The most that `size` can be."""
        return self._settings.queue_size

    def put(self, chunk: Chunk) -> Ticket:
        """Take the chunk over.

        Raises:
            QueueFullError: try again later (never with `block_on_overflow`, which waits).
            QueueStoppedError: the processor is stopping.
            TooLargeError: it could never fit.
        """
        size = self._size(chunk)
        if size > self.capacity:
            raise TooLargeError(f"a request of {size} {self._settings.sizer} exceeds queue_size ({self.capacity})")
        with self._lock:
            while self._used + size > self.capacity and not self._closed:
                if not self._settings.block_on_overflow:
                    raise QueueFullError(
                        f"the sending queue is full ({self._used} of {self.capacity} {self._settings.sizer})",
                        RETRY_AFTER_SECONDS,
                    )
                self._space.wait()
            if self._closed:
                raise QueueStoppedError("the processor is stopping", RETRY_AFTER_SECONDS)
            ticket = Ticket()
            was_empty = not self._entries
            self._entries.append(_Entry(chunk, size, self._clock(), ticket))
            self._used += size
            self._waiting_batch += self._batch_size(chunk)
            if self._batch is None or was_empty or self._waiting_batch >= self._batch.min_size:
                self._arrival.notify()
        return ticket

    def take(self) -> Work | None:
        """Wait for the next batch; None when the queue is closed and empty."""
        with self._turn, self._lock:
            while not self._ready():
                if self._closed and not self._entries:
                    return None
                self._arrival.wait(self._seconds_to_flush())
            return self._pop()

    def done(self, work: Work, error: ItemError | None) -> None:
        """The work is sent, or lost by `error`: its room is free."""
        with self._lock:
            self._used -= work.size
            self._space.notify_all()
        for ticket in work.tickets:
            ticket.end(error)

    def close(self) -> None:
        """Take nothing more; what waits can still be taken out, at once."""
        with self._lock:
            self._closed = True
            self._arrival.notify_all()
            self._space.notify_all()

    def abandon(self, error: ItemError) -> int:
        """Close, throw away what waits, tell its senders; return how many items that were."""
        self.close()
        with self._lock:
            entries, self._entries = list(self._entries), deque()
            self._used -= sum(entry.size for entry in entries)
            self._waiting_batch = 0
            self._arrival.notify_all()
        for entry in entries:
            entry.ticket.end(error)
        return sum(entry.chunk.items for entry in entries)

    def _ready(self) -> bool:
        if not self._entries:
            return False
        if self._batch is None or self._closed or self._waiting_batch >= self._batch.min_size:
            return True
        return self._clock() - self._entries[0].arrived >= self._batch.flush_timeout

    def _seconds_to_flush(self) -> float | None:
        if not self._entries or self._batch is None:
            return None
        return max(self._entries[0].arrived + self._batch.flush_timeout - self._clock(), 0.0)

    def _pop(self) -> Work:
        """Take one entry, or as many as a batch holds; called with the lock held."""
        if self._batch is None:
            entry = self._entries.popleft()
            return Work(entry.chunk, entry.size, [entry.ticket])
        limit = self._batch.max_size
        if limit and self._batch_size(self._entries[0].chunk) > limit:
            self._split_first(limit)
        taken: list[_Entry] = []
        total = 0
        while self._entries:
            size = self._batch_size(self._entries[0].chunk)
            if taken and ((limit and total + size > limit) or (not limit and total >= self._batch.min_size)):
                break
            taken.append(self._entries.popleft())
            total += size
        self._waiting_batch -= total
        return Work(
            join([entry.chunk for entry in taken]),
            sum(entry.size for entry in taken),
            [one.ticket for one in taken],
        )

    def _split_first(self, limit: int) -> None:
        entry = self._entries.popleft()
        parts = split(entry.chunk, self._batch_size, limit)
        entry.ticket.split(len(parts))
        self._waiting_batch += sum(map(self._batch_size, parts)) - self._batch_size(entry.chunk)
        self._entries.extendleft(
            _Entry(part, entry.size if index == 0 else 0, entry.arrived, entry.ticket)
            for index, part in enumerate(reversed(parts))
        )
