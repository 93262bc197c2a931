"""Stage 5, segments: are groups of people treated alike? Rates of each group, and the gaps between groups, with bands.

In: a Sample and the segment that holds the group (a column that is no feature is in no other place, so that the model's
features stay what they are). Out: by group the selection rate (share predicted to be of the favourable class), true and
false positive rate; over groups

demographic_parity_difference  largest less smallest selection rate
demographic_parity_ratio       smallest over largest (disparate impact: below 0.8 breaks the four-fifths rule; of a
                               privileged group when one is named: smallest rate of the others over its rate)
equal_opportunity_difference   largest less smallest true positive rate (Hardt, Price & Srebro, NeurIPS 2016)
equalised_odds_difference      the larger of the gaps in true and in false positive rate

Definitions are fairlearn's. Bands are simultaneous: those of all pairs of groups (MOVER over Wilson's intervals, of
logarithms for ratios), Bonferroni-corrected, since the two groups that a gap is between were chosen for it. Groups with
fewer than 30 rows are shown and left out of the gaps. Selection needs no labels.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Any, Final, NamedTuple

import numpy as np
from scipy.special import ndtri

from mlspan_processor.quality.bands import Band, difference
from mlspan_processor.quality.base import wilson
from mlspan_processor.quality.classification import Classification
from mlspan_processor.quality.realised import Realised
from mlspan_processor.sample import Sample

MIN_ROWS: Final = 30
RATES: Final = ("selection_rate", "true_positive_rate", "false_positive_rate")
GAPS: Final[dict[str, tuple[str, ...]]] = {
    "demographic_parity_difference": ("selection_rate",),
    "equal_opportunity_difference": ("true_positive_rate",),
    "equalised_odds_difference": ("true_positive_rate", "false_positive_rate"),
}
Pair = Callable[[float, Band, float, Band], Band]


class GroupRates(NamedTuple):
    """One group.

    Attributes:
        group: its value.
        rows: with a prediction.
        rates: by name of RATES, each with band and the rows it rests on.
        weights: effective rows behind each rate.
    """

    group: str
    rows: int
    rates: dict[str, Realised]
    weights: dict[str, float]


class FairnessFigure(NamedTuple):
    """A gap between groups.

    Attributes:
        value: the gap, or None.
        low, high: simultaneous 95 % band.
        reason: "" or why there is none.
        groups: the group with the higher rate, and the one with the lower.
        rows: in the groups compared.
    """

    value: float | None
    low: float | None
    high: float | None
    reason: str = ""
    groups: tuple[str, str] = ("", "")
    rows: int = 0


@dataclass(frozen=True, slots=True)
class Fairness:
    """How groups are treated.

    Attributes:
        segment: the column.
        favourable: text of the favourable class.
        groups: rates of each.
        figures: gaps by name.
    """

    segment: str
    favourable: str
    groups: tuple[GroupRates, ...]
    figures: dict[str, FairnessFigure]

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON takes it; an end of a band that is infinite is None."""
        gaps = {}
        for name, one in self.figures.items():
            row = one._asdict()
            row["high"] = None if one.high is None or math.isinf(one.high) else one.high
            gaps[name] = {**row, "groups": list(one.groups)}
        return {
            "favourable": self.favourable,
            "groups": {
                one.group: {"rows": one.rows, **{name: rate._asdict() for name, rate in one.rates.items()}}
                for one in self.groups
            },
            "figures": gaps,
        }


def fairness(sample: Sample, segment: str, *, favourable: str | None = None, privileged: str | None = None) -> Fairness:
    """Rates and gaps of a classifier's groups.

    Args:
        sample: rows with predictions; labels where there are any.
        segment: which of its segments holds the group.
        favourable: text of the class that is good to get; None: the last of two classes.
        privileged: group that the others are compared with in the ratio; None: that with the highest rate.

    Raises:
        ValueError: there is no such segment, class or group.
    """
    if segment not in sample.segments:
        raise ValueError(f'there is no segment "{segment}"; there are {", ".join(sample.segments) or "none"}')
    labels = sample.segments[segment].labels
    if privileged is not None and privileged not in labels:
        raise ValueError(f'"{segment}" has no group "{privileged}"; there are {", ".join(labels)}')
    at = _favourable(sample, favourable)
    if isinstance(at, str):
        return Fairness(segment, "", (), undecided(at))
    used = np.isfinite(sample.predictions) & np.isfinite(sample.weights) & (sample.weights > 0)
    said, true = sample.predictions == at, sample.labels == at
    known = np.isfinite(sample.labels) & used
    groups = []
    for code, group in enumerate(labels):
        mine = (sample.segments[segment].codes == code) & used
        if not mine.any():
            continue
        parts = {
            "selection_rate": mine,
            "true_positive_rate": mine & known & true,
            "false_positive_rate": mine & known & ~true,
        }
        rates, weights = {}, {}
        for name, rows in parts.items():
            w = sample.weights[rows]
            weights[name] = float(w.sum()) ** 2 / float(w @ w) if len(w) else 0.0
            rates[name] = _rate(float(w @ said[rows]), float(w.sum()), weights[name], int(rows.sum()))
        groups.append(GroupRates(group, int(mine.sum()), rates, weights))
    favoured = sample.classes[at] if at < len(sample.classes) else str(at)
    return Fairness(segment, favoured, tuple(groups), _gaps(groups, privileged))


