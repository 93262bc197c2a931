"""All features together: what the margins cannot see, at a level that holds."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from scipy.signal import lfilter

from mlspan_processor.drift.judgement import judge
from mlspan_processor.drift.multivariate import MAX_DIMENSIONS, Multivariate
from mlspan_processor.sample import Sample
from tests.processor.drift.samples import categories, compared, numbers, sample


def pair(rng: np.random.Generator, n: int, correlation: float, features: int = 20) -> np.ndarray:
    """Normal columns (n, features), the first two correlated."""
    values = rng.standard_normal((n, features))
    values[:, 1] = correlation * values[:, 0] + (1 - correlation**2) ** 0.5 * values[:, 1]
    return values


@pytest.mark.parametrize("n", [100, 1000])
@pytest.mark.parametrize("what", ["normal", "categories", "ties"])
def test_level_holds_without_drift(what: str, n: int) -> None:
    """Of 60 windows no more are below .05 than the binomial allows, and at most one at .001."""
    rng = np.random.default_rng(0)

    def draw(rows: int) -> Sample:
        if what == "categories":
            return sample(categories(rng.geometric(0.2, (rows, 12))), "categorical")
        values = rng.standard_normal((rows, 20)) @ np.triu(np.ones((20, 20)))
        return sample(numbers(values if what == "normal" else rng.poisson(1, (rows, 20))))

    p, drifted = [], 0
    for _ in range(3):
        detector = Multivariate.fit(draw(2000))
        judged = [detector.judge(draw(n)) for _ in range(20)]
        p += [one.p_value for one in judged]
        drifted += sum(one.drifted for one in judged)
    assert drifted <= 1
    assert np.sum(np.array(p, float) <= 0.05) <= stats.binom.ppf(0.9999, 60, 0.05)


@pytest.mark.parametrize(
    ("exponent", "count", "rows", "n"), [(1.3, 500, 1000, 300), (1.3, 500, 1000, 1000), (0.0, 20, 200, 2000)]
)
def test_rare_categories_hold_the_level(exponent: float, count: int, rows: int, n: int) -> None:
    """What a small reference knows by chance, of Zipf's tail or of many equal categories, is no drift of the window."""
    rng = np.random.default_rng(0)
    shares = np.arange(1.0, count + 1) ** -exponent

    def draw(size: int) -> Sample:
        return sample(categories(rng.choice(count, (size, 15), p=shares / shares.sum())), "categorical")

    judged = [Multivariate.fit(draw(rows)).judge(draw(n)) for _ in range(30)]
    assert sum(one.drifted for one in judged) <= 1
    p = [one.p_value for one in judged if one.p_value is not None]
    assert np.sum(np.array(p) <= 0.05) <= stats.binom.ppf(0.9999, 30, 0.05)


def test_a_correlation_that_goes_is_seen_and_named() -> None:
    """Every margin stays as it was and is not raised; the pair is."""
    rng = np.random.default_rng(1)
    before, after = numbers(pair(rng, 5000, 0.7)), numbers(pair(rng, 500, 0.0))
    judgement = Multivariate.fit(sample(before)).judge(sample(after))
    assert judgement.drifted
    assert judgement.test == "pairs"
    assert '"x0" and "x1"' in judgement.text
    assert judgement.effect == pytest.approx(0.68, abs=0.12)
    assert not judge(compared(before, after)).any


def test_many_small_shifts_are_seen_together() -> None:
    """Shifts too small for each of 300 dimensions of an embedding are one shift of all; components stand in."""
    rng = np.random.default_rng(2)
    mixing = rng.standard_normal((40, 300))

    def draw(n: int, shift: float) -> Sample:
        values = (rng.standard_normal((n, 40)) + shift) @ mixing + 0.1 * rng.standard_normal((n, 300))
        return sample(numbers(values))

    detector = Multivariate.fit(draw(3000, 0.0))
    assert detector.scores(draw(10, 0.0)).shape[1] <= MAX_DIMENSIONS
    judgement = detector.judge(draw(600, 0.15))
    assert judgement.drifted
    assert judgement.test == "means"
    assert not detector.judge(draw(600, 0.0)).drifted


def test_unlikely_combinations_raise_the_distance() -> None:
    """The statistic is the mean squared distance over the reference's: 1 without drift, more where rows look odd."""
    rng = np.random.default_rng(3)
    mixing = np.triu(np.ones((15, 15)))
    detector = Multivariate.fit(sample(numbers(rng.standard_normal((4000, 15)) @ mixing)))
    same = detector.judge(sample(numbers(rng.standard_normal((800, 15)) @ mixing)))
    shuffled = rng.standard_normal((800, 15)) @ mixing
    odd = detector.judge(sample(numbers(rng.permuted(shuffled, axis=0))))
    assert same.statistic == pytest.approx(1.0, abs=0.1)
    assert odd.statistic is not None
    assert odd.statistic > 2
    assert odd.drifted


