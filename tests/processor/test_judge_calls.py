"""Incidents in the stream that nothing would close, or that the clock hides; a minute is a window of calls here."""

from pathlib import Path
from typing import Any

import pytest

from mlspan_processor.anomaly.findings import Finding
from mlspan_processor.anomaly.incidents import Incidents, Limits
from mlspan_processor.closed import Closed
from mlspan_processor.gone import UNSEEN, Gone
from mlspan_processor.model_spans import ModelSpans
from tests.processor.helpers import Rig
from tests.processor.test_judge import events_of


def minutes(rig: Rig, spans: ModelSpans, n: int, *, calls: int = 60, bad: bool = False) -> None:
    """Minutes of calls, all of which raise where they are `bad`; each followed by a flush."""
    for _ in range(n):
        for _ in range(calls):
            spans.add(None, None if bad else [1], error="ValueError" if bad else "", end=rig.clock.now)
        if calls:
            rig.send(spans.chunk())
        rig.clock.advance(60)
        rig.connector.flush()


@pytest.mark.parametrize("restart", [False, True])
def test_an_incident_of_a_version_that_is_gone_is_closed(tmp_path: Path, restart: bool) -> None:
    """Not before the version is forgotten, with the reason, whether or not another version lives on."""
    settings: dict[str, Any] = {"window": {"idle": "2h"}}
    old, new = ModelSpans(), ModelSpans(version="8")
    rig = Rig(**settings)
    rig.connector.state_dir = tmp_path
    with rig:
        minutes(rig, old, 3)
        minutes(rig, old, 5, bad=True)
        minutes(rig, new, 60)
        assert [one["model"]["version"] for one in rig.connector.incidents()["open"]] == ["7"]
    clock, told = rig.clock, events_of(rig.logs.chunks)
    assert [event["ml.incident.status"] for _, event in told] == ["opened"]
    if restart:
        rig = Rig(**settings)
        rig.connector.state_dir = tmp_path
        rig.clock = rig.connector._clock = clock
        with rig:
            assert len(rig.connector.incidents()["open"]) == 1
            minutes(rig, new, 130)
            assert rig.connector.incidents()["open"] == []
            [closed] = rig.connector.incidents()["closed"]
        assert closed["why"].startswith("no calls since 20")
        assert events_of(rig.logs.chunks)[-1][1]["ml.incident.status"] == "closed"


def test_a_version_that_is_not_there_is_given_up_later() -> None:
    """A version without a word of why, as after a restart: not before it has been away as long as idle ones may."""
    incidents = Incidents(Limits(persistence=(1, 1)))
    incidents.step(1, [Finding("errors", "errors", "fraud", "7")])
    gone = Gone(100)
    assert gone.at(1000, incidents.open, []) == []
    assert gone.at(1099, incidents.open, []) == []
    assert gone.at(1100, incidents.open, []) == [(("fraud", "7"), UNSEEN)]
    assert gone.at(1200, incidents.open, [("fraud", "7")]) == []
    assert gone.at(1300, incidents.open, []) == []
    gone.forget(("fraud", "7"), "no calls")
    assert gone.at(1301, incidents.open, []) == [(("fraud", "7"), "no calls")]


def test_a_model_that_nobody_calls_any_more_has_no_incident_for_ever() -> None:
    """Silence is no recovery: it closes with the version, and says so."""
    with Rig(window={"idle": "2h"}) as rig:
        spans = ModelSpans()
        minutes(rig, spans, 3)
        minutes(rig, spans, 5, bad=True)
        minutes(rig, spans, 118, calls=0)
        assert len(rig.connector.incidents()["open"]) == 1
        minutes(rig, spans, 5, calls=0)
        assert rig.connector.incidents()["open"] == []
        [closed] = rig.connector.incidents()["closed"]
        assert closed["why"].startswith("no calls since 20")
        minutes(rig, spans, 6, bad=True)
        [opened] = rig.connector.incidents()["open"]
        assert opened["id"] != closed["id"]


@pytest.mark.parametrize("back", [3600, 30 * 86400])
def test_a_clock_that_was_set_back_blinds_nothing(back: int) -> None:
    """Failing calls are told within minutes, whether the clock was ahead or is behind."""
    with Rig() as rig:
        spans = ModelSpans()
        minutes(rig, spans, 3)
        rig.clock.advance(back)
        minutes(rig, spans, 3)
        rig.clock.advance(-back)
        minutes(rig, spans, 10, bad=True)
        assert len(rig.connector.incidents()["open"]) == 1
        rig.clock.advance(-3600)
        minutes(rig, spans, 15)
        assert rig.connector.incidents()["open"] == []


def test_an_incident_is_listed_once() -> None:
    """As it is now: open when it came back, then closed again."""
    with Rig() as rig:
        spans = ModelSpans()
        minutes(rig, spans, 3)
        ids = set()
        for bad, listed in ((True, (1, 0)), (False, (0, 1)), (True, (1, 0)), (False, (0, 1))):
            minutes(rig, spans, 8, bad=bad)
            found = rig.connector.incidents()
            assert (len(found["open"]), len(found["closed"])) == listed
            ids |= {one["id"] for one in (*found["open"], *found["closed"])}
        assert len(ids) == 1
        state = rig.connector._state.judge.closed.to_list()
        again = Closed()
        again.restore(state * 2, [])
        assert again.to_list() == state
