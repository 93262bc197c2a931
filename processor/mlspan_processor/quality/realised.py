"""Stage 5: realised performance of rows that lie in memory: every figure of the task in one call, with its band.

In: a Sample with labels. Out: figures by the names that the stream publishes (ml.quality.…), exact: AUROC, average
precision and the median error come from the rows themselves, the rest from the same sums as in a stream. Rows with a
missing or infinite label, or a weight that is not positive, are left out; rows without a prediction count for figures
of scores and the other way round. What cannot be had is None with a reason. Cost: 1.5 s for a million rows of two
classes.
"""

import math
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlspan.payload import SCORE_NONE, SCORE_PROBABILITY
from mlspan_processor.quality.bands import Z95, Band, Interval, share
from mlspan_processor.quality.base import MAX_SCORED_CLASSES, Figure, Labelled
from mlspan_processor.quality.classification import Classification
from mlspan_processor.quality.influence import exact_pairs, of_classes, of_numbers, of_outputs
from mlspan_processor.quality.multilabel import Multilabel
from mlspan_processor.quality.ranking import RANKED, Counts, ranked, ranked_intervals
from mlspan_processor.quality.regression import Regression
from mlspan_processor.sample import Sample

_MACRO: Final = ("precision", "recall", "f1")
OF_SCORES: Final = frozenset({"roc_auc", "average_precision", "log_loss", "brier", "ece"})


class Realised(NamedTuple):
    """A realised figure.

    Attributes:
        value: the figure, or None.
        low, high: its 95 % band, or None.
        reason: "" or why there is no value.
        labels: labelled rows that it rests on.
    """

    value: float | None
    low: float | None
    high: float | None
    reason: str = ""
    labels: int = 0


def realised(sample: Sample) -> dict[str, Realised]:
    """All figures of the sample's task by name."""
    batch = labelled(sample)
    quality = quality_of(sample, batch)
    figures, intervals = exact(quality, batch)
    rows = rows_of(batch)
    return {name: of_figure(figure, intervals.get(name), rows[name in OF_SCORES]) for name, figure in figures.items()}


def of_quality(quality: Any) -> dict[str, Realised]:
    """The same from mergeable sums."""
    intervals = quality.intervals()
    return {name: of_figure(figure, intervals.get(name), quality.rows) for name, figure in quality.figures().items()}


def of_figure(figure: Figure, interval: Interval | None, labels: int, z: float = Z95) -> Realised:
    """A figure with its band."""
    if figure.value is None:
        return Realised(None, None, None, figure.reason, labels)
    if not math.isfinite(figure.value):
        return Realised(None, None, None, "undecidable, because the numbers are too large", labels)
    band: Band | None = interval(z) if interval is not None else None
    if band is None or not all(map(math.isfinite, band)):
        return Realised(figure.value, None, None, "", labels)
    return Realised(figure.value, min(band[0], figure.value), max(band[1], figure.value), "", labels)


def labelled(sample: Sample) -> Labelled:
    """The sample's rows that can be used, as sums take them; two columns of scores of two classes become one."""
    used = np.isfinite(sample.weights) & (sample.weights > 0)
    part = sample if used.all() else sample.take(used)
    scores = part.scores
    if scores is not None and sample.task == "binary" and scores.shape[1] == 2:
        scores = scores[:, 1:]
    if scores is not None and (not scores.shape[1] or sample.task == "regression"):
        scores = None
    kind = SCORE_NONE if scores is None else SCORE_PROBABILITY
    return Labelled(part.labels, part.predictions, scores, kind, part.weights, part.epsilon)


def empty_quality(sample: Sample) -> Any:
    """Sums of the sample's task, without rows."""
    if sample.task == "regression":
        return Regression()
    if sample.task == "multilabel":
        return Multilabel(sample.labels.shape[1] if sample.labels.ndim == 2 else len(sample.classes))
    return Classification(2 if sample.task == "binary" else max(len(sample.classes), 1))


def quality_of(sample: Sample, batch: Labelled | None = None) -> Any:
    """Sums of the sample's rows."""
    batch = labelled(sample) if batch is None else batch
    quality = empty_quality(sample)
    quality.predicted = float(batch.weights.sum())
    if len(batch.labels):
        quality.update(batch)
    return quality


