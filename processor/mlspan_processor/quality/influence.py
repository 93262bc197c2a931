"""Stage 5: how much each row moves each figure: what paired comparisons and exact bands of averages need.

In: a Sample. Out: by metric, (n_rows,) influences of mean 0, 0 for rows that the figure does not use; their weighted
mean square over the effective rows is the figure's variance, their correlation between two models on the same rows that
of the two figures. Influence functions: Hampel, J. Am. Stat. Assoc. 69, 1974. Memory: 8 bytes a row and metric.
"""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mlspan_processor.quality import confusion
from mlspan_processor.quality.base import MAX_CLASSES, MAX_SCORED_CLASSES, Labelled
from mlspan_processor.quality.classification import Classification
from mlspan_processor.quality.multilabel import MICRO, Multilabel
from mlspan_processor.quality.ranking import RANKED, Counts

Rows = NDArray[np.float64]
_TINY: Final = 1e-300


def of_classes(quality: Classification, batch: Labelled) -> dict[str, Rows]:
    """Of a classifier's figures on the rows that `quality` was made of."""
    n = len(batch.labels)
    result: dict[str, Rows] = {}
    decided = np.isfinite(batch.labels) & (batch.labels >= 0) & np.isfinite(batch.predictions)
    if decided.any():
        true = np.minimum(batch.labels[decided], MAX_CLASSES).astype(np.intp)
        said = batch.predictions[decided]
        said = np.where((said < 0) | (said > MAX_CLASSES), MAX_CLASSES, said).astype(np.intp)
        for name, gains in confusion.influences(quality.confusion(), quality.n_classes).items():
            result[name] = np.zeros(n)
            result[name][decided] = gains[true, said]
    if batch.scores is None or batch.scores.shape[1] > MAX_SCORED_CLASSES:
        return result
    width = batch.scores.shape[1]
    classes = np.arange(width) if width > 1 else np.array([quality.n_classes - 1])
    scored = np.isfinite(batch.labels) & (batch.labels >= 0) & np.isfinite(batch.scores).all(axis=1)
    truth = batch.labels[:, None] == classes
    result |= _of_ranks(truth, batch.scores, scored, batch.weights)
    p = np.clip(batch.scores, 0.0, 1.0)
    if width == 1:
        first = batch.labels == quality.n_classes - 2
        of_label = np.where(truth[:, 0], p[:, 0], np.where(first, 1 - p[:, 0], 0.0))
        squared = (p[:, 0] - truth[:, 0]) ** 2
    else:
        of_label, squared = (p * truth).sum(axis=1), ((p - truth) ** 2).sum(axis=1) / 2
    logs = -np.log(np.clip(of_label, batch.epsilon, 1 - batch.epsilon))
    return result | {
        "log_loss": _centred(logs, scored, batch.weights),
        "brier": _centred(squared, scored, batch.weights),
    }


