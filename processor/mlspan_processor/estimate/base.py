"""Stage 5: what every estimate of performance has in common: rows in, class probabilities out, one figure each with a
band.

A method learns on labelled reference rows how probable each class is for a row, given what the model saw and
answered; `expected.py` turns such probabilities into figures. Rows that cannot be used (no prediction, no
probability) are left out; what makes all of them unusable is said in a reason that starts with "undecidable,
because".
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from mlspan_processor.sample import EPSILON, Sample

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MIN_ROWS: Final = 100
"""Labelled reference rows below which nothing is estimated."""
MIN_WINDOW: Final = 10
"""Usable window rows below which nothing is estimated."""
MAX_ROWS: Final = 20_000
"""Reference rows that are kept."""
MAX_CLASSES: Final = 32
_TINY: Final = 1e-6
_SUM_TOLERANCE: Final = 0.02


class Estimate(NamedTuple):
    """An estimated performance figure.

    Attributes:
        value: the estimate, or None.
        low, high: 95 % band for the value that labels would give, or None.
        reason: "" or why there is no value, "undecidable, because …".
        method: the method that was used, a key of METHODS.
    """

    value: float | None
    low: float | None
    high: float | None
    reason: str = ""
    method: str = ""


class Inputs(Protocol):
    """What methods learn from, of classifiers and regressions."""

    @property
    def features(self) -> Floats:
        """(n, n_features) float64, NaN where missing."""

    @property
    def categorical(self) -> NDArray[np.bool_]:
        """(n_features,) which are categories."""

    @property
    def weights(self) -> Floats:
        """(n,) rows that each stands for."""

    def answers(self) -> Floats:
        """(n, …) what the model answered, as numbers on an open scale."""

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> "Inputs":
        """Some of the rows."""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Usable rows of a classifier.

    Attributes:
        features: (n, n_features) float64, NaN where missing; codes of categories as they came.
        categorical: (n_features,) which features are categories.
        scores: (n, n_classes) float64 probabilities that sum to 1.
        predictions: (n,) int64 class indices.
        weights: (n,) float64.
        epsilon: see sample.EPSILON.
    """

    features: Floats
    categorical: NDArray[np.bool_]
    scores: Floats
    predictions: Integers
    weights: Floats
    epsilon: float = EPSILON

    def __len__(self) -> int:
        return len(self.weights)

    @property
    def n_classes(self) -> int:
        """Classes of the model."""
        return int(self.scores.shape[1])

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> "Rows":
        """The rows at these places, or where the mask is True."""
        return replace(
            self,
            features=self.features[rows],
            scores=self.scores[rows],
            predictions=self.predictions[rows],
            weights=self.weights[rows],
        )

    def answers(self) -> Floats:
        """(n, n_classes) logarithms of the probabilities, those of two classes as one column of log odds."""
        logs = np.log(np.clip(self.scores, _TINY, 1.0))
        return logs[:, 1:] - logs[:, :1] if self.n_classes == 2 else logs


class Method(Protocol):
    """A way to tell from reference rows how probable each class is for other rows."""

    @classmethod
    def fit(cls, rows: Rows, labels: Integers, *, seed: int) -> Self:
        """Learn from labelled rows; labels (n,) class indices."""

    def probabilities(self, rows: Rows) -> Floats:
        """(n, n_classes) probability of each class, rows sum to 1."""


def uneven(weights: Floats) -> Floats | None:
    """Weights with mean 1, or None where they are all the same: estimators are faster without them."""
    return None if np.ptp(weights) <= 1e-9 * weights.max() else weights / weights.mean()


def undecidable(names: Sequence[str], why: str) -> dict[str, Estimate]:
    """No estimate for any of these metrics, for one reason (without its beginning)."""
    return dict.fromkeys(names, Estimate(None, None, None, f"undecidable, because {why}"))


def usable(sample: Sample) -> tuple[NDArray[np.bool_], str]:
    """(n,) which rows have a prediction and a probability, and "" or why the sample cannot be used at all."""
    n_classes = len(sample.classes)
    nothing = np.zeros(len(sample), bool)
    if n_classes < 2:
        return nothing, "the model has fewer than two classes"
    if n_classes > MAX_CLASSES:
        return nothing, f"the model has more than {MAX_CLASSES} classes"
    if sample.scores is None:
        return nothing, "the model gives no probabilities"
    width = 1 if n_classes == 2 else n_classes
    if sample.scores.shape[1] not in {width, n_classes}:
        return nothing, f"there are {sample.scores.shape[1]} probabilities a row for {n_classes} classes"
    known = np.isfinite(sample.scores).all(axis=1) & (sample.weights > 0)
    scores = sample.scores[known]
    if not len(scores):
        return nothing, "no row has probabilities"
    outside = int(((scores < -_TINY) | (scores > 1 + _TINY)).any(axis=1).sum())
    if outside:
        return nothing, f"the probabilities of {outside} rows lie outside [0, 1]"
    if scores.shape[1] > 1:
        odd = int((np.abs(scores.sum(axis=1) - 1) > _SUM_TOLERANCE).sum())
        if odd:
            return nothing, f"the probabilities of {odd} rows do not sum to 1"
    predicted = np.isin(sample.predictions, np.arange(n_classes))
    if not (known & predicted).any():
        return nothing, "no row has both a prediction and probabilities"
    return known & predicted, ""


def features_of(sample: Sample) -> Floats:
    """(n, n_features) values, NaN where missing or infinite."""
    values = sample.values()
    values[~np.isfinite(values)] = np.nan
    return values


def rows_of(sample: Sample, used: NDArray[np.bool_]) -> Rows:
    """The rows that `usable` allowed."""
    if sample.scores is None:
        raise ValueError("rows of a model without probabilities are not usable")
    part = sample.take(used)
    scores = np.clip(sample.scores[used], 0.0, 1.0)
    if scores.shape[1] == 1:
        scores = np.hstack([1 - scores, scores])
    return Rows(
        features=features_of(part),
        categorical=np.array([kind == "categorical" for kind in part.types], bool),
        scores=scores / scores.sum(axis=1, keepdims=True),
        predictions=part.predictions.astype(np.int64),
        weights=part.weights,
        epsilon=sample.epsilon,
    )
