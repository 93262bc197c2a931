"""Stage 5: drift of the features together, as when each keeps its distribution and their correlation goes.

In: Samples: a reference once, then windows of at least 50 rows, and two for each feature. Out: a MultivariateJudgement,
from three tests on the features' scores (ranks in the reference; a balanced ±1 for categories, the rare ones as one
with the unseen; 0 for missing values), joined into one p-value:
*means*: a small shift of many features at once (the test that embeddings need); *pairs*: the largest change of a
rank correlation, which is named; *distances*: Mahalanobis distances, as held-out reference rows have them, by
Anderson-Darling. Level .001 holds at 100 to 10,000 rows (`benchmarks/bench_false_alarms.py`); autocorrelated rows
count for fewer. More than 64 features go through principal components. No drift that only a curved surface separates is
seen, as long as ranks, pairs and distances stay. Cost: 50 features x 10,000 rows 60 ms; memory beside the rows: 8 bytes
a value of 65,536 rows; state: some 100 kB of JSON for 50 features. Reference of fewer than 100 rows or with fewer than
two features that vary: undecidable.
Source: Hotelling, Ann. Math. Stat. 2, 1931 (means); Cai, Liu & Xia, J. Am. Stat. Assoc. 108, 2013 (pairs: the largest
of all, not their sum); Liu & Xie, ibid. 115, 2020 (joining).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mlspan.profile import CATEGORICAL, NUMERIC, FeatureProfile, build_profile, cells_of
from mlspan_processor.drift.base import Floats, Layout, Table
from mlspan_processor.drift.combine import joined
from mlspan_processor.drift.dependence import feature_scores, is_rare, of_window, scores_of
from mlspan_processor.drift.effect import shift_of
from mlspan_processor.drift.moments import (
    Moments,
    covariance_of,
    kish,
    largest_pair,
    means_test,
    moments_of,
    pairs_test,
    squared_distances,
)
from mlspan_processor.drift.shape import shape_p
from mlspan_processor.sample import Sample

MAX_DIMENSIONS: Final = 64
MAX_REFERENCE_ROWS: Final = 50_000
MIN_ROWS: Final = 50
MIN_WORTH: Final = 30
"""Independent rows that a window's are worth at least."""
MIN_REFERENCE_ROWS: Final = 100
"""So many independent rows a reference is worth at least."""
WEIGHTS: Final = {"means": 0.3, "pairs": 0.4, "distances": 0.3}
MIN_EFFECTS: Final = {"means": 0.25, "pairs": 0.1, "distances": 0.1}
"""Joint shift in standard deviations (the best line then separates with AUC .57); change of a rank correlation; shift
of the distances in standard deviations."""
RARE: Final = 0.05
MAX_SCORE: Final = ((1 - RARE) / RARE) ** 0.5
"""The score of a value that RARE rows have beside one that all others have. Features of rarer variation are left to
their own tests: squares and products of such scores are far from normal."""
ROWS_A_DIMENSION: Final = 2
STRETCHES: Final = 40
"""Of consecutive rows, that a reference is split into."""
_BLOCK_ROWS: Final = 65_536


@dataclass(frozen=True, slots=True)
class MultivariateJudgement:
    """What is to be said of all features together.

    Attributes:
        statistic: mean squared Mahalanobis distance of the window's rows over that of the reference's: 1 without drift.
        p_value: of the three tests joined.
        effect: of the test that speaks most clearly, in its unit (see MIN_EFFECTS), less what chance is expected to
            give.
        drifted: significant at the level asked for, and the effect not below the test's minimum.
        reason: why nothing was decided, or "".
        test: means, pairs or distances: which `effect` is of.
        text: the same for people.
        material: the effect alone is not below the minimum.
    """

    statistic: float | None
    p_value: float | None
    effect: float | None
    drifted: bool
    reason: str = ""
    test: str = ""
    text: str = ""
    material: bool = False


