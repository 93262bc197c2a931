"""Batch, part 8b: columns to cut by, and performance within each of their values.

In: the segment columns of both files as read. Out: Segments with the same labels in both, and their metrics. Texts,
booleans and whole numbers of at most 49 values are cut by value, the most frequent 49 of the reference, the rest as
"other"; other numbers by the quartiles of the reference. Values of unlike types are matched by what they mean.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Final

import numpy as np

from mlspan_processor.analysis.answers import Answers
from mlspan_processor.analysis.raw import Raw
from mlspan_processor.analysis.result import Group, Metric, number
from mlspan_processor.label_texts import class_texts
from mlspan_processor.quality.names import because
from mlspan_processor.sample import Sample, Segment
from mlspan_processor.segments import fairness, figures

MAX_VALUES: Final = 49
OTHER: Final = "other"
OTHER_VALUES: Final = "other values"
_NO_ESTIMATE: Final = "estimated: segments are not estimated"
_GAP: Final = ("value", "low", "high", "groups")
_QUARTILES: Final = (0.25, 0.5, 0.75)


def segments_of(reference: Answers, current: Answers) -> tuple[dict[str, Segment], dict[str, Segment]]:
    """The segments of both files' rows, by column; of a column that one lacks, only the other's."""
    before: dict[str, Segment] = {}
    now: dict[str, Segment] = {}
    for name in dict.fromkeys([*reference.segments, *current.segments]):
        first, second = reference.segments.get(name), current.segments.get(name)
        known = [one for one in (first, second) if one is not None]
        quantity = all(one.numbers is not None for one in known) and _is_quantity(known)
        edges = _quartiles(known[0]) if quantity else []
        values = {} if quantity else _values(known)
        for raw, into in ((first, before), (second, now)):
            if raw is not None:
                into[name] = _by_quartile(raw, edges) if quantity else _by_value(raw, values, _unlike(known))
    return before, now


def groups_of(sample: Sample, reference: Mapping[str, Mapping[str, Group]]) -> dict[str, dict[str, Group]]:
    """Metrics by segment column and value; beside each that of the same segment of the reference."""
    result: dict[str, dict[str, Group]] = {}
    if not sample.segments:
        return result
    for one in figures(sample, metrics=()):  # alerts compares with the reference, not with the other rows
        before = reference.get(one.segment, {}).get(one.value)
        metrics = {}
        for name, figure in one.figures.items():
            was = None if before is None else before.metrics.get(name)
            metrics[name] = Metric(
                realised=number(figure.value),
                labels=int(figure.labels),
                realised_low=number(figure.low),
                realised_high=number(figure.high),
                reference=None if was is None else was.realised,
                reference_low=None if was is None else was.realised_low,
                reference_high=None if was is None else was.realised_high,
                reason=f"realised: {because(figure.reason)}; {_NO_ESTIMATE}" if figure.value is None else _NO_ESTIMATE,
            )
        result.setdefault(one.segment, {})[one.value] = Group(int(one.rows), metrics)
    return result


def fairness_of(sample: Sample) -> dict[str, Any]:
    """Gaps between the groups of each segment column, for two classes; the positive one is the favourable. Of several
    outputs the reason why there are none."""
    result = {}
    for name in sample.segments if sample.task in {"binary", "multilabel"} else ():
        one = fairness(sample, name)
        gaps = {gap: {key: getattr(figure, key) for key in _GAP} for gap, figure in one.figures.items()}
        for gap, figure in one.figures.items():
            if figure.reason:
                gaps[gap]["reason"] = figure.reason
        result[name] = {"favourable": one.favourable, "gaps": gaps}
    return result


def _is_quantity(known: list[Raw]) -> bool:
    values = [one.numbers[np.isfinite(one.numbers)] for one in known if one.numbers is not None]
    everything = np.unique(np.concatenate(values))
    return bool(len(everything) > MAX_VALUES or (everything != np.round(everything)).any())


def _quartiles(raw: Raw) -> list[Any]:
    assert raw.numbers is not None
    finite = raw.numbers[np.isfinite(raw.numbers)]
    return sorted(set(np.quantile(finite, _QUARTILES, method="inverted_cdf").tolist())) if len(finite) else []


def _by_quartile(raw: Raw, edges: list[Any]) -> Segment:
    assert raw.numbers is not None
    codes = np.searchsorted(edges, raw.numbers, "left").astype(np.int32)
    codes[np.isnan(raw.numbers)] = -1
    text = [f"{edge:.6g}" for edge in edges]
    if not text:
        return Segment(codes, ("all",))
    middle = [f"{low} to {high}" for low, high in pairwise(text)]
    return Segment(codes, (f"up to {text[0]}", *middle, f"above {text[-1]}"))


def _values(known: list[Raw]) -> dict[str, str]:
    """The values told apart, by what they mean: the most frequent of the reference, then of the current file."""
    found: dict[str, str] = {}
    unlike = _unlike(known)
    for raw in known:
        codes, texts = raw.coded()
        counts = np.bincount(codes[codes >= 0], minlength=len(texts))
        for i in np.argsort(-counts, kind="stable")[: MAX_VALUES + 1].tolist():
            found.setdefault(_meaning(texts[i], unlike), texts[i])
    if len(found) <= MAX_VALUES:
        return found
    # A value of this name is none of the rest.
    rest = OTHER_VALUES if OTHER in found else OTHER
    return dict([*list(found.items())[:MAX_VALUES], (rest, rest)])


def _by_value(raw: Raw, values: dict[str, str], unlike: bool) -> Segment:
    codes, texts = raw.coded()
    place = {meaning: i for i, meaning in enumerate(values)}
    other = MAX_VALUES if len(values) > MAX_VALUES else -1
    table = np.array([*(place.get(_meaning(text, unlike), other) for text in texts), -1], np.int32)
    return Segment(table[codes], tuple(values.values()))


def _unlike(known: list[Raw]) -> bool:
    """Whether the files have other types of values: then 1, 1.0, "1" and true are one, as for classes."""
    return len({(raw.numbers is not None, raw.truth) for raw in known if not raw.missing().all()}) > 1


def _meaning(text: str, unlike: bool) -> str:
    return min(class_texts(text), key=len) if unlike else text
