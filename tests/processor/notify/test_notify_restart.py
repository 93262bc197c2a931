"""Incidents that nobody could be told of before the processor ended: told after the next start, once."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processor.helpers import Clock, Rig
from tests.processor.notify.receiver import Receiver, receiver
from tests.processor.store.kept import as_killed
from tests.processor.test_judge import Stream

DOWN = [500] * 100_000
SETTINGS = {
    "reference": {"learn_rows": 500},
    "default_monitors": False,
    "monitors": [
        {
            "name": "accuracy",
            "metric": "accuracy",
            "method": "static",
            "threshold": {"below": 0.75},
            "window": {"rows": 500},
            "severity": "critical",
        }
    ],
}
QUICK = {"initial_interval": "10ms", "max_interval": "10ms"}


@pytest.fixture
def server() -> Iterator[Receiver]:
    """A target that is down at first."""
    with receiver() as one:
        one.answers = list(DOWN)
        yield one


def rig_of(folder: Path, server: Receiver, clock: Clock | None = None) -> Rig:
    """A connector with this store and target; `clock` goes on where that of the process before has stopped."""
    notify = {"webhook": {"w": {"url": server.url, "retry_on_failure": QUICK}}}
    rig = Rig(**SETTINGS, notify=notify, store={"path": str(folder / "state.db"), "snapshot_interval": "1000s"})
    if clock is not None:
        rig.clock = rig.connector._clock = clock
    return rig


def collapse(rig: Rig) -> str:
    """Open an incident; its id."""
    stream = Stream(rig)
    stream.pass_by(3)
    stream.pass_by(6, wrong=0.35)
    [incident] = rig.connector.incidents()["open"]
    return str(incident["id"])


def told(server: Receiver) -> list[tuple[str, str]]:
    """(incident, status) of all that has come."""
    return [(one["id"], one["status"]) for _, _, body in server.posts for one in body["incidents"]]


@pytest.mark.parametrize("is_killed", [False, True])
def test_an_incident_is_told_after_a_restart(tmp_path: Path, server: Receiver, is_killed: bool) -> None:
    """A target that was down when the processor ended, or was killed, hears of the opening; a second start repeats
    nothing."""
    with rig_of(tmp_path, server) as rig:
        incident = collapse(rig)
        left = as_killed(tmp_path, tmp_path / "killed")
    assert rig.counters()["notifications_waiting"] > 0
    assert rig.counters()["notifications_dropped"] == rig.counters()["notifications_failed"] == 0
    folder = left if is_killed else tmp_path
    server.answers.clear()
    with rig_of(folder, server, rig.clock):
        server.wait_for(1)
    assert told(server)[0] == (incident, "opened")
    assert told(server).count((incident, "opened")) == 1
    before = told(server)
    with rig_of(folder, server, rig.clock) as again:
        again.connector.flush()
    assert told(server) == before


def test_an_incident_that_closed_untold_is_told_after_a_restart(tmp_path: Path, server: Receiver) -> None:
    """Its opening and its closing, in this order, though it is over."""
    with rig_of(tmp_path, server) as rig:
        incident = collapse(rig)
        Stream(rig, seed=5).pass_by(12)
        assert rig.connector.incidents()["open"] == []
    server.answers.clear()
    with rig_of(tmp_path, server, rig.clock) as again:
        again.connector.flush()
    assert told(server)[0] == (incident, "opened")
    assert told(server)[-1] == (incident, "closed")


def test_without_a_store_it_is_lost_and_said_so(server: Receiver) -> None:
    """What was not sent is counted as dropped: there is nothing to keep it."""
    notify = {"webhook": {"w": {"url": server.url, "retry_on_failure": QUICK}}}
    with Rig(**SETTINGS, notify=notify) as rig:
        collapse(rig)
    assert rig.counters()["notifications_dropped"] > 0
    assert rig.counters()["notifications_waiting"] == 0
