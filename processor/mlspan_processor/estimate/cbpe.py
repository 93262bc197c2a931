"""Stage 5: confidence-based performance estimation: the model's own probabilities, calibrated on the reference.

Each class's score is calibrated against the rest and the results are normalised. Three calibrations are tried (the
scores as they are, Platt's two parameters on the log odds, beta calibration's three) beside isotonic regression,
which is only tried from 1,000 rows on; the one with the least log loss out of fold is used. Holds while the
reference's relation of score and label does: for any shift that leaves it alone. Source: Białek et al., arXiv
2505.05295, 2025; Platt, 1999; Zadrozny & Elkan, KDD 2002; Kull et al., AISTATS 2017.
"""

from typing import Any, Final, Self

import numpy as np

from mlspan_processor.estimate.base import Floats, Integers, Rows
from mlspan_processor.estimate.folds import folds_of

MIN_ISOTONIC: Final = 1000
_TINY: Final = 1e-6
_FOLDS: Final = 5


class CBPE:
    """Calibrated scores."""

    def __init__(self, calibrators: list[Any]) -> None:
        self._calibrators = calibrators

    def __repr__(self) -> str:
        return f"CBPE({', '.join(type(one).__name__.strip('_') for one in self._calibrators)})"

    @classmethod
    def fit(cls, rows: Rows, labels: Integers, *, seed: int) -> Self:
        """Choose and fit a calibration for every class."""
        k = rows.n_classes
        classes = [1] if k == 2 else range(k)
        return cls([_best(rows.scores[:, one], labels == one, rows.weights, seed) for one in classes])

    def probabilities(self, rows: Rows) -> Floats:
        """(n, n_classes) calibrated scores; a row whose classes all come out as 0 keeps its scores."""
        if rows.n_classes == 2:
            p = self._calibrators[0].of(rows.scores[:, 1])
            return np.column_stack([1 - p, p])
        p = np.column_stack([one.of(rows.scores[:, k]) for k, one in enumerate(self._calibrators)])
        total = p.sum(axis=1, keepdims=True)
        return np.where(total > 0, p / np.where(total > 0, total, 1.0), rows.scores)


def _best(scores: Floats, positive: Any, weights: Floats, seed: int) -> Any:
    """The calibration with the least log loss out of fold, fitted on all rows."""
    kinds: list[Any] = [_Same, _Platt, _Beta]
    few = min(int(positive.sum()), int((~positive).sum()))
    if few < 5:
        return _Same.fit(scores, positive, weights)
    if len(scores) >= MIN_ISOTONIC:
        kinds.append(_Isotonic)
    folds = folds_of(positive.astype(np.int64), _FOLDS, seed)
    losses = []
    for kind in kinds:
        out = np.empty(len(scores))
        for fold in range(_FOLDS):
            held = folds == fold
            out[held] = kind.fit(scores[~held], positive[~held], weights[~held]).of(scores[held])
        out = np.clip(out, 1 / len(scores), 1 - 1 / len(scores))
        losses.append(-float(weights @ np.where(positive, np.log(out), np.log1p(-out))))
    return kinds[int(np.argmin(losses))].fit(scores, positive, weights)


class _Same:
    """The scores as they are."""

    @classmethod
    def fit(cls, scores: Floats, positive: Any, weights: Floats) -> Self:  # noqa: ARG003 nothing to learn
        return cls()

    def of(self, scores: Floats) -> Floats:
        return scores


class _Platt:
    """Logistic regression on the log odds."""

    def __init__(self, model: Any) -> None:
        self._model = model

    @staticmethod
    def inputs(scores: Floats) -> Floats:
        clipped = np.clip(scores, _TINY, 1 - _TINY)
        return np.log(clipped / (1 - clipped))[:, None]

    @classmethod
    def fit(cls, scores: Floats, positive: Any, weights: Floats) -> Self:
        from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 heavy

        model = LogisticRegression(C=100.0, max_iter=200)
        return cls(model.fit(cls.inputs(scores), positive, sample_weight=weights))

    def of(self, scores: Floats) -> Floats:
        result: Floats = self._model.predict_proba(self.inputs(scores))[:, 1]
        return result


class _Beta(_Platt):
    """Logistic regression on the logarithms of the score and of its complement."""

    @staticmethod
    def inputs(scores: Floats) -> Floats:
        clipped = np.clip(scores, _TINY, 1 - _TINY)
        return np.column_stack([np.log(clipped), -np.log1p(-clipped)])


class _Isotonic:
    """The closest rising step function, straight between its steps."""

    def __init__(self, model: Any) -> None:
        self._model = model

    @classmethod
    def fit(cls, scores: Floats, positive: Any, weights: Floats) -> Self:
        from sklearn.isotonic import IsotonicRegression  # noqa: PLC0415 heavy

        model = IsotonicRegression(out_of_bounds="clip", y_min=0.0, y_max=1.0)
        return cls(model.fit(scores, positive.astype(np.float64), sample_weight=weights))

    def of(self, scores: Floats) -> Floats:
        result: Floats = self._model.predict(scores)
        return result
