"""What all detectors have in common."""

import json
import math
from collections.abc import Callable

import numpy as np
import pytest

from mlspan_processor.anomaly import DETECTORS, JOINT, Static
from mlspan_processor.anomaly.base import BACKWARD, UNDECIDABLE, Detector
from tests.processor.anomaly.series import STEP_NS, daily, judged, times, white

MADE: dict[str, Callable[[], Detector]] = {
    name: (lambda: Static(above=55.0)) if made is Static else made for name, made in DETECTORS.items()
}


@pytest.fixture(params=sorted(MADE))
def name(request: pytest.FixtureRequest) -> str:
    """Each detector of the table."""
    return str(request.param)


def test_the_table_is_by_name() -> None:
    """A detector's key is its name, and it says what it is."""
    assert {name: made.name for name, made in DETECTORS.items()} == {name: name for name in DETECTORS}
    assert JOINT.name not in DETECTORS
    for made in MADE.values():
        assert type(made()).__name__ in repr(made())


def test_every_module_names_its_purpose() -> None:
    """Each detector has a docstring, for the class and for what it does."""
    for made in (*DETECTORS.values(), JOINT):
        assert made.__doc__
        assert made.update.__doc__


def test_restored_in_the_middle_it_goes_on_alike(name: str) -> None:
    """Through JSON and back, verdicts are those of a detector that ran through."""
    rng = np.random.default_rng(1)
    values = daily(rng, 1200)
    values[900:] += 40
    whole = judged(MADE[name](), values)
    detector = MADE[name]()
    judged(detector, values[:700])
    detector = type(detector).from_dict(json.loads(json.dumps(detector.to_dict())))
    rest = [detector.update(t, v) for t, v in zip(times(1200)[700:], values[700:].tolist(), strict=True)]
    assert rest == whole[700:]


def test_a_described_state_stays_as_it_was(name: str) -> None:
    """What the detector learns afterwards does not get into it, so that it can be gone back to."""
    values = daily(np.random.default_rng(1), 1200)
    values[700:] += 40
    detector = MADE[name]()
    judged(detector, values[:700])
    state = detector.to_dict()
    described = json.dumps(state)
    for time, value in zip(times(1200)[700:], values[700:].tolist(), strict=True):
        detector.update(time, value)
    assert json.dumps(state) == described


@pytest.mark.parametrize("missing", [None, math.nan, math.inf, -math.inf])
def test_no_value_is_undecidable_and_changes_nothing(name: str, missing: float | None) -> None:
    """None, NaN and infinities are not judged and not learnt."""
    detector = MADE[name]()
    judged(detector, white(np.random.default_rng(2), 300))
    before = json.dumps(detector.to_dict())
    verdict = detector.update(times(400)[-1], missing)
    assert verdict.score is None
    assert not verdict.is_anomaly
    assert verdict.reason.startswith(UNDECIDABLE)
    assert json.dumps(detector.to_dict()) == before


def test_a_repeated_time_is_not_judged_again(name: str) -> None:
    """The same moment twice is undecidable the second time, however often it comes."""
    detector = MADE[name]()
    judged(detector, white(np.random.default_rng(3), 300))
    for _ in range(3 * BACKWARD):
        verdict = detector.update(times(300)[-1], 1e9)
        assert verdict.score is None
        assert not verdict.is_anomaly


def test_a_clock_that_was_set_back_is_believed_in_the_end(name: str) -> None:
    """Earlier times are refused at first, then taken for the time that it is."""
    detector = MADE[name]()
    judged(detector, white(np.random.default_rng(4), 300))
    back = [detector.update(1_000 + i * STEP_NS, 50.0) for i in range(BACKWARD + 1)]
    assert [verdict.reason.startswith("undecidable, because its time") for verdict in back] == [True] * (
        BACKWARD - 1
    ) + [False] * 2


def test_a_gap_is_no_anomaly(name: str) -> None:
    """A week without values, then values as before."""
    detector = MADE[name]()
    rng = np.random.default_rng(5)
    judged(detector, 50 + 0.1 * rng.standard_normal(1000))
    later = [detector.update(times(4000)[-1000 + i], 50 + 0.1 * rng.standard_normal()) for i in range(50)]
    assert not any(verdict.is_anomaly for verdict in later)


def test_memory_is_bounded(name: str) -> None:
    """What is kept stays below 100 kB of JSON however long the series runs."""
    detector = MADE[name]()
    judged(detector, daily(np.random.default_rng(6), 5000))
    assert len(json.dumps(detector.to_dict())) < 100_000


def test_verdicts_are_whole(name: str) -> None:
    """A judged value has a score in [0, 1] and a threshold; an anomaly has a reason, anything else has none."""
    values = white(np.random.default_rng(7), 500)
    values[400:403] = 100.0
    for verdict in judged(MADE[name](), values):
        if verdict.score is None:
            assert verdict.reason.startswith(UNDECIDABLE)
            continue
        assert 0 <= verdict.score <= 1
        assert bool(verdict.reason) == verdict.is_anomaly
        assert verdict.is_anomaly == (verdict.score <= verdict.threshold)