def fairness_of(
    segment: str, parts: Mapping[str, Any], *, favourable: int | None = None, privileged: str | None = None
) -> Fairness:
    """The same from a stream's sums by group, of labelled rows only; `favourable` is a class index.

    Args:
        segment: its name.
        parts: `SegmentedQuality.parts`.
        favourable, privileged: as above.
    """
    groups = []
    at = -1
    for group, quality in parts.items():
        if group == "missing":
            continue
        if not isinstance(quality, Classification) or (favourable is None and quality.n_classes != 2):
            return Fairness(segment, "", (), undecided("undecidable, because no favourable class is named"))
        at = quality.n_classes - 1 if favourable is None else favourable
        matrix = quality.confusion()
        said, positive = matrix[:, at], float(matrix[at].sum())
        total = float(matrix.sum())
        sums = {
            "selection_rate": (float(said.sum()), total),
            "true_positive_rate": (float(matrix[at, at]), positive),
            "false_positive_rate": (float(said.sum() - matrix[at, at]), total - positive),
        }
        weights = {name: below * quality.ratio for name, (_, below) in sums.items()}
        rates = {name: _rate(*both, weights[name], round(weights[name])) for name, both in sums.items()}
        groups.append(GroupRates(group, quality.rows, rates, weights))
    return Fairness(segment, str(at) if at >= 0 else "", tuple(groups), _gaps(groups, privileged))


def _favourable(sample: Sample, favourable: str | None) -> int | str:
    if sample.task not in {"binary", "multiclass"}:
        return f"undecidable, because the task is {sample.task}: groups are compared on classes"
    if favourable is None:
        if sample.task == "binary":
            return 1
        return "undecidable, because no favourable class is named"
    if favourable not in sample.classes:
        raise ValueError(f'there is no class "{favourable}"; there are {", ".join(sample.classes)}')
    return sample.classes.index(favourable)


def _rate(hits: float, total: float, n: float, rows: int) -> Realised:
    if total <= 0:
        return Realised(None, None, None, "no such rows", 0)
    return Realised(hits / total, *wilson(hits / total, n), "", rows)


def undecided(reason: str) -> dict[str, FairnessFigure]:
    """All gaps without a value, for this reason."""
    names = (*GAPS, "demographic_parity_ratio")
    return dict.fromkeys(names, FairnessFigure(None, None, None, reason))


def _gaps(groups: Iterable[GroupRates], privileged: str | None) -> dict[str, FairnessFigure]:
    kept = list(groups)
    result = {}
    for name, rates in GAPS.items():
        found = [_extreme(kept, rate, difference_of, largest=True) for rate in rates]
        bad = next((one for one in found if one.value is None), None)
        if bad is not None:
            result[name] = bad
            continue
        worst = max(found, key=lambda one: one.value or 0.0)
        low, high = max(one.low or 0.0 for one in found), max(one.high or 0.0 for one in found)
        result[name] = worst._replace(low=low, high=high)
    result["demographic_parity_ratio"] = _extreme(kept, "selection_rate", ratio_of, largest=False, over=privileged)
    return result


def _extreme(
    groups: list[GroupRates], rate: str, pair: Pair, *, largest: bool, over: str | None = None
) -> FairnessFigure:
    """The largest or smallest comparison of two groups, with the simultaneous band of all of them."""
    kept = [one for one in groups if one.rates[rate].value is not None and one.weights[rate] >= MIN_ROWS]
    if len(kept) < 2:
        why = f"undecidable, because fewer than two groups have {MIN_ROWS} rows for the {rate.replace('_', ' ')}"
        return FairnessFigure(None, None, None, why)
    pairs = [(a, b) for a, b in permutations(kept, 2) if over is None or b.group == over]
    if not pairs:
        return FairnessFigure(None, None, None, f'undecidable, because "{over}" has fewer than {MIN_ROWS} rows')
    tests = len(pairs) / 2 if over is None else len(pairs)
    z = float(-ndtri(0.025 / tests))
    found = []
    for a, b in pairs:
        first, second = a.rates[rate].value, b.rates[rate].value
        assert first is not None
        assert second is not None
        value = first - second if pair is difference_of else _over(first, second)
        band = pair(second, wilson(second, b.weights[rate], z), first, wilson(first, a.weights[rate], z))
        found.append((value, band, a, b))
    known = [one for one in found if not math.isnan(one[0])]
    if not known:
        return FairnessFigure(None, None, None, "undecidable, because nobody was selected")
    choose = max if largest else min
    value, _, a, b = choose(known, key=lambda one: one[0])
    low = choose(band[0] for _, band, _, _ in known)
    high = choose(band[1] for _, band, _, _ in known)
    if largest:
        low = max(0.0, low)
    elif over is None:
        high = min(1.0, high)
    names = (a.group, b.group) if largest else (b.group, a.group)
    return FairnessFigure(value, low, high, "", names, sum(one.rates[rate].labels for one in kept))


def difference_of(b: float, band_b: Band, a: float, band_a: Band) -> Band:
    """The band of a - b."""
    return difference(b, band_b, a, band_a)


def ratio_of(b: float, band_b: Band, a: float, band_a: Band) -> Band:
    """The band of a / b, from those of the logarithms."""
    if b <= 0 or a <= 0:
        # One was never selected: its band still reaches up.
        return (0.0, band_a[1] / band_b[0]) if a <= 0 < band_b[0] else (0.0, math.inf)
    below = math.hypot(_log(a) - _log(band_a[0]), _log(band_b[1]) - _log(b))
    above = math.hypot(_log(band_a[1]) - _log(a), _log(b) - _log(band_b[0]))
    return a / b * math.exp(-below), a / b * math.exp(min(above, 700.0))


def _over(a: float, b: float) -> float:
    return a / b if b > 0 else math.nan


def _log(value: float) -> float:
    return math.log(max(value, 1e-300))
