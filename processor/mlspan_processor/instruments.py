"""Stage 6, part 1: counters and histograms that grow as spans pass, with exemplars that point at traces.

In: columns of calls. Kept: cumulative sums by model version, bounded: further series are counted under one
with ``otel.metric.overflow=true`` (OpenTelemetry metrics SDK, cardinality limits). Sums are weighted by the
spans' adjusted counts and published as whole numbers, rounded after summing. Exemplars: at most one a bucket
and interval.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mlspan.semconv.metrics import DURATION_BUCKETS

MAX_SERIES: Final = 20_000
MAX_CLASSES: Final = 64
Attributes = tuple[tuple[str, str | bool], ...]
OVERFLOW: Final[Attributes] = (("otel.metric.overflow", True),)
_BOUNDS: Final = np.array(DURATION_BUCKETS)
_N_BUCKETS: Final = len(DURATION_BUCKETS) + 1


@dataclass(frozen=True, slots=True)
class Exemplar:
    """One measurement and the span it was made in."""

    value: float
    time: int
    trace_id: bytes
    span_id: bytes


@dataclass(slots=True)
class Count:
    """A cumulative sum; `exemplar` of this interval."""

    value: float = 0.0
    exemplar: Exemplar | None = None


@dataclass(slots=True)
class Histogram:
    """A cumulative histogram over DURATION_BUCKETS; `exemplars` of this interval by bucket."""

    counts: NDArray[np.float64] = field(default_factory=lambda: np.zeros(_N_BUCKETS))
    sum: float = 0.0
    exemplars: dict[int, Exemplar] = field(default_factory=dict)


class Instruments:
    """All cumulative series."""

    def __init__(self) -> None:
        self.durations: dict[Attributes, Histogram] = {}
        self.counts: dict[str, dict[Attributes, Count]] = {}

    def histogram(self, attributes: Attributes) -> Histogram:
        """The duration histogram of these attributes, or that of the overflow."""
        known = self.durations.get(attributes)
        if known is None:
            if len(self.durations) >= MAX_SERIES:
                attributes = OVERFLOW
            known = self.durations.setdefault(attributes, Histogram())
        return known

    def count(self, metric: str, attributes: Attributes) -> Count:
        """The sum of a counter's attributes, or that of its overflow."""
        series = self.counts.setdefault(metric, {})
        known = series.get(attributes)
        if known is None:
            if len(series) >= MAX_SERIES:
                attributes = OVERFLOW
            known = series.setdefault(attributes, Count())
        return known

    def observe_durations(
        self,
        kinds: list[Attributes],
        kind_of: NDArray[np.intp],
        seconds: NDArray[np.float64],
        weights: NDArray[np.float64],
        times: NDArray[np.int64],
        trace_ids: Sequence[bytes],
        span_ids: Sequence[bytes],
    ) -> None:
        """Add calls.

        Args:
            kinds: attributes of each kind of call.
            kind_of: (n_calls,) index into kinds.
            seconds, weights, times: (n_calls,) of each call.
            trace_ids, span_ids: by call.
        """
        if not len(kind_of):
            return
        buckets = np.searchsorted(_BOUNDS, seconds, "left")
        flat = kind_of * _N_BUCKETS + buckets
        counts = np.bincount(flat, weights, len(kinds) * _N_BUCKETS).reshape(len(kinds), _N_BUCKETS)
        sums = np.bincount(kind_of, weights * seconds, len(kinds))
        histograms = [self.histogram(attributes) for attributes in kinds]
        for histogram, added, total in zip(histograms, counts, sums.tolist(), strict=True):
            histogram.counts += added
            histogram.sum += total
        _, where = np.unique(flat, return_index=True)
        for call in where.tolist():
            exemplars = histograms[kind_of[call]].exemplars
            bucket = int(buckets[call])
            if bucket not in exemplars:
                exemplars[bucket] = Exemplar(float(seconds[call]), int(times[call]), trace_ids[call], span_ids[call])

    def forget(self, model: Attributes) -> None:
        """Drop the series of a model version."""
        mine = set(model)
        for attributes in [known for known in self.durations if mine <= set(known)]:
            del self.durations[attributes]
        for series in self.counts.values():
            for attributes in [known for known in series if mine <= set(known)]:
                del series[attributes]

    def end_interval(self) -> None:
        """Exemplars are for one interval."""
        for histogram in self.durations.values():
            histogram.exemplars.clear()
        for series in self.counts.values():
            for count in series.values():
                count.exemplar = None
