"""Judgements: levels that hold, shifts that are found, effects in their unit, and what cannot be decided."""

import numpy as np
import pytest
from scipy import stats

from mlspan_processor.drift import Layout, Table
from mlspan_processor.drift.judgement import DEFAULT_LIMITS, Limits, judge, summary
from tests.processor.drift.samples import categories, compared, numbers, profiles

FEATURES = 100
MISSING = np.float32(np.nan).view(np.uint32)


def zipf(rng: np.random.Generator, n: int) -> np.ndarray:
    """Categories of 500 values."""
    shares = 1 / np.arange(1, 501)
    return categories(rng.choice(500, (n, FEATURES), p=shares / shares.sum()) + 1)


def tied(rng: np.random.Generator, n: int) -> np.ndarray:
    """Counts, most of them 0 to 3."""
    return numbers(rng.poisson([0.2, 1, 2, 5] * (FEATURES // 4), (n, FEATURES)))


def gaps(rng: np.random.Generator, n: int) -> np.ndarray:
    """Normal numbers of which up to half are missing."""
    values = rng.standard_normal((n, FEATURES))
    values[rng.random((n, FEATURES)) < np.geomspace(0.001, 0.5, FEATURES)] = np.nan
    return numbers(values)


def plain(rng: np.random.Generator, n: int) -> np.ndarray:
    """Normal numbers."""
    return numbers(rng.standard_normal((n, FEATURES)))


@pytest.mark.parametrize(("n", "m"), [(100, 2000), (1000, 2000), (1000, 500)])
@pytest.mark.parametrize(
    ("make", "kind"), [(plain, "numeric"), (tied, "numeric"), (gaps, "numeric"), (zipf, "categorical")]
)
def test_level_holds_without_drift(make: object, kind: str, n: int, m: int) -> None:
    """Of 400 features without drift no more are below .05, .01 and .001 than these shares allow, by the binomial."""
    assert callable(make)
    rng = np.random.default_rng(5)
    p = np.concatenate([judge(compared(make(rng, m), make(rng, n), kind)).p_value for _ in range(4)])
    for level in (0.05, 0.01, 0.001):
        assert (p <= level).sum() <= stats.binom.ppf(0.9999, len(p), level)


def test_windows_without_drift_are_quiet() -> None:
    """At the default limits hardly any of 25 windows of 100 features raises anything."""
    rng = np.random.default_rng(6)
    assert sum(judge(compared(plain(rng, 1000), plain(rng, 300))).any for _ in range(25)) <= 1


@pytest.mark.parametrize(("shift", "spread"), [(0.25, 1.0), (0.0, 1.25), (0.15, 1.15)], ids=["mean", "spread", "both"])
@pytest.mark.parametrize("level", [0.05, 0.0002])
def test_power_is_that_of_scipys_ks_on_raw_rows(shift: float, spread: float, level: float) -> None:
    """Within 5 points of scipy's power at the same level, and far above it for a change of spread."""
    rng = np.random.default_rng(7)
    ours, theirs = [], []
    for _ in range(2):
        before, after = rng.standard_normal((3000, FEATURES)), rng.normal(shift, spread, (400, FEATURES))
        ours += judge(compared(numbers(before), numbers(after))).p_value.tolist()
        theirs += [stats.ks_2samp(before[:, j], after[:, j], method="asymp").pvalue for j in range(FEATURES)]
    reached, scipys = (np.mean(np.array(p) <= level) for p in (ours, theirs))
    assert reached >= scipys - 0.05
    assert spread == 1.0 or shift > 0 or reached >= scipys + 0.2


def test_power_for_shares_is_that_of_scipys_chi_squared() -> None:
    """Within 5 points of chi-squared on the raw table, whether one share moves or all do."""
    rng = np.random.default_rng(8)
    base = np.array([0.3, 0.2, 0.2, 0.15, 0.1, 0.05])
    for change in (np.array([0, 0.06, 0, 0, 0, 0]), base * 0.2 * np.array([1, -1, 1, -1, 1, -1])):
        shares = (base + change) / (base + change).sum()
        ours, theirs = [], []
        for _ in range(3):
            before, after = rng.choice(6, (5000, FEATURES), p=base), rng.choice(6, (700, FEATURES), p=shares)
            ours += judge(compared(categories(before + 1), categories(after + 1), "categorical")).p_value.tolist()
            for j in range(FEATURES):
                counts = [np.bincount(side[:, j], minlength=6) for side in (before, after)]
                theirs.append(stats.chi2_contingency(counts, correction=False).pvalue)
        for level in (0.05, 0.0002):
            assert np.mean(np.array(ours) <= level) >= np.mean(np.array(theirs) <= level) - 0.05


def test_effect_is_the_shift_in_standard_deviations() -> None:
    """A mean shift of d sd has an effect of about d, whatever the number of rows; none has about 0."""
    rng = np.random.default_rng(9)
    for n, shift, near in ((20_000, 0.1, 0.02), (2000, 0.3, 0.05), (2000, 0.0, 0.04)):
        effect = judge(compared(numbers(rng.normal(0, 1, (20_000, 20))), numbers(rng.normal(shift, 1, (n, 20))))).effect
        assert effect.mean() == pytest.approx(shift, abs=near)


def test_a_significant_shift_of_hundredths_is_not_raised() -> None:
    """At 100,000 rows a shift of .03 sd is beyond doubt, and below the minimum effect."""
    rng = np.random.default_rng(10)
    judgement = judge(compared(numbers(rng.normal(0, 1, (100_000, 2))), numbers(rng.normal(0.03, 1, (100_000, 2)))))
    assert (judgement.p_adjusted < 1e-6).all()
    assert not judgement.any
    assert not judgement.material.any()


def test_missing_values_are_a_question_of_their_own() -> None:
    """More missing values are raised as that, with the change of their share, and not as a shift of values."""
    rng = np.random.default_rng(11)
    before, after = rng.standard_normal((2, 5000, 3))
    before[:250, 0] = after[:400, 0] = np.nan
    judgement = judge(compared(numbers(before), numbers(after)))
    assert judgement.causes(0) == ("missing",)
    assert judgement.missing.effect[0] == pytest.approx(0.03)
    assert np.isnan(judgement.missing.p_value[1])
    assert not judgement.drifted[1:].any()
    table = [[400, 4600], [250, 4750]]
    assert judgement.missing.p_value[0] == pytest.approx(stats.fisher_exact(table).pvalue, rel=0.1)


def test_new_categories_are_raised_and_the_usual_few_are_not() -> None:
    """Categories that new rows always bring are expected; three in a hundred rows of a new one are not."""
    rng = np.random.default_rng(12)
    shares = 1 / np.arange(1, 2001)
    shares /= shares.sum()
    before, usual = rng.choice(2000, (400, 1), p=shares) + 1, rng.choice(2000, (400, 1), p=shares) + 1
    quiet = judge(compared(categories(before), categories(usual), "categorical"))
    assert quiet.drift.unseen[0] > 0.1
    assert not quiet.any
    before = rng.integers(1, 6, (1000, 1))
    after = before.copy()
    after[:30] = 9
    found = judge(compared(categories(before), categories(after), "categorical"))
    assert "unseen" in found.causes(0)
    assert found.unseen.effect[0] == pytest.approx(0.03)


def test_values_out_of_range_are_unseen() -> None:
    """One in a hundred numbers far outside the reference's range is raised at 1,000 rows."""
    rng = np.random.default_rng(13)
    after = rng.standard_normal((1000, 1))
    after[:10] = 50
    judgement = judge(compared(numbers(rng.standard_normal((5000, 1))), numbers(after)))
    assert judgement.causes(0) == ("unseen",)
    assert judgement.unseen.p_value[0] < 1e-6


def test_a_constant_that_changes_is_drift_and_one_that_stays_is_none() -> None:
    """Both are decided."""
    before = np.ones((500, 2))
    after = before[:100] * [1, 2]
    judgement = judge(compared(numbers(before), numbers(after)))
    assert judgement.reasons == ("", "")
    assert judgement.drifted.tolist() == [False, True]
    codes = judge(compared(categories(before), categories(after), "categorical"))
    assert codes.drifted.tolist() == [False, True]


def test_all_values_going_missing_is_drift() -> None:
    """So is values appearing where there were none; the values' own question has no answer then."""
    rng = np.random.default_rng(14)
    some, none = rng.standard_normal((500, 1)), np.full((500, 1), np.nan)
    for before, after in ((some, none), (none, some)):
        judgement = judge(compared(numbers(before), numbers(after)))
        assert judgement.causes(0) == ("missing",)
        assert np.isnan(judgement.effect[0])
        assert summary(judgement, 0)["effect"] is None
    assert not judge(compared(numbers(none), numbers(none))).any


def test_too_few_rows_are_undecidable() -> None:
    """A small reference, a small or empty window: no p-value, no flag, and the reason."""
    rng = np.random.default_rng(15)
    many, few = rng.standard_normal((500, 1)), rng.standard_normal((99, 1)) + 5
    for before, after, what in ((few, many, "the reference has 99 rows"), (many, few[:29], "the window has 29 rows")):
        judgement = judge(compared(numbers(before), numbers(after)))
        assert judgement.reasons[0].startswith("undecidable, because ")
        assert what in judgement.reasons[0]
        assert np.isnan([judgement.p_value[0], judgement.effect[0], judgement.values.p_adjusted[0]]).all()
        assert not judgement.any
        assert summary(judgement, 0)["reason"] == judgement.reasons[0]
    assert judge(compared(numbers(many), numbers(many[:0]))).reasons[0].endswith("0 rows, fewer than 30")
    decided = judge(compared(numbers(many), numbers(few[:29])), Limits(min_rows=20))
    assert decided.any


def test_no_features() -> None:
    """A model without features has nothing to raise."""
    assert not judge(Table.of(Layout([]), np.zeros(0))).any


def test_weighted_rows_count_for_their_effective_number() -> None:
    """1,000 rows of which 100 carry nearly all weight say no more than 100 do."""
    rng = np.random.default_rng(16)
    weights = np.where(np.arange(1000) < 100, 100.0, 0.1)
    p = []
    for _ in range(3):
        before, after = rng.standard_normal((3000, FEATURES)), rng.standard_normal((1000, FEATURES))
        p += judge(compared(numbers(before), numbers(after), weights=weights)).p_value.tolist()
    assert np.sum(np.array(p) <= 0.05) <= stats.binom.ppf(0.9999, len(p), 0.05)
    whole = judge(compared(numbers(before), numbers(after + 0.3), weights=np.full(1000, 7.0)))
    assert whole.p_value == pytest.approx(judge(compared(numbers(before), numbers(after + 0.3))).p_value)


def test_dependence_widens() -> None:
    """With a design effect of d a window is judged as one of n / d rows."""
    rng = np.random.default_rng(17)
    table = compared(numbers(rng.standard_normal((5000, 3))), numbers(rng.normal(0.15, 1, (2000, 3))))
    once, thrice = judge(table, dependence=1.0), judge(table, dependence=3.0)
    assert (thrice.p_value > once.p_value).all()
    assert thrice.rows == pytest.approx(once.rows / 3)
    assert thrice.reference_rows == pytest.approx(once.reference_rows / 3)
    assert judge(table, dependence=3.0, reference_dependence=100.0).reference_rows == pytest.approx(5000 / 64)
    assert judge(table, dependence=1.0, reference_dependence=3.0).rows == pytest.approx(once.rows)
    short = compared(numbers(rng.standard_normal((5000, 3))), numbers(rng.standard_normal((300, 3))))
    assert judge(short, dependence=1.0, reference_dependence=3.0).rows == pytest.approx(100)


def test_more_categories_than_are_kept() -> None:
    """Categories folded into "other" raise nothing without drift, though the reference's own are the ones kept."""
    rng = np.random.default_rng(18)
    shares = 1 / np.arange(1, 3001) ** 0.7
    shares /= shares.sum()
    before, after = (categories(rng.choice(3000, (n, 30), p=shares) + 1) for n in (5000, 3000))
    p = judge(compared(before, after, "categorical")).p_value
    assert (p > 0.001).all()


def test_the_window_is_as_good_a_reference() -> None:
    """A reference of 300 and a window of 10,000 rows hold the level too."""
    rng = np.random.default_rng(19)
    p = np.concatenate([judge(compared(plain(rng, 300), plain(rng, 5000))).p_value for _ in range(4)])
    assert (p <= 0.01).sum() <= stats.binom.ppf(0.9999, len(p), 0.01)


def test_default_limits_are_those_documented() -> None:
    """The features' and the detector's levels together stay under 1 %."""
    assert DEFAULT_LIMITS.level + DEFAULT_LIMITS.multivariate_level < 0.01
    assert profiles(numbers(np.zeros((3, 1))), "numeric")[0].name == "x0"
