"""Stage 5: features and scores as inputs of the methods that refit: one fitted description, three forms."""

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from mlspan_processor.estimate.base import Floats, Inputs

MAX_FEATURES: Final = 300
_LEVELS: Final = 200
_COLUMNS: Final = 10
_QUANTILES: Final = 64
_FEWEST: Final = 20
"""Values that a column of trees has at least: the rows of a small leaf."""


@dataclass(slots=True, eq=False)
class Encoder:
    """What the reference's columns look like.

    Attributes:
        numbers, categories: places of the features used.
        knots: for each number (≤ 64,) quantiles; levels: for each category its most frequent codes, sorted by share.
        missing: (n_numbers,) which numbers get a flag for missing values.
        mean, scale: of the answers.
    """

    numbers: NDArray[np.intp]
    categories: NDArray[np.intp]
    knots: list[Floats]
    levels: list[Floats]
    missing: NDArray[np.bool_]
    mean: Floats
    scale: Floats

    @classmethod
    def fit(cls, rows: Inputs) -> Self:
        """Describe these rows; constant features and those beyond the bound are left out."""
        numbers, categories, knots, levels, missing = [], [], [], [], []
        for j in range(min(rows.features.shape[1], MAX_FEATURES)):
            column = rows.features[:, j]
            known = column[~np.isnan(column)]
            values, counts = np.unique(known, return_counts=True)
            lacking = len(known) < len(column)
            if len(values) + lacking < 2:
                continue
            if rows.categorical[j]:
                categories.append(j)
                levels.append(values[np.argsort(-counts, kind="stable")][:_LEVELS])
            else:
                numbers.append(j)
                knots.append(np.quantile(known, np.linspace(0, 1, _QUANTILES)) if len(known) else np.zeros(1))
                missing.append(lacking)
        answers = rows.answers()
        return cls(
            np.array(numbers, np.intp),
            np.array(categories, np.intp),
            knots,
            levels,
            np.array(missing, bool),
            answers.mean(axis=0),
            np.maximum(answers.std(axis=0), 1e-3),
        )

    def tree_inputs(self, rows: Inputs) -> Floats:
        """(n, …) categories as ranks by share, numbers, scores; NaN where missing."""
        coded = np.full((len(rows.weights), len(self.categories)), np.nan)
        for place, (j, levels) in enumerate(zip(self.categories, self.levels, strict=True)):
            by_code = np.argsort(levels)
            at = np.minimum(np.searchsorted(levels[by_code], rows.features[:, j]), len(levels) - 1)
            found = levels[by_code][at] == rows.features[:, j]
            coded[found, place] = by_code[at[found]]
        return np.hstack([coded, rows.features[:, self.numbers], rows.answers()])

    def tree_categories(self) -> NDArray[np.bool_]:
        """(…,) which columns of `tree_inputs` are categories."""
        width = len(self.categories) + len(self.numbers) + len(self.mean)
        return np.arange(width) < len(self.categories)

    def linear_inputs(self, rows: Inputs) -> Floats:
        """(n, …) normal scores, flags of missing values, categories' columns, scaled scores."""
        columns: list[Floats] = []
        for j, knots, lacking in zip(self.numbers, self.knots, self.missing, strict=True):
            column = rows.features[:, j]
            nothing = np.isnan(column)
            # Both sides, so that a tied value stands in the middle of its ranks.
            left = np.interp(column, *_edges(knots, last=False))
            right = np.interp(column, *_edges(knots, last=True))
            scores = ndtri(np.clip((left + right) / 2, 0.005, 0.995))
            columns.append(np.where(nothing, 0.0, scores))
            if lacking:
                columns.append(nothing.astype(np.float64))
        columns.extend(
            (rows.features[:, j] == level).astype(np.float64)
            for j, levels in zip(self.categories, self.levels, strict=True)
            for level in levels[:_COLUMNS]
        )
        columns.extend(((rows.answers() - self.mean) / self.scale).T)
        return np.column_stack(columns)


def learnable(inputs: Floats) -> Floats:
    """What trees are to learn from, (n, …): columns with hardly a value are constant, as they tell nothing, and
    scikit-learn ends where the rows that it does not hold back for validation have none."""
    bare = (~np.isnan(inputs)).sum(axis=0) < _FEWEST
    return np.where(bare, 0.0, inputs) if bare.any() else inputs


def _edges(knots: Floats, *, last: bool) -> tuple[Floats, Floats]:
    """Distinct knots and the share of rows below (last: up to) each."""
    shares = np.linspace(0, 1, len(knots)) if len(knots) > 1 else np.array([0.5])
    values, first = np.unique(knots, return_index=True)
    if not last:
        return values, shares[first]
    final = np.r_[first[1:] - 1, len(knots) - 1]
    return values, shares[final]
