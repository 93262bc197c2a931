"""What happens to spans when a process ends: flushed where the SDK's own exit handler does not run.

Ends of processes, and who flushes:

* a plain script, a gunicorn worker: the SDK, by ``atexit``;
* a notebook's kernel, which is killed when children of its (joblib's) are slow to go: at the request to shut down;
* multiprocessing children (``Process``, ``Pool``, ``ProcessPoolExecutor``, joblib's): a finalizer of theirs, and
  SIGTERM, by which a ``Pool`` ends them, where the process has no handler of its own;
* uvicorn, which raises SIGTERM again after its shutdown: the end of ``Server.shutdown``, off the event loop;
* a Celery prefork worker: its ``worker_process_shutdown`` signal.

Guarantee: no thread and no handler before a process has ended a span of ours; a flush takes at most FLUSH_SECONDS, and
SIGTERM ends a process whatever it waits for; a forked child answers for its own spans only. Source:
``tests/instrumentation/test_lifecycle.py`` runs each of these.
"""

import asyncio
import functools
import importlib
import os
import signal
import sys
import threading
import time
import types
from collections.abc import Callable
from typing import Any, Final

from opentelemetry import trace

from mlspan.emit import Emitter
from mlspan.guard import failed, guarded
from mlspan.hooks.base import when_imported

FLUSH_SECONDS: Final = 2.0
"""How long the end of a process may be held up."""
_SPAWNED: Final = "--multiprocessing-fork"
"""On the command line of a process that multiprocessing has spawned."""
REPEAT_SECONDS: Final = 0.1
"""After this time a SIGTERM that was not handled is sent again."""

_emitter: Emitter | None = None
_restore: list[Callable[[], None]] = []


def install(emitter: Emitter) -> None:
    """Flush this emitter's provider when the process ends."""
    global _emitter  # noqa: PLW0603 - one per process is the point
    _emitter = emitter
    emitter.on_first_end = _watch_child
    for module, watch in FLUSH_POINTS.items():
        when_imported(module, watch)


def uninstall() -> None:
    """Put back what was replaced; spans that have ended are flushed no more."""
    global _emitter  # noqa: PLW0603
    _emitter = None
    while _restore:
        _restore.pop()()


def flush(seconds: float = FLUSH_SECONDS) -> None:
    """Hand the spans that this process has ended to the exporter; nothing to do without any. Never raises."""
    emitter = _emitter
    if emitter is None or not emitter.has_ended:
        return
    provider = emitter.tracer_provider or trace.get_tracer_provider()
    force_flush = getattr(provider, "force_flush", None)
    if force_flush is None:
        return
    # In a thread of its own: a signal may have stopped this one while it held one of the SDK's locks.
    worker = threading.Thread(
        target=guarded("lifecycle: flush", None)(force_flush), args=(int(seconds * 1000),), daemon=True
    )
    try:
        worker.start()
        worker.join(seconds)
    except RuntimeError:
        failed("lifecycle: flush")  # the interpreter takes no new threads any more


@guarded("lifecycle: child", None)
def _watch_child() -> None:
    """The process has ended its first span: if it is a child of multiprocessing, it will end without ``atexit``."""
    multiprocessing = sys.modules.get("multiprocessing")
    if multiprocessing is None:
        return
    is_inheriting = getattr(multiprocessing.current_process(), "_inheriting", False)
    if not is_inheriting and multiprocessing.parent_process() is None:
        return
    util = importlib.import_module("multiprocessing.util")
    if is_inheriting and _SPAWNED not in sys.orig_argv:
        # From a fork server, and it still imports the parent's main module: what would be registered now is thrown away
        # when its work begins, but for what is to run then.
        util.register_after_fork(_watch_child, _watch_begun)
        return
    util.Finalize(None, flush, exitpriority=100)
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _flush_and_die)
        _repeat_sigterm()


def _watch_begun(_: object) -> None:
    """A fork server's child begins its work, or a later one is forked from it, which has no spans of its own yet."""
    if _emitter is not None and _emitter.has_ended:
        _watch_child()


def _flush_and_die(number: int, _: types.FrameType | None) -> None:
    global _is_dying  # noqa: PLW0603
    if _is_dying:
        return
    _is_dying = True
    flush()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


_is_dying = False
_pipe: tuple[int, int] | None = None


def _repeat_sigterm() -> None:
    """Send SIGTERM again until it is handled.

    Python runs handlers between the main thread's instructions: of a signal that comes just before that begins to wait
    it would not know until the wait is over, and the parent would wait for ever. The file descriptor is written to at
    once, by the C handler.
    """
    global _pipe  # noqa: PLW0603
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    theirs = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    if theirs != -1:
        # An event loop's, which waits nowhere else.
        signal.set_wakeup_fd(theirs)
        os.close(reader)
        os.close(writer)
        return
    _pipe = reader, writer
    threading.Thread(target=_send_again, args=(reader,), name="mlspan-sigterm", daemon=True).start()


def _send_again(reader: int) -> None:
    while True:
        numbers = os.read(reader, 64)
        if not numbers:
            return
        while signal.SIGTERM in numbers and signal.getsignal(signal.SIGTERM) is _flush_and_die:
            time.sleep(REPEAT_SECONDS)
            os.kill(os.getpid(), signal.SIGTERM)


def _forget_sigterm() -> None:
    """In a forked child: its parent's pipe, whose other end is the parent's, and its parent's handler."""
    global _is_dying, _pipe  # noqa: PLW0603
    _is_dying = False
    if _pipe is None:
        return
    pipe, _pipe = _pipe, None
    signal.set_wakeup_fd(-1)
    for end in pipe:
        os.close(end)
    if signal.getsignal(signal.SIGTERM) is _flush_and_die:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _watch_uvicorn(module: types.ModuleType) -> None:
    owner: Any = module.Server
    original = vars(owner)["shutdown"]
    if _emitter is None:
        return

    @functools.wraps(original)
    async def shutdown(*args: Any, **kwargs: Any) -> Any:
        try:
            return await original(*args, **kwargs)
        finally:
            await asyncio.get_running_loop().run_in_executor(None, flush)

    def restore() -> None:
        if vars(owner).get("shutdown") is shutdown:
            owner.shutdown = original

    owner.shutdown = shutdown
    _restore.append(restore)


def _watch_celery(module: types.ModuleType) -> None:
    if _emitter is None:
        return

    def end(**_: Any) -> None:
        flush()

    module.worker_process_shutdown.connect(end, weak=False)
    _restore.append(lambda: module.worker_process_shutdown.disconnect(end))


def _watch_kernel(module: types.ModuleType) -> None:
    owner: Any = module.IPythonKernel
    original = vars(owner).get("do_shutdown")
    if _emitter is None or original is None:
        return

    @functools.wraps(original)
    def do_shutdown(*args: Any, **kwargs: Any) -> Any:
        flush()
        return original(*args, **kwargs)

    def restore() -> None:
        if vars(owner).get("do_shutdown") is do_shutdown:
            owner.do_shutdown = original

    owner.do_shutdown = do_shutdown
    _restore.append(restore)


FLUSH_POINTS: Final[dict[str, Callable[[types.ModuleType], None]]] = {
    "uvicorn.server": _watch_uvicorn,
    "celery.signals": _watch_celery,
    "ipykernel.ipkernel": _watch_kernel,
}
"""Module -> what to do when it is imported."""


def _after_fork() -> None:
    guarded("lifecycle: fork", None)(_forget_sigterm)()
    if _emitter is not None:
        _emitter.has_ended = False
        _emitter.models.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