class Multivariate:
    """A reference's features, ready to compare windows with."""

    def __init__(self, state: dict[str, Any]) -> None:
        """From `to_dict`'s values; use `fit` or `from_dict`."""
        self._state = state
        self.reason: str = state["reason"]
        if self.reason:
            return
        self.names: tuple[str, ...] = tuple(state["names"])
        self._types: tuple[str, ...] = tuple(state["types"])
        self._features = [_feature(*one) for one in zip(self.names, self._types, state["cells"], strict=True)]
        self._scores = [np.asarray(scores, np.float32) for scores in state["scores"]]
        self._projection = None if state["projection"] is None else np.asarray(state["projection"], np.float32)
        self._whitening = np.asarray(state["whitening"], np.float64)
        self._eigenvalues = np.asarray(state["eigenvalues"], np.float64)
        edges = np.asarray(state["distance_edges"], np.float32)
        counts = np.asarray(state["distance_counts"], np.float64)
        self._distance = FeatureProfile("distance", NUMERIC, edges, None, None, counts)
        self._layout = Layout([self._distance])
        self._distance_scores = np.asarray(scores_of(self._layout), np.float32)
        self._reference = Moments(
            float(state["rows"]),
            np.asarray(state["means"], np.float64),
            np.asarray(state["products"], np.float64),
            np.asarray(state["variances"], np.float64),
            np.asarray(state["dependence"], np.float64),
            np.asarray(state["bounds"], np.float64),
            counts,
            float(state["distance_dependence"]),
            float(state["distance_mean"]),
        )

    @classmethod
    def fit(cls, reference: Sample, seed: int = 0, features: Sequence[FeatureProfile] | None = None) -> "Multivariate":
        """Look at a reference; never raises on odd data: see `reason`.

        Args:
            reference: its rows in their order; of more than 50,000 every k-th.
            seed: of the split into the half that fits and the half that is compared with.
            features: profiles of the Sample's features, where the caller has them already; None to build them.
        """
        n = len(reference)
        if n < MIN_REFERENCE_ROWS:
            return cls({"reason": f"undecidable, because the reference has {n} rows, fewer than {MIN_REFERENCE_ROWS}"})
        if n > MAX_REFERENCE_ROWS:
            reference = reference.take(np.linspace(0, n - 1, MAX_REFERENCE_ROWS).astype(np.intp))
        if features is None:
            rows = np.ascontiguousarray(reference.cells.T)
            features = build_profile(rows, reference.names, reference.types, weights=reference.weights).features
        layout = Layout(features)
        table = scores_of(layout)
        scores = [table[s : s + f.n_cells] for s, f in zip(layout.starts.tolist(), features, strict=True)]
        first = _half(len(reference), seed)
        is_apart = _score_categories(scores, features, reference, first)
        used = [j for j, own in enumerate(scores) if 0 < np.abs(own[features[j].counts > 0]).max() <= MAX_SCORE]
        if len(used) < 2:
            return cls(
                {"reason": f"undecidable, because fewer than two features vary in {RARE:.0%} of the reference's rows"}
            )
        state: dict[str, Any] = {
            "reason": "",
            "names": [features[j].name for j in used],
            "types": [features[j].type for j in used],
            "cells": [_cells(features[j]) for j in used],
            "scores": [scores[j].tolist() for j in used],
            "projection": None,
        }
        whole = _scored(reference, [features[j] for j in used], [scores[j] for j in used])
        return cls(_fitted(state, whole, reference.weights, first, is_apart))

    def judge(self, window: Sample, level: float = 0.001) -> MultivariateJudgement:
        """Judge a window; features are found by name, and all of them are needed.

        Args:
            window: its rows in their order.
            level: share of windows without drift that may be called drifted.
        """
        reason = self.reason or self._unfit(window)
        if reason:
            return MultivariateJudgement(None, None, None, False, reason)
        where = {name: j for j, name in enumerate(window.names)}
        columns = [where[name] for name in self.names]
        blocks = (self._scores_of(window, columns, rows) for rows in _blocks(len(window)))
        return self._judged(blocks, window.weights, level)

    def scores(self, sample: Sample) -> NDArray[np.float32]:
        """Scores (n_rows, n_dimensions) of a Sample's rows, for `judge_scores`."""
        where = {name: j for j, name in enumerate(sample.names)}
        return self._scores_of(sample, [where[name] for name in self.names], slice(None))

    def distances(self, sample: Sample) -> NDArray[np.float64]:
        """Squared Mahalanobis distances (n_rows,) of a Sample's rows; only where `judge` had no reason."""
        return np.asarray(squared_distances(self.scores(sample), self._whitening), np.float64)

    def judge_scores(self, scores: NDArray[np.float32], level: float = 0.001) -> MultivariateJudgement:
        """Judge rows of weight 1 that have been scored already."""
        if self.reason:
            return MultivariateJudgement(None, None, None, False, self.reason)
        if reason := self._few(len(scores)):
            return MultivariateJudgement(None, None, None, False, reason)
        return self._judged(iter([scores]), np.ones(len(scores)), level)

    def _judged(self, blocks: Iterator[NDArray[np.float32]], weights: Floats, level: float) -> MultivariateJudgement:
        own = moments_of(blocks, weights, self._whitening, self._distance, self._distance_scores)
        ours = self._reference
        own = replace(
            own,
            dependence=of_window(own.dependence, ours.dependence, own.rows),
            distance_dependence=float(of_window(own.distance_dependence, ours.distance_dependence, own.rows)),
        )
        if own.worth < MIN_WORTH:
            reason = (
                f"undecidable, because the window's rows depend on each other and are worth {own.worth:.0f}, fewer than"
                f" {MIN_WORTH}"
            )
            return MultivariateJudgement(None, None, None, False, reason)
        parts = {
            "means": means_test(own, ours, self._whitening, self._eigenvalues),
            "pairs": pairs_test(own, ours),
            "distances": self._distances(own),
        }
        p_values = np.array([parts[name][0] for name in WEIGHTS])
        shares = np.array(list(WEIGHTS.values()))
        p = float(joined(p_values[:, None], shares[:, None])[0])
        test = list(WEIGHTS)[int(np.argmin(p_values / shares))]
        effect = parts[test][1]
        material = effect >= MIN_EFFECTS[test]
        statistic = own.distance_mean / ours.distance_mean if ours.distance_mean > 0 else None
        text = self._text(test, effect, own)
        return MultivariateJudgement(statistic, p, effect, p <= level and material, "", test, text, material)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return self._state

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> "Multivariate":
        """What `to_dict` gave."""
        return cls(state)

    def _unfit(self, window: Sample) -> str:
        types = dict(zip(window.names, window.types, strict=True))
        for name, kind in zip(self.names, self._types, strict=True):
            if name not in types or (types[name] == CATEGORICAL) != (kind == CATEGORICAL):
                return f'undecidable, because the window has no {kind} feature "{name}"'
        return self._few(float(window.weights.sum()) * kish(window.weights))

    def _few(self, rows: float) -> str:
        need = max(MIN_ROWS, ROWS_A_DIMENSION * len(self._whitening))
        return "" if rows >= need else f"undecidable, because the window has {rows:.0f} rows, fewer than {need}"

    def _scores_of(self, sample: Sample, columns: list[int], rows: slice) -> NDArray[np.float32]:
        return _project(_scored(sample, self._features, self._scores, columns, rows), self._projection)

    def _distances(self, own: Moments) -> tuple[float, float]:
        """P-value and effect of the distances."""
        ours = self._reference
        m = float(ours.distances.sum()) / ours.distance_dependence
        n, m_rows = np.array([own.rows / own.distance_dependence]), np.array([m])
        table = Table(self._layout, ours.distances, own.distances, m_rows, n)
        return float(shape_p(table, n, m_rows)[0]), float(shift_of(table, n, m_rows)[0])

    def _text(self, test: str, effect: float, own: Moments) -> str:
        if test == "means":
            return f"the features together shifted by {effect:.2f} sd"
        if test == "distances":
            return f"combinations of values became unlike the reference's (shift of {effect:.2f} sd)"
        i, j = largest_pair(own, self._reference)
        was, now = self._reference.products[i, j], own.products[i, j]
        pair = f'"{self.names[i]}" and "{self.names[j]}"'
        if self._projection is not None:
            pair = f"principal components {i + 1} and {j + 1}"
        return f"the rank correlation of {pair} went from {was:.2f} to {now:.2f}"


