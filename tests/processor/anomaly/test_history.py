"""Thresholds from history, change points, and what both are built of."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
from scipy import stats

from mlspan_processor.anomaly import ChangePoint, History, Settings
from mlspan_processor.anomaly.base import Detector
from mlspan_processor.anomaly.counting import by_chance
from mlspan_processor.anomaly.incidents import Finding, Incidents
from mlspan_processor.anomaly.peaks import KEPT, Peaks
from mlspan_processor.anomaly.tail import Tail
from tests.processor.anomaly.series import A_DAY, CALM, Floats, anomalies, daily, judged, times, white


def _opened(detector: Detector, values: Floats, rows: float | None = None) -> list[int]:
    """Where incidents open, with the default persistence and cool-down."""
    incidents = Incidents()
    places = []
    for i, verdict in enumerate(judged(detector, values, rows)):
        time = times(i + 1)[-1]
        found = [
            Finding("latency", "latency", "m", "1", start_ns=time, end_ns=time, certain=verdict.certain)
            for _ in range(verdict.is_anomaly)
        ]
        changes = incidents.step(time, found, [("m", "1")])
        places += [i for change in changes if change.kind == "opened"]
    return places


@pytest.mark.parametrize("kind", sorted(CALM))
def test_false_incidents_are_rare(kind: str) -> None:
    """Without anomalies at most two incidents in 2,500 values; five where the fourth moment is infinite."""
    settings = Settings(counting="count") if kind in {"counts", "low counts"} else Settings()
    opened = _opened(History(settings), CALM[kind](np.random.default_rng(20), 2500))
    assert len(opened) <= (5 if kind == "heavy tails" else 2)


Change = Callable[[Floats, int], None]


def _spike(values: Floats, at: int) -> None:
    values[at : at + 2] += 40


def _shift(values: Floats, at: int) -> None:
    values[at:] += 12


def _creep(values: Floats, at: int) -> None:
    values[at : at + 150] += np.linspace(0, 15, 150)


def _noise(values: Floats, at: int) -> None:
    values[at : at + 150] = 50 + 4 * (values[at : at + 150] - 50)


def _flat(values: Floats, at: int) -> None:
    values[at : at + 150] = values[at]


@pytest.mark.parametrize(
    ("change", "delay"),
    [(_spike, 2), (_shift, 5), (_creep, 120), (_noise, 30), (_flat, 60)],
    ids=["spike", "shift", "creep", "noise", "flat"],
)
def test_what_goes_wrong_is_found_in_time(change: Change, delay: int) -> None:
    """The first anomaly after a change of known place comes within so many values, in four of five series."""
    found = 0
    for seed in range(5):
        values = white(np.random.default_rng(seed), 1000)
        change(values, 800)
        found += any(800 <= at <= 800 + delay for at in anomalies(judged(History(), values)))
    assert found >= 4


def test_a_level_shift_is_one_incident_and_then_normal() -> None:
    """A new level opens one incident, is taken for normal, and the shift back is an incident of its own."""
    values = white(np.random.default_rng(30), 2400)
    values[800:1600] += 20
    verdicts = judged(History(), values)
    rebased = [i for i, verdict in enumerate(verdicts) if verdict.rebased]
    assert len(rebased) == 2
    assert 800 < rebased[0] < 900
    assert 1600 < rebased[1] < 1700
    opened = [at for at in _opened(History(), values) if at >= 700]
    assert len(opened) == 2
    assert 800 <= opened[0] <= 805
    assert 1600 <= opened[1] <= 1605
    assert verdicts[1000].expected == pytest.approx(70, abs=1.5)


def test_the_season_is_found_and_its_absence_an_anomaly() -> None:
    """After some days the course of the day is expected; a day without its low night is an anomaly."""
    values = daily(np.random.default_rng(31), 8 * A_DAY)
    night = 6 * A_DAY + 3 * A_DAY // 4
    values[night - 15 : night + 15] = 100.0
    verdicts = judged(History(), values)
    assert verdicts[5 * A_DAY + A_DAY // 4].expected == pytest.approx(120, abs=4)
    assert any(night - 15 <= at <= night + 15 for at in anomalies(verdicts))
    assert not [at for at in anomalies(verdicts) if 4 * A_DAY < at < night - 15]


def test_noise_has_no_season() -> None:
    """White noise is expected at its level, not at what it happened to be yesterday."""
    verdicts = judged(History(), white(np.random.default_rng(32), 4 * A_DAY))
    assert np.std([verdict.expected for verdict in verdicts[300:] if verdict.expected is not None]) < 0.5


def test_a_season_moves_along_with_the_level() -> None:
    """After a confirmed shift the course of the day is expected at the new level."""
    values = daily(np.random.default_rng(38), 7 * A_DAY)
    values[5 * A_DAY :] += 60
    verdicts = judged(History(), values)
    assert any(verdict.rebased for verdict in verdicts[5 * A_DAY : 5 * A_DAY + 120])
    assert verdicts[6 * A_DAY + A_DAY // 4].expected == pytest.approx(180, abs=10)
    assert verdicts[6 * A_DAY + 3 * A_DAY // 4].expected == pytest.approx(140, abs=10)


def test_a_constant_series_that_moves_is_an_anomaly() -> None:
    """Any clear change of a constant is one, a change below a hundredth is none."""
    for to, expected in ((45.0, True), (42.1, False)):
        values = np.full(400, 42.0)
        values[300] = to
        assert bool(anomalies(judged(History(), values))) == expected


def test_few_rows_are_no_incident() -> None:
    """An accuracy of 2 in 4 is chance, the same from 400 rows is not."""
    rng = np.random.default_rng(33)
    values = rng.binomial(400, 0.95, 400) / 400
    for rows, expected in ((4.0, False), (400.0, True)):
        detector = History(Settings(counting="share", direction="down"))
        judged(detector, values, 400.0)
        assert detector.update(times(401)[-1], 0.5, rows).is_anomaly == expected


def test_small_counts_need_more_than_counting() -> None:
    """Three errors after windows of nearly none are what Poisson does; twelve are not."""
    values = np.zeros(400)
    values[::7] = 1.0
    for count, expected in ((2.0, False), (12.0, True)):
        detector = History(Settings(counting="count"))
        judged(detector, values)
        assert detector.update(times(401)[-1], count).is_anomaly == expected


def test_the_least_effect_that_matters() -> None:
    """What is significant and smaller than `min_effect` is no anomaly."""
    values = 1.0 + 1e-4 * np.random.default_rng(34).standard_normal(400)
    for effect, expected in ((0.5, False), (0.1, True)):
        detector = History(Settings(min_effect=effect))
        judged(detector, values)
        assert detector.update(times(401)[-1], 1.2).is_anomaly == expected


@pytest.mark.parametrize(
    ("direction", "up", "down"), [("both", True, True), ("up", True, False), ("down", False, True)]
)
def test_only_the_bad_direction_counts(direction: Literal["both", "up", "down"], up: bool, down: bool) -> None:
    """A latency that falls and an accuracy that rises are nobody's incident."""
    for by, expected in ((40.0, up), (-40.0, down)):
        detector = History(Settings(direction=direction))
        judged(detector, white(np.random.default_rng(35), 400))
        assert detector.update(times(401)[-1], 50 + by).is_anomaly == expected


