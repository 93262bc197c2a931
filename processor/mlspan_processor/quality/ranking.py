"""Stage 5: AUROC and average precision from counts of negatives and positives by score.

In: how many negatives and positives have each score, lowest score first: bins of a histogram in a stream, the distinct
scores themselves in memory (then both figures are scikit-learn's, and exact). Out: the figure, how far the exact one
may be off because scores in one bin count as tied, and the influence of a negative or positive in each bin, from which
the variance comes: for AUROC DeLong's, but at least Hanley & McNeil's (Radiology 143, 1982), as DeLong's is too
small near 1 (Newcombe, Stat. Med. 25, 2006); for average precision the delta method on its sum.
Histograms have 1,024 bins, of probabilities on the logit scale within ±16, of raw scores on asinh's. Memory: 16 bytes a
filled bin, at most 34 kB a class.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlspan.payload import SCORE_PROBABILITY
from mlspan_processor.quality.bands import Interval, share, together
from mlspan_processor.quality.base import MAX_SCORED_CLASSES, Figure
from mlspan_processor.quality.sparse import SparseCounts

BINS: Final = 1024
_SPAN: Final = 16.0
Counts = NDArray[np.float64]


class Ranked(NamedTuple):
    """A figure of one class against the others.

    Attributes:
        value: the figure.
        bound: how far the exact value may be off.
        negative, positive: (bins,) influence of a row there.
        variance: of the figure for one effective row.
        rows: the smaller side's weighted rows.
    """

    value: float
    bound: float
    negative: Counts
    positive: Counts
    variance: float
    rows: float


def roc_auc(negative: Counts, positive: Counts) -> Ranked | None:
    """Area under the ROC curve; None without both."""
    n, p = float(negative.sum()), float(positive.sum())
    if n <= 0 or p <= 0:
        return None
    below = (np.cumsum(negative) - negative / 2) / n
    above = 1 - (np.cumsum(positive) - positive / 2) / p
    ties = float((positive / p) @ (negative / n)) / 2
    area = float((positive / p) @ below)
    of_positive, of_negative = (n + p) / p * (below - area), (n + p) / n * (above - area)
    variance = _mean_square(negative, of_negative, positive, of_positive)
    exponential = area / (2 - area) - area**2, 2 * area**2 / (1 + area) - area**2
    floor = (n + p) * (max(0.0, exponential[0]) / p + max(0.0, exponential[1]) / n)
    return Ranked(area, ties, of_negative, of_positive, max(variance, floor), min(n, p))


def average_precision(negative: Counts, positive: Counts) -> Ranked | None:
    """Mean precision at the positives; None without both."""
    n, p = float(negative.sum()), float(positive.sum())
    if n <= 0 or p <= 0:
        return None
    hits = np.cumsum(positive[::-1])[::-1]
    rows = hits + np.cumsum(negative[::-1])[::-1]
    used = rows > 0
    rows = np.where(used, rows, 1.0)
    precision = hits / rows
    value = float(positive @ precision) / p
    # A row adds to the precision at every positive below it.
    gain, loss = np.cumsum(positive * (1 - precision) / rows), np.cumsum(positive * precision / rows)
    of_positive, of_negative = (n + p) / p * (precision - value + gain), -(n + p) / p * loss
    variance = _mean_square(negative, of_negative, positive, of_positive)
    return Ranked(value, _order_bound(negative, positive, hits, rows), of_negative, of_positive, variance, p)


def _order_bound(negative: Counts, positive: Counts, hits: Counts, rows: Counts) -> float:
    """How far average precision may be off if the rows of a bin had an order: positives first, or last."""
    used = positive > 0
    p, n, hits, rows = positive[used], negative[used], hits[used], rows[used]
    binned = p * hits / rows
    start, last = hits - p, rows - p  # hits before the bin, and rows before its positives when these come last
    with np.errstate(divide="ignore", invalid="ignore"):
        inside = p + (start - last) * np.log1p(p / last)
    lowest = np.where(last > 0, inside, p)
    # The last positive of a bin has at best no negative of it above.
    highest = np.where(n > 0, p * hits / np.maximum(rows - n, hits), binned)
    below, above = np.maximum(binned - lowest, 0).sum(), np.maximum(highest - binned, 0).sum()
    return float(max(below, above) / p.sum())


def _mean_square(negative: Counts, of_negative: Counts, positive: Counts, of_positive: Counts) -> float:
    return float(negative @ of_negative**2 + positive @ of_positive**2) / float(negative.sum() + positive.sum())


class ScoreCounts:
    """Histograms of scores, of several classes or outputs, each as negatives and positives."""

    def __init__(self) -> None:
        self.counts = SparseCounts()

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.counts.nbytes

    def add(
        self, scores: NDArray[np.float64], truth: NDArray[np.bool_], kind: int, weights: NDArray[np.float64]
    ) -> None:
        """Add scores (n, width), positive where truth (n, width); weights (n,)."""
        width = scores.shape[1]
        if kind == SCORE_PROBABILITY:
            clipped = np.clip(scores, 1e-9, 1 - 1e-9)
            scale = np.log(clipped / (1 - clipped))
            first = 0
        else:
            scale = np.arcsinh(scores)
            first = MAX_SCORED_CLASSES
        bins = np.clip(np.floor((scale + _SPAN) / (2 * _SPAN) * BINS), 0, BINS - 1).astype(np.int64)
        cells = ((first + np.arange(width)) * 2 + truth) * BINS + bins
        self.counts.add(cells.ravel(), np.repeat(weights, width))

    def merge(self, other: "ScoreCounts") -> None:
        """Add another's rows."""
        self.counts.merge(other.counts)

    def pairs(self, width: int) -> list[tuple[Counts, Counts]]:
        """(negatives, positives) of each class, each (1024,); those of probabilities where there are any."""
        size = width * 2 * BINS
        dense = self.counts.dense(0, size)
        if not dense.any():
            dense = self.counts.dense(MAX_SCORED_CLASSES * 2 * BINS, size)
        table = dense.reshape(width, 2, BINS)
        return [(table[k, 0], table[k, 1]) for k in range(width)]


RANKED: Final = {"roc_auc": roc_auc, "average_precision": average_precision}


def ranked(pairs: list[tuple[Counts, Counts]], exact: bool = False) -> dict[str, Figure]:
    """Both figures, averaged over the classes with labels both ways."""
    result = {}
    for name, function in RANKED.items():
        found = [one for one in (function(*pair) for pair in pairs) if one is not None]
        if found:
            bound = 0.0 if exact else float(np.mean([one.bound for one in found]))
            result[name] = Figure(float(np.mean([one.value for one in found])), bound=bound)
        else:
            scored = any(side.any() for pair in pairs for side in pair)
            result[name] = Figure(None, "labels of one class only" if scored else "no labelled scores")
    return result


def ranked_intervals(pairs: list[tuple[Counts, Counts]], ratio: float) -> dict[str, Interval]:
    """Their bands; conservative for more than one class, whose dependence the histograms do not hold."""
    result = {}
    for name, function in RANKED.items():
        found = [one for one in (function(*pair) for pair in pairs) if one is not None]
        if found:
            total = [sum(float(side.sum()) for side in pair) * ratio for pair in pairs if all(s.any() for s in pair)]
            rules = [
                (one.value, share(one.value, one.rows * ratio, one.variance / n))
                for one, n in zip(found, total, strict=True)
            ]
            result[name] = rules[0][1] if len(rules) == 1 else together(rules)
    return result
