"""Stage 4, spans that end after their call has returned: when a device has sent the values, or with others at once.

Reads jobs, in order; one thread does them. Two kinds: values on a device, which are waited for; and summaries of
images, tokens and the like, which cost less for many calls together than for each alone, and so are gathered for
GATHER_SECONDS. Guarantee: no thread before the first job, none in the way of a fork or of the process's end; what
waits is done before the tracer provider flushes or shuts down. Memory: at most MAX_WAITING jobs and MAX_WAITING_BYTES.
"""

import atexit
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from mlspan.guard import failed

MAX_WAITING: Final = 1_024
MAX_WAITING_BYTES: Final = 16 << 20
MAX_TOGETHER: Final = 64
GATHER_SECONDS: Final = 0.01
DRAIN_SECONDS: Final = 2.0
"""How long the end of a process, or a flush, waits."""
_FLUSHING: Final = ("force_flush", "shutdown")

Wait = Callable[[], object]
Work = Callable[[bool], object]
Together = Callable[[Sequence[Any]], object]


class Job:
    """Something to be done later.

    Args:
        work: what; called with whether the values are there.
        wait: blocks until they are; None: nothing to wait for.
        subject: of `together`.
        together: does for the subjects of several jobs at once what each work would do for its own; or None.
        size: bytes that it holds.
    """

    __slots__ = ("size", "subject", "together", "wait", "work")

    def __init__(
        self,
        work: Work,
        wait: Wait | None = None,
        subject: object = None,
        together: Together | None = None,
        size: int = 0,
    ) -> None:
        self.work = work
        self.wait = wait
        self.subject = subject
        self.together = together
        self.size = size


class Deferred:
    """Jobs that wait; one object per process."""

    def __init__(self) -> None:
        self._is_registered = False
        self._watched: list[tuple[Any, str, Any]] = []
        self._reset()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        """In a forked child: the parent's jobs are the parent's, and its thread is not here."""
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._hurry = threading.Event()
        self._thread: threading.Thread | None = None
        self._is_idle = False
        self._waiting = 0
        self._bytes = 0

    def put(self, job: Job) -> bool:
        """Do the job later; False where it cannot be taken, and is left to the caller."""
        with self._changed:
            if self._waiting >= MAX_WAITING or self._bytes + job.size > MAX_WAITING_BYTES:
                return False
            if self._thread is None and not self._start():
                return False
            self._jobs.append(job)
            self._waiting += 1
            self._bytes += job.size
            if self._is_idle:
                self._is_idle = False
                self._changed.notify_all()
        return True

    def watch(self, provider: Any) -> None:
        """Have this tracer provider's `force_flush` and `shutdown` wait for the jobs first."""
        if any(owner is provider for owner, _, _ in self._watched):
            return
        for name in _FLUSHING:
            own = getattr(provider, "__dict__", None)
            method = getattr(provider, name, None)
            if own is None or method is None or name in own:
                continue
            replacement = _after(self.drain, method)
            own[name] = replacement
            self._watched.append((provider, name, replacement))

    def unwatch(self) -> None:
        """Give the providers their own methods back."""
        while self._watched:
            provider, name, replacement = self._watched.pop()
            if provider.__dict__.get(name) is replacement:
                del provider.__dict__[name]

    def drain(self, seconds: float = DRAIN_SECONDS) -> bool:
        """Wait until all jobs are done; False when it took too long."""
        until = time.monotonic() + seconds
        with self._changed:
            self._hurry.set()
            try:
                while self._waiting:
                    left = until - time.monotonic()
                    if left <= 0 or self._thread is None or self._thread is threading.current_thread():
                        return False
                    self._changed.wait(left)
            finally:
                self._hurry.clear()
        return True

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits."""
        return not self._waiting

    def _start(self) -> bool:
        if not self._is_registered:
            # Now, and not at import: what is registered last runs first, before the SDK's own shutdown.
            self._is_registered = True
            atexit.register(self.drain)
        thread = threading.Thread(target=self._run, name="mlspan-deferred", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter takes no new threads any more
            return False
        self._thread = thread
        return True

    def _run(self) -> None:
        changed = self._changed
        while True:
            with changed:
                while not self._jobs:
                    self._is_idle = True
                    changed.wait()
                self._is_idle = False
                job = self._jobs[0]
            if job.together is not None:
                self._hurry.wait(GATHER_SECONDS)
            batch = self._next()
            del job
            self._do(batch)
            with changed:
                self._waiting -= len(batch)
                self._bytes -= sum(job.size for job in batch)
                changed.notify_all()
            batch.clear()

    def _next(self) -> list[Job]:
        """The next job, and those behind it that can be done with it."""
        jobs = self._jobs
        batch = [jobs.popleft()]
        together = batch[0].together
        while together is not None and jobs and len(batch) < MAX_TOGETHER and jobs[0].together == together:
            batch.append(jobs.popleft())
        return batch

    def _do(self, batch: list[Job]) -> None:
        together = batch[0].together
        if together is not None:
            _try("deferred: together", together, [job.subject for job in batch])
        for job in batch:
            is_there = job.wait is None or _try("deferred: wait", job.wait)
            _try("deferred: work", job.work, is_there)
            if together is not None:
                time.sleep(0)  # the program's own threads go first


def _try(place: str, function: Callable[..., object], *args: object) -> bool:
    """Whether it did not raise; whatever it raises, the thread goes on."""
    try:
        function(*args)
    except Exception:  # noqa: BLE001 - counted and logged
        try:
            failed(place)
        except Exception:  # noqa: BLE001 - under test, where failures are raised: logged all the same
            return False
        return False
    return True


def _after(first: Callable[[], object], method: Callable[..., Any]) -> Callable[..., Any]:
    def after(*args: Any, **kwargs: Any) -> Any:
        first()
        return method(*args, **kwargs)

    return after


deferred: Final = Deferred()
"""Of this process."""
