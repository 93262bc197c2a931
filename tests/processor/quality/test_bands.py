"""Bands hold the truth as often as they say, and say what scipy says where it says anything."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

from mlspan_processor.quality.bands import (
    Z95,
    average,
    bands,
    dice,
    difference,
    mean,
    p_value,
    positive,
    rows_behind,
    share,
    student,
    wider,
)
from mlspan_processor.quality.base import Labelled, wilson
from mlspan_processor.quality.classification import Classification
from mlspan_processor.quality.realised import quality_of, realised
from mlspan_processor.quality.regression import Regression
from mlspan_processor.quality.runs import Runs
from mlspan_processor.sample import Sample
from tests.processor.anomaly.series import autocorrelated
from tests.processor.quality.samples import binary, multiclass, multilabel, regression
from tests.processor.quality.test_runs import chained

REPEATS = 100
# Of 100 samples a band of 95 % misses the truth in more than 13 only once in 1,000 times.
MISSES = int(stats.binom.ppf(0.999, REPEATS, 0.05))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("maker", [binary, multiclass, multilabel, regression])
def test_bands_cover_the_truth(maker: Callable[..., Sample], weighted: bool) -> None:
    """Of 100 samples of 400 rows about 95 % have the figure of a very large one in their band."""
    rng = np.random.default_rng(7)
    truth = {name: one.value for name, one in realised(maker(rng, 60_000)).items()}
    missed = dict.fromkeys(truth, 0)
    for _ in range(REPEATS):
        for name, one in realised(maker(rng, 400, weighted=weighted)).items():
            value = truth[name]
            assert value is not None
            assert one.low is not None
            assert one.high is not None
            missed[name] += not one.low - 1e-9 <= value <= one.high + 1e-9
    assert max(missed.values()) <= MISSES, missed


@pytest.mark.parametrize("rows", [200, 1000])
@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.8])
def test_bands_of_errors_in_runs_cover_the_truth(correlation: float, rows: int) -> None:
    """With what the rows before say of runs about 92 % of the windows of a stream do, without it half as many."""
    held: list[bool] = []
    plain: list[bool] = []
    for seed in range(20):
        errors = chained(np.random.default_rng(seed), 10_000 + 10 * rows, 0.1, correlation)
        runs = Runs()
        runs.add(errors[:10_000])
        for start in range(10_000, len(errors), rows):
            window = errors[start : start + rows]
            quality = Classification(2)
            quality.update(Labelled(np.zeros(rows), window, None, 0, np.ones(rows)))
            for into, effect in ((held, runs.within(rows)), (plain, 1.0)):
                band = bands(quality, design_effect=effect)["accuracy"]
                assert band is not None
                into.append(band[0] <= 0.9 <= band[1])
            runs.add(window)
    assert 0.87 <= np.mean(held) <= 0.98
    assert np.mean(plain) <= {0.0: 0.98, 0.5: 0.8, 0.8: 0.6}[correlation]


def test_mean_losses_that_follow_each_other_have_wider_bands() -> None:
    """A regression's errors with a correlation of .8: the mean absolute error of windows, too."""
    held: list[bool] = []
    plain: list[bool] = []
    truth = float(np.sqrt(2 / np.pi))
    for seed in range(20):
        errors = autocorrelated(np.random.default_rng(seed), 20_000, 0.8)
        runs = Runs()
        runs.add(np.abs(errors[:10_000]) / 8)
        for start in range(10_000, 20_000, 1000):
            window = errors[start : start + 1000]
            quality = Regression()
            quality.update(Labelled(np.zeros(1000), window, None, 0, np.ones(1000)))
            for into, effect in ((held, runs.within(1000)), (plain, 1.0)):
                band = bands(quality, design_effect=effect)["mae"]
                assert band is not None
                into.append(band[0] <= truth <= band[1])
    assert 0.87 <= np.mean(held) <= 0.98
    assert np.mean(plain) <= 0.8


def test_a_share_of_rows_that_are_worth_less_is_that_of_fewer_rows() -> None:
    """Exactly: Wilson's interval of n / d rows."""
    quality = Classification(2)
    quality.update(Labelled(np.zeros(400), (np.arange(400) < 40).astype(float), None, 0, np.ones(400)))
    assert bands(quality, design_effect=4.0)["accuracy"] == pytest.approx(wilson(0.9, 100))


def test_bands_of_sums_are_those_of_rows() -> None:
    """Within what histograms blur; for several classes they may only be wider."""
    sample = binary(np.random.default_rng(0), 2000)
    exact, sums = realised(sample), bands(quality_of(sample))
    for name, one in exact.items():
        assert sums[name] == pytest.approx((one.low, one.high), abs=0.002)
    sample = multiclass(np.random.default_rng(0), 2000)
    exact, sums = realised(sample), bands(quality_of(sample))
    for name, one in exact.items():
        band = sums[name]
        assert band is not None
        assert one.low is not None
        assert band[0] <= one.low + 0.002


def test_a_share_is_wilsons() -> None:
    """Accuracy and recall have scipy's interval of a proportion."""
    sample = binary(np.random.default_rng(0), 300)
    found = realised(sample)
    right = int((sample.predictions == sample.labels).sum())
    expected = stats.binomtest(right, 300).proportion_ci(method="wilson")
    assert found["accuracy"][1:3] == pytest.approx((expected.low, expected.high))
    positives = int(sample.labels.sum())
    hits = int((sample.predictions * sample.labels).sum())
    expected = stats.binomtest(hits, positives).proportion_ci(method="wilson")
    assert found["recall"][1:3] == pytest.approx((expected.low, expected.high))


