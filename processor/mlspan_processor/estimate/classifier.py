"""Stage 5: estimates for a classifier: methods cross-fitted on the reference, combined by their errors, each window
judged.

Per model: CBPE and the pool of CBPE, linear and boosted refit, each with a weight in proportion to one over its squared
error of estimated accuracy and F1 over windows made from the reference by covariate shifts (`shifts.py`), all out of
fold: what the refit finds in the reference may not last, and a mean of two is seldom as wrong as the worse one (Bates &
Granger, Oper. Res. Q. 20, 1969). Per window: CBPE also takes the share of rows that lie where the reference has hardly
any; `prior` where a change of the classes' shares explains the window, else both together, recalibrated to the window's
rows (`weighted`) if that was better in made windows. A window's estimate is the mean over the folds' models.
"""

from dataclasses import dataclass
from functools import partial
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from mlspan_processor.estimate.bands import Judged, Spread
from mlspan_processor.estimate.base import Floats, Integers, Method, Rows
from mlspan_processor.estimate.blend import Blend
from mlspan_processor.estimate.cbpe import CBPE
from mlspan_processor.estimate.expected import METRICS, Averaged, Figures
from mlspan_processor.estimate.folds import FOLDS, CrossFitted, folds_of
from mlspan_processor.estimate.linear import Linear
from mlspan_processor.estimate.prior import moved, ratio_of
from mlspan_processor.estimate.refit import Refit
from mlspan_processor.estimate.shifts import made_shifts
from mlspan_processor.estimate.weighted import density_ratio, recalibrated

PARTS: Final[dict[str, type[Method]]] = {"cbpe": CBPE, "linear": Linear, "refit": Refit}
_TOWARDS: Final = (1.0, 0.0, 0.0)
_JUDGED: Final = (METRICS.index("accuracy"), METRICS.index("f1"))
_FEW_DRAWS: Final = 30
_TRIED: Final = 6
_TRIED_ROWS: Final = 4000
_WORSE: Final = 1.1


@dataclass(slots=True, eq=False)
class ClassifierEstimates:
    """Estimates of one classifier.

    Attributes:
        rows, labels: the reference; `averaged` the classes that it has.
        share: the pool's weight, from 0 to 1; CBPE has the rest.
        p: the rows' probabilities by both together, out of fold.
        weighted: whether they are recalibrated to each window's rows.
        method: the method with the larger weight, "cbpe" or "blend".
        errors: for each candidate its mean error over made windows, in sampling errors.
        spread: what its errors were beyond sampling.
    """

    rows: Rows
    labels: Integers
    averaged: Averaged
    parts: list[CrossFitted]
    blend: Blend
    share: float
    p: Floats
    method: str
    errors: dict[str, float]
    spread: Spread
    seed: int
    weighted: bool = False

    @classmethod
    def fit(cls, rows: Rows, labels: Integers, *, seed: int) -> Self:
        """Fit the methods, weigh them, learn the error of both together."""
        folds = folds_of(labels, FOLDS, seed)
        parts = [
            CrossFitted.fit(folds, partial(_fit_part, method, rows, labels, seed), partial(_says, rows))
            for method in PARTS.values()
        ]
        held = [one.out_of_fold for one in parts]
        blend = Blend.fit(held, rows, labels, towards=_TOWARDS)
        simple, pooled = held[0], blend.of(held, rows)
        averaged = Averaged.of(rows, labels)
        windows = [_Made.of(rows, labels, averaged, chosen, pooled, seed) for chosen in made_shifts(rows, seed=seed)]
        realised = [one.realised for one in windows]
        errors = {
            name: _error([one.judge(p, simple) for one in windows], realised)
            for name, p in (("cbpe", simple), ("blend", pooled))
        }
        share = _share_of(errors["blend"], errors["cbpe"])
        p = share * pooled + (1 - share) * simple
        spread = Spread.fit([one.judge(p, simple) for one in windows], realised)
        method = "blend" if share >= 0.5 else "cbpe"
        self = cls(rows, labels, averaged, parts, blend, share, p, method, errors, spread, seed)
        self._try_weighted()
        return self

    def _try_weighted(self) -> None:
        """Whether recalibration to the window's rows was better in windows held out from the reference."""
        plain, weighted, realised = [], [], []
        rows = np.arange(len(self.rows))
        if len(rows) > _TRIED_ROWS:
            rows = np.sort(np.random.default_rng(self.seed).choice(rows, _TRIED_ROWS, replace=False))
        for made in made_shifts(self.rows.take(rows), seed=self.seed + 1, count=_TRIED):
            chosen, rest = rows[made], np.delete(rows, made)
            window, p, reference = self.rows.take(chosen), self.p[chosen], self.rows.take(rest)
            density = density_ratio(reference, window, seed=self.seed)
            fitted = recalibrated(self.p[rest], reference, self.labels[rest], density)
            if fitted is None:
                continue
            figures = Figures(window, self.averaged)
            sampling = figures.draws(p, self.seed, _FEW_DRAWS).std(axis=0)
            realised.append(figures.of_labels(self.labels[chosen]))
            plain.append(Judged(figures.of(p), figures.of(p), sampling))
            weighted.append(Judged(figures.of(fitted.of([p], window)), figures.of(p), sampling))
        if plain:
            self.errors["weighted"] = _error(weighted, realised)
            self.weighted = _WORSE * self.errors["weighted"] < _error(plain, realised)

    def probabilities(self, window: Rows) -> tuple[Floats, Floats, str, float]:
        """(n, n_classes) by the method that the window calls for, the same by CBPE, the method, and the shift
        from 0 to 1."""
        by_part = [[model.probabilities(window) for model in part.models] for part in self.parts]
        simple = np.mean(by_part[0], axis=0)
        density = density_ratio(self.rows, window, seed=self.seed)
        share = self.share * (1 - density.outside)
        pooled = np.mean([self.blend.of(one, window) for one in zip(*by_part, strict=True)], axis=0)
        p = share * pooled + (1 - share) * simple
        method = "blend" if share >= 0.5 else "cbpe"
        shift = max(0.0, 2 * density.separation - 1)
        ratio, explains = ratio_of(self.rows, self.labels, window, p)
        if explains:
            return moved(p, ratio), simple, "prior", shift
        if self.weighted:
            fitted = recalibrated(self.p, self.rows, self.labels, density)
            if fitted is not None:
                return fitted.of([p], window), simple, "weighted", shift
        return p, simple, method, shift

    def estimate(self, window: Rows) -> tuple[Judged, str]:
        """Estimates of a window, and the method."""
        p, simple, method, shift = self.probabilities(window)
        figures = Figures(window, self.averaged)
        drawn = figures.draws(p, self.seed)
        sampling = np.where(np.isfinite(drawn).mean(axis=0) > 0.5, _std(drawn), np.nan)
        return Judged(figures.of(p), figures.of(simple), sampling, shift), method


