"""What is looked at around one call after a slow one: memory before and after, and where its time went by stacks.

Reads the process's resident memory, the memory that torch has allocated on a GPU, and pyinstrument's samples of the
calling thread; writes attributes and `ml.profile` events of the call's span. Guarantee: never raises; pyinstrument is
used where it is installed and nobody else profiles the thread, and is imported in another thread, never in the user's
call. Stacks are names of functions, files and lines; no values. Memory: MAX_STACKS stacks of MAX_FRAMES frames.
"""

import importlib
import importlib.util
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from opentelemetry.trace import Span

from mlspan.deferred import Job, deferred
from mlspan.guard import guarded
from mlspan.semconv import attributes as names
from mlspan.semconv.events import ML_PROFILE

PROFILER: Final = "pyinstrument"
INTERVAL_SECONDS: Final = 0.001
MAX_STACKS: Final = 8
MAX_FRAMES: Final = 32
_OURS: Final = str(Path(__file__).parent) + os.sep
_STATM: Final = "/proc/self/statm"

_asked: set[str] = set()


@guarded("details: prepare", None)
def prepare() -> None:
    """The next calls are captured in detail: have the profiler imported, if there is one."""
    if PROFILER not in _asked:
        _asked.add(PROFILER)
        if PROFILER not in sys.modules and importlib.util.find_spec(PROFILER) is not None:
            deferred.put(Job(lambda _: importlib.import_module(PROFILER)))


class Details:
    """Around one call; begins when it is made."""

    __slots__ = ("_before", "_profiler")

    def __init__(self) -> None:
        self._before = memory()
        self._profiler = _start()

    @guarded("details: end", None)
    def end(self, span: Span, end_time: int) -> None:
        """The call is over: write what was seen on its span."""
        profiler, self._profiler = self._profiler, None
        records: Sequence[Any] = ()
        if profiler is not None:
            session = profiler.stop()
            records = session.frame_records
        found: dict[str, int] = {}
        after = memory()
        for name, value in self._before.items():
            found[f"{name}.before"] = value
            if name in after:
                found[f"{name}.after"] = after[name]
        span.set_attributes(found)
        for stack, seconds in stacks(records):
            attributes: dict[str, str | float] = {names.ML_PROFILE_SELF_TIME: seconds, names.ML_PROFILE_STACK: stack}
            span.add_event(ML_PROFILE, attributes, end_time)


@guarded("details: memory", {})
def memory() -> dict[str, int]:
    """Bytes by the beginning of the attribute's name; nothing where the system does not tell."""
    found = {}
    try:
        with open(_STATM, "rb") as file:  # noqa: PTH123 - the quickest way
            found[names.ML_CALL_MEMORY_BEFORE.rpartition(".")[0]] = int(file.read().split()[1]) * os.sysconf(
                "SC_PAGE_SIZE"
            )
    except (OSError, ValueError, IndexError):
        found = {}
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    if cuda is not None and cuda.is_available() and cuda.is_initialized():
        found[names.ML_CALL_DEVICE_MEMORY_BEFORE.rpartition(".")[0]] = int(cuda.memory_allocated())
    return found


def stacks(records: Sequence[tuple[Sequence[str], float]]) -> list[tuple[str, float]]:
    """The stacks in which most time was spent, as texts, innermost frame last, with their seconds.

    Args:
        records: pyinstrument's: frames as "function, NUL, file, NUL, first line", then, each behind a byte of 1, more:
            the line that ran as "l" and its number; and seconds.
    """
    times: Counter[tuple[str, ...]] = Counter()
    for frames, seconds in records:
        lines = []
        for frame in frames:
            code, _, place = frame.partition("\x01")
            function, _, rest = code.partition("\0")
            file, _, line = rest.partition("\0")
            if file and file != "<thread>" and not file.startswith(_OURS):
                line = next((text[1:] for text in place.split("\x01") if text.startswith("l")), line)
                lines.append(f'File "{file}", line {line}, in {function}')
        times[tuple(lines[-MAX_FRAMES:])] += seconds  # type: ignore[assignment]  # typeshed knows whole counts only
    return [("\n".join(lines), float(seconds)) for lines, seconds in times.most_common(MAX_STACKS) if lines]


@guarded("details: profile", None)
def _start() -> Any:
    """A running profiler of this thread, or None."""
    module = sys.modules.get(PROFILER)
    make = getattr(module, "Profiler", None)
    if make is None or sys.getprofile() is not None:
        return None
    profiler = make(interval=INTERVAL_SECONDS, async_mode="disabled")
    try:
        profiler.start()
    except RuntimeError:  # one of the user's runs already
        return None
    return profiler
