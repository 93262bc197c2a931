"""Stage 5: estimates for a regression: the loss cross-fitted on the reference, shrunk, and judged in made windows.

The simple method beside it, which the bands are measured by, is the reference's own value. The loss models' foresight
is kept only where it beats that value in windows made from the reference; else the shrinkage is complete.
"""

from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np

from mlspan_processor.estimate.bands import Judged, Spread
from mlspan_processor.estimate.base import Floats
from mlspan_processor.estimate.folds import FOLDS, CrossFitted
from mlspan_processor.estimate.loss import METRICS, Loss, Predicted, Shrinkage, draws, figures, moments_of
from mlspan_processor.estimate.shifts import made_shifts
from mlspan_processor.estimate.weighted import density_ratio

_JUDGED: Final = (METRICS.index("mae"), METRICS.index("rmse"))
_FEW_DRAWS: Final = 30
_STANDARD: Final = 5000


@dataclass(slots=True, eq=False)
class RegressionEstimates:
    """Estimates of one regression; `constant` is the shrinkage that leaves only the reference's means."""

    rows: Predicted
    parts: CrossFitted
    shrinkage: Shrinkage
    constant: Shrinkage
    standard: Floats
    errors: dict[str, float]
    spread: Spread
    seed: int

    @classmethod
    def fit(cls, rows: Predicted, residuals: Floats, *, seed: int) -> Self:
        """Fit the loss, settle how far it is believed, learn its error."""
        rng = np.random.default_rng(seed)
        folds = rng.permutation(len(rows)) % FOLDS
        parts = CrossFitted.fit(
            folds,
            lambda mask, fold: Loss.fit(rows.take(mask), residuals[mask], seed=seed + fold),
            lambda model, mask: model.moments(rows.take(mask)),
        )
        shrinkage = Shrinkage.fit(parts.out_of_fold, residuals, rows.weights)
        constant = replace(shrinkage, slopes=np.zeros(3))
        held, simple = shrinkage.of(parts.out_of_fold), constant.of(parts.out_of_fold)
        spread = np.sqrt(np.maximum(held[:, 2] - held[:, 0] ** 2, 0.0))
        standard = np.divide(residuals - held[:, 0], spread, out=np.zeros(len(rows)), where=spread > 0)
        standard -= standard.mean()
        standard /= standard.std() or 1.0
        if len(standard) > _STANDARD:
            standard = rng.choice(standard, _STANDARD, replace=False)
        judged: dict[str, list[Judged]] = {"loss": [], "constant": []}
        realised = []
        for chosen in made_shifts(rows, seed=seed):
            answers, weights = rows.predictions[chosen], rows.weights[chosen]
            truth = figures(moments_of(residuals[chosen]), answers, weights)
            sampling = draws(held[chosen], answers, weights, standard, seed=seed, n=_FEW_DRAWS).std(axis=0)
            plain = figures(simple[chosen], answers, weights)
            realised.append(truth)
            judged["loss"].append(Judged(figures(held[chosen], answers, weights), plain, sampling))
            judged["constant"].append(Judged(plain, plain, sampling))
        errors = {
            name: float(np.mean(np.abs(np.stack([one.values for one in windows]) - np.stack(realised))[:, _JUDGED]))
            for name, windows in judged.items()
        }
        best = "loss" if errors["loss"] <= errors["constant"] else "constant"
        used = shrinkage if best == "loss" else constant
        return cls(rows, parts, used, constant, standard, errors, Spread.fit(judged[best], realised), seed)

    def estimate(self, window: Predicted) -> tuple[Judged, str]:
        """Estimates of a window, and the method."""
        raw = np.mean([model.moments(window) for model in self.parts.models], axis=0)
        moments = self.shrinkage.of(raw)
        sampling = draws(moments, window.predictions, window.weights, self.standard, seed=self.seed).std(axis=0)
        simple = figures(self.constant.of(raw), window.predictions, window.weights)
        shift = max(0.0, 2 * density_ratio(self.rows, window, seed=self.seed).separation - 1)
        return Judged(figures(moments, window.predictions, window.weights), simple, sampling, shift), "loss"
