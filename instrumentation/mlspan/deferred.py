"""Stage 4, spans whose values are still on their way from a device: ended by one thread, when the copies are there.

Reads jobs (what to wait for, what to do then), in order. Guarantee: no thread before the first job, none in the way of
a fork or of the process's end; at most MAX_WAITING jobs wait, further ones are done at once without their values.
"""

import atexit
import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Final

from mlspan.guard import failed, warn_once

MAX_WAITING: Final = 1_024
DRAIN_SECONDS: Final = 2.0
"""How long the end of a process waits for copies."""

Wait = Callable[[], object]
Work = Callable[[bool], object]


class Deferred:
    """Jobs that wait; one object per process."""

    def __init__(self) -> None:
        self._is_registered = False
        self._reset()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        """In a forked child: the parent's jobs are the parent's, and its thread is not here."""
        self._jobs: deque[tuple[Wait, Work]] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._busy = 0

    def put(self, wait: Wait, work: Work) -> None:
        """Do the work once `wait` has returned, in another thread.

        Args:
            wait: blocks until the values are there.
            work: called with whether they are.
        """
        with self._changed:
            is_full = self._busy >= MAX_WAITING
            if not is_full:
                self._jobs.append((wait, work))
                self._busy += 1
                if not self._is_registered:
                    # Now, and not at import: what is registered last runs first, before the SDK's own shutdown.
                    self._is_registered = True
                    atexit.register(self.drain)
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="mlspan-deferred", daemon=True)
                    try:
                        self._thread.start()
                    except RuntimeError:  # the interpreter takes no new threads any more
                        self._thread = None
                        self._jobs.pop()
                        self._busy -= 1
                        is_full = True
                self._changed.notify_all()
        if is_full:
            warn_once("deferred: full", "more than %d spans wait for a device; their values are left out", MAX_WAITING)
            work(False)

    def drain(self, seconds: float = DRAIN_SECONDS) -> bool:
        """Wait until all jobs are done; False when it took too long."""
        until = monotonic() + seconds
        with self._changed:
            while self._busy:
                left = until - monotonic()
                if left <= 0 or self._thread is None or self._thread is threading.current_thread():
                    return False
                self._changed.wait(left)
        return True

    def _run(self) -> None:
        changed = self._changed
        while True:
            with changed:
                while not self._jobs:
                    changed.wait()
                wait, work = self._jobs.popleft()
            try:
                is_there = True
                try:
                    wait()
                except Exception:  # noqa: BLE001 - a device may fail in any way; the span is ended all the same
                    failed("deferred: wait")
                    is_there = False
                finally:
                    work(is_there)
            except Exception:  # noqa: BLE001 - the thread goes on
                failed_quietly()
            finally:
                del wait, work
                with changed:
                    self._busy -= 1
                    changed.notify_all()


def failed_quietly() -> None:
    """Count and log; raising here would end the thread."""
    with contextlib.suppress(Exception):  # logged already
        failed("deferred: work")


deferred: Final = Deferred()
"""Of this process."""
