"""Delivery of notifications over real HTTP: retries, bounds, dead targets, secrets."""

import logging
import time
from typing import Any

import pytest

from mlspan_processor.notify import Notifier, Outbox
from mlspan_processor.notify.settings import Notify
from mlspan_processor.records import RetryableError
from tests.processor.notify.receiver import START, event, receiver

QUICK = {"initial_interval": "10ms", "max_interval": "10ms"}


def outbox(kind: str, url: str, **settings: Any) -> Outbox:
    """A started outbox."""
    notify = Notify.model_validate({kind: {"x": {"url": url, "retry_on_failure": QUICK, **settings}}})
    one = Outbox(f"{kind}/x", notify.targets[f"{kind}/x"])
    one.start()
    return one


def test_one_message_a_change_with_headers() -> None:
    """What changes at the same time is one request; headers of the configuration are sent."""
    with receiver() as server:
        box = outbox("webhook", f"{server.url}/hook", headers={"Authorization": "Bearer t"})
        box.put([event(), event(id="cd" * 16)])
        box.put([])
        box.put([event(change="closed", closed_ns=START)])
        first, _ = server.wait_for(2)
        box.shutdown(5)
        path, headers, _ = server.posts[0]
    assert [one["id"][:2] for one in first["incidents"]] == ["ab", "cd"]
    assert path == "/hook"
    assert headers["Authorization"] == "Bearer t"
    assert (box.sent, box.failed, box.dropped) == (2, 0, 0)


def test_a_failing_target_is_tried_again_in_order(caplog: pytest.LogCaptureFixture) -> None:
    """Server errors and 429 are retried, other refusals lose the one message; nothing secret is logged."""
    caplog.set_level(logging.INFO)
    with receiver() as server:
        server.answers = [500, 429, 200, 404, 200]
        box = outbox("webhook", f"{server.url}/secret", headers={"X-Key": "secret"})
        for name in ("a", "b", "c"):
            box.put([event(summary=name)])
        bodies = server.wait_for(2)
        box.shutdown(5)
    assert [body["incidents"][0]["summary"] for body in bodies] == ["a", "c"]
    assert (box.sent, box.failed) == (2, 1)
    assert "secret" not in caplog.text
    assert 'notify "webhook/x": a message is lost: 127.0.0.1 answers 404' in caplog.text


def test_a_dead_target_never_blocks_and_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """Putting returns at once; the oldest messages make way; stopping takes no longer than allowed."""
    box = outbox("webhook", "http://127.0.0.1:9/secret", queue_size=3)
    for number in range(50):
        box.put([event(summary=str(number))])
    assert box.dropped >= 46
    box.shutdown(0.05)
    assert box.sent == 0
    time.sleep(0.05)
    assert "secret" not in caplog.text


def test_alertmanager_hears_of_open_incidents_again_until_they_close() -> None:
    """A firing alert is repeated; one whose severity changes ends under its old label; after closing there is rest."""
    with receiver() as server:
        box = outbox("alertmanager", f"{server.url}/am/", repeat_interval="20ms")
        box.put([event(severity="warning")])
        server.wait_for(3)
        box.put([event(change="updated", severity="critical")])
        server.wait_for(len(server.posts) + 2)
        box.put([event(change="closed", severity="critical", closed_ns=START)])
        box.shutdown(5)
    assert {path for path, _, _ in server.posts} == {"/am/api/v2/alerts"}
    told = [
        [(alert["labels"]["severity"], alert["endsAt"][:4] != "2023") for alert in body] for _, _, body in server.posts
    ]
    assert told[0] == told[1] == [("warning", True)]
    assert [("warning", False), ("critical", True)] in told
    assert told[-1] == [("critical", False)]
    assert box._backlog.told == {}


def ids(body: Any) -> list[str]:
    """Incidents of Alertmanager's alerts."""
    return [alert["labels"]["incident"] for alert in body]


def test_repetitions_are_due_by_time() -> None:
    """An incident that changes all the time keeps no other from being repeated."""
    with receiver() as server:
        box = outbox("alertmanager", server.url, repeat_interval="20ms")
        box.put([event(id="A")])
        for number in range(200):
            box.put([event(id="B", change="updated")])
            if ["B"] in [ids(body) for body in server.wait_for(number + 1)[-1:]] and any(
                "A" in ids(body) for body in server.wait_for(1)[1:]
            ):
                break
        else:
            raise AssertionError("A was sent once only")
        box.shutdown(5)


