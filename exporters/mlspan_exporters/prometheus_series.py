"""Stage 8, Prometheus series: one data point as it was last seen, and how the next one changes it.

Reads OTLP data points; keeps one value per series (for histograms one count per bucket, at most one exemplar
each). Cumulative points replace; delta points add up, whatever gap lies between them. A point older than the
last is ignored, and one that Prometheus cannot hold is refused.
Source: https://opentelemetry.io/docs/specs/otel/metrics/data-model/
"""

from math import inf, isfinite

from opentelemetry.proto.metrics.v1.metrics_pb2 import HistogramDataPoint, NumberDataPoint, SummaryDataPoint

from .exemplars import exemplar_text, exemplars_by_bucket


class Number:
    """A counter or a gauge."""

    __slots__ = ("exemplar", "time_ns", "updated", "value")
    samples = 1

    def __init__(self) -> None:
        self.value: int | float = 0
        self.exemplar = ""
        self.time_ns = -1
        self.updated = 0.0

    def update(self, point: NumberDataPoint, *, delta: bool, counter: bool) -> bool:
        """Take a point over; False where it cannot be shown (a counter that is negative or not a number)."""
        value = point.as_int if point.WhichOneof("value") == "as_int" else point.as_double
        if counter and not value >= 0:
            return False
        if outdated(point.time_unix_nano, self.time_ns, delta=delta):
            return True
        self.value = self.value + value if delta else value
        self.time_ns = point.time_unix_nano
        if counter and point.exemplars:
            newest = max(point.exemplars, key=lambda exemplar: exemplar.time_unix_nano)
            self.exemplar = exemplar_text(newest) or self.exemplar
        return True


class Histogram:
    """Counts per bucket; `bounds` are upper, inclusive, without the last, infinite one."""

    __slots__ = ("bounds", "count", "counts", "exemplars", "sum", "time_ns", "updated")

    def __init__(self) -> None:
        self.bounds: tuple[float, ...] = ()
        self.counts: list[int] = [0]
        self.count = 0
        self.sum: float | None = None
        self.exemplars: dict[int, str] = {}
        self.time_ns = -1
        self.updated = 0.0

    @property
    def samples(self) -> int:
        """How many samples a scrape shows: every bucket, count and sum."""
        return len(self.bounds) + 3

    def update(self, point: HistogramDataPoint, *, delta: bool) -> bool:
        """Take a point over; False where its counts do not fit its bounds."""
        bounds = tuple(point.explicit_bounds)
        counts = list(point.bucket_counts) or [0] * len(bounds) + [point.count]
        if len(counts) != len(bounds) + 1:
            return False
        if bounds and bounds[-1] == inf:  # the infinite bucket is implied
            bounds, counts = bounds[:-1], [*counts[:-2], counts[-2] + counts[-1]]
        if not all(map(isfinite, bounds)) or list(bounds) != sorted(set(bounds)):
            return False
        if outdated(point.time_unix_nano, self.time_ns, delta=delta):
            return True
        added = point.sum if point.HasField("sum") else None
        if bounds != self.bounds:
            self.exemplars = {}
        if delta and bounds == self.bounds and self.time_ns >= 0:
            counts = [old + new for old, new in zip(self.counts, counts, strict=True)]
            added = None if added is None or self.sum is None else self.sum + added
        self._set(bounds, counts, added, point.time_unix_nano)
        self.exemplars |= exemplars_by_bucket(point.exemplars, bounds)
        return True

    def _set(self, bounds: tuple[float, ...], counts: list[int], total: float | None, time_ns: int) -> None:
        self.bounds = bounds
        self.counts = counts
        self.count = sum(counts)
        self.sum = total
        self.time_ns = time_ns


class Summary:
    """Quantiles that the sender worked out, with count and sum."""

    __slots__ = ("count", "quantiles", "sum", "time_ns", "updated")

    def __init__(self) -> None:
        self.quantiles: list[tuple[float, float]] = []
        self.count = 0
        self.sum = 0.0
        self.time_ns = -1
        self.updated = 0.0

    @property
    def samples(self) -> int:
        """How many samples a scrape shows: every quantile, count and sum."""
        return len(self.quantiles) + 2

    def update(self, point: SummaryDataPoint) -> bool:
        """Take a point over; False where its sum or a quantile is out of range."""
        values = sorted((entry.quantile, entry.value) for entry in point.quantile_values)
        if not point.sum >= 0 or any(not 0 <= quantile <= 1 for quantile, _ in values):
            return False
        if outdated(point.time_unix_nano, self.time_ns, delta=False):
            return True
        self.quantiles = values
        self.count, self.sum, self.time_ns = point.count, point.sum, point.time_unix_nano
        return True


Series = Number | Histogram | Summary


def outdated(time_ns: int, last_ns: int, *, delta: bool) -> bool:
    """Tell whether a point is older than what is kept; a delta of the same time came twice."""
    return time_ns <= last_ns if delta else time_ns < last_ns
