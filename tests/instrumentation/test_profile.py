"""The reference profile: cells, building, unusualness of rows, JSON."""

import json
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mlspan.payload import PREDICTION_CLASS, PREDICTION_NUMBER, SCORE_PROBABILITY
from mlspan.profile import (
    BINS,
    MAX_CODES,
    NO_PREDICTION,
    FeatureProfile,
    Profile,
    ProfileError,
    build_profile,
    cell_costs,
    cells_of,
    from_json,
    tail_of,
    to_json,
)

F4 = np.float32


def numeric(values: NDArray[Any], weights: NDArray[Any] | None = None, kind: str = "numeric") -> FeatureProfile:
    """The profile of one numeric column."""
    return build_profile(values.astype(F4).reshape(-1, 1), ["x"], [kind], weights=weights).features[0]


def categorical(codes: NDArray[Any], **options: Any) -> FeatureProfile:
    """The profile of one categorical column."""
    return build_profile(codes.astype(np.uint32).reshape(-1, 1), ["x"], ["categorical"], **options).features[0]


def sums_of(profile: Profile, rows: NDArray[Any]) -> NDArray[np.float64]:
    """The cost of each row (n_rows, n_features) of numeric features."""
    costs = [
        cell_costs(feature, profile.rows)[cells_of(feature, np.ascontiguousarray(rows[:, j]))]
        for j, feature in enumerate(profile.features)
    ]
    return np.asarray(np.sum(costs, axis=0))


@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(0).normal(size=4000),
        np.random.default_rng(1).exponential(size=777),
        np.random.default_rng(2).integers(0, 7, 500),
        np.random.default_rng(3).pareto(1.0, 1000),
        np.arange(10.0),
        np.zeros(20),
    ],
    ids=["normal", "exponential", "few values", "heavy tail", "ten rows", "constant"],
)
def test_edges_are_values_and_hold_their_ties(values: NDArray[Any]) -> None:
    """Every edge but the first is a value that occurred, no cell but the outer ones and ties exceed 1/BINS."""
    feature = numeric(values)
    assert feature.edges is not None
    assert set(feature.edges[1:].tolist()) <= set(values.astype(F4).tolist())
    assert feature.edges[0] < values.min()
    assert feature.edges[-1] == F4(values.max())
    assert feature.counts.sum() == len(values)
    assert feature.counts[0] == feature.counts[-2] == feature.counts[-1] == 0
    assert feature.n_cells <= BINS + 3
    if len(np.unique(values)) == len(values) >= 500:
        assert feature.counts.max() <= math.ceil(len(values) / BINS)


def test_cells_of_named_values() -> None:
    """Below, each edge itself, above, infinities and NaN go where the docstring says."""
    feature = numeric(np.array([0.0, 1.0, 2.0]))
    column = np.array([-1, 0, 0.5, 1, 2, 2.5, np.inf, -np.inf, np.nan], F4)
    assert cells_of(feature, column).tolist() == [0, 1, 2, 2, 3, 4, 4, 0, 5]
    assert feature.missing == 5
    assert feature.unseen == (0, 4)


def test_zero_minimum_has_no_denormal_edge() -> None:
    """The edge under a minimum of 0 is a normal number, which no process flushes to zero."""
    feature = numeric(np.array([0.0, 1.0]))
    assert feature.edges is not None
    assert abs(feature.edges[0]) >= np.finfo(F4).tiny
    assert cells_of(feature, np.zeros(1, F4)).tolist() == [1]


def test_column_without_finite_values() -> None:
    """A column of NaN has no edges; later numbers in it are unseen."""
    feature = numeric(np.full(5, np.nan))
    assert feature.counts.tolist() == [0, 5]
    assert cells_of(feature, np.array([1, np.nan], F4)).tolist() == [0, 1]
    assert math.isnan(feature.mean)
    assert feature.unseen == (0,)


def test_infinities_stay_out_of_the_edges() -> None:
    """Infinite values count in the outer cells and change neither edges nor moments."""
    feature = numeric(np.array([1.0, 2.0, 3.0, np.inf, -np.inf]))
    assert (feature.min, feature.max, feature.mean) == (1.0, 3.0, 2.0)
    assert feature.counts[0] == feature.counts[-2] == 1