def test_a_message_that_is_refused_again_and_again_ends_no_alert() -> None:
    """What is open is repeated between the attempts; what is about to close is not."""
    with receiver() as server:
        box = outbox("alertmanager", server.url, repeat_interval="5ms")
        box.put([event(id="A"), event(id="B")])
        server.wait_for(1)
        refused = event(id="A", change="closed", closed_ns=START)
        post = box._post

        def refusing(data: bytes) -> None:
            if b"2023-11-14T22:13:20Z" in data.split(b'"endsAt":')[1][:30]:
                raise RetryableError("too much for it")
            post(data)

        box._post = refusing  # type: ignore[method-assign]  # the server cannot tell the two apart by their order
        box.put([refused])
        before = len(server.posts)
        bodies = server.wait_for(before + 4)[before + 2 :]
        box.shutdown(0)
    assert [ids(body) for body in bodies[:2]] == [["B"], ["B"]]


def test_an_alert_lives_from_the_attempt_that_succeeds() -> None:
    """After an outage the first delivery is firing: its end is reckoned anew at each attempt."""
    times = iter(range(1_700_000_000, 1_800_000_000, 1000))
    with receiver() as server:
        server.answers = [500, 500]
        notify = Notify.model_validate({"alertmanager": {"x": {"url": server.url, "retry_on_failure": QUICK}}})
        box = Outbox("alertmanager/x", notify.targets["alertmanager/x"], clock=lambda: next(times))
        box.start()
        box.put([event()])
        [[alert]] = server.wait_for(1)
        box.shutdown(5)
    assert alert["endsAt"] == "2023-11-14T22:50:40.000+00:00"


@pytest.mark.parametrize("is_kept", [True, False])
def test_what_is_not_sent_by_the_end(is_kept: bool, caplog: pytest.LogCaptureFixture) -> None:
    """With a store it is kept for the next start, and no message is said to be lost; without one it is."""
    caplog.set_level(logging.INFO)
    box = outbox("webhook", "http://127.0.0.1:9/x")
    box.put([event()])
    box.put([event(change="updated")])
    box.shutdown(0.0)
    box.settle(is_kept)
    assert (box.waiting, box.dropped, box.failed) == ((2, 0, 0) if is_kept else (0, 2, 0))
    assert ("2 messages are kept and sent after the next start" in caplog.text) == is_kept
    assert ("2 messages were not sent before the end" in caplog.text) != is_kept
    assert "lost" not in caplog.text


def test_incidents_from_before_a_restart_are_repeated_to_alertmanager_only() -> None:
    """Of a store that does not say who was told, all were: only Alertmanager must hear that it lasts."""
    with receiver() as server:
        settings = Notify.model_validate(
            {
                "alertmanager": {"a": {"url": server.url, "repeat_interval": "10ms"}},
                "webhook": {"w": {"url": server.url}},
            }
        )
        notifier = Notifier(settings)
        notifier.remember([event()], {event().id: list(settings.targets)})
        notifier.start()
        server.wait_for(2)
        notifier.shutdown(5)
    assert {path for path, _, _ in server.posts} == {"/api/v2/alerts"}


def test_targets_get_what_they_ask_for() -> None:
    """By monitor's targets, by severity, by kind of change."""
    with receiver() as server:
        settings = Notify.model_validate(
            {
                "webhook": {
                    "all": {"url": f"{server.url}/all", "min_severity": "info"},
                    "bad": {"url": f"{server.url}/bad", "min_severity": "critical", "changes": ["opened"]},
                }
            }
        )
        notifier = Notifier(settings)
        notifier.start()
        everybody = ["webhook/all", "webhook/bad"]
        notifier.tell([event(), event(id="cd" * 16, severity="info")], {"ab" * 16: everybody, "cd" * 16: everybody})
        notifier.tell([event(change="updated")], {"ab" * 16: everybody})
        notifier.tell([event(change="updated")], {})
        notifier.shutdown(5)
    told = sorted((path, [one["id"][:2] for one in body["incidents"]]) for path, _, body in server.posts)
    assert told == [("/all", ["ab"]), ("/all", ["ab", "cd"]), ("/bad", ["ab"])]
    assert notifier.counters() == {
        "notifications_sent": 3,
        "notifications_failed": 0,
        "notifications_dropped": 0,
        "notifications_waiting": 0,
    }
