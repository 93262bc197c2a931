"""The isolation forest over all series of a model."""

import json

import numpy as np
import pytest

from mlspan_processor.anomaly import Joint
from mlspan_processor.anomaly.joint import MAX_SERIES
from tests.processor.anomaly.series import Floats, times


def _rows(n: int, seed: int = 0, series: int = 6) -> Floats:
    """Series that move together, with a little noise each."""
    rng = np.random.default_rng(seed)
    together = rng.standard_normal((n, 1))
    return together + 0.2 * rng.standard_normal((n, series))


def _values(row: Floats) -> dict[str, float | None]:
    return {f"s{i}": float(value) for i, value in enumerate(row)}


def _run(joint: Joint, rows: Floats, first: int = 0) -> list[bool]:
    moments = times(first + len(rows))[first:]
    return [joint.update(moment, _values(row)).is_anomaly for moment, row in zip(moments, rows, strict=True)]


def test_a_broken_relation_is_found() -> None:
    """Values that are usual one by one, and never were together, are an anomaly; calm moments rarely."""
    rows = _rows(700)
    rows[600] = [1.2, -1.2, 1.2, -1.2, 1.2, -1.2]
    found = _run(Joint(), rows)
    assert found[600]
    assert sum(found[:600]) <= 3


def test_the_reason_names_series() -> None:
    """What is furthest off is named."""
    joint = Joint()
    rows = _rows(500)
    _run(joint, rows)
    rows[0] = 0.0
    rows[0, 3] = 25.0
    verdict = joint.update(times(501)[-1], _values(rows[0]))
    assert verdict.is_anomaly
    assert "furthest off: s3 (" in verdict.reason


def test_restored_in_the_middle_it_goes_on_alike() -> None:
    """Through JSON and back, between two fits."""
    rows = _rows(500, seed=1)
    rows[450:] *= -3
    one, moments = Joint(), times(500)
    whole = [one.update(moment, _values(row)) for moment, row in zip(moments, rows, strict=True)]
    other = Joint()
    for moment, row in zip(moments[:333], rows[:333], strict=True):
        other.update(moment, _values(row))
    other = Joint.from_dict(json.loads(json.dumps(other.to_dict())))
    rest = [other.update(moment, _values(row)) for moment, row in zip(moments[333:], rows[333:], strict=True)]
    assert rest == whole[333:]


def test_series_come_and_go() -> None:
    """A new series is watched from the next fit on; a missing one counts as usual; most missing is undecidable."""
    joint = Joint()
    rows = _rows(400)
    _run(joint, rows)
    more = {**_values(rows[0]), "new": 1.0}
    assert joint.update(times(401)[-1], more).score is not None
    assert joint.update(times(402)[-1], {**_values(rows[1]), "s0": None}).score is not None
    verdict = joint.update(times(403)[-1], {"s0": 1.0})
    assert verdict.reason == "undecidable, because only 1 of 7 series have a value"
    assert joint.update(times(404)[-1], {}).reason == "undecidable, because there is no value"
    assert joint.update(times(402)[-1], more).reason.startswith("undecidable, because its time")


def test_bounds() -> None:
    """No more than MAX_SERIES are watched, the rest is counted."""
    joint = Joint()
    joint.update(1, {f"s{i}": 1.0 for i in range(MAX_SERIES + 3)})
    assert len(joint.names) == MAX_SERIES
    assert joint.dropped == 3


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_constant_series_are_calm(value: float) -> None:
    """All constant: never an anomaly until one moves."""
    joint = Joint()
    assert not any(_run(joint, np.full((400, 3), value)))
    assert joint.update(times(401)[-1], {"s0": value + 5, "s1": value, "s2": value}).is_anomaly
