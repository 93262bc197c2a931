"""What one target is to hear, in its own terms, and what makes way where there is too much of it."""

from typing import Any

import orjson
import pytest

from mlspan_processor.events import Event
from mlspan_processor.notify import backlog
from mlspan_processor.notify.backlog import Backlog
from mlspan_processor.notify.settings import Notify
from tests.processor.notify.receiver import START, event


def target_backlog(kind: str = "webhook", **settings: Any) -> Backlog:
    """Of a target with these settings."""
    notify = Notify.model_validate({kind: {"x": {"url": "http://x", **settings}}})
    return Backlog(notify.targets[f"{kind}/x"])


def change(incident: str, kind: str, severity: str = "critical", **fields: Any) -> Event:
    """A change of an incident."""
    closed = {"closed_ns": START} if kind == "closed" else {}
    return event(id=incident, change=kind, severity=severity, **closed, **fields)


def heard(one: Backlog) -> list[list[tuple[str, str]]]:
    """All messages, each as (incident, change), of a target that takes them."""
    messages = []
    while events := one.take():
        messages.append([(event.id, str(event.change)) for event in events])
        one.delivered()
    return messages


def test_the_first_change_that_is_bad_enough_opens_it() -> None:
    """An incident that becomes critical is opened to those who hear of critical ones only; so is one that returns."""
    one = target_backlog(min_severity="critical", changes=["opened", "closed"])
    one.put([change("A", "opened", "info")])
    one.put([change("A", "updated", "critical", why="worse")])
    one.put([change("A", "updated", "critical", why="wider")])
    one.put([change("A", "closed")])
    one.put([change("A", "updated", "critical", why="came back")])
    assert heard(one) == [[("A", "opened")], [("A", "closed")], [("A", "opened")]]


def test_a_closing_without_an_opening_is_not_told() -> None:
    """Nobody hears of the end of what they never heard of; who asks for closings only, hears of them."""
    one, ends = target_backlog(), target_backlog(changes=["closed"])
    for each in (one, ends):
        each.put([change("A", "opened", "info")])
        each.put([change("A", "closed", "info")])
        each.put([change("B", "opened")])
    one.take()
    one.lost()
    for each in (one, ends):
        each.put([change("B", "closed")])
    assert heard(one) == []
    assert heard(ends) == [[("B", "closed")]]


def test_a_full_queue_keeps_the_newest_state_of_every_incident() -> None:
    """What lies between the first and the newest makes way, counted; another incident's changes push nothing out."""
    one = target_backlog(queue_size=1)
    one.put([change("A", "opened")])
    assert heard(one) == [[("A", "opened")]]
    one.put([change("B", "opened")])
    assert one.take()
    one.put([change("A", "updated")])
    one.put([change("A", "closed")])
    for number in range(5):
        one.put([change("B", "updated", summary=str(number))])
    one.put([change("C", "opened")])
    one.put([change("C", "updated")])
    one.put([change("C", "closed")])
    one.delivered()
    [message] = heard(one)
    assert message == [("A", "closed"), ("B", "updated"), ("C", "opened"), ("C", "closed")]
    assert one.dropped == 6


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound the incident that has waited longest is dropped as a whole, and is not repeated for ever."""
    monkeypatch.setattr(backlog, "MAX_STATES", 4)
    one = target_backlog("alertmanager", queue_size=2)
    one.put([change("A", "opened")])
    assert heard(one) == [[("A", "opened")]]
    one.put([change("A", "closed")])
    for name in "BCDE":
        one.put([change(name, "opened")])
    assert one.dropped == 1
    assert one.open() == []
    assert sorted(pair for message in heard(one) for pair in message) == [(name, "opened") for name in "BCDE"]


def test_what_was_told_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Incidents that never close are forgotten in the end."""
    monkeypatch.setattr(backlog, "MAX_TOLD", 2)
    one = target_backlog()
    one.put([change(name, "opened") for name in "ABC"])
    assert heard(one)
    assert list(one.told) == ["B", "C"]


def after_restart(one: Backlog, *opened: Event, **settings: Any) -> Backlog:
    """What the next process knows, while these incidents are open."""
    again = target_backlog(**settings)
    again.restore(orjson.loads(orjson.dumps(one.state())))
    again.remember(opened, is_all_told=False)
    return again


def test_a_restart_neither_repeats_nor_forgets() -> None:
    """What waits, or is being sent, is told afterwards; what was told counts as told."""
    one = target_backlog()
    one.put([change("A", "opened")])
    assert heard(one) == [[("A", "opened")]]
    one.put([change("A", "closed")])
    one.put([change("B", "opened")])
    assert one.take()
    again = after_restart(one, change("B", "updated"))
    again.put([change("A", "updated", why="came back")])
    again.put([change("B", "closed")])
    assert heard(again) == [[("A", "closed")], [("B", "opened")], [("A", "opened")], [("B", "closed")]]
    assert after_restart(again, change("A", "updated")).told["A"] == again.told["A"]


def test_what_was_lost_is_told_after_a_restart() -> None:
    """An open incident of which the message was lost is told once more; what has closed meanwhile is forgotten."""
    one = target_backlog()
    one.put([change("A", "opened"), change("C", "opened")])
    assert heard(one)
    one.put([change("B", "opened")])
    assert one.take()
    one.lost()
    again = after_restart(one, change("A", "updated"), change("B", "updated"))
    assert list(again.told) == ["A"]
    assert heard(again) == [[("B", "opened")]]


def test_a_lost_message_does_not_end_an_alert() -> None:
    """Alertmanager hears of what is open at the next repetition, whatever became of the first message."""
    one = target_backlog("alertmanager")
    one.put([change("A", "opened")])
    assert one.take()
    one.lost()
    assert [(event.id, event.change) for event in one.open()] == [("A", "updated")]
    one.put([change("A", "closed")])
    assert one.open() == []
