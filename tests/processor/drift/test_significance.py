"""The tests behind a judgement against scipy and simulation."""

import numpy as np
import pytest
from scipy import stats

from mlspan_processor.drift.combine import joined, quadratic_tail
from mlspan_processor.drift.shares import beyond_extreme, differs, risen

TABLES = [(3, 300, 10, 10_000), (30, 300, 600, 10_000), (20, 100, 1000, 10_000), (9, 300, 70, 10_000)]


@pytest.mark.parametrize(
    ("a", "n", "c", "m"), [*TABLES, (12, 100, 0, 200), (100, 100, 50, 100), (2500, 10_000, 2200, 10_000)]
)
def test_risen_is_fishers_exact_test(a: int, n: int, c: int, m: int) -> None:
    """The one-sided p-value, to a quarter and a half above at the corners, and never far below."""
    exact = stats.fisher_exact([[a, n - a], [c, m - c]], alternative="greater").pvalue
    assert 0.95 <= risen(a, n, c, m) / exact <= 4


@pytest.mark.parametrize(("a", "n", "c", "m"), [(0, 0, 3, 10), (3, 10, 0, 0), (0, 10, 0, 10), (10, 10, 10, 10)])
def test_nothing_to_compare(a: int, n: int, c: int, m: int) -> None:
    """No rows, none of them or all of them in the cell: p is 1."""
    assert differs(a, n, c, m) == 1.0


def test_a_fall_is_no_rise() -> None:
    """A share that fell has a large one-sided p-value, and a small two-sided one."""
    assert risen(2, 1000, 500, 10_000) > 0.5
    assert differs(2, 1000, 500, 10_000) < 1e-9
    assert differs(0, 300, 1, 10_000) == pytest.approx(1.0)


def test_fractional_counts_lie_between() -> None:
    """Effective rows are no whole numbers."""
    assert risen(9, 100, 20, 1000) < risen(8.5, 100, 20, 1000) < risen(8, 100, 20, 1000)


def test_beyond_extreme_is_exact() -> None:
    """The probability that the most extreme rows of both samples are all the window's."""
    assert beyond_extreme(2, 10, 90) == pytest.approx(10 / 100 * 9 / 99)
    assert beyond_extreme(0, 10, 90) == 1.0


def test_joined_holds_its_level_and_follows_the_smaller() -> None:
    """Between the smallest p-value over its weight and that of the other; NaN is left out."""
    weights = np.array([[0.8], [0.2]])
    p = joined(np.array([[1e-6, 0.5, np.nan, np.nan], [0.5, 1e-6, 0.03, np.nan]]), weights)
    assert p[0] == pytest.approx(1e-6 / 0.8, rel=0.01)
    assert p[1] == pytest.approx(1e-6 / 0.2, rel=0.01)
    assert p[2] == pytest.approx(0.03)
    assert np.isnan(p[3])
    rng = np.random.default_rng(0)
    null = joined(rng.random((2, 100_000)), weights)
    for level in (0.05, 0.001):
        assert np.mean(null <= level) == pytest.approx(level, rel=0.25)


def test_quadratic_tail_is_chi_squared_where_it_should_be() -> None:
    """Equal eigenvalues: scipy's chi-squared; unequal ones: simulation."""
    x = np.array([1.0, 8.0, 30.0, 80.0])
    p = quadratic_tail(x, np.full((4, 6), 2.0))
    assert p == pytest.approx(stats.chi2.sf(x / 2, 6), rel=0.03)
    own = 1 / (np.arange(1, 31) * np.arange(2, 32))
    draws = np.random.default_rng(1).chisquare(1, (200_000, 30)) @ own
    for limit in (1.2, 2.5, 3.9):
        assert quadratic_tail(np.array([limit]), own[None, :])[0] == pytest.approx(np.mean(draws >= limit), rel=0.05)
    assert quadratic_tail(np.array([3.0]), np.zeros((1, 4)))[0] == 1.0


def test_quadratic_tail_is_anderson_darlings() -> None:
    """The 5 % and 1 % points of Anderson and Darling's own table (1954)."""
    own = 1 / (np.arange(1.0, 400) * np.arange(2, 401))
    p = quadratic_tail(np.array([2.492, 3.857]), np.tile(own, (2, 1)))
    assert p == pytest.approx([0.05, 0.01], rel=0.08)
