"""Limits that a person has set."""

import re

import pytest

from mlspan_processor.anomaly import Static
from tests.processor.anomaly.series import times


def _flags(detector: Static, values: list[float]) -> list[bool]:
    return [detector.update(t, v).is_anomaly for t, v in zip(times(len(values)), values, strict=True)]


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"below": 0.5}, [True, False, False]),
        ({"above": 0.5}, [False, False, True]),
        ({"below": 0.4, "above": 0.6}, [True, False, True]),
    ],
)
def test_limits(limits: dict[str, float], expected: list[bool]) -> None:
    """Below, above and outside; the limit itself is fine."""
    assert _flags(Static(**limits), [0.1, 0.5, 0.9]) == expected


def test_recovery_needs_more_than_the_limit() -> None:
    """After an alarm the value must come back to the recovery limit."""
    assert _flags(Static(above=10, recover_below=8), [11, 9, 10, 8, 9]) == [True, True, True, False, False]
    assert _flags(Static(below=10, recover_above=12), [9, 11, 12, 11]) == [True, True, False, False]


def test_a_value_says_how_far_it_is_off() -> None:
    """Reason and effect are in the value's units."""
    verdict = Static(below=0.9).update(1, 0.75)
    assert verdict.reason == "0.75 is below 0.9"
    assert verdict.effect == pytest.approx(-0.15)


def test_few_rows_are_undecidable() -> None:
    """Fewer than `min_rows` are no verdict."""
    verdict = Static(below=0.9, min_rows=30).update(1, 0.2, 10)
    assert verdict.reason == "undecidable, because 10 rows are fewer than 30"


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({}, 'static limits need "below", "above" or both'),
        ({"below": 2.0, "above": 1.0}, '"below" must not be larger than "above", but 2 > 1'),
        ({"above": 1.0, "recover_above": 1.0}, '"recover_above" needs a "below" that is not larger'),
        ({"above": 1.0, "recover_below": 2.0}, '"recover_below" needs an "above" that is not smaller'),
    ],
)
def test_limits_that_make_no_sense(limits: dict[str, float], message: str) -> None:
    """Refused with what would be right."""
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Static(**limits)
