"""Stage 8, exponential histograms as explicit buckets, which is what the text formats can show.

Reads OTLP's exponential points; keeps sparse counts by index. Bounds are powers of the square root of two, or
coarser where the data is: they stay the same while the scale of the data moves, and a quantile is right
within 41 %. Merging buckets of a finer scale is exact. At most 160 buckets.
Source: https://opentelemetry.io/docs/specs/otel/metrics/data-model/#exponentialhistogram
"""

from collections.abc import Sequence
from math import inf
from typing import Final

from opentelemetry.proto.metrics.v1.metrics_pb2 import ExponentialHistogramDataPoint

from .exemplars import exemplars_by_bucket
from .prometheus_series import Histogram, outdated

MAX_SCALE: Final = 1
"""Finest scale that is shown; base 2 ** (2 ** -scale)."""
MAX_BUCKETS: Final = 160


class ExponentialHistogram(Histogram):
    """The same, from exponential buckets: sparse counts by index, from which the explicit ones are made."""

    __slots__ = ("negative", "positive", "scale", "zero", "zero_threshold")

    def __init__(self) -> None:
        super().__init__()
        self.scale = MAX_SCALE
        self.positive: dict[int, int] = {}
        self.negative: dict[int, int] = {}
        self.zero = 0
        self.zero_threshold = 0.0

    def update_exponential(self, point: ExponentialHistogramDataPoint, *, delta: bool) -> bool:
        """Take a point over."""
        if outdated(point.time_unix_nano, self.time_ns, delta=delta):
            return True
        first = self.time_ns < 0
        total = point.sum if point.HasField("sum") else None
        if delta and not first:
            total = None if total is None or self.sum is None else self.sum + total
        if point.scale < self.scale:
            self.positive = _coarser(self.positive, self.scale - point.scale)
            self.negative = _coarser(self.negative, self.scale - point.scale)
            self.scale = point.scale
        new_positive = rescaled(point.positive.offset, point.positive.bucket_counts, point.scale - self.scale)
        new_negative = rescaled(point.negative.offset, point.negative.bucket_counts, point.scale - self.scale)
        # An index that was once shown stays, with a count of 0: a series that comes and goes has no rate.
        keep = 1 if delta else 0
        self.positive = _merged(self.positive, new_positive, keep)
        self.negative = _merged(self.negative, new_negative, keep)
        self.zero = self.zero * keep + point.zero_count
        self.zero_threshold = max(self.zero_threshold, point.zero_threshold)
        self._coarsen()
        bounds, counts = self._explicit()
        if bounds != self.bounds:
            self.exemplars = {}
        self._set(bounds, counts, total, point.time_unix_nano)
        self.exemplars |= exemplars_by_bucket(point.exemplars, bounds)
        return True

    def _coarsen(self) -> None:
        while _span(self.positive) + _span(self.negative) > MAX_BUCKETS:
            self.scale -= 1
            self.positive = _coarser(self.positive, 1)
            self.negative = _coarser(self.negative, 1)

    def _explicit(self) -> tuple[tuple[float, ...], list[int]]:
        """Return bounds and counts from the lowest to the highest index in use, with all between."""
        bounds: list[float] = []
        counts: list[int] = []
        if self.negative:
            for index in range(max(self.negative), min(self.negative) - 1, -1):
                bounds.append(-bucket_bound(index, self.scale))
                counts.append(self.negative.get(index, 0))
        if self.negative or self.zero:
            bounds.append(self.zero_threshold)
            counts.append(self.zero)
        if self.positive:
            for index in range(min(self.positive), max(self.positive) + 1):
                bounds.append(bucket_bound(index + 1, self.scale))
                counts.append(self.positive.get(index, 0))
        return _ascending(bounds, counts)


def bucket_bound(index: int, scale: int) -> float:
    """Return the lower bound of the bucket `index`: base ** index; infinite where it exceeds a float."""
    try:
        return float(2.0 ** (index * 2.0**-scale))
    except OverflowError:
        return inf


def rescaled(offset: int, counts: Sequence[int], shift: int) -> dict[int, int]:
    """Return dense counts as a map by index, `shift` scales coarser: buckets merge in pairs, exactly."""
    found: dict[int, int] = {}
    for position, count in enumerate(counts):
        if count:
            index = (offset + position) >> shift
            found[index] = found.get(index, 0) + count
    return found


def _merged(old: dict[int, int], new: dict[int, int], keep: int) -> dict[int, int]:
    found = {index: count * keep for index, count in old.items()}
    for index, count in new.items():
        found[index] = found.get(index, 0) + count
    return found


def _coarser(counts: dict[int, int], shift: int) -> dict[int, int]:
    found: dict[int, int] = {}
    for index, count in counts.items():
        found[index >> shift] = found.get(index >> shift, 0) + count
    return found


def _span(counts: dict[int, int]) -> int:
    return max(counts) - min(counts) + 1 if counts else 0


def _ascending(bounds: list[float], counts: list[int]) -> tuple[tuple[float, ...], list[int]]:
    """Merge buckets whose bound is not above the one before: a wide zero bucket, an overflow."""
    found: list[float] = []
    merged: list[int] = []
    above = 0
    for bound, count in zip(bounds, counts, strict=True):
        if bound == inf:
            above += count
        elif found and bound <= found[-1]:
            merged[-1] += count
        else:
            found.append(bound)
            merged.append(count)
    return tuple(found), [*merged, above]