def test_limits_are_where_a_value_becomes_an_anomaly() -> None:
    """A value just outside low and high is one."""
    for side in (-1, 1):
        detector = History()
        last = judged(detector, white(np.random.default_rng(36), 600))[-1]
        limit = last.low if side < 0 else last.high
        assert limit is not None
        assert last.expected is not None
        assert last.low is not None
        assert last.high is not None
        assert last.low < last.expected < last.high
        assert detector.update(times(601)[-1], limit + side * 2.0).is_anomaly


def test_change_points_ignore_what_is_alone() -> None:
    """ChangePoint says nothing of one value that is off, and finds a level that moved."""
    values = white(np.random.default_rng(37), 1000)
    values[600] += 15
    values[800:] += 12
    found = anomalies(judged(ChangePoint(), values))
    assert not [at for at in found if 600 <= at < 700]
    assert [at for at in found if 800 <= at <= 815]


@pytest.mark.parametrize(
    "law",
    [stats.norm(), stats.expon(), stats.t(3), stats.lognorm(0.8)],
    ids=["normal", "exponential", "t3", "lognormal"],
)
def test_tails_are_calibrated(law: "stats.rv_frozen") -> None:
    """The share of values with a tail probability of at most 2 % and 0.4 % is near that, on named distributions."""
    rng = np.random.default_rng(40)
    tail, told = Tail(500), []
    for value in law.rvs(6000, random_state=rng).tolist():
        if len(tail) == 500:
            told.append(tail.probability(value, 1e-9))
        tail.push(value)
    for level in (0.02, 0.004):
        assert np.mean(np.array(told) <= level) == pytest.approx(level, rel=0.6)


def test_tail_limits_invert_probabilities() -> None:
    """At the limits for p the probability is p."""
    tail = Tail(500, np.random.default_rng(41).standard_normal(500).tolist())
    for p in (0.01, 1e-4):
        for limit in tail.limits(p, 1e-9):
            assert tail.probability(limit, 1e-9) == pytest.approx(p, rel=0.01)


def test_peaks_are_bounded_and_apart() -> None:
    """A run of large values is one peak; no more than KEPT are kept."""
    peaks = Peaks(10)
    for i in range(5000):
        peaks.push(5.0 + i / 1e6 if i % 500 < 5 else 0.0)
    assert len(peaks.top) <= KEPT
    assert sum(value > 4 for value, _ in peaks.top) == 10
    assert peaks.probability(0.0, 1e-9) == 1.0
    assert peaks.probability(50.0, 1e-9) < 1e-3


def test_chance_is_the_exact_binomial_and_poisson_tail() -> None:
    """As scipy has them, where history adds nothing."""
    assert by_chance("share", 0.5, 0.9, 0.0, 10) == pytest.approx(stats.binom.cdf(5, 10, 0.9))
    assert by_chance("share", 1.0, 0.9, 0.0, 10) == pytest.approx(stats.binom.sf(9, 10, 0.9))
    assert by_chance("count", 7.0, 2.0, 0.0, None) == pytest.approx(stats.poisson.sf(6, 2.0))
    assert by_chance("count", 0.0, 2.0, 0.0, None) == pytest.approx(stats.poisson.cdf(0, 2.0))
    assert by_chance("share", 0.5, 0.9, 0.2, 100) > by_chance("share", 0.5, 0.9, 0.0, 100)
    assert by_chance("number", 7.0, 2.0, 0.0, None) == 0.0