def test_a_mean_is_students() -> None:
    """The bias has scipy's interval."""
    sample = regression(np.random.default_rng(0), 25)
    errors = sample.predictions - sample.labels
    expected = stats.ttest_1samp(errors, 0.0).confidence_interval()
    assert realised(sample)["bias"][1:3] == pytest.approx((expected.low, expected.high), rel=1e-6)


def test_perfect_answers_have_a_band() -> None:
    """Shares of 1 reach down by what so few rows allow; errors of 0 have none."""
    sample = binary(np.random.default_rng(0), 50)
    for name in ("accuracy", "f1", "balanced_accuracy", "mcc"):
        low, high = realised(Sample(**_perfect(sample)))[name][1:3]
        assert high == pytest.approx(1.0)
        assert low is not None
        assert 0.5 < low < 0.98
    perfect = regression(np.random.default_rng(0), 50)
    found = realised(Sample(**{**_fields(perfect), "predictions": perfect.labels}))
    assert found["mae"][:3] == (0.0, None, None)


def _fields(sample: Sample) -> dict[str, Any]:
    return {name: getattr(sample, name) for name in sample.__slots__}


def _perfect(sample: Sample) -> dict[str, Any]:
    return {**_fields(sample), "predictions": sample.labels, "scores": None}


def test_rules() -> None:
    """Each rule at its ends."""
    assert share(0.5, 0)(Z95) == (0.0, 1.0)
    assert share(0.3, 100)(Z95) == wilson(0.3, 100)
    assert dice(1.0, 50)(Z95) == pytest.approx((2 * wilson(1, 50)[0] / (1 + wilson(1, 50)[0]), 1.0))
    assert mean(1.0, 1, 0.1)(Z95) is None
    assert positive(0.0, 100, 0.0)(Z95) is None
    alone = average([(1.0, 0.4, share(0.4, 80))])(Z95)
    assert alone == pytest.approx(wilson(0.4, 80))
    parts = [(0.5, 0.4, share(0.4, 80)), (0.5, 0.6, share(0.6, 80))]
    one, both = average(parts)(Z95), average(parts, dependent=True)(Z95)
    assert one is not None
    assert both is not None
    assert both[0] < one[0] < 0.5 < one[1] < both[1]
    assert wider(share(0.4, 80), mean(0.4, 1, 0.1))(Z95) == wilson(0.4, 80)


@pytest.mark.parametrize("value", [0.0, 0.013, 0.5, 0.97, 1.0])
@pytest.mark.parametrize("z", [Z95, 4.5])
def test_rows_behind_a_band(value: float, z: float) -> None:
    """Wilson's interval tells how many rows it is of; a band of no width does not."""
    assert rows_behind(value, wilson(value, 123.4, z), z) == pytest.approx(123.4)
    assert rows_behind(value, (value, value), z) is None


def test_difference_is_newcombes() -> None:
    """His table II: 56/70 - 48/80 has the interval 0.0524 to 0.3339 (Stat. Med. 17, 1998, method 10)."""
    low, high = difference(48 / 80, wilson(48 / 80, 80), 56 / 70, wilson(56 / 70, 70))
    assert (low, high) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_p_value_agrees_with_its_band() -> None:
    """It is below 0.05 just where the band of the difference leaves 0 out, and uniform enough under the null."""
    rng = np.random.default_rng(0)
    small = 0
    for _ in range(REPEATS):
        a, b = rng.binomial(200, 0.3, 2) / 200
        p = p_value(a, share(a, 200), b, share(b, 200))
        low, high = difference(a, wilson(a, 200), b, wilson(b, 200))
        assert p is not None
        assert (p < 0.05) == (not low <= 0 <= high)
        small += p < 0.05
    assert small <= MISSES
    assert p_value(0.5, share(0.5, 10), 0.5, share(0.5, 10)) == 1.0
    assert p_value(0.5, mean(0.5, 1, 0), 0.5, share(0.5, 10)) is None


@pytest.mark.parametrize("n", [2, 11, 40, 100, 300, 10_000])
def test_quantiles_grow_without_end(n: int) -> None:
    """Bands are never narrower at more standard deviations, as far as rows that depend on each other stretch them."""
    far = [student(z, n) for z in (1.0, 5.0, 20.0, 36.0, 36.9, 37.1, 40.0, 80.0, 400.0)]
    assert far == sorted(far)
    assert far[0] == pytest.approx(-stats.t.ppf(stats.norm.cdf(-1.0), n - 1))


@pytest.mark.parametrize("dependence", [1.0, 1.3, 9.0])
@pytest.mark.parametrize("n", [10, 31, 40, 300])
def test_p_value_of_errors_far_apart(n: int, dependence: float) -> None:
    """Errors that rose have a p-value however few rows there are and however long their bands: that of their logs."""
    stretched = [
        lambda z, one=one: one(z * dependence**0.5) for one in (positive(1e6, n, 1e10), positive(1.5e6, n, 2.25e10))
    ]
    p = p_value(1e6, stretched[0], 1.5e6, stretched[1])
    assert p is not None
    assert 0.001 < p < 0.5
