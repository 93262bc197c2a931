"""Batch, part 8a: realised performance of some rows, with bands at any level.

In: a Sample with labels. Out: a Truth, the figures of quality.realised and, beside their 95 % bands, the bands as
functions, since what alerts asks for more than 95 %.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlspan_processor.quality.bands import Interval
from mlspan_processor.quality.calibration import ReliabilityBin
from mlspan_processor.quality.custom import CustomMetrics
from mlspan_processor.quality.multilabel import Multilabel
from mlspan_processor.quality.realised import OF_SCORES, Realised, exact, labelled, of_figure, quality_of, rows_of
from mlspan_processor.sample import Sample


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """Realised figures by metric, their bands, and how reliable the probabilities are (by bin of confidence)."""

    realised: Mapping[str, Realised] = field(default_factory=dict)
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    reliability: Mapping[str, Any] | None = None


def truth_of(sample: Sample, custom: CustomMetrics | None = None) -> Truth:
    """The realised performance of a sample, with the user's `custom` metrics as "custom:NAME"."""
    batch = labelled(sample)
    quality = quality_of(sample, batch)
    figures, intervals = exact(quality, batch)
    rows = rows_of(batch)
    realised = {
        name: of_figure(figure, intervals.get(name), rows[name in OF_SCORES]) for name, figure in figures.items()
    }
    if custom is not None:
        realised |= {f"custom:{name}": one for name, one in custom.figures(batch).items()}
    return Truth(realised, intervals, _reliability(quality, realised, sample.classes) if rows[True] else None)


def widened(interval: Interval, dependence: float) -> Interval:
    """The band of rows of which only one in `dependence` counts."""
    return lambda z: interval(z * math.sqrt(dependence))


def stretched(value: float, low: float, high: float, z95: float) -> Interval:
    """A band of which only the 95 % are known, stretched in proportion."""
    return lambda z: (value - (value - low) * z / z95, value + (high - value) * z / z95)


def _reliability(quality: Any, realised: Mapping[str, Realised], classes: Sequence[str]) -> dict[str, Any] | None:
    if "ece" not in realised:
        return None
    whole = {"ece": realised["ece"].value}
    if not isinstance(quality, Multilabel):
        return {**whole, "bins": _bins(quality.reliability())}
    parts = [
        {"ece": quality.calibration(k).ece(quality.ratio).value, "bins": _bins(bins)}
        for k, bins in enumerate(quality.reliability())
    ]
    return {**whole, "outputs": dict(zip(classes, parts, strict=False))}


def _bins(bins: Sequence[ReliabilityBin]) -> list[dict[str, float]]:
    return [dict(zip(one._fields, map(float, one), strict=True)) for one in bins]
