"""Stage 5: probabilities recalibrated to the window's rows: importance-weighted calibration on the reference.

A classifier that tells window rows from reference rows gives the density ratio; the reference's probabilities (out of
fold) are recalibrated with rows weighted by it, and so are right where the window's rows are. The correction is
shrunk by the effective number of reference rows, and not made at all below 200 of them or where window and reference
hardly overlap: there it was worse than plain CBPE. Cost: two small boosted models of at most 3,000 + 3,000 rows.
Source: PAPE, Białek et al., arXiv 2401.08348, 2024; effective sample size: Kish, 1965.
"""

from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlspan_processor.estimate.base import Floats, Inputs, Integers, Rows, uneven
from mlspan_processor.estimate.blend import Blend
from mlspan_processor.estimate.encode import Encoder, learnable

MIN_EFFECTIVE: Final = 200.0
MAX_SEPARATION: Final = 0.95
MAX_OUTSIDE: Final = 0.2
_SIDE: Final = 3000
_LARGEST: Final = 20.0
_DESCRIBED: Final = 4000
"""Reference rows that say which columns vary and which categories are frequent."""


class Ratio(NamedTuple):
    """How the window's rows are distributed over the reference's.

    Attributes:
        weights: (n_reference,) density ratios, mean 1.
        effective: number of reference rows that they are worth.
        separation: AUROC of window against reference rows, out of fold; 0.5 where they are alike.
        outside: share of window rows where there is hardly a reference row.
    """

    weights: Floats
    effective: float
    separation: float
    outside: float


def recalibrated(p: Floats, rows: Rows, labels: Integers, ratio: Ratio) -> Blend | None:
    """A recalibration of probabilities to the window's rows; None behind the guards.

    Args:
        p: (n, n_classes) probabilities of the reference's rows that did not see their labels.
        rows, labels: the reference.
        ratio: of the window over the reference.
    """
    if ratio.effective < MIN_EFFECTIVE or ratio.separation > MAX_SEPARATION or ratio.outside > MAX_OUTSIDE:
        return None
    here = replace(rows, weights=ratio.weights)
    return Blend.fit([p], here, labels, towards=(1.0,), size=ratio.effective)


def density_ratio(reference: Inputs, window: Inputs, *, seed: int) -> Ratio:
    """Cross-fitted in two halves, so that no row is weighted by a classifier that saw it."""
    from sklearn.ensemble import HistGradientBoostingClassifier  # noqa: PLC0415 heavy
    from sklearn.metrics import roc_auc_score  # noqa: PLC0415 heavy

    rng = np.random.default_rng(seed)
    many = len(reference.weights) > _DESCRIBED
    some = rng.choice(len(reference.weights), _DESCRIBED, replace=False) if many else None
    encoder = Encoder.fit(reference if some is None else reference.take(some))
    inputs, others = encoder.tree_inputs(reference), encoder.tree_inputs(window)
    half, other_half = _halves(len(inputs), rng), _halves(len(others), rng)
    odds, found = np.zeros(len(inputs)), np.zeros(len(others))
    for side in (False, True):
        a, b = _some(half != side, rng), _some(other_half != side, rng)
        model = HistGradientBoostingClassifier(
            learning_rate=0.1,
            max_iter=40,
            max_leaf_nodes=8,
            min_samples_leaf=40,
            l2_regularization=10.0,
            early_stopping=False,
            categorical_features=encoder.tree_categories(),
            random_state=seed,
        )
        target = np.repeat([0, 1], [len(a), len(b)])
        model.fit(
            learnable(np.vstack([inputs[a], others[b]])),
            target,
            sample_weight=uneven(np.concatenate([reference.weights[a], window.weights[b]])),
        )
        # Equal distributions come out as odds of 1, however many rows there are on either side.
        prior = np.log(window.weights[b].sum() / reference.weights[a].sum())
        odds[half == side] = model.decision_function(inputs[half == side]) - prior
        found[other_half == side] = model.decision_function(others[other_half == side]) - prior
    ratio = np.minimum(np.exp(odds), _LARGEST) * reference.weights
    ratio /= ratio.mean()
    return Ratio(
        weights=ratio,
        effective=float(ratio.sum() ** 2 / (ratio**2).sum()),
        separation=float(roc_auc_score(np.repeat([0, 1], [len(odds), len(found)]), np.concatenate([odds, found]))),
        outside=float((found > np.log(_LARGEST)).mean()),
    )


def _halves(n: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    result: NDArray[np.bool_] = rng.permutation(n) % 2 == 0
    return result


def _some(mask: NDArray[np.bool_], rng: np.random.Generator) -> Integers:
    rows = np.flatnonzero(mask)
    return rows if len(rows) <= _SIDE else rng.choice(rows, _SIDE, replace=False)