@dataclass(frozen=True, slots=True, eq=False)
class _Made:
    """A window made from the reference: its rows' places, their realised figures and the sampling errors of those."""

    chosen: NDArray[np.intp]
    figures: Figures
    realised: Floats
    sampling: Floats

    @classmethod
    def of(
        cls, rows: Rows, labels: Integers, averaged: Averaged, chosen: NDArray[np.intp], p: Floats, seed: int
    ) -> Self:
        figures = Figures(rows.take(chosen), averaged)
        sampling = figures.draws(p[chosen], seed, _FEW_DRAWS).std(axis=0)
        return cls(chosen, figures, figures.of_labels(labels[chosen]), sampling)

    def judge(self, p: Floats, simple: Floats) -> Judged:
        """By probabilities of all the reference's rows, and CBPE's."""
        return Judged(self.figures.of(p[self.chosen]), self.figures.of(simple[self.chosen]), self.sampling)


def _share_of(error: float, other: float) -> float:
    """The weight of one of two by their errors; half where both have none."""
    total = error**2 + other**2
    return other**2 / total if total > 0 else 0.5


def _fit_part(
    method: type[Method], rows: Rows, labels: Integers, seed: int, mask: NDArray[np.bool_], fold: int
) -> Method:
    return method.fit(rows.take(mask), labels[mask], seed=seed + fold)


def _says(rows: Rows, model: Method, mask: NDArray[np.bool_]) -> Floats:
    return model.probabilities(rows.take(mask))


def _error(windows: list[Judged], realised: list[Floats]) -> float:
    """Mean absolute error of accuracy and F1 in sampling errors."""
    error = np.abs(np.stack([one.values for one in windows]) - np.stack(realised))[:, _JUDGED]
    sampling = np.stack([one.sampling for one in windows])[:, _JUDGED]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = error / np.maximum(sampling, 1e-4)
    return float(np.nanmean(ratio)) if np.isfinite(ratio).any() else 0.0


def _std(values: Floats) -> Floats:
    """Standard deviations of columns, their NaN aside."""
    known = np.isfinite(values)
    count = np.maximum(known.sum(axis=0), 1)
    middle = np.where(known, values, 0.0).sum(axis=0) / count
    result: Floats = np.sqrt((np.where(known, values - middle, 0.0) ** 2).sum(axis=0) / count)
    return result