def influences(quality: Any, batch: Labelled) -> dict[str, NDArray[np.float64]]:
    """(n_rows,) influence of each row on each figure."""
    if isinstance(quality, Classification):
        return of_classes(quality, batch)
    return of_outputs(quality, batch) if isinstance(quality, Multilabel) else of_numbers(batch)


def exact(quality: Any, batch: Labelled) -> tuple[dict[str, Figure], dict[str, Interval]]:
    """Figures and bands of the rows that `quality` was made of, with what histograms only bound from the rows."""
    figures, intervals = quality.figures(), quality.intervals()
    if isinstance(quality, Regression):
        if figures["median_ae"].value is not None:
            figures["median_ae"] = Figure(_median(batch))
        return figures, intervals
    pairs = _pairs(quality, batch)
    if pairs:
        figures.update(ranked(pairs, exact=True))
        intervals.update(ranked_intervals(pairs, quality.ratio))
    if len(pairs) > 1 or isinstance(quality, Multilabel):
        # The sums do not hold how the classes' figures hang together; the rows do.
        gains = influences(quality, batch)
        for name in (*RANKED, *(_MACRO if isinstance(quality, Multilabel) else ())):
            value = figures[name].value
            if value is not None and name in gains:
                intervals[name] = _of_average(value, gains[name], quality, batch)
    return figures, intervals


def _of_average(value: float, gains: NDArray[np.float64], quality: Any, batch: Labelled) -> Interval:
    """The band of a mean over classes from the rows' influences."""
    used = gains != 0
    total = float(batch.weights[used].sum())
    if not total:
        return share(value, _fewest(batch) * quality.ratio)
    variance = float(batch.weights @ gains**2) / total / (total * quality.ratio)
    return share(value, _fewest(batch) * quality.ratio, variance)


def _fewest(batch: Labelled) -> float:
    """Weighted rows of the rarest class or output."""
    known = np.isfinite(batch.labels)
    if batch.labels.ndim == 2:
        counts = np.asarray(batch.weights @ np.where(known, batch.labels > 0, False), np.float64)
    else:
        counts = np.bincount(batch.labels[known].astype(np.intp).clip(0), batch.weights[known]).astype(np.float64)
    return float(counts[counts > 0].min()) if (counts > 0).any() else 1.0


def _pairs(quality: Any, batch: Labelled) -> list[tuple[Counts, Counts]]:
    if batch.scores is None or batch.scores.shape[1] > MAX_SCORED_CLASSES:
        return []
    known = np.isfinite(batch.labels) & (batch.labels >= 0)
    used = (known if known.ndim == 1 else known.all(axis=1)) & np.isfinite(batch.scores).all(axis=1)
    scores, labels = batch.scores[used], batch.labels[used]
    if isinstance(quality, Multilabel):
        truth = labels > 0
    else:
        width = scores.shape[1]
        classes = np.arange(width) if width > 1 else np.array([quality.n_classes - 1])
        truth = labels[:, None] == classes
    return [pair for pair, _ in exact_pairs(truth, scores, batch.weights[used])]


def _median(batch: Labelled) -> float:
    used = np.isfinite(batch.labels) & np.isfinite(batch.predictions)
    sizes, weights = np.abs(batch.predictions[used] - batch.labels[used]), batch.weights[used]
    order = np.argsort(sizes)
    sizes, below = sizes[order], np.cumsum(weights[order])
    half = below[-1] / 2
    at = int(np.searchsorted(below, half * (1 - 1e-12)))
    if abs(below[at] - half) <= 1e-12 * half and at + 1 < len(sizes):
        return float(sizes[at] + sizes[at + 1]) / 2
    return float(sizes[at])


def rows_of(batch: Labelled) -> dict[bool, int]:
    """Labelled rows with a prediction (False) and with scores (True)."""

    def whole(values: NDArray[Any]) -> NDArray[np.bool_]:
        finite = np.isfinite(values)
        return finite if finite.ndim == 1 else np.asarray(finite.all(axis=1))

    known = whole(batch.labels)
    scored = np.zeros(len(known), bool) if batch.scores is None else whole(batch.scores)
    return {False: int((known & whole(batch.predictions)).sum()), True: int((known & scored).sum())}
