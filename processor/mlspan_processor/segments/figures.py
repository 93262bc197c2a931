"""Stage 5, segments: the figures of every value, and which values are worse than the other rows beyond chance.

In: a Sample with segments, or SegmentedQuality. Out: every value's figures with n and band. A value is worse on a
metric when its figure differs from that of the rows which do not have the value (separate rows, so the band of the
difference is MOVER's), in the bad direction, by more than the smallest difference that matters, and its p-value passes
Benjamini & Hochberg's procedure (J. R. Stat. Soc. B 57, 1995) over all values, segments and metrics looked at. Values
with fewer than 30 labelled rows are shown, not judged. Memory: sums of at most `max_segments` values of one segment at
a time.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np

from mlspan_processor.quality.bands import Z95, difference, p_value
from mlspan_processor.quality.base import Labelled
from mlspan_processor.quality.names import direction, smallest
from mlspan_processor.quality.realised import Realised, empty_quality, labelled, of_figure
from mlspan_processor.sample import Sample
from mlspan_processor.segments.accumulate import SegmentedQuality

MIN_LABELS: Final = 30
"""Labelled rows below which a value is not judged."""
MAX_SEGMENTS: Final = 50
JUDGED: Final = ("accuracy", "f1", "f1_micro", "mae")
"""Metrics that are judged where the task has them; every further one costs power."""


class Difference(NamedTuple):
    """A value's figure less that of the rows without the value.

    Attributes:
        difference, low, high: with its 95 % band.
        p_value: of "none"; `p_adjusted` corrected over everything that was looked at.
    """

    difference: float
    low: float
    high: float
    p_value: float
    p_adjusted: float


@dataclass(frozen=True, slots=True)
class SegmentFigures:
    """One value of a segment.

    Attributes:
        segment, value: the column and its value.
        rows, labels: rows, and labelled ones.
        figures: by metric.
        worse: metrics on which it is worse than the other rows together beyond chance, with the difference.
        reason: "" or why it was not judged.
        differences: by judged metric.
    """

    segment: str
    value: str
    rows: int
    labels: int
    figures: dict[str, Realised]
    worse: dict[str, float]
    reason: str = ""
    differences: dict[str, Difference] = field(default_factory=dict)


def figures(
    sample: Sample,
    *,
    level: float = 0.01,
    max_segments: int = MAX_SEGMENTS,
    metrics: Sequence[str] = JUDGED,
    min_effect: float | None = None,
) -> list[SegmentFigures]:
    """Figures of every value of every segment of the sample, in the order of their labels.

    Args:
        sample: rows with segments; those without a label count as rows only.
        level: share of false discoveries among the values said to be worse.
        max_segments: values of a segment that are told apart, the most frequent ones; the rest is "other".
        metrics: which are judged.
        min_effect: smallest difference that matters; None: 0.02, or 5 % of errors (quality/names.py).
    """
    batch = labelled(sample)
    used = np.isfinite(sample.weights) & (sample.weights > 0)
    shown: list[SegmentFigures] = []
    looked: list[tuple[int, str, float, float, float]] = []
    for name, segment in sample.segments.items():
        codes = segment.codes[used]
        quality = SegmentedQuality(lambda: empty_quality(sample), max_segments)
        counts = np.bincount(codes[codes >= 0], minlength=len(segment.labels))
        # The frequent ones first: whatever comes later shares "other".
        for code in np.argsort(-counts, kind="stable").tolist():
            if counts[code]:
                rows = np.flatnonzero(codes == code)
                part = quality.of(segment.labels[code])
                part.predicted += float(batch.weights[rows].sum())
                part.update(_of(batch, rows))
        missing = np.flatnonzero(codes < 0)
        if len(missing):
            quality.of("missing").update(_of(batch, missing))
        rows_of: dict[str, int] = {}
        for code, count in enumerate(counts.tolist()):
            value = segment.labels[code] if segment.labels[code] in quality.parts else "other"
            rows_of[value] = rows_of.get(value, 0) + count
        values = [value for value in dict.fromkeys([*segment.labels, "other"]) if value in quality.parts]
        found, more = _shown(name, quality, values, rows_of, metrics, len(shown))
        shown += found
        looked += more
    return _decided(shown, looked, level, min_effect)


def judged(
    segments: Mapping[str, SegmentedQuality],
    *,
    level: float = 0.01,
    metrics: Sequence[str] = JUDGED,
    min_effect: float | None = None,
) -> list[SegmentFigures]:
    """The same from the sums of a stream, by segment; `rows` are labelled rows there."""
    shown: list[SegmentFigures] = []
    looked: list[tuple[int, str, float, float, float]] = []
    for name, quality in segments.items():
        values = [value for value in quality.parts if value != "missing"]
        rows = {value: int(quality.parts[value].rows) for value in values}
        found, more = _shown(name, quality, values, rows, metrics, len(shown))
        shown += found
        looked += more
    return _decided(shown, looked, level, min_effect)


def _shown(
    name: str,
    quality: SegmentedQuality,
    values: Iterable[str],
    rows: Mapping[str, int],
    metrics: Sequence[str],
    start: int,
) -> tuple[list[SegmentFigures], list[tuple[int, str, float, float, float]]]:
    """Every value, unjudged, and for what is to be judged (place, metric, p-value, figure, others' figure)."""
    shown: list[SegmentFigures] = []
    looked: list[tuple[int, str, float, float, float]] = []
    rests = quality.rests()
    for value in values:
        part, rest = quality.parts[value], rests[value]
        known = int(part.rows)
        few = known < MIN_LABELS
        reason = f"undecidable, because it has only {known} labelled rows" if few else ""
        if not few and rest.rows < MIN_LABELS:
            reason = f"undecidable, because only {int(rest.rows)} labelled rows have another value"
        mine, my_bands = part.figures(), part.intervals()
        found = {key: of_figure(figure, my_bands.get(key), known) for key, figure in mine.items()}
        one = SegmentFigures(name, value, rows.get(value, 0), known, found, {}, reason)
        if not reason:
            others, their_bands = rest.figures(), rest.intervals()
            for metric in metrics:
                if metric not in mine or metric not in my_bands or metric not in their_bands:
                    continue
                a, b = others[metric].value, mine[metric].value
                p = p_value(a, their_bands[metric], b, my_bands[metric])
                bands = their_bands[metric](Z95), my_bands[metric](Z95)
                if p is None or bands[0] is None or bands[1] is None:
                    continue
                low, high = difference(a, bands[0], b, bands[1])
                one.differences[metric] = Difference(b - a, low, high, p, p)
                looked.append((start + len(shown), metric, p, b, a))
        shown.append(one)
    return shown, looked


def _decided(
    shown: list[SegmentFigures],
    looked: list[tuple[int, str, float, float, float]],
    level: float,
    min_effect: float | None,
) -> list[SegmentFigures]:
    adjusted = benjamini_hochberg([p for _, _, p, _, _ in looked])
    for (place, metric, _, value, others), p in zip(looked, adjusted, strict=True):
        one = shown[place]
        one.differences[metric] = one.differences[metric]._replace(p_adjusted=p)
        least = smallest(metric, others) if min_effect is None else min_effect
        gap = value - others
        if p <= level and gap * direction(metric, others, value) < 0 and abs(gap) >= least:
            one.worse[metric] = gap
    return shown


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values in the same order."""
    p = np.array(p_values, np.float64)
    if not len(p):
        return []
    order = np.argsort(-p)
    ranks = len(p) - np.arange(len(p))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum.accumulate(p[order] * len(p) / ranks).clip(max=1.0)
    return [float(one) for one in adjusted]


def _of(batch: Labelled, rows: Any) -> Labelled:
    scores = None if batch.scores is None else batch.scores[rows]
    labels, predictions = batch.labels[rows], batch.predictions[rows]
    return Labelled(labels, predictions, scores, batch.score_kind, batch.weights[rows], batch.epsilon)
