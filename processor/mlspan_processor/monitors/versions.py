"""Stage 6, part 16: versions of one model that answer at the same time, compared on their realised performance.

In: the model versions. Out: for each pair whose labelled predictions overlap in time the comparison of
versions/ over that time, the version that was seen first being the baseline. Works on the panes' sums: nothing is kept.
"""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from mlspan_processor.model import Model
from mlspan_processor.versions import Comparison, compare

MAX_VERSIONS: Final = 5
"""Versions that one is compared with, those seen last."""
MIN_LABELS: Final = 30


class Compared(NamedTuple):
    """Two versions over one stretch of time, nanoseconds since the epoch."""

    baseline: Model
    other: Model
    start: int
    end: int
    comparison: Comparison


def comparisons(model: Model, models: Iterable[Model]) -> list[Compared]:
    """The model version against those of its name that were seen before it."""
    others = [one for one in models if one.name == model.name and one.slot < model.slot and one.quality]
    others.sort(key=lambda one: -one.last_seen)
    found = []
    for other in others[:MAX_VERSIONS]:
        overlap = _overlap(model, other)
        if overlap is None or other.classes[: other.declared] != model.classes[: model.declared]:
            continue
        sums = [one.quality.sum(*overlap) for one in (other, model)]
        if min(one.rows for one in sums) >= MIN_LABELS and type(sums[0]) is type(sums[1]):
            found.append(Compared(other, model, *overlap, compare(sums[0], sums[1])))
    return found


def compared(model: Model, models: Iterable[Model]) -> list[dict[str, Any]]:
    """The comparisons, JSON-able."""
    return [
        {
            "baseline": one.baseline.version,
            "start_ns": one.start,
            "end_ns": one.end,
            "labels": list(one.comparison.labels),
            "verdict": one.comparison.verdict,
            "reason": one.comparison.reason,
            "metrics": [row._asdict() for row in one.comparison.rows],
        }
        for one in comparisons(model, models)
    ]


def _overlap(a: Model, b: Model) -> tuple[int, int] | None:
    """The newest stretch of time in which both have panes of labels."""
    spans = [[pane for pane in model.quality if pane.stats.rows] for model in (a, b)]
    if not all(spans):
        return None
    start = max(panes[0].start for panes in spans)
    end = min(panes[-1].end for panes in spans)
    return (start, end) if start < end else None
