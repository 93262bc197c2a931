"""Stage 5, versions: champion a and challenger b on the same metrics: difference, interval, verdict.

In: two Samples with labels, or two Quality sums of the same kind. Out: a Comparison. Of separate rows (a canary, two
time spans) the interval of a difference is Newcombe's for shares and, alike, MOVER's for all other figures (Newcombe,
Stat. Med. 17, 1998; Zou & Donner, Stat. Med. 27, 2008). Of the same rows (shadow mode, one test set) it takes the
correlation of the two figures into account, from the rows' influences (for accuracy that is Newcombe's paired interval,
the counterpart of McNemar's test): much narrower where both versions err on the same rows.

A verdict rests on the 95 % interval of the gain (difference in the good direction) and the margin by which b may be
worse: better (all of it above 0), equivalent (all of it above -margin: not inferior), worse (all of it below 0), else
undecidable, with about how many labels would tell.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

import numpy as np

from mlspan_processor.quality.bands import Z95, Interval, difference
from mlspan_processor.quality.base import Figure, Labelled, Quality
from mlspan_processor.quality.names import direction, smallest
from mlspan_processor.quality.realised import exact, influences, labelled, quality_of
from mlspan_processor.sample import Sample

Verdict = Literal["better", "worse", "equivalent", "undecidable"]
MIN_LABELS: Final = 30
"""Labelled rows of each below which nothing is decided."""
_MOST_LABELS: Final = 1e9
_ORDER: Final[tuple[Verdict, ...]] = ("worse", "undecidable", "better", "equivalent")


class ComparedMetric(NamedTuple):
    """One metric of both versions.

    Attributes:
        metric: its name.
        a, b: values of champion and challenger, or None.
        difference: b - a; low, high: its 95 % interval; None where it cannot be had.
        verdict: on b.
        reason: what the verdict rests on, or "undecidable, because …".
    """

    metric: str
    a: float | None
    b: float | None
    difference: float | None
    low: float | None
    high: float | None
    verdict: Verdict
    reason: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """All metrics, and the verdict on the primary ones.

    Attributes:
        rows: one a metric, the task's most important first.
        primary: metrics that the verdict rests on.
        verdict: worse where one of them is, else undecidable where one is, else better where one is.
        reason: of that metric.
        labels: labelled rows of a and b.
        paired: whether rows were compared case by case.
    """

    rows: tuple[ComparedMetric, ...]
    primary: tuple[str, ...]
    verdict: Verdict
    reason: str
    labels: tuple[int, int]
    paired: bool


class _Side(NamedTuple):
    figures: dict[str, Figure]
    intervals: dict[str, Interval]
    labels: int


def compare(
    a: Sample | Quality,
    b: Sample | Quality,
    *,
    margin: float | Mapping[str, float] | None = None,
    primary: Sequence[str] = (),
    paired: bool = False,
) -> Comparison:
    """Compare champion a with challenger b.

    Args:
        a, b: labelled rows, or sums of them; both of the same task.
        margin: how much worse b may be, in the metric's own unit, for all metrics or by metric; None: 0.02, or 5 % of
            a's value for errors and losses.
        primary: metrics that decide; without any the task's first. Names that the task does not have are left out.
        paired: row i of both Samples is the same case.

    Raises:
        ValueError: tasks differ, or paired samples differ in length or are sums.
    """
    correlations: dict[str, float] = {}
    if isinstance(a, Sample) and isinstance(b, Sample):
        if a.task != b.task:
            raise ValueError(f'a is "{a.task}" and b is "{b.task}": there is nothing to compare')
        if paired:
            a, b = _same_rows(a, b)
        sides, rows = zip(*map(_of_sample, (a, b)), strict=True)
        if paired:
            correlations = _correlations(rows[0], rows[1])
    elif isinstance(a, Sample) or isinstance(b, Sample) or type(a) is not type(b):
        raise ValueError("a and b must be two samples, or sums of the same kind")
    elif paired:
        raise ValueError("sums have no cases: only samples can be paired")
    else:
        sides = tuple(_Side(one.figures(), one.intervals(), one.rows) for one in (a, b))
    first, second = sides
    margins = margin if isinstance(margin, Mapping) else {}
    found = []
    for name in first.figures:
        if name in second.figures:
            allowed = margins.get(name, margin if isinstance(margin, float | int) else None)
            found.append(_row(name, first, second, allowed, correlations.get(name, 0.0)))
    known = {one.metric: one for one in found}
    named = tuple(name for name in primary if name in known) or tuple(list(known)[:1])
    deciding = min((known[name] for name in named), key=lambda one: _ORDER.index(one.verdict), default=None)
    verdict: Verdict = "undecidable" if deciding is None else deciding.verdict
    reason = "undecidable, because there is no metric" if deciding is None else f"{deciding.metric}: {deciding.reason}"
    return Comparison(tuple(found), named, verdict, reason, (first.labels, second.labels), paired)


def _of_sample(sample: Sample) -> tuple[_Side, tuple[Any, Labelled]]:
    batch = labelled(sample)
    quality = quality_of(sample, batch)
    return _Side(*exact(quality, batch), quality.rows), (quality, batch)


def _row(name: str, a: _Side, b: _Side, allowed: float | None, correlation: float) -> ComparedMetric:
    one, other = a.figures[name], b.figures[name]
    if one.value is None or other.value is None:
        which, why = ("champion", one.reason) if one.value is None else ("challenger", other.reason)
        why = why.removeprefix("undecidable, because ")
        reason = f"undecidable, because the {which} has no value: {why}"
        return ComparedMetric(name, one.value, other.value, None, None, None, "undecidable", reason)
    gap = other.value - one.value
    if min(a.labels, b.labels) < MIN_LABELS:
        reason = f"undecidable, because one has only {min(a.labels, b.labels)} labelled rows"
        return ComparedMetric(name, one.value, other.value, gap, None, None, "undecidable", reason)
    bands = [side.intervals[name](Z95) if name in side.intervals else None for side in (a, b)]
    if bands[0] is None or bands[1] is None:
        reason = "undecidable, because there is no interval"
        return ComparedMetric(name, one.value, other.value, gap, None, None, "undecidable", reason)
    low, high = difference(one.value, bands[0], other.value, bands[1], correlation)
    margin = smallest(name, one.value) if allowed is None else allowed
    sign = direction(name, one.value, other.value)
    if sign == 0:
        reason = "undecidable, because it is not known which way is better"
        return ComparedMetric(name, one.value, other.value, gap, low, high, "undecidable", reason)
    worst, best = (low, high) if sign > 0 else (-high, -low)
    verdict, reason = _verdict(sign * gap, worst, best, margin, min(a.labels, b.labels))
    return ComparedMetric(name, one.value, other.value, gap, low, high, verdict, reason)


def _verdict(gain: float, worst: float, best: float, margin: float, labels: int) -> tuple[Verdict, str]:
    if worst > 0:
        return "better", f"better by {worst:.3g} to {best:.3g}"
    if worst >= -margin:
        return "equivalent", f"not worse than by {-worst:.3g}, which is within {margin:.3g}"
    if best < 0:
        return "worse", f"worse by {-best:.3g} to {-worst:.3g}"
    reason = f"undecidable, because the gain may be anything from {worst:.3g} to {best:.3g}"
    if gain + margin > 0:
        # The interval's half shrinks with the root of the rows.
        needed = labels * ((gain - worst) / (gain + margin)) ** 2
        if needed < _MOST_LABELS:
            digits = 10 ** max(0, math.floor(math.log10(needed)) - 1)
            reason += f"; about {math.ceil(needed / digits) * digits:,} labels of each would tell"
    return "undecidable", reason


def _same_rows(a: Sample, b: Sample) -> tuple[Sample, Sample]:
    """The rows that both have a usable answer and label for."""
    if len(a) != len(b):
        raise ValueError(f"paired samples must have as many rows: a has {len(a)}, b has {len(b)}")
    used = np.ones(len(a), bool)
    for sample in (a, b):
        for values in (sample.labels, sample.predictions):
            finite = np.isfinite(values)
            used &= finite if finite.ndim == 1 else finite.all(axis=1)
        used &= np.isfinite(sample.weights) & (sample.weights > 0)
    return a.take(used), b.take(used)


def _correlations(a: tuple[Any, Labelled], b: tuple[Any, Labelled]) -> dict[str, float]:
    """By metric how the figures of two versions on the same rows hang together."""
    first, second = influences(*a), influences(*b)
    weights = a[1].weights
    result = {}
    for name in first.keys() & second.keys():
        x, y = first[name], second[name]
        spread = math.sqrt(float(weights @ x**2) * float(weights @ y**2))
        result[name] = _within(float(weights @ (x * y)) / spread) if spread > 0 else 0.0
    return result


def _within(correlation: float) -> float:
    return max(-1.0, min(1.0, correlation))
