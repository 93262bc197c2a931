"""Stage 5: direct loss estimation for regressions: a second model says how far off the first one is.

Three boosted models of features and prediction are fitted on the reference: of the residual, of its size and of its
square. They give MAE, MSE and RMSE by averages over the window, and R² from the squared loss and the variance that
the labels then have (y = prediction + residual). Each is shrunk towards its mean on the reference by the slope of the
truth on it out of fold, so that a loss that cannot be foreseen is estimated as what it was. The spread of the
realised value comes from residuals drawn anew. Source: direct loss estimation, NannyML; scikit-learn's
HistGradientBoostingRegressor.
"""

from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from mlspan_processor.estimate.base import Floats, uneven
from mlspan_processor.estimate.encode import Encoder, learnable

METRICS: Final = ("mae", "mse", "rmse", "r2")
_MAX_VALUES: Final = 800_000
_CUT: Final = 1e-4


@dataclass(frozen=True, slots=True, eq=False)
class Predicted:
    """Usable rows of a regression: features (n, n_features), categorical, predictions (n,), weights (n,)."""

    features: Floats
    categorical: NDArray[np.bool_]
    predictions: Floats
    weights: Floats

    def __len__(self) -> int:
        return len(self.weights)

    def answers(self) -> Floats:
        """(n, 1) the predictions."""
        return self.predictions[:, None]

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> "Predicted":
        """The rows at these places, or where the mask is True."""
        return Predicted(self.features[rows], self.categorical, self.predictions[rows], self.weights[rows])


class Loss:
    """Models of the residual, its size and its square; moments (n, 3) in that order."""

    def __init__(self, encoder: Encoder, models: list[Any], scale: float) -> None:
        self._encoder = encoder
        self._models = models
        self._scale = scale

    def __repr__(self) -> str:
        return "Loss()"

    @classmethod
    def fit(cls, rows: Predicted, residuals: Floats, *, seed: int) -> Self:
        """Fit on all of these rows, or on as many as the bound allows; residuals (n,) label - prediction."""
        from sklearn.ensemble import HistGradientBoostingRegressor  # noqa: PLC0415 heavy

        encoder = Encoder.fit(rows)
        inputs = encoder.tree_inputs(rows)
        scale = float(np.sqrt(np.average(residuals**2, weights=rows.weights))) or 1.0
        targets = moments_of(residuals / scale)
        weights = rows.weights
        bound = max(2000, _MAX_VALUES // inputs.shape[1])
        if len(rows) > bound:
            chosen = np.sort(np.random.default_rng(seed).choice(len(rows), bound, replace=False))
            inputs, targets, weights = inputs[chosen], targets[chosen], weights[chosen]
        # A handful of huge losses would be all that the square's model learns.
        targets = np.clip(targets, *np.quantile(targets, [_CUT, 1 - _CUT], axis=0))
        models = []
        for target in targets.T:
            model = HistGradientBoostingRegressor(
                learning_rate=0.08,
                max_iter=80,
                max_leaf_nodes=8,
                min_samples_leaf=30,
                l2_regularization=5.0,
                early_stopping=True,
                validation_fraction=0.12,
                n_iter_no_change=8,
                categorical_features=encoder.tree_categories(),
                random_state=seed,
            )
            models.append(model.fit(learnable(inputs), target, sample_weight=uneven(weights)))
        return cls(encoder, models, scale)

    def moments(self, rows: Predicted) -> Floats:
        """(n, 3) expected residual, size and square."""
        inputs = self._encoder.tree_inputs(rows)
        raw = np.column_stack([model.predict(inputs) for model in self._models])
        result: Floats = raw * np.array([self._scale, self._scale, self._scale**2])
        return result


@dataclass(frozen=True, slots=True, eq=False)
class Shrinkage:
    """Means of the three moments on the reference, and how much of what the models say beyond them is true."""

    means: Floats
    centres: Floats
    slopes: Floats

    @classmethod
    def fit(cls, moments: Floats, residuals: Floats, weights: Floats) -> Self:
        """From moments out of fold (n, 3) and the residuals (n,) that they are of."""
        truth = moments_of(residuals)
        centres, means = np.average(moments, axis=0, weights=weights), np.average(truth, axis=0, weights=weights)
        off = moments - centres
        spread = np.average(off**2, axis=0, weights=weights)
        shared = np.average(off * (truth - means), axis=0, weights=weights)
        slopes = np.divide(shared, spread, out=np.zeros(3), where=spread > 0)
        return cls(means, centres, np.clip(slopes, 0.0, 1.0))

    def of(self, moments: Floats) -> Floats:
        """(n, 3) shrunk; sizes and squares at least what the residual's mean makes them."""
        result = self.means + self.slopes * (moments - self.centres)
        result[:, 1] = np.maximum(result[:, 1], np.abs(result[:, 0]))
        result[:, 2] = np.maximum(result[:, 2], result[:, 1] ** 2)
        return result


def moments_of(residuals: Floats) -> Floats:
    """(n, 3) residual, size and square."""
    return np.column_stack([residuals, np.abs(residuals), residuals**2])


def figures(moments: Floats, predictions: Floats, weights: Floats) -> Floats:
    """(4,) figures in the order of METRICS; with a row's own residual's moments, the realised ones. R² is NaN where
    labels would not vary."""
    share = weights / weights.sum()
    residual, size, square = moments.T
    # A label or an answer beyond 1e154 has no square.
    with np.errstate(over="ignore", invalid="ignore"):
        mse = share @ square
        middle = share @ predictions
        gaps = predictions - middle
        variance = share @ (gaps**2 + 2 * gaps * residual + square) - (share @ residual) ** 2
        flat = not variance > 1e-12 * np.maximum(1.0, middle**2)
        return np.array([share @ size, mse, np.sqrt(mse), np.nan if flat else 1 - mse / variance])


def draws(
    moments: Floats, predictions: Floats, weights: Floats, standard: Floats, *, seed: int, n: int = 100
) -> Floats:
    """(n, 4) figures of residuals drawn anew: mean plus spread times one of the standardised residuals (m,)."""
    rng = np.random.default_rng(seed)
    spread = np.sqrt(np.maximum(moments[:, 2] - moments[:, 0] ** 2, 0.0))
    result = np.empty((n, len(METRICS)))
    for i in range(n):
        drawn = moments[:, 0] + spread * rng.choice(standard, len(predictions))
        result[i] = figures(moments_of(drawn), predictions, weights)
    return result