def test_state_is_json() -> None:
    """Written and read again it says the same."""
    rng = np.random.default_rng(4)
    detector = Multivariate.fit(sample(numbers(pair(rng, 500, 0.5))))
    again = Multivariate.from_dict(json.loads(json.dumps(detector.to_dict(), allow_nan=False)))
    window = sample(numbers(pair(rng, 200, 0.1)))
    assert again.judge(window) == detector.judge(window)
    assert Multivariate.from_dict(json.loads(json.dumps(Multivariate.fit(window.take(slice(5))).to_dict()))).reason


def test_undecidable() -> None:
    """Small references and windows, constants, missing and retyped features: a reason and no number."""
    rng = np.random.default_rng(5)
    many = sample(numbers(pair(rng, 500, 0.5)))
    constant = sample(numbers(np.hstack([np.ones((500, 3)), rng.standard_normal((500, 1))])))
    detector = Multivariate.fit(many)
    named = replace(many, names=("other", *many.names[1:]))
    typed = replace(many, types=("categorical", *many.types[1:]))
    for one, window in (
        (Multivariate.fit(many.take(slice(99))), many),
        (Multivariate.fit(constant), constant),
        (Multivariate.fit(sample(numbers(np.full((500, 3), np.nan)))), many),
        (detector, many.take(slice(30))),
        (detector, named),
        (detector, typed),
    ):
        judgement = one.judge(window)
        assert judgement.reason.startswith("undecidable, because ")
        assert (judgement.p_value, judgement.effect, judgement.drifted) == (None, None, False)


def test_odd_values_are_survived() -> None:
    """Missing and infinite values, all missing in the window, rare flags."""
    rng = np.random.default_rng(6)
    values = rng.standard_normal((1000, 6))
    values[::7, 0], values[::9, 1], values[::11, 1] = np.nan, np.inf, -np.inf
    values[:, 2] = rng.random(1000) < 0.01
    detector = Multivariate.fit(sample(numbers(values)))
    assert "x2" not in detector.names
    values[:, 3] = np.nan
    judgement = detector.judge(sample(numbers(values[:300])))
    assert judgement.p_value is not None
    assert np.isfinite(judgement.p_value)


def chained(rng: np.random.Generator, n: int, features: int, correlation: float) -> Sample:
    """Normal columns of which neighbours in time have this correlation."""
    steps = rng.standard_normal((n + 100, features)) * (1 - correlation**2) ** 0.5
    return sample(numbers(lfilter([1.0], [1.0, -correlation], steps, axis=0)[100:]))


@pytest.mark.parametrize(
    ("correlation", "features", "rows", "n"), [(0.5, 20, 3000, 300), (0.5, 50, 1000, 2000), (0.8, 50, 1000, 2000)]
)
def test_autocorrelated_rows_hold_the_level(correlation: float, features: int, rows: int, n: int) -> None:
    """Autocorrelated rows without drift are not drifted, however few of them a reference has for its features."""
    rng = np.random.default_rng(7)
    judged = []
    for _ in range(6):
        detector = Multivariate.fit(chained(rng, rows, features, correlation))
        judged += [detector.judge(chained(rng, n, features, correlation)) for _ in range(5)]
    assert np.sum(np.array([one.p_value for one in judged], float) <= 0.05) <= 6
    assert not any(one.drifted for one in judged)


def test_rows_that_hardly_tell_anything_are_undecidable() -> None:
    """Of rows that follow each other closely, a reference or a window may be worth too few to be compared."""
    rng = np.random.default_rng(9)
    small = Multivariate.fit(chained(rng, 500, 5, 0.95))
    assert "depend on each other and are worth" in small.reason
    large = Multivariate.fit(chained(rng, 20_000, 5, 0.95))
    judgement = large.judge(chained(rng, 200, 5, 0.95))
    assert "depend on each other and are worth" in judgement.reason
    assert (judgement.p_value, judgement.effect, judgement.drifted) == (None, None, False)
    assert large.judge(chained(rng, 5_000, 5, 0.95)).p_value is not None


def test_weights_stand_for_rows() -> None:
    """Equal weights change nothing; the first 50,000 rows of very many are enough for a reference."""
    rng = np.random.default_rng(8)
    columns = numbers(pair(rng, 1000, 0.5))
    detector = Multivariate.fit(sample(columns))
    window = numbers(pair(rng, 300, 0.2))
    once, tenfold = detector.judge(sample(window)), detector.judge(sample(window, weights=np.full(300, 10.0)))
    assert tenfold.p_value == pytest.approx(once.p_value, rel=1e-3)
