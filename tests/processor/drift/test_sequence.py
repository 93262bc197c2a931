"""Alarms over time: the run length without drift, the delay with it, and state."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from mlspan_processor.drift.judgement import Judgement, judge
from mlspan_processor.drift.multivariate import MultivariateJudgement
from mlspan_processor.drift.sequence import MULTIVARIATE, Look, Sequence, e_values
from tests.processor.drift.samples import compared, numbers


def judgement_of(p: np.ndarray, material: bool = True, rows: float = 100.0, reference: float = 1e5) -> Judgement:
    """A judgement with these p-values, Bonferroni's adjusted ones, and every effect large or small."""
    base = judge(compared(numbers(np.zeros((200, len(p)))), numbers(np.zeros((100, len(p))))))
    return replace(
        base,
        p_value=p,
        p_adjusted=np.minimum(p * len(p), 1.0),
        material=np.full(len(p), material),
        rows=np.full(len(p), rows),
        reference_rows=np.full(len(p), reference),
    )


def test_e_values_are_e_values() -> None:
    """Their mean over uniform p-values is 1; they fall with p; no p, no evidence."""
    p = (np.arange(2_000_000) + 0.5) / 2_000_000
    assert e_values(p).mean() == pytest.approx(1.0, abs=0.1)
    assert (np.diff(e_values(np.geomspace(1e-12, 1, 200))) <= 1e-9).all()
    assert e_values(np.array([np.nan, 1.0, 0.0])).tolist() == [1.0, 0.5, pytest.approx(e_values(np.array([1e-40]))[0])]


def test_run_length_without_drift() -> None:
    """A stated run length of 50 windows gives at most 400 / 50 alarms in 400 windows, on average far fewer."""
    rng = np.random.default_rng(0)
    base = judgement_of(np.full(10, 0.5))
    alarms = 0
    sequence = Sequence(50)
    for t in range(400):
        p = rng.random(10)
        one = replace(base, p_value=p, p_adjusted=np.minimum(p.min() * 10, 1.0) * np.ones(10))
        alarms += sequence.look(one, t, t + 1).alarm
    assert alarms <= 8


def test_run_length_with_one_reference_for_all_windows() -> None:
    """The reference's own noise does not add up to an alarm, though all windows share it."""
    rng = np.random.default_rng(1)
    alarms = 0
    for _ in range(4):
        reference = numbers(rng.standard_normal((1000, 10)))
        sequence = Sequence(100)
        for t in range(30):
            window = judge(compared(reference, numbers(rng.standard_normal((100, 10)))))
            # Of the second gate only the evidence is asked here.
            alarms += sequence.look(replace(window, material=np.ones(10, bool)), t, t + 1).alarm
    assert alarms <= 3


def test_one_window_can_be_enough() -> None:
    """A p-value below the budget alarms at once, for the features that have it."""
    p = np.array([1e-9, 0.4, 1e-8])
    look = Sequence().look(judgement_of(p), 0, 10)
    assert look == Look(True, look.evidence, ("x0", "x2"), True)
    assert look.evidence >= 1


def test_evidence_adds_up() -> None:
    """A p-value of .001 in each window, not enough for an alarm, alarms within seven windows, and evidence restarts."""
    sequence = Sequence()
    p = np.array([1e-3, 0.5, 0.5, 0.5])
    looks = [sequence.look(judgement_of(p), t, t + 1) for t in range(7)]
    first = [look.alarm for look in looks].index(True)
    assert 1 <= first <= 6
    assert looks[first].features == ("x0",)
    assert all(a.evidence < b.evidence for a, b in pairwise(looks[: first + 1]))
    assert sequence.look(judgement_of(np.full(4, 0.5)), 100, 101).evidence < 0.1


def test_windows_that_share_much_of_the_reference_noise_do_not_add_up() -> None:
    """Where a window has as many rows as the reference, only the window itself counts."""
    sequence = Sequence()
    p = np.array([1e-3, 0.5])
    looks = [sequence.look(judgement_of(p, rows=1e5), t, t + 1) for t in range(30)]
    assert not any(look.alarm for look in looks)


def test_small_effects_never_alarm() -> None:
    """However certain: the second gate."""
    assert not Sequence().look(judgement_of(np.full(3, 1e-30), material=False), 0, 1).alarm


def test_overlapping_windows_are_no_looks() -> None:
    """A trailing window that moves on by a pane is not new evidence; neither is one that decides nothing."""
    sequence = Sequence()
    p = np.full(3, 0.01)
    assert sequence.look(judgement_of(p), 0, 100).counted
    assert not sequence.look(judgement_of(np.full(3, 1e-30)), 50, 150).counted
    assert not sequence.look(judgement_of(np.full(3, np.nan)), 200, 300).counted
    assert sequence.look(judgement_of(p), 100, 200).counted


def test_a_clock_that_jumped_back_does_not_blind() -> None:
    """Windows before the last one that do not overlap it are looks."""
    sequence = Sequence()
    sequence.look(judgement_of(np.full(2, 0.5)), 10**18, 10**18 + 1)
    assert sequence.look(judgement_of(np.full(2, 1e-12)), 5, 6).alarm


def test_all_features_together_are_one_more() -> None:
    """The multivariate judgement's evidence counts under its name."""
    joint = MultivariateJudgement(1.2, 1e-12, 0.4, True, material=True)
    look = Sequence().look(judgement_of(np.full(3, 0.5)), 0, 1, joint)
    assert look.features == (MULTIVARIATE,)


def test_state_is_json_and_new_features_start_anew() -> None:
    """Read again it goes on where it was; a new reference forgets."""
    p = np.array([1e-3, 0.5])
    one = Sequence(1000)
    one.look(judgement_of(p), 0, 1)
    two = Sequence.from_dict(json.loads(json.dumps(one.to_dict())))
    assert two.look(judgement_of(p), 1, 2) == one.look(judgement_of(p), 1, 2)
    other = replace(judgement_of(p), names=("a", "b"))
    assert two.look(other, 2, 3).evidence == pytest.approx(Sequence(1000).look(other, 0, 1).evidence)


def test_run_length_must_be_one_or_more() -> None:
    """Zero, negative and NaN are refused."""
    for value in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="run_length"):
            Sequence(value)
