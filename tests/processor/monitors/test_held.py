"""What was bad stays bad until it is back at the level from before; a minute is a window here."""

import json
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from mlspan_processor.anomaly.findings import Change, Finding
from mlspan_processor.anomaly.incidents import Incidents
from mlspan_processor.judge import LIMITS
from mlspan_processor.model import Model
from mlspan_processor.monitors.persistence import Persistence
from mlspan_processor.monitors.rules import Point, Rule
from mlspan_processor.monitors.settings import Monitor

MINUTE = 60 * 10**9
MODEL = cast(Model, SimpleNamespace(name="fraud", version="7"))


class Minutes:
    """A monitor of calls from its values to its incidents."""

    def __init__(self, metric: str, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.monitor = Monitor(name=metric, metric=metric, min_effect=0.01 if metric == "errors" else None)
        self.rule, self.persistence, self.incidents = Rule(self.monitor), Persistence(), Incidents(LIMITS)
        self.now = 0

    def value(self, value: float | None, calls: float | None = None) -> list[Change]:
        """One minute's value."""
        self.now += 1
        start, end = (self.now - 1) * MINUTE, self.now * MINUTE
        point = Point(self.monitor.metric, value, calls, start, end)
        for place, finding in self.rule.apply(MODEL, [point], {}).items():
            self.persistence.see(place, finding)
        return self.incidents.step(
            end, self.persistence.findings(), [("fraud", "7")], {("fraud", "7"): self.rule.usual}
        )

    def errors(self, minutes: int, share: float, calls: int = 100) -> list[tuple[int, str, str]]:
        """Minutes with this share of calls that raise; (minute, kind, why) of what is told, "still open" left out."""
        told: list[tuple[int, str, str]] = []
        for minute in range(1, minutes + 1):
            changes = self.value(self.random.binomial(calls, share) / calls, calls)
            told += [(minute, one.kind, one.why) for one in changes if one.why != "still open"]
        return told

    @property
    def findings(self) -> list[Finding]:
        """What holds."""
        return self.persistence.findings()


@pytest.mark.parametrize(("share", "calls"), [(0.3, 100), (0.05, 100), (1.0, 100), (0.1, 20)])
def test_an_outage_is_open_as_long_as_it_lasts(share: float, calls: int) -> None:
    """Ten hours at one level: one opening, nothing else until it is over; then one closing."""
    minutes = Minutes("errors", seed=1)
    assert minutes.errors(300, 0.001, calls) == []
    [(opened, kind, _)] = minutes.errors(600, share, calls)
    assert (kind, opened <= 10) == ("opened", True)
    assert minutes.findings[0].value == pytest.approx(share, rel=0.6)
    assert minutes.findings[0].expected == pytest.approx(0.001, abs=0.01)
    [(closed, kind, why)] = minutes.errors(30, 0.001, calls)
    assert (kind, why, closed <= 25) == ("closed", "recovered", True)


def test_a_smaller_outage_is_no_recovery() -> None:
    """From every call that raises to every third: open still."""
    minutes = Minutes("errors")
    minutes.errors(300, 0.001)
    assert [kind for _, kind, _ in minutes.errors(60, 1.0)] == ["opened"]
    assert minutes.errors(200, 0.3) == []


def test_a_slow_model_is_slow_until_it_is_fast_again() -> None:
    """A hundred times the latency for ten hours; single slow minutes meanwhile do not hold the closing up."""
    minutes = Minutes("latency")
    told = []
    for minute in range(1, 981):
        slow = 300 < minute <= 900 or minute in {904, 908}
        changes = minutes.value((1.0 if slow else 0.01) * minutes.random.lognormal(0, 0.05))
        told += [(minute, one.kind) for one in changes if one.why != "still open"]
    assert [kind for _, kind in told] == ["opened", "closed"]
    assert told[0][0] == 301
    assert 905 < told[1][0] < 930


def test_a_level_that_lasts_is_the_new_normal_and_that_is_said() -> None:
    """After a day it closes, with the reason; nothing is told of the level after it."""
    minutes = Minutes("errors")
    minutes.errors(300, 0.001)
    told = minutes.errors(2000, 0.3)
    assert [(kind, why) for _, kind, why in told] == [
        ("opened", ""),
        ("closed", "errors taken as the new normal after 24 hours"),
    ]
    assert 1440 <= told[1][0] <= 1460


def test_one_bad_minute_closes_soon() -> None:
    """What was held open by its own last values alone would not."""
    minutes = Minutes("errors")
    minutes.errors(300, 0.001)
    assert [kind for _, kind, _ in minutes.errors(1, 1.0)] == ["opened"]
    [(closed, kind, _)] = minutes.errors(20, 0.001)
    assert (kind, closed <= 6) == ("closed", True)


def test_a_restart_in_an_outage_changes_nothing() -> None:
    """The level from before survives."""
    minutes = Minutes("errors")
    minutes.errors(300, 0.001)
    minutes.errors(40, 0.3)
    state = json.loads(json.dumps(minutes.rule.to_dict()))
    minutes.rule = Rule(minutes.monitor)
    minutes.rule.restore(state)
    assert minutes.rule.to_dict()["held"] == state["held"]
    assert minutes.errors(200, 0.3) == []
    assert [kind for _, kind, _ in minutes.errors(20, 0.001)] == ["closed"]


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize(("lasts", "share", "pause"), [(600, 0.3, 30), (100, 0.05, 60), (30, 0.3, 300)])
def test_a_second_outage_is_found_as_the_first_was(lasts: int, share: float, pause: int, restart: bool) -> None:
    """However long the first one was, and whether or not the processor was started anew in between."""
    minutes = Minutes("errors", seed=3)
    minutes.errors(400, 0.001)
    minutes.errors(lasts, share)
    if restart:
        state = json.loads(json.dumps(minutes.rule.to_dict()))
        minutes.rule = Rule(minutes.monitor)
        minutes.rule.restore(state)
    assert [kind for _, kind, _ in minutes.errors(pause, 0.001)] == ["closed"]
    [(found, _, _)] = minutes.errors(30, share)
    assert found <= 10


def test_a_second_slow_hour_is_found_at_once() -> None:
    """Latency learns no more from an outage than errors do."""
    minutes = Minutes("latency", seed=3)
    told = []
    for minute in range(1, 601):
        slow = 300 < minute <= 400 or 460 < minute <= 560
        changes = minutes.value((1.0 if slow else 0.01) * minutes.random.lognormal(0, 0.05))
        told += [(one.kind, minute) for one in changes if one.kind == "opened" or one.why == "came back"]
    assert told == [("opened", 301), ("updated", 461)]


def test_what_was_learnt_is_kept_for_what_is_bad_only() -> None:
    """A state a series that is bad, none once it is over; of a new normal the detector keeps what it has learnt."""
    minutes = Minutes("errors")
    minutes.errors(300, 0.001)
    assert minutes.rule.to_dict()["held"] == []
    minutes.errors(40, 0.3)
    [(_, held)] = minutes.rule.to_dict()["held"]
    assert held["learnt"]["learnt"] == 300
    minutes.errors(20, 0.001)
    assert minutes.rule.to_dict()["held"] == []
    minutes.errors(1600, 0.3)
    [(_, detector)] = minutes.rule.to_dict()["detectors"]
    assert (minutes.rule.to_dict()["held"], detector["learnt"] > 1900) == ([], True)


def test_what_the_last_values_say_is_told_as_theirs() -> None:
    """Not the last minute's value, which may be fine: five errors in a hundred calls of ten minutes, then none."""
    minutes = Minutes("errors")
    minutes.errors(300, 0.0, calls=24)
    for share in (0.0, 1 / 24, 2 / 24) * 12:
        minutes.value(share, 24)
        for finding in minutes.findings:
            assert finding.value is not None
            assert finding.value > 0
            assert not finding.message.startswith("calls that raise 0.0%")
    assert any("over the last" in finding.message for finding in minutes.findings)
