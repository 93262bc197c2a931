"""Errors in runs: how many independent ones they are worth, and that the risk test does not take them for a rise."""

import json

import numpy as np
import pytest
from scipy import stats

from mlspan_processor.quality.risk import RiskTest
from mlspan_processor.quality.runs import Runs


def chained(rng: np.random.Generator, n: int, rate: float, correlation: float) -> np.ndarray:
    """Errors of which neighbours have this correlation: each is the one before with that probability, else drawn."""
    drawn = np.where(rng.random(n) < correlation, 0, np.arange(n))
    errors: np.ndarray = (rng.random(n) < rate).astype(np.float64)[np.maximum.accumulate(drawn)]
    return errors


def effect_of(losses: np.ndarray) -> float:
    """The design effect after these losses."""
    runs = Runs()
    runs.add(losses)
    return runs.design_effect


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.8, 0.95])
def test_design_effect_of_a_chain(correlation: float) -> None:
    """(1 + r) / (1 - r) for a chain of correlation r, less the standard error that independent rows are spared."""
    rng = np.random.default_rng(0)
    found = np.mean([effect_of(chained(rng, 100_000, 0.1, correlation)) for _ in range(8)])
    assert 0.7 * found <= (1 + correlation) / (1 - correlation) <= 1.35 * found


@pytest.mark.parametrize("n", [100, 1000, 5000, 50_000])
def test_independent_losses_keep_their_number(n: int) -> None:
    """Of 30 sequences hardly one loses a tenth of its rows."""
    rng = np.random.default_rng(1)
    found = [effect_of(rng.random(n) ** 3) for _ in range(30)]
    assert min(found) == 1.0
    assert np.mean(np.array(found) > 1.1) <= 0.15


def test_runs_of_an_hour() -> None:
    """A rate that is another one every 500 rows is seen by the blocks that are as long."""
    rng = np.random.default_rng(2)
    losses = (rng.random(100_000) < np.repeat(rng.beta(2, 18, 200), 500)).astype(float)
    assert effect_of(losses) > 8


def test_a_window_knows_no_runs_that_are_longer() -> None:
    """A rate that is another one every 4,000 rows makes long windows vary by much more than short ones."""
    rng = np.random.default_rng(2)
    runs = Runs()
    runs.add((rng.random(400_000) < np.repeat(rng.beta(2, 18, 100), 4000)).astype(float))
    assert 1.0 <= runs.within(10) <= runs.within(100) < 2 < 5 < runs.within(5000) == runs.design_effect


@pytest.mark.parametrize(("at", "n"), [(10_000, 20_000), (16_384, 32_768), (18_432, 32_768), (5_000, 8_000)])
def test_a_rise_is_no_run(at: int, n: int) -> None:
    """A risk that is four times as high, once, at the end of a block or within it, does not make its evidence less."""
    rng = np.random.default_rng(3)
    found = [effect_of((rng.random(n) < np.where(np.arange(n) < at, 0.05, 0.2)).astype(float)) for _ in range(10)]
    assert np.mean(found) < 1.3


@pytest.mark.parametrize("losses", [np.zeros(0), np.zeros(5000), np.ones(5000), np.array([0.5])])
def test_nothing_to_tell_from(losses: np.ndarray) -> None:
    """None, one, or equal losses: every row counts."""
    assert effect_of(losses) == 1.0


def test_parts_and_state_are_one_sequence() -> None:
    """However the losses come, and through JSON in between, the answer is the same."""
    rng = np.random.default_rng(4)
    losses = chained(rng, 10_000, 0.2, 0.8)
    parts = Runs()
    for start in range(0, 10_000, 333):
        parts.add(losses[start : start + 333])
        parts = Runs.from_dict(json.loads(json.dumps(parts.to_dict())))
    assert parts.design_effect == pytest.approx(effect_of(losses), rel=0.05)
    assert parts.cautious >= parts.design_effect > 5


@pytest.mark.parametrize("correlation", [0.5, 0.8])
def test_errors_in_runs_are_no_rise(correlation: float) -> None:
    """Without a rise hardly any of 25 streams of 30,000 errors in runs raises an alarm."""
    rng = np.random.default_rng(5)
    alarms = 0
    for _ in range(25):
        test = RiskTest.of_reference(chained(rng, 3000, 0.1, correlation))
        for _ in range(10):
            test.update(chained(rng, 3000, 0.1, correlation))
        alarms += test.alarm
    assert alarms <= stats.binom.ppf(0.999, 25, 0.02)


def test_a_rise_is_found_in_runs() -> None:
    """A rise from 10 to 25 % is found within as many more labels as the runs make of one."""
    rng = np.random.default_rng(6)
    delays = []
    for _ in range(10):
        test = RiskTest.of_reference(chained(rng, 5000, 0.1, 0.5))
        assert not test.update(chained(rng, 5000, 0.1, 0.5)).alarm
        delay = 0
        while delay < 20_000 and not test.update(chained(rng, 100, 0.25, 0.5)).alarm:
            delay += 100
        delays.append(delay)
    assert np.median(delays) < 2500
