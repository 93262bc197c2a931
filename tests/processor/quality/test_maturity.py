"""Label delays, the maturity curve under censoring, and which windows may be compared."""

import json

import numpy as np
import pytest

from mlspan_processor.quality.maturity import Cohort, Curve, Delays, curve, maturity

HOUR = 3600
NOW = 1_700_000_000 * 10**9


def cohorts(rng: np.random.Generator, hours: int, share: float = 0.4, mean: float = 6.0) -> list[Cohort]:
    """One an hour for so many hours before now, 500 predictions each; labels come after an exponential delay."""
    result = []
    for age in range(hours):
        delays = Delays()
        waits = rng.exponential(mean * HOUR, 500)
        came = waits[(rng.random(500) < share) & (waits <= age * HOUR)]
        delays.add(came)
        end = NOW - age * HOUR * 10**9
        result.append(Cohort(end, end, 500.0, delays))
    return result


def test_quantiles() -> None:
    """Are within 20 % of the exact ones, merged as in one pass, and survive as JSON."""
    seconds = np.random.default_rng(0).lognormal(6, 1, 5000)
    one, parts = Delays(), Delays()
    one.add(seconds)
    for part in np.split(seconds, 10):
        other = Delays()
        other.add(part)
        parts.merge(other)
    np.testing.assert_array_equal(one.counts, parts.counts)
    again = Delays.from_dict(json.loads(json.dumps(one.to_dict())))
    for q in (0.1, 0.5, 0.95):
        assert again.quantile(q) == pytest.approx(np.quantile(seconds, q), rel=0.2)
    assert one.nbytes <= 440


def test_odd_delays() -> None:
    """Negative and tiny ones count as a second, NaN not at all, huge ones in the last bin; none has no quantile."""
    delays = Delays()
    assert delays.quantile(0.5) is None
    delays.add(np.array([-5.0, 0.0, np.nan, 1e12]), np.array([1.0, 2.0, 4.0, 8.0]))
    assert delays.labels == 11
    assert delays.quantile(0.1) == pytest.approx(1.0, rel=0.2)


def test_curve_is_not_biased_by_young_cohorts() -> None:
    """Kaplan and Meier's estimate finds coverage by age and in the end, though most cohorts are too young to tell."""
    known = curve(cohorts(np.random.default_rng(0), 72), NOW)
    assert known.reason == ""
    assert known.final == pytest.approx(0.4, abs=0.03)
    for hours in (2, 6, 12, 24):
        assert known.at(hours * HOUR) == pytest.approx(0.4 * (1 - np.exp(-hours / 6)), abs=0.04)
    assert known.at(0.0) == 0.0


def test_which_windows_are_mature() -> None:
    """A window of one hour ago is not, one of two days ago is; so is one that is fully labelled."""
    known = curve(cohorts(np.random.default_rng(0), 96), NOW)
    young = maturity(known, NOW - HOUR * 10**9, NOW, 500, 30)
    assert not young.mature
    assert "only 1" in young.reason
    assert "of the labels that will come" in young.reason
    old = maturity(known, NOW - 48 * HOUR * 10**9, NOW, 500, 200)
    assert old.mature
    assert old.reason == ""
    assert old.coverage == 0.4
    assert maturity(known, NOW, NOW, 500, 490).mature


def test_nobody_knows() -> None:
    """Few labels, no old cohort, labels that still come, no predictions: not mature, with a reason."""
    rng = np.random.default_rng(0)
    few = curve(cohorts(rng, 2)[:1], NOW)
    assert few.final is None
    assert few.at(10.0) is None
    assert "only 0 labels" in maturity(few, NOW, NOW, 500, 5).reason
    growing = curve(cohorts(rng, 12, mean=24.0), NOW)
    assert "labels still come at" in maturity(growing, NOW - 10 * HOUR * 10**9, NOW, 500, 50).reason
    assert "no predictions" in maturity(growing, NOW, NOW, 0, 0).reason
    delays = Delays()
    delays.add(np.full(50, 5.0))
    fresh = curve([Cohort(NOW, NOW, 100.0, delays)], NOW)
    assert fresh.reason == "undecidable, because no window is old enough"
    assert not maturity(Curve(np.zeros(0), np.zeros(0)), NOW, NOW, 10, 5).mature
