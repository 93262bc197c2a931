"""Stage 2, part 0: the bounded queue between receivers' threads and the thread that owns the state.

In: chunks, from any thread, and tasks whose answer somebody waits for. Out: batches, in the order in which they came. A
chunk that does not fit is refused, so that its sender tries again.
Memory: the chunks' bytes, at most `max_bytes` but for a single larger one.
"""

import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, Final, NamedTuple

from mlspan_processor.records import Chunk, RetryableError

MAX_REQUESTS: Final = 256
MAX_BYTES: Final = 8 * 1024 * 1024
"""A batch holds at most so many requests, and hardly more bytes."""
GATHER_SECONDS: Final = 0.05
"""How long the first request of a batch waits for others: what numpy costs, it costs a batch."""
RETRY_AFTER_SECONDS: Final = 1.0
ANSWER_SECONDS: Final = 30.0


class Task(NamedTuple):
    """Something to do on the state thread, between chunks."""

    work: Callable[[], Any]
    answer: "Future[Any]"


class Inbox:
    """What waits for the state thread.

    Attributes:
        closing: nothing new is taken.
        stopped: the state thread takes nothing more.
    """

    def __init__(self, name: str, max_requests: int, max_bytes: int) -> None:
        """`name` of the connector, for messages."""
        self._name = name
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        self._queue: deque[Chunk | Task] = deque()
        self._bytes = 0
        self._requests = 0
        self._tasks = 0
        self._refused = 0
        self._busy = False
        self._changed = threading.Condition()
        self.closing = False
        self.stopped = False

    # --- from any thread
    # -----------------------------------------------------------------------------------------

    def put(self, chunk: Chunk, before: Callable[[], Chunk] | None = None) -> None:
        """Take a chunk; `before` is called once there is room for it, and gives the chunk to take in its place.

        Raises:
            RetryableError: there is no room, or the state thread has stopped meanwhile.
        """
        with self._changed:
            self._reserve(len(chunk.data))
            if before is None:
                self._append(chunk)
                return
        chunk = before()
        with self._changed:
            if self.stopped:
                raise RetryableError(f'connector "{self._name}" has shut down', RETRY_AFTER_SECONDS)
            self._append(chunk)

    def ask(self, work: Callable[[], Any]) -> Any:
        """Run on the state thread, and wait for the answer.

        Raises:
            RetryableError: the state thread did not get to it in time, or has stopped.
        """
        task = Task(work, Future())
        with self._changed:
            if self.stopped:
                raise RetryableError(f'connector "{self._name}" has shut down', RETRY_AFTER_SECONDS)
            self._queue.append(task)
            self._tasks += 1
            self._changed.notify_all()
        try:
            return task.answer.result(ANSWER_SECONDS)
        except TimeoutError:
            raise RetryableError(f'connector "{self._name}" is busy', RETRY_AFTER_SECONDS) from None

    def close(self) -> None:
        """Take nothing new; what is there is still handed out."""
        with self._changed:
            self.closing = True
            self._changed.notify_all()

    def drain(self, timeout_seconds: float) -> bool:
        """Wait until all has been worked off; whether it has within the time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._queue and not self._busy, timeout_seconds)

    def left(self) -> int:
        """Items of the chunks that were never handed out."""
        with self._changed:
            return sum(one.items for one in self._queue if isinstance(one, Chunk))

    def counters(self) -> Mapping[str, int]:
        """What waits, and what was refused."""
        return {
            "refused_requests": self._refused,
            "queued_requests": self._requests,
            "queued_bytes": self._bytes,
        }

    # --- the state thread
    # ----------------------------------------------------------------------------------------

    def take(self, patience_seconds: float) -> list[Chunk | Task] | None:
        """A batch; an empty list after `patience_seconds` without one; None at the end."""
        with self._changed:
            self._busy = False
            self._changed.notify_all()
            if not self._queue:
                if self.closing:
                    return None
                self._changed.wait(patience_seconds)
            if self._queue:
                self._changed.wait_for(self._is_batch, GATHER_SECONDS)
            taken: list[Chunk | Task] = []
            size = 0
            while self._queue and len(taken) < MAX_REQUESTS and size < MAX_BYTES:
                one = self._queue.popleft()
                if isinstance(one, Chunk):
                    size += len(one.data)
                    self._requests -= 1
                else:
                    self._tasks -= 1
                taken.append(one)
            self._bytes -= size
            self._busy = bool(taken)
            return taken

    def stop(self) -> None:
        """Nothing more is handed out; whoever waits for an answer is told."""
        with self._changed:
            self.stopped = True
            for one in self._queue:
                if isinstance(one, Task):
                    one.answer.set_exception(RetryableError(f'connector "{self._name}" has shut down'))

    def _reserve(self, size: int) -> None:
        if self._requests >= self._max_requests or (self._bytes and self._bytes + size > self._max_bytes):
            self._refused += 1
            raise RetryableError(
                f'connector "{self._name}": its queue of {self._max_requests} requests'
                f" and {self._max_bytes} bytes is full",
                RETRY_AFTER_SECONDS,
            )
        if self.closing:
            raise RetryableError(f'connector "{self._name}" is shutting down', RETRY_AFTER_SECONDS)
        self._bytes += size
        self._requests += 1

    def _append(self, chunk: Chunk) -> None:
        self._queue.append(chunk)
        # The state thread waits for the first request, then for a batch: what comes between wakes nobody.
        if len(self._queue) == 1 or self._is_batch():
            self._changed.notify_all()

    def _is_batch(self) -> bool:
        """Whether what is queued need not wait for more: it fills a batch, or somebody waits for an answer."""
        return self.closing or self._tasks > 0 or self._requests >= MAX_REQUESTS or self._bytes >= MAX_BYTES
