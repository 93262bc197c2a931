"""Slow calls: which ones take longer than the model's own running 99th percentile.

Reads the duration of each call that carries rows; says which is slow, and whether the next calls are to be captured in
detail. Guarantee: calls are compared with calls of the same model version, method and number of rows (to the next
power of two); nothing is said before MIN_CALLS of them; details at most once in SECONDS_BETWEEN for each model version.
Memory: at most MAX_TABLES histograms of 2.8 kB a model version. The percentile is the upper edge of its bin, at most
12.5 % too high; counts are halved at MAX_COUNT, so that it follows a model that changes. After MIN_CALLS one call in
SAMPLED is counted, which one the clock's last digits say: counting costs more than looking at the percentile. Where
IN_A_ROW calls that were looked at are slow, the model has become so: it is learnt anew, and none is slow meanwhile.
Source: bins of equal relative width, as in HdrHistogram (Tene, hdrhistogram.org).
"""

from collections.abc import Callable
from time import monotonic
from typing import Final

MIN_CALLS: Final = 512
MAX_COUNT: Final = 4_096
RENEW_COUNT: Final = 64
SAMPLED: Final = 32
IN_A_ROW: Final = 32
MAX_TABLES: Final = 16
SECONDS_BETWEEN: Final = 60.0
DETAILED_CALLS: Final = 3
"""Calls after a slow one that are captured in detail."""
_TAIL: Final = 100
"""One in so many calls is above the percentile."""
_BINS: Final = 8 * 44
_NEVER: Final = 1 << 62


class Histogram:
    """Durations in nanoseconds, eight bins to each power of two.

    Attributes:
        mask: bits of the time of a call's end that are zero for those that are counted.
        threshold: the 99th percentile; what no duration reaches while too few are known.
    """

    __slots__ = ("_count", "_counts", "_renew_at", "_slow", "mask", "threshold")

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._counts = [0] * _BINS
        self._count = 0
        self._renew_at = MIN_CALLS
        self._slow = 0
        self.mask = 0
        self.threshold = _NEVER

    def look(self, duration: int, end_time: int) -> int:
        """Count a call, or not, as its end says; the percentile, if the call took longer, else 0."""
        threshold = self.threshold
        is_slow = duration > threshold
        self._slow = self._slow + 1 if is_slow else 0
        if self._slow >= IN_A_ROW:
            self._begin()
        if not end_time & self.mask:
            self.count(duration)
        return threshold if is_slow else 0

    def count(self, duration: int) -> None:
        """One call more."""
        power = duration.bit_length()
        at = power * 8 + (duration >> power - 4) - 8 if power >= 4 else 0
        self._counts[at if at < _BINS else -1] += 1
        self._count += 1
        if self._count >= self._renew_at:
            self._renew()

    def _renew(self) -> None:
        above, most, at = 0, self._count // _TAIL, _BINS
        while above <= most:
            at -= 1
            above += self._counts[at]
        # The bin's upper edge: (9 + its place among the eight of a power of two) sixteenths of that power.
        self.threshold = -(-((9 + at % 8) << at // 8) // 16)
        if self._count >= MAX_COUNT:
            self._counts = [count >> 1 for count in self._counts]
            self._count = sum(self._counts)
        self._renew_at = self._count + RENEW_COUNT
        self.mask = SAMPLED - 1


class Latencies:
    """Durations of one model version's calls.

    Args:
        clock: seconds, growing.

    Attributes:
        single: method -> the histogram of its calls of one row.
    """

    __slots__ = ("_clock", "_since", "_tables", "single")

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._since: float | None = None
        self._tables: dict[tuple[str, int], Histogram] = {}
        self.single: dict[str, Histogram] = {}

    def note(self, operation: str, rows: int, duration: int, end_time: int = 0) -> int:
        """Count a call, or not.

        Args:
            operation: the method.
            rows: of the call.
            duration: nanoseconds.
            end_time: nanoseconds; decides whether the call is counted.

        Returns:
            The percentile in nanoseconds, if the call took longer; else 0.
        """
        key = (operation, max(rows - 1, 0).bit_length())
        table = self._tables.get(key)
        if table is None:
            if len(self._tables) >= MAX_TABLES:
                return 0
            table = self._tables[key] = Histogram()
            if rows == 1:
                self.single[operation] = table
        return table.look(duration, end_time)

    def are_details_due(self) -> bool:
        """A call was slow: whether the next ones are captured in detail now."""
        now = self._clock()
        if self._since is not None and now - self._since < SECONDS_BETWEEN:
            return False
        self._since = now
        return True
