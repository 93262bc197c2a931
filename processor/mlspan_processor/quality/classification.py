"""Stage 5: quality of a classifier from a confusion matrix, loss sums and score histograms.

Accuracy, precision, recall, F1, log loss and Brier score are exact: those of scikit-learn on the same
    (weighted) rows. Precision, recall and F1 are of the last class for two classes, else macro averages over
    the classes that occur as label or prediction, where a class without predictions or labels counts 0
    (scikit-learn's zero_division=0). A label outside the model's classes is always wrong, with probability 0
    (clipped to float32's epsilon, as scikit-learn does). AUROC comes from histograms of 1,024 bins
    (probabilities on the logit scale within ±16, raw scores on asinh's): scores in one bin count as tied, so
    the exact value is off by at most half the share of (positive, negative) pairs in one bin, which is
    reported as the figure's bound. For more than two classes: one-versus-rest, macro average over the classes
    for which there are labels both ways. Memory: 16 bytes a filled cell, at most 34 kB (two classes) or 1.1
    MB (32 classes) a pane.
Source: Hand & Till, Mach. Learn. 45, 2001 (averages); Brier, Mon. Weather Rev. 78, 1950; Fawcett, 2006
    (ties).
"""

from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from mlspan.payload import SCORE_PROBABILITY
from mlspan_processor.quality.base import MAX_CLASSES, MAX_SCORED_CLASSES, Figure, Labelled, Sums
from mlspan_processor.quality.sparse import SparseCounts

BINS: Final = 1024
_SPAN: Final = 16.0
_SIDE: Final = MAX_CLASSES + 1
_MATRIX: Final = _SIDE * _SIDE
_EPSILON: Final = float(np.finfo(np.float32).eps)


