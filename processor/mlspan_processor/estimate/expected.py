"""Stage 5: figures of a classifier that are expected when each row's class is only known in probability.

The expected confusion matrix adds a row's class probabilities to the column of its prediction; accuracy, precision,
recall, F1, AUROC, log loss and Brier score follow from it and from the scores as they do from labels, with the same
rules for averages (`quality/classification.py`), but over the classes that the reference has: given probabilities of 0
and 1, which labels are, the figures are the realised ones. The spread of the realised value, which is itself a draw,
comes from labels drawn from the probabilities. Cost: 100 draws of 10,000 rows take 0.1 s for two classes. Source:
Białek et al., arXiv 2505.05295, 2025.
"""

from typing import Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from mlspan_processor.estimate.base import Floats, Integers, Rows
from mlspan_processor.sample import EPSILON

METRICS: Final = ("accuracy", "precision", "recall", "f1", "roc_auc", "log_loss", "brier")
DRAWS: Final = 100


class Averaged(NamedTuple):
    """The classes (n_classes,) that the reference's own averages are over: a class that it never had would count 0 in
    the estimate alone.

    Attributes:
        occur: labelled or predicted there; for precision, recall and F1.
        labelled: for AUROC.
    """

    occur: NDArray[np.bool_]
    labelled: NDArray[np.bool_]

    @classmethod
    def of(cls, rows: Rows, labels: Integers) -> Self:
        """From the reference's rows and their labels."""
        labelled, said = (np.bincount(one, minlength=rows.n_classes) > 0 for one in (labels, rows.predictions))
        return cls(labelled | said, labelled)


class Figures:
    """Figures of one set of rows for any class probabilities; averages are over all classes unless told otherwise.

    All arrays of figures are (7,) float64 in the order of METRICS, NaN where a figure does not exist.
    """

    def __init__(self, rows: Rows, averaged: Averaged | None = None) -> None:
        self._k = rows.n_classes
        every = np.ones(self._k, bool)
        self._averaged = averaged or Averaged(every, every)
        self._weights = rows.weights
        self._total = float(rows.weights.sum())
        self._predicted = np.zeros((len(rows), self._k))
        self._predicted[np.arange(len(rows)), rows.predictions] = rows.weights
        self._losses = -np.log(np.clip(rows.scores, rows.epsilon, 1 - rows.epsilon))
        halves = rows.scores**2
        # Of a row of class y: half the sum of (p_k - [k = y])².
        self._briers = (halves.sum(axis=1, keepdims=True) - 2 * rows.scores + 1) / 2
        if self._k == 2:
            self._orders = [_Order(rows.scores[:, 1])]
        else:
            self._orders = [_Order(rows.scores[:, k]) for k in range(self._k)]

    def of(self, p: Floats) -> Floats:
        """Figures for class probabilities p (n, n_classes)."""
        matrix = p.T @ self._predicted
        weighted = p * self._weights[:, None]
        loss = float((weighted * self._losses).sum()) / self._total
        brier = float((weighted * self._briers).sum()) / self._total
        return np.array([*self._decided(matrix), self._auc(p, weighted), loss, brier])

    def of_labels(self, labels: Integers) -> Floats:
        """The realised figures."""
        return self.of(np.eye(self._k)[labels])

    def draws(self, p: Floats, seed: int, n: int = DRAWS) -> Floats:
        """(n, 7) realised figures of labels drawn from p."""
        rng = np.random.default_rng(seed)
        edges = np.cumsum(p, axis=1)[:, :-1]
        return np.stack(
            [self.of_labels((rng.random((len(p), 1)) > edges).sum(axis=1, dtype=np.int64)) for _ in range(n)]
        )

    def _decided(self, matrix: Floats) -> list[float]:
        right, true, said = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
        accuracy = right.sum() / self._total
        with np.errstate(divide="ignore", invalid="ignore"):
            if self._k == 2:
                return [accuracy, right[1] / said[1], right[1] / true[1], 2 * right[1] / (said[1] + true[1])]
            occurs = self._averaged.occur & ((true > 0) | (said > 0))
            shares = [right / said, right / true, 2 * right / (said + true)]
            return [accuracy, *(float(np.nan_to_num(share)[occurs].sum() / occurs.sum()) for share in shares)]

    def _auc(self, p: Floats, weighted: Floats) -> float:
        areas = []
        for k, order in zip(range(self._k - len(self._orders), self._k), self._orders, strict=True):
            positive, negative = weighted[:, k], self._weights - weighted[:, k]
            # A row is never its own pair.
            alone = float(positive @ (negative * 1.0)) if len(p) else 0.0
            pairs = float(positive.sum() * negative.sum()) - alone
            if pairs > EPSILON and self._averaged.labelled[k]:
                areas.append((order.below(positive, negative) - alone / 2) / pairs)
        return float(np.mean(areas)) if areas else float("nan")


class _Order:
    """Rows sorted by score; rows with the same score are tied."""

    def __init__(self, scores: Floats) -> None:
        self._order = np.argsort(scores, kind="stable")
        ranked = scores[self._order]
        self._starts = np.flatnonzero(np.r_[True, ranked[1:] > ranked[:-1]])

    def below(self, positive: Floats, negative: Floats) -> float:
        """Weighted pairs where the positive row has the higher score, ties half."""
        hits = np.add.reduceat(positive[self._order], self._starts)
        misses = np.add.reduceat(negative[self._order], self._starts)
        return float(hits @ (np.cumsum(misses) - misses / 2))
