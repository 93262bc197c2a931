"""Stage 5: quality of a classifier from a confusion matrix, loss sums, reliability bins and score histograms.

accuracy, precision, recall, specificity, F1, balanced accuracy, MCC (confusion.py), log loss and Brier score
    (losses.py) are exact: those of scikit-learn on the same (weighted) rows. A label outside the model's classes is
    always wrong, with probability 0 (clipped to the
    epsilon of its type, as scikit-learn does). AUROC and average precision
    come from histograms (ranking.py), with the most that the exact value may be off as the figure's bound; for more
    than two classes: one-versus-rest, macro average over the classes for which there are labels both ways. ECE:
    calibration.py. Labels that are negative or not finite count as missing. Probabilities that are none (outside [0,
    1], sum not 1) leave AUROC and average precision, which only need an order. Memory: 16 bytes a filled cell, at most
    35 kB (two classes) or 1.1 MB (32 classes) a pane.
Source: Hand & Till, Mach. Learn. 45, 2001 (averages); Fawcett, 2006 (ties).
"""

from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from mlspan.payload import SCORE_PROBABILITY
from mlspan_processor.quality import confusion
from mlspan_processor.quality.bands import Interval
from mlspan_processor.quality.base import MAX_CLASSES, MAX_SCORED_CLASSES, Figure, Labelled, Sums
from mlspan_processor.quality.calibration import Calibration, ReliabilityBin
from mlspan_processor.quality.losses import Losses
from mlspan_processor.quality.ranking import Counts, ScoreCounts, ranked, ranked_intervals
from mlspan_processor.quality.sparse import SparseCounts

_SIDE: Final = MAX_CLASSES + 1
_TOO_MANY: Final = f"undecidable, because probabilities of more than {MAX_SCORED_CLASSES} classes are not kept"
_OF_SCORES: Final = ("roc_auc", "average_precision", "log_loss", "brier", "ece")


class Classification(Sums):
    """Quality statistics of a classifier with these many declared classes."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.n_classes = n_classes
        self.counts = SparseCounts()
        self.scores = ScoreCounts()
        self.losses = Losses()
        self.calibration = Calibration()
        self.too_wide = 0

    def __repr__(self) -> str:
        return f"Classification({self.n_classes})"

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.counts.nbytes + self.scores.nbytes + self.calibration.table.nbytes + 128

    def update(self, batch: Labelled) -> None:
        """Add rows; those with a NaN label or neither prediction nor score are left out."""
        has_score = np.zeros(len(batch.labels), bool) if batch.scores is None else ~np.isnan(batch.scores[:, 0])
        used = _known(batch.labels) & (~np.isnan(batch.predictions) | has_score)
        self.add_labelled(batch.weights[used])
        self.update_predictions(batch)
        self.update_scores(batch)

    def update_predictions(self, batch: Labelled) -> None:
        """Add only the predictions of rows whose scores were added before."""
        matrix = _known(batch.labels) & ~np.isnan(batch.predictions)
        labels = np.minimum(batch.labels[matrix], MAX_CLASSES).astype(np.int64)
        predictions = batch.predictions[matrix]
        predictions = np.where((predictions < 0) | (predictions > MAX_CLASSES), MAX_CLASSES, predictions)
        self.counts.add(labels * _SIDE + predictions.astype(np.int64), batch.weights[matrix])

    def update_scores(self, batch: Labelled) -> None:
        """Add only the scores of rows whose predictions were added before."""
        if batch.scores is None or not batch.scores.shape[1]:
            return
        used = _known(batch.labels) & np.isfinite(batch.scores).all(axis=1)
        labels, scores, w = batch.labels[used], batch.scores[used].astype(np.float64), batch.weights[used]
        width = scores.shape[1]
        if not len(labels):
            return
        if width > MAX_SCORED_CLASSES:
            self.too_wide += len(labels)
            return
        classes = np.arange(width) if width > 1 else np.array([self.n_classes - 1])
        positive = labels[:, None] == classes
        if batch.score_kind == SCORE_PROBABILITY:
            self._add_probabilities(scores, positive, labels, w, batch.epsilon)
        self.scores.add(scores, positive, batch.score_kind, w)

    def merge(self, other: Self) -> None:
        """Add another's rows."""
        self.merge_sums(other)
        self.n_classes = max(self.n_classes, other.n_classes)
        self.too_wide += other.too_wide
        self.counts.merge(other.counts)
        self.scores.merge(other.scores)
        self.losses.merge(other.losses)
        self.calibration.merge(other.calibration)

    def confusion(self) -> NDArray[np.float64]:
        """(65, 65) weighted counts, rows true class, columns predicted class; the last of both any other
        class."""
        return self.counts.dense(0, _SIDE * _SIDE).reshape(_SIDE, _SIDE)

    def figures(self) -> dict[str, Figure]:
        """accuracy, precision, recall, specificity, f1, balanced_accuracy, mcc, roc_auc, average_precision, log_loss,
        brier, ece."""
        of_scores = {**ranked(self._pairs()), **self.losses.figures()}
        reason = self.losses.reason
        of_scores["ece"] = Figure(None, reason) if reason else self.calibration.ece(self.ratio)
        if self.too_wide and not self.scores.nbytes:
            of_scores = dict.fromkeys(_OF_SCORES, Figure(None, _TOO_MANY))
        return {**confusion.figures(self.confusion(), self.n_classes), **of_scores}

    def intervals(self) -> dict[str, Interval]:
        """The bands of the figures that have a value."""
        rules = {
            **confusion.intervals(self.confusion(), self.n_classes, self.ratio),
            **ranked_intervals(self._pairs(), self.ratio),
            **self.losses.intervals(self.ratio),
        }
        return rules if self.losses.reason else {**rules, "ece": self.calibration.interval(self.ratio)}

    def reliability(self) -> list[ReliabilityBin]:
        """Bins of confidence, with the share that was right."""
        return self.calibration.bins(self.ratio)

    def _pairs(self) -> list[tuple[Counts, Counts]]:
        return self.scores.pairs(1 if self.n_classes <= 2 else min(self.n_classes, MAX_SCORED_CLASSES))

    def _add_probabilities(
        self,
        p: NDArray[np.float64],
        positive: NDArray[np.bool_],
        labels: NDArray[np.float64],
        w: NDArray[np.float64],
        epsilon: float,
    ) -> None:
        proper = self.losses.proper(p, sums=p.shape[1] > 1)
        if not proper.all():
            p, positive, labels, w = p[proper], positive[proper], labels[proper], w[proper]
        if p.shape[1] == 1:
            last = labels == self.n_classes - 1
            first = labels == self.n_classes - 2
            of_label = np.where(last, p[:, 0], np.where(first, 1 - p[:, 0], 0.0))
            squared = (p[:, 0] - last) ** 2
            self.calibration.add(p[:, 0], last, w)
        else:
            of_label = (p * positive).sum(axis=1)
            squared = ((p - positive) ** 2).sum(axis=1) / 2
            if self.n_classes == 2:
                self.calibration.add(p[:, 1], positive[:, 1], w)
            else:
                top = p.argmax(axis=1)
                self.calibration.add(p.max(axis=1), positive[np.arange(len(p)), top], w)
        self.losses.add(-np.log(np.clip(of_label, epsilon, 1 - epsilon)), squared, w)


def _known(labels: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.isfinite(labels) & (labels >= 0)