def test_weights_stand_for_repeated_rows() -> None:
    """A row of weight 3 is three rows."""
    values = np.random.default_rng(0).normal(size=300)
    weights = np.random.default_rng(1).integers(1, 5, 300)
    weighted, repeated = numeric(values, weights), numeric(np.repeat(values, weights))
    assert weighted.edges is not None
    assert repeated.edges is not None
    assert weighted.edges.tolist() == repeated.edges.tolist()
    assert weighted.counts.tolist() == repeated.counts.tolist()
    assert weighted.mean == pytest.approx(repeated.mean)
    assert weighted.std == pytest.approx(repeated.std)


def test_categories_known_unseen_missing() -> None:
    """Known codes have their own cells; unknown ones are unseen, 0 is missing."""
    feature = categorical(np.array([7, 7, 9, 0]), labels={"x": {7: "UA", 9: "DL"}})
    assert feature.labels == ("UA", "DL")
    assert feature.counts.tolist() == [2, 1, 0, 0, 1]
    assert cells_of(feature, np.array([7, 9, 8, 0], np.uint32)).tolist() == [0, 1, 3, 4]


def test_many_categories_fold_into_other() -> None:
    """Beyond MAX_CODES the most frequent are kept; the rest, and whatever is unknown, is "other"."""
    codes = np.concatenate([np.arange(1, 701), np.arange(1, 401)])
    feature = categorical(codes)
    assert feature.codes is not None
    assert len(feature.codes) == MAX_CODES
    assert set(range(1, 401)) <= set(feature.codes.tolist())
    assert feature.counts[MAX_CODES] == 200
    assert cells_of(feature, np.array([1_000_000], np.uint32)).tolist() == [MAX_CODES]


def test_predictions_and_scores_of_rows_without_any_are_left_out() -> None:
    """NO_PREDICTION and NaN are not answers."""
    profile = build_profile(
        np.zeros((4, 1), F4),
        ["x"],
        ["numeric"],
        predictions=np.array([0, 1, NO_PREDICTION, -1], np.int32),
        prediction_kind=PREDICTION_CLASS,
        scores=np.array([[0.5, 0.25], [0.5, np.nan], [0.5, 0.75], [0.5, 0.75]], F4),
        score_kind=SCORE_PROBABILITY,
        classes=("a", "b"),
    )
    assert profile.prediction is not None
    assert profile.score is not None
    assert profile.prediction.counts.tolist() == [1, 1, 0, 1, 0]
    assert profile.score.counts.sum() == 3


def test_several_outputs_have_no_prediction_profile() -> None:
    """More than one output a row is not profiled."""
    profile = build_profile(
        np.zeros((2, 1), F4), ["x"], ["numeric"], predictions=np.zeros((2, 2), F4), prediction_kind=PREDICTION_NUMBER
    )
    assert profile.prediction is None


def test_bad_shapes_are_refused() -> None:
    """No rows, or names that do not fit, raise ValueError."""
    with pytest.raises(ValueError, match="at least one row"):
        build_profile(np.zeros((0, 1), F4), ["x"], ["numeric"])
    with pytest.raises(ValueError, match="1 columns, 2 names"):
        build_profile(np.zeros((1, 1), F4), ["x", "y"], ["numeric"])


def test_cell_costs_are_tail_probabilities() -> None:
    """Costs are -log of the two-sided tail for numbers and of the own-or-rarer share for categories."""
    feature = numeric(np.array([0, 0, 0, 0, 0, 0, 0, 1, 1, 2.0]))
    shares = np.exp(-cell_costs(feature, 10))
    assert shares.tolist() == pytest.approx([1 / 11, 1.0, 0.6, 0.2, 1 / 11, 1 / 11])
    feature = categorical(np.array([1, 1, 1, 2, 2, 3, 0]))
    assert np.exp(-cell_costs(feature, 7)).tolist() == pytest.approx([1, 4 / 7, 2 / 7, 1 / 8, 1 / 8, 2 / 7])