def _half(n: int, seed: int) -> NDArray[np.bool_]:
    """Which of n rows fit: whole stretches, so that few of the other half lie beside rows like themselves."""
    stretches = np.random.default_rng(seed).permutation(STRETCHES) < STRETCHES // 2
    return np.asarray(stretches[np.arange(n) * STRETCHES // n], bool)


def _score_categories(
    scores: list[NDArray[np.float32]],
    features: Sequence[FeatureProfile],
    reference: Sample,
    first: NDArray[np.bool_],
) -> bool:
    """Put scores of categories that are found on the first half, in place; whether only the other half may be compared.

    Which categories are frequent enough to stand for themselves is chosen by their counts: where others are not, the
    rows that chose have too many of the chosen ones.
    """
    is_apart = False
    for j, feature in enumerate(features):
        if feature.codes is not None:
            cells = cells_of(feature, reference.cells[j, first])
            counts = np.bincount(cells, reference.weights[first], feature.n_cells).astype(np.float64)[:-1]
            scores[j] = feature_scores(counts, numeric=False).astype(np.float32)
            is_apart |= bool(((counts > 0) & is_rare(counts)).any())
    return is_apart


def _fitted(
    state: dict[str, Any], whole: NDArray[np.float32], weights: Floats, first: NDArray[np.bool_], is_apart: bool
) -> dict[str, Any]:
    """The state with everything that is estimated from the scores (n_rows, d)."""
    n = len(whole)
    compared = ~first if is_apart else np.ones(n, bool)
    if whole.shape[1] > MAX_DIMENSIONS:
        directions = _components(whole[first])
        state = state | {"projection": directions.tolist()}
        # Components lie along the noise of the rows that they were found on; those are no rows to compare with.
        whole, compared = whole @ directions, ~first
    d = whole.shape[1]
    covariance = covariance_of(whole[first])
    # As many dimensions as rows leave no direction to be sure of; the share of noise goes to the identity.
    ridge = d / (d + n / 2)
    values, vectors = np.linalg.eigh((1 - ridge) * covariance + ridge * np.eye(d))
    whitening = (vectors / np.sqrt(np.maximum(values, 1e-6))).astype(np.float64)
    # The law of the means' test from the other half: its own would flatter it.
    law = np.linalg.eigvalsh(whitening.T @ covariance_of(whole[~first]) @ whitening)
    distances = squared_distances(whole, whitening)
    profile = build_profile(distances[~first][:, None], ["distance"], [NUMERIC], weights=weights[~first]).features[0]
    assert profile.edges is not None
    scores = np.asarray(scores_of(Layout([profile])), np.float32)
    sums = moments_of(iter([whole[compared]]), weights[compared], whitening, profile, scores)
    worth = n / float(sums.dependence.mean())
    if worth < MIN_REFERENCE_ROWS:
        return {
            "reason": f"undecidable, because the reference's rows depend on each other and are worth {worth:.0f}, fewer"
            f" than {MIN_REFERENCE_ROWS}"
        }
    return state | {
        "whitening": whitening.tolist(),
        "eigenvalues": np.maximum(law, 0.0).tolist(),
        "distance_edges": profile.edges.tolist(),
        # The half that did not fit stands for rows to come.
        "distance_counts": (profile.counts * kish(weights)).tolist(),
        "rows": sums.rows,
        "means": sums.means.tolist(),
        "products": sums.products.tolist(),
        "variances": sums.variances.tolist(),
        "dependence": sums.dependence.tolist(),
        "bounds": sums.bounds.tolist(),
        "distance_dependence": sums.distance_dependence,
        "distance_mean": float(np.average(distances[~first], weights=weights[~first])),
    }


def _components(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Directions (n_features, n_components) of the largest variance, scaled to 1."""
    values, vectors = np.linalg.eigh(covariance_of(scores))
    top = slice(-MAX_DIMENSIONS, None)
    kept = values[top] > 1e-6 * values[-1]
    directions: NDArray[np.float32] = (vectors[:, top][:, kept] / np.sqrt(values[top][kept])).astype(np.float32)
    return directions


def _scored(
    sample: Sample,
    features: list[FeatureProfile],
    scores: list[NDArray[np.float32]],
    columns: list[int] | None = None,
    rows: slice = slice(None),
) -> NDArray[np.float32]:
    """Scores (n_rows, n_features) of a Sample's rows."""
    where = {name: j for j, name in enumerate(sample.names)} if columns is None else {}
    picked = [where[feature.name] for feature in features] if columns is None else columns
    result = np.empty((len(sample.weights[rows]), len(features)), np.float32)
    for j, (feature, own, column) in enumerate(zip(features, scores, picked, strict=True)):
        values = sample.cells[column, rows]
        result[:, j] = own[cells_of(feature, values if feature.codes is not None else values.view(np.float32))]
    return result


def _project(scores: NDArray[np.float32], projection: NDArray[np.float32] | None) -> NDArray[np.float32]:
    return scores if projection is None else np.asarray(scores @ projection, np.float32)


def _blocks(n: int) -> Iterator[slice]:
    return (slice(start, start + _BLOCK_ROWS) for start in range(0, n, _BLOCK_ROWS))


def _cells(feature: FeatureProfile) -> dict[str, Any]:
    if feature.codes is not None:
        return {"codes": feature.codes.tolist(), "other": float(feature.counts[-3])}
    assert feature.edges is not None
    return {"edges": feature.edges.tolist()}


def _feature(name: str, kind: str, cells: dict[str, Any]) -> FeatureProfile:
    if "codes" in cells:
        codes = np.asarray(cells["codes"], np.uint32)
        counts = np.zeros(len(codes) + 3)
        counts[len(codes)] = cells["other"]
        return FeatureProfile(name, kind, None, codes, None, counts)
    edges = np.asarray(cells["edges"], np.float32)
    return FeatureProfile(name, kind, edges, None, None, np.zeros(len(edges) + 2))