class Classification(Sums):
    """Quality statistics of a classifier with these many declared classes."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.n_classes = n_classes
        self.counts = SparseCounts()
        self.scored = 0.0
        self.log_loss = 0.0
        self.brier = 0.0

    def __repr__(self) -> str:
        return f"Classification({self.n_classes})"

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.counts.nbytes + 64

    def update(self, batch: Labelled) -> None:
        """Add rows; those with a NaN label or neither prediction nor score are left out."""
        has_score = np.zeros(len(batch.labels), bool) if batch.scores is None else ~np.isnan(batch.scores[:, 0])
        used = ~np.isnan(batch.labels) & (~np.isnan(batch.predictions) | has_score)
        self.add_labelled(batch.weights[used])
        self.update_predictions(batch)
        self.update_scores(batch)

    def update_predictions(self, batch: Labelled) -> None:
        """Add only the predictions of rows whose scores were added before."""
        matrix = ~np.isnan(batch.labels) & ~np.isnan(batch.predictions)
        labels = np.minimum(batch.labels[matrix], MAX_CLASSES).astype(np.int64)
        predictions = batch.predictions[matrix]
        predictions = np.where((predictions < 0) | (predictions > MAX_CLASSES), MAX_CLASSES, predictions)
        self.counts.add(labels * _SIDE + predictions.astype(np.int64), batch.weights[matrix])

    def update_scores(self, batch: Labelled) -> None:
        """Add only the scores of rows whose predictions were added before."""
        if batch.scores is None or not batch.scores.shape[1]:
            return
        used = ~np.isnan(batch.labels) & ~np.isnan(batch.scores).any(axis=1)
        labels, scores, w = batch.labels[used], batch.scores[used].astype(np.float64), batch.weights[used]
        width = scores.shape[1]
        if not len(labels) or width > MAX_SCORED_CLASSES:
            return
        classes = np.arange(width) if width > 1 else np.array([self.n_classes - 1])
        positive = labels[:, None] == classes
        if batch.score_kind == SCORE_PROBABILITY:
            self._add_losses(scores, positive, labels, w)
            clipped = np.clip(scores, 1e-9, 1 - 1e-9)
            scale = np.log(clipped / (1 - clipped))
            first = 0
        else:
            scale = np.arcsinh(scores)
            first = MAX_SCORED_CLASSES
        bins = np.clip(np.floor((scale + _SPAN) / (2 * _SPAN) * BINS), 0, BINS - 1).astype(np.int64)
        cells = _MATRIX + ((first + np.arange(width)) * 2 + positive) * BINS + bins
        self.counts.add(cells.ravel(), np.repeat(w, width))

    def merge(self, other: Self) -> None:
        """Add another's rows."""
        self.merge_sums(other)
        self.n_classes = max(self.n_classes, other.n_classes)
        self.counts.merge(other.counts)
        self.scored += other.scored
        self.log_loss += other.log_loss
        self.brier += other.brier

    def confusion(self) -> NDArray[np.float64]:
        """(65, 65) weighted counts, rows true class, columns predicted class; the last of both any other
        class."""
        return self.counts.dense(0, _MATRIX).reshape(_SIDE, _SIDE)

    def figures(self) -> dict[str, Figure]:
        """accuracy, precision, recall, f1, roc_auc, log_loss, brier."""
        matrix = self.confusion()
        return {**self._decided(matrix), "roc_auc": self._roc_auc(), **self._losses()}

    def _add_losses(
        self,
        p: NDArray[np.float64],
        positive: NDArray[np.bool_],
        labels: NDArray[np.float64],
        w: NDArray[np.float64],
    ) -> None:
        if p.shape[1] == 1:
            last = labels == self.n_classes - 1
            first = labels == self.n_classes - 2
            of_label = np.where(last, p[:, 0], np.where(first, 1 - p[:, 0], 0.0))
            squared = (p[:, 0] - last) ** 2
        else:
            of_label = (p * positive).sum(axis=1)
            squared = ((p - positive) ** 2).sum(axis=1) / 2
        self.scored += float(w.sum())
        self.log_loss += float(w @ -np.log(np.clip(of_label, _EPSILON, 1 - _EPSILON)))
        self.brier += float(w @ squared)

    def _decided(self, matrix: NDArray[np.float64]) -> dict[str, Figure]:
        total = matrix.sum()
        if total <= 0:
            nothing = Figure(None, "no labelled predictions")
            return dict.fromkeys(("accuracy", "precision", "recall", "f1"), nothing)
        right = np.diag(matrix).copy()
        right[-1] = 0.0  # two classes beyond the matrix are not known to be the same
        accuracy = Figure(float(right.sum() / total))
        true, predicted = matrix.sum(axis=1), matrix.sum(axis=0)
        if self.n_classes == 2:
            hit, labelled, said = right[1], true[1], predicted[1]
            precision = Figure(float(hit / said)) if said > 0 else Figure(None, "the last class was never predicted")
            recall = Figure(float(hit / labelled)) if labelled > 0 else Figure(None, "no label of the last class")
            f1 = Figure(float(2 * hit / (said + labelled))) if said + labelled > 0 else Figure(None, recall.reason)
        else:
            occurs = (true > 0) | (predicted > 0)
            with np.errstate(divide="ignore", invalid="ignore"):
                precision = Figure(float(np.nan_to_num(right / predicted)[occurs].mean()))
                recall = Figure(float(np.nan_to_num(right / true)[occurs].mean()))
                f1 = Figure(float(np.nan_to_num(2 * right / (true + predicted))[occurs].mean()))
        return {"accuracy": accuracy, "precision": precision, "recall": recall, "f1": f1}

    def _losses(self) -> dict[str, Figure]:
        if self.scored <= 0:
            nothing = Figure(None, "no labelled probabilities")
            return {"log_loss": nothing, "brier": nothing}
        return {"log_loss": Figure(self.log_loss / self.scored), "brier": Figure(self.brier / self.scored)}

    def _roc_auc(self) -> Figure:
        areas, bounds = [], []
        width = 1 if self.n_classes <= 2 else min(self.n_classes, MAX_SCORED_CLASSES)
        start = _MATRIX
        if not self.counts.dense(start, width * 2 * BINS).any():
            start += MAX_SCORED_CLASSES * 2 * BINS
        for k in range(width):
            negative, positive = self.counts.dense(start + k * 2 * BINS, 2 * BINS).reshape(2, BINS)
            pairs = positive.sum() * negative.sum()
            if pairs > 0:
                below = np.cumsum(negative) - negative
                ties = float(positive @ negative) / 2 / pairs
                areas.append(float(positive @ below) / pairs + ties)
                bounds.append(ties)
        if not areas:
            scored = self.counts.dense(start, width * 2 * BINS).any()
            return Figure(None, "labels of one class only" if scored else "no labelled scores")
        return Figure(float(np.mean(areas)), bound=float(np.mean(bounds)))
