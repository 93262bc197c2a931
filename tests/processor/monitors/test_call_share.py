"""Limits on the share of calls, of models that are called now and then."""

import json
from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import pytest

from mlspan_processor.anomaly import Static
from mlspan_processor.monitors.call_share import CallShare
from mlspan_processor.monitors.defaults import DEFAULTS
from mlspan_processor.monitors.rules import made


def _bad(windows: Iterable[tuple[float, float]], limit: float = 0.5) -> list[int]:
    """Which windows of (share, calls) are anomalies."""
    detector = CallShare(above=limit)
    return [i for i, (share, n) in enumerate(windows) if detector.update(i + 1, share, n).is_anomaly]


def test_the_default_monitor_counts_calls() -> None:
    """`failing` is judged this way."""
    assert isinstance(made(next(one for one in DEFAULTS if one.name == "failing")), CallShare)


def test_every_call_fails() -> None:
    """Five of five are enough, however quiet it is, and whatever was before."""
    assert _bad([(1.0, 1)] * 8) == [4, 5, 6, 7]
    assert _bad([(0.0, 1)] * 60 + [(1.0, 1)] * 6) == [64, 65]
    assert _bad([(1.0, 30)]) == [0]


def test_it_is_fine_again_as_soon() -> None:
    """Five good calls after an hour of bad ones."""
    detector = CallShare(above=0.5)
    for i in range(60):
        detector.update(i + 1, 1.0, 1)
    verdicts = [detector.update(i + 61, 0.0, 1) for i in range(6)]
    assert [one.score for one in verdicts[4:]] == [1.0, 1.0]
    assert not any(one.is_anomaly for one in verdicts[4:])


@pytest.mark.parametrize("share", [0.05, 0.1])
def test_single_calls_are_no_failure(share: float) -> None:
    """A call a minute for ten days, some of which raise: never two of three looks."""
    hits = np.random.default_rng(0).random(14_400) < share
    bad = _bad((float(one), 1) for one in hits)
    assert all(later - earlier > 2 for earlier, later in pairwise(bad))
    assert len(bad) <= 2


def test_half_is_not_more_than_half() -> None:
    """Good and bad calls in turn."""
    assert _bad((float(i % 2), 1) for i in range(500)) == []


def test_many_calls_are_taken_as_they_are() -> None:
    """The limit is the user's."""
    assert _bad([(0.051, 1000), (0.05, 1000), (0.06, 200)], limit=0.05) == [0, 2]


def test_it_goes_through_json() -> None:
    """With the calls that did not tell yet; what a Static of older versions wrote is read too."""
    detector = CallShare(above=0.5)
    for i in range(4):
        detector.update(i + 1, 1.0, 1)
    again = CallShare.from_dict(json.loads(json.dumps(detector.to_dict())))
    assert again.update(5, 1.0, 1).is_anomaly
    assert CallShare.from_dict(Static(above=0.5).to_dict()).above == 0.5