def of_outputs(quality: Multilabel, batch: Labelled) -> dict[str, Rows]:
    """Of a multilabel classifier's figures."""
    result: dict[str, Rows] = {}
    known: NDArray[np.bool_] = np.asarray(np.isfinite(batch.labels).all(axis=1))
    decided: NDArray[np.bool_] = known & np.asarray(np.isfinite(batch.predictions).all(axis=1))
    true, said = batch.labels > 0, batch.predictions > 0
    outcomes = np.stack([true & said, ~true & said, true & ~said])
    if decided.any():
        wrong = outcomes[1:].sum(axis=(0, 2))
        result["accuracy"] = _centred(np.where(wrong == 0, 1.0, 0.0), decided, batch.weights)
        result["hamming_loss"] = _centred(wrong / quality.n_outputs, decided, batch.weights)
        totals, sums = outcomes.sum(axis=2, dtype=np.float64), quality.outcomes.sum(axis=1)
        for name, (top, bottom) in MICRO.items():
            total = max(float(sums @ bottom), _TINY)
            gain = (np.array(top) - float(sums @ top) / total * np.array(bottom)) * quality.weight / total
            result[name] = np.where(decided, gain @ totals, 0.0)
        hits, alarms, misses = quality.outcomes
        for name, top, bottom in (
            ("precision", (1, 0, 0), (1, 1, 0)),
            ("recall", (1, 0, 0), (1, 0, 1)),
            ("f1", (2, 0, 0), (2, 1, 1)),
        ):
            over = bottom[0] * hits + bottom[1] * alarms + bottom[2] * misses
            shares = np.divide(top[0] * hits, over, out=np.zeros_like(over), where=over > 0)
            per = np.divide(1.0, over, out=np.zeros_like(over), where=over > 0)
            gains = sum(outcomes[o] @ ((top[o] - shares * bottom[o]) * per) for o in range(3))
            result[name] = np.where(decided, gains * quality.weight / quality.n_outputs, 0.0)
    if batch.scores is not None and batch.scores.shape[1] <= MAX_SCORED_CLASSES:
        scored: NDArray[np.bool_] = known & np.asarray(np.isfinite(batch.scores).all(axis=1))
        result |= _of_ranks(true, batch.scores, scored, batch.weights)
        p = np.clip(batch.scores, batch.epsilon, 1 - batch.epsilon)
        logs = -np.log(np.where(true, p, 1 - p)).mean(axis=1)
        result["log_loss"] = _centred(logs, scored, batch.weights)
        result["brier"] = _centred(((p - true) ** 2).mean(axis=1), scored, batch.weights)
    return result


def of_numbers(batch: Labelled) -> dict[str, Rows]:
    """Of a regression's figures."""
    used = np.isfinite(batch.labels) & np.isfinite(batch.predictions)
    if not used.any():
        return {}
    labels, w = batch.labels, batch.weights
    e = np.where(used, batch.predictions - labels, 0.0)
    squares, sizes = e**2, np.abs(e)
    apart = (labels - np.average(labels[used], weights=w[used])) ** 2
    deviations = float(w[used] @ apart[used])
    left = float(w[used] @ squares[used]) / deviations if deviations > 0 else 0.0
    relative = np.divide(sizes, np.abs(labels), out=np.zeros_like(sizes), where=labels != 0)
    mse = _centred(squares, used, w)
    rmse = float(np.sqrt(np.average(squares[used], weights=w[used])))
    spread = deviations / float(w[used].sum())
    return {
        "mae": _centred(sizes, used, w),
        "mse": mse,
        "rmse": mse / (2 * rmse) if rmse > 0 else mse,
        "r2": np.where(used, left * apart - squares, 0.0) / (spread if spread > 0 else 1.0),
        "mape": _centred(relative, used, w),
        "median_ae": np.where(used, np.sign(sizes - np.median(sizes[used])), 0.0),
        "bias": _centred(e, used, w),
    }


def exact_pairs(
    truth: NDArray[np.bool_], scores: NDArray[Any], weights: Rows
) -> Iterator[tuple[tuple[Counts, Counts], NDArray[np.intp]]]:
    """For each column of scores (n, width): (negatives, positives) by distinct score, and each row's place there."""
    for k in range(scores.shape[1]):
        _, place = np.unique(scores[:, k], return_inverse=True)
        counts = [np.bincount(place, weights * side).astype(np.float64) for side in (~truth[:, k], truth[:, k])]
        yield (counts[0], counts[1]), place


def _of_ranks(
    truth: NDArray[np.bool_], scores: NDArray[Any], used: NDArray[np.bool_], weights: Rows
) -> dict[str, Rows]:
    sums = {name: np.zeros(len(used)) for name in RANKED}
    truth, both = truth[used], 0
    for k, (pair, place) in enumerate(exact_pairs(truth, scores[used], weights[used])):
        for name, function in RANKED.items():
            found = function(*pair)
            if found is not None:
                both += name == "roc_auc"
                sums[name][used] += np.where(truth[:, k], found.positive[place], found.negative[place])
    return {name: values / max(both, 1) for name, values in sums.items()}


def _centred(values: Rows, used: NDArray[np.bool_], weights: Rows) -> Rows:
    if not used.any():
        return np.zeros(len(values))
    return np.where(used, values - np.average(values[used], weights=weights[used]), 0.0)
