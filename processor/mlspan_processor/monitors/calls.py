"""Stage 6, part 7: series of calls: how many, how many raise, how long they take, in windows of a fixed length.

In: the cumulative duration histograms of all models, at every tick. Out: for each model version the windows that are
over: calls a second, share of errors, 95th percentile of the duration. Reads what is counted anyway: nothing is done
per span. Times are those of arrival: what comes late counts when it comes. Memory: two histograms a model version.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlspan.semconv import attributes as names
from mlspan.semconv.metrics import DURATION_BUCKETS
from mlspan_processor.instruments import Attributes, Exemplar, Instruments

QUANTILE: Final = 0.95
MIN_CALLS: Final = 20
"""Calls below which a window has no percentile."""
_BOUNDS: Final = np.array([0.0, *DURATION_BUCKETS, 2 * DURATION_BUCKETS[-1]])
_SECOND: Final = 1_000_000_000
Key = tuple[str, str]


class CallWindow(NamedTuple):
    """Calls of one model version in one window.

    Attributes:
        start, end: nanoseconds since the epoch.
        calls, errors: weighted counts.
        rate: calls a second.
        error_share: None without calls.
        latency: 95th percentile of the successful calls' seconds, from the buckets; None with too few.
        failed: spans of calls that raised.
    """

    start: int
    end: int
    calls: float
    errors: float
    rate: float
    error_share: float | None
    latency: float | None
    failed: tuple[Exemplar, ...]


class _Totals:
    """Cumulative counts of one model version."""

    def __init__(self) -> None:
        self.counts: NDArray[np.float64] = np.zeros(len(DURATION_BUCKETS) + 1)
        self.errors = 0.0
        self.failed: list[Exemplar] = []


class Calls:
    """Windows of calls of all model versions.

    Attributes:
        duration_ns: length of a window.
    """

    def __init__(self, duration_ns: int) -> None:
        self.duration_ns = duration_ns
        self._end = 0
        self._before: dict[Key, _Totals] = {}

    def advance(self, instruments: Instruments, now: int) -> dict[Key, CallWindow]:
        """The windows that are over at `now`; empty between two ends."""
        # A clock that was set back must not put the next window off.
        if not self._end or now < self._end - self.duration_ns:
            self._begin(instruments, now)
            return {}
        if now < self._end:
            return {}
        # Ticks are not on time: a window lasts as long as it lasted.
        start = self._end - self.duration_ns
        totals = _totals(instruments)
        windows = {}
        for key, after in totals.items():
            before = self._before.get(key)
            if before is not None:
                windows[key] = _window(before, after, start, now)
        self._before = totals
        self._end = now + self.duration_ns
        return windows

    def _begin(self, instruments: Instruments, now: int) -> None:
        self._before = _totals(instruments)
        self._end = now + self.duration_ns


def _totals(instruments: Instruments) -> dict[Key, _Totals]:
    found: dict[Key, _Totals] = {}
    for attributes, histogram in instruments.durations.items():
        key = _key(attributes)
        if key is None:
            continue
        total = found.setdefault(key, _Totals())
        if any(name == names.ERROR_TYPE for name, _ in attributes):
            total.errors += float(histogram.counts.sum())
            total.failed += histogram.exemplars.values()
        else:
            total.counts = total.counts + histogram.counts
    return found


def _key(attributes: Attributes) -> Key | None:
    pairs = dict(attributes)
    name, version = pairs.get(names.ML_MODEL_NAME), pairs.get(names.ML_MODEL_VERSION)
    return (str(name), str(version)) if name is not None and version is not None else None


def _window(before: _Totals, after: _Totals, start: int, end: int) -> CallWindow:
    counts = after.counts - before.counts
    good = float(counts.sum())
    errors = max(0.0, after.errors - before.errors)
    calls = good + errors
    seconds = max(end - start, 1) / _SECOND
    latency = _quantile(counts) if good >= MIN_CALLS else None
    share = errors / calls if calls > 0 else None
    return CallWindow(start, end, calls, errors, calls / seconds, share, latency, tuple(after.failed[-5:]))


def _quantile(counts: NDArray[np.float64]) -> float:
    """The quantile of a histogram over DURATION_BUCKETS, linear within a bucket."""
    running = np.concatenate([[0.0], np.cumsum(counts)])
    return float(np.interp(QUANTILE * running[-1], running, _BOUNDS))