@pytest.mark.parametrize("columns", [1, 3, 10, 30])
def test_new_rows_from_the_reference_are_rarely_unusual(columns: int) -> None:
    """P(tail <= a) stays within 1.5 a (and three standard errors) of rows that the reference has not seen."""
    rng = np.random.default_rng(columns)
    shares = {0.1: [0.0], 0.01: [0.0], 0.001: [0.0]}
    for _ in range(8):
        reference = rng.normal(size=(2000, columns)).astype(F4)
        profile = build_profile(reference, [f"x{j}" for j in range(columns)], ["numeric"] * columns)
        assert profile.anomaly is not None
        tails = tail_of(profile.anomaly, sums_of(profile, rng.normal(size=(20_000, columns)).astype(F4)))
        for level, seen in shares.items():
            seen.append(float((tails <= level).mean()))
    for level, seen in shares.items():
        assert np.mean(seen[1:]) <= 1.5 * level + 3 * math.sqrt(level / 2000 / 8)


def test_outlying_rows_are_unusual() -> None:
    """A row far outside in several features has a tail of at most a thousandth."""
    rng = np.random.default_rng(0)
    profile = build_profile(rng.normal(size=(5000, 10)).astype(F4), [f"x{j}" for j in range(10)], ["numeric"] * 10)
    assert profile.anomaly is not None
    row = rng.normal(size=(1, 10)).astype(F4)
    row[0, :4] = 50
    assert tail_of(profile.anomaly, sums_of(profile, row))[0] <= 0.001


def full_profile() -> Profile:
    """A profile with everything in it."""
    rng = np.random.default_rng(0)
    cells = np.empty((500, 3), np.uint32)
    cells[:, 0] = rng.normal(size=500).astype(F4).view(np.uint32)
    cells[:, 1] = rng.integers(0, 5, 500)
    cells[:, 2] = np.full(500, np.nan, F4).view(np.uint32)
    return build_profile(
        cells,
        ["x", "carrier", "empty"],
        ["numeric", "categorical", "boolean"],
        predictions=rng.integers(0, 2, 500).astype(np.int32),
        prediction_kind=PREDICTION_CLASS,
        scores=rng.random((500, 2)).astype(F4),
        score_kind=SCORE_PROBABILITY,
        labels={"carrier": {1: "UA", 2: "Ünited"}},
        model_name="fraud",
        model_version="7",
        task="classification",
        classes=("no", "yes"),
        source="a test",
        performance={"accuracy": 0.9},
    )


def test_json_round_trip_is_exact() -> None:
    """Reading what was written gives equal arrays and texts."""
    profile = full_profile()
    again = from_json(to_json(profile))
    assert to_json(again) == to_json(profile)
    for one, other in zip(profile.features, again.features, strict=True):
        for name in ("edges", "codes", "counts", "centers"):
            a, b = getattr(one, name), getattr(other, name)
            assert (a is None) == (b is None)
            if a is not None:
                assert a.dtype == b.dtype
                assert a.tolist() == b.tolist()
    assert again.features[1].labels is not None
    assert "Ünited" in again.features[1].labels


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format="x"), 'format: "x"'),
        (lambda d: d.update(format_version=9), "format_version: 9"),
        (lambda d: d.pop("rows"), "rows: missing"),
        (lambda d: d["features"][0].update(edges=[2, 1]), r"features\[0\]\.edges: must ascend"),
        (lambda d: d["features"][0].update(counts=[1]), r"features\[0\]\.counts: 1 values for"),
        (lambda d: d["features"][1].update(codes=["a"]), r"features\[1\]\.codes: must be a list of numbers"),
        (lambda d: d["features"][1].update(type="text"), r'features\[1\]\.type: "text", must be one of numeric'),
        (lambda d: d["features"][1].update(labels=["a"]), r"features\[1\]\.labels: 1 texts"),
        (lambda d: d["anomaly"].update(tails=[2.0]), r"anomaly\.tails"),
        (lambda d: d.update(features={}), "features: must be a list"),
        (lambda d: d["model"].update(name=1), r"model\.name: must be a text"),
    ],
)
def test_bad_json_names_the_key(change: Any, message: str) -> None:
    """What does not fit is named by its path."""
    document = json.loads(to_json(full_profile()))
    change(document)
    with pytest.raises(ProfileError, match=message):
        from_json(json.dumps(document))


def test_no_json_is_a_profile_error() -> None:
    """Text that is no JSON object raises ProfileError too."""
    for text in ("", "[]", "{", "null"):
        with pytest.raises(ProfileError):
            from_json(text)
