"""Design effects: one for independent rows, (1 + r) / (1 - r) for autocorrelated ones, whatever way they are summed."""

import warnings

import numpy as np
import pytest
from scipy.signal import lfilter

from mlspan_processor.drift import Layout
from mlspan_processor.drift.dependence import LagSums, design_effect, scores_of
from mlspan_processor.drift.judgement import judge
from tests.processor.drift.samples import categories, compared, flat_cells, numbers, profiles


def series(rng: np.random.Generator, n: int, features: int, r: float) -> np.ndarray:
    """Columns (n, features) of autocorrelation r, variance 1."""
    steps = rng.standard_normal((n + 100, features)) * (1 - r**2) ** 0.5
    filtered: np.ndarray = lfilter([1.0], [1.0, -r], steps, axis=0)[100:]
    return filtered


def effects(reference: np.ndarray, window: np.ndarray, kind: str = "numeric") -> np.ndarray:
    """Design effects of a window's columns."""
    features = profiles(reference, kind)
    layout = Layout(features)
    return design_effect(layout, flat_cells(layout, features, window))


@pytest.mark.parametrize("n", [100, 300, 1000, 10_000])
def test_independent_rows_keep_their_number(n: int) -> None:
    """On average at most 2 % of 50 features' rows are lost to noise, with one feature at most a tenth."""
    rng = np.random.default_rng(0)
    reference = numbers(rng.standard_normal((5000, 50)))
    assert effects(reference, numbers(rng.standard_normal((n, 50)))).mean() < 1.02
    alone = [effects(reference[:1], numbers(rng.standard_normal((n, 1))))[0] for _ in range(10)]
    assert np.mean(alone) < 1.1


@pytest.mark.parametrize("n", [100, 300, 1000, 10_000])
def test_autocorrelation_of_a_half_triples_the_variance(n: int) -> None:
    """Rows of autocorrelation .5 are worth a third: ranks 2.9."""
    rng = np.random.default_rng(1)
    reference = numbers(series(rng, 5000, 50, 0.5))
    assert effects(reference, numbers(series(rng, n, 50, 0.5))).mean() == pytest.approx(2.9, abs=0.5)


def test_independent_features_beside_autocorrelated_ones() -> None:
    """With 1,000 rows each feature gets its own."""
    rng = np.random.default_rng(2)
    both = np.hstack([series(rng, 1000, 5, 0.6), rng.standard_normal((1000, 45))])
    found = effects(numbers(rng.standard_normal((5000, 50))), numbers(both))
    assert found[:5].min() > 2.5
    assert found[5:].mean() < 1.1


def test_categories_that_come_in_runs() -> None:
    """Runs of ten equal categories are worth about a tenth."""
    rng = np.random.default_rng(3)
    runs = np.repeat(rng.integers(1, 7, (100, 20)), 10, axis=0)
    found = effects(categories(rng.integers(1, 7, (5000, 20))), categories(runs), "categorical")
    assert found.mean() == pytest.approx(10, rel=0.3)


def test_a_change_within_the_window_is_no_dependence() -> None:
    """A level that shifts half way costs less than half the rows."""
    rng = np.random.default_rng(4)
    values = rng.standard_normal((2000, 20))
    values[1000:] += 1
    assert effects(numbers(rng.standard_normal((5000, 20))), numbers(values)).mean() < 2.5


@pytest.mark.parametrize("cuts", [[0.0], [-1.0, 0.0, 0.7, 1.5], list(np.linspace(-1.5, 1.5, 12))])
def test_categories_of_a_sequence_are_worth_what_their_shares_vary(cuts: list[float]) -> None:
    """Over many windows the chi-squared of the shares is as large as the design effect says, ordered or not."""
    rng = np.random.default_rng(9)
    n, windows = 500, 300
    codes = np.digitize(series(rng, n * windows, 10, 0.7), cuts) + 1
    reference = categories(codes)
    features = profiles(reference, "categorical")
    layout = Layout(features)
    cells = flat_cells(layout, features, reference).reshape(10, windows, n)
    found = np.mean([design_effect(layout, cells[:, at]) for at in range(windows)])
    expected = n * layout.reference / layout.by_feature(layout.reference)[layout.feature]
    seen = np.stack([np.bincount(cells[:, at].ravel(), minlength=layout.n_cells) for at in range(windows)])
    used = expected > 0
    chi2 = ((seen - expected)[:, used] ** 2 / expected[used]).sum(axis=1).mean()
    assert found == pytest.approx(chi2 / (10 * len(cuts)), rel=0.15)


def test_independent_categories_keep_their_number() -> None:
    """Few, many and rare categories alike: on average at most 2 % of the rows are lost to noise."""
    rng = np.random.default_rng(10)
    shares = 1 / np.arange(1, 501)
    for kinds, p in ((2, None), (6, None), (500, shares / shares.sum())):
        reference = categories(rng.choice(kinds, (5000, 20), p=p) + 1)
        for n in (100, 1000, 10_000):
            window = categories(rng.choice(kinds, (n, 20), p=p) + 1)
            assert 1 <= effects(reference, window, "categorical").mean() < 1.02


@pytest.mark.parametrize("n", [0, 1, 5])
def test_too_few_rows_and_constants_are_one(n: int) -> None:
    """Nothing to estimate from: rows count in full."""
    reference = numbers(np.ones((200, 2)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert effects(reference, numbers(np.ones((n, 2)))).tolist() == [1.0, 1.0]
    assert LagSums(0).design_effect().tolist() == []


def test_scores_are_standardised_in_the_reference() -> None:
    """Mean 0 and variance 1 over the reference's rows; missing values 0."""
    rng = np.random.default_rng(6)
    for columns, kind in (
        (numbers(rng.poisson(1, (500, 3)) * np.array([1, np.nan, 1])), "numeric"),
        (categories(rng.integers(0, 5, (500, 3))), "categorical"),
    ):
        layout = Layout(profiles(columns, kind))
        scores = scores_of(layout).astype(np.float64)
        present = layout.reference * ~layout.is_missing
        assert layout.by_feature(present * scores) == pytest.approx(np.zeros(3), abs=1e-3)
        variance = layout.by_feature(present * scores**2)
        assert variance == pytest.approx(layout.by_feature(present), rel=1e-3)
        assert (scores[layout.missing] == 0).all()


def test_autocorrelated_windows_without_drift_are_quiet() -> None:
    """Of 18 windows of autocorrelated rows at most two raise anything; taken for independent rows most do."""
    rng = np.random.default_rng(7)
    naive = aware = 0
    for i in range(18):
        before, after = (numbers(series(rng, n, 50, 0.5)) for n in (2000, (100, 300, 1000)[i % 3]))
        table = compared(before, after)
        naive += judge(table).any
        aware += judge(table, dependence=effects(before, after), reference_dependence=effects(before, before)).any
    assert aware <= 2
    assert naive >= 6
