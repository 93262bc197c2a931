"""Bodies of notifications: what each kind of target is sent."""

from pydantic import SecretStr

from mlspan_processor.notify.message import alertmanager, links, slack, webhook
from mlspan_processor.notify.settings import Alertmanager, Slack, Webhook
from tests.processor.notify.receiver import INCIDENT, START, TRACE, event

URL = SecretStr("http://x/y")
JAEGER = "http://jaeger/trace/{trace_id}"
CLOSED = event(change="closed", closed_ns=START + 120 * 10**9)


def test_links_are_of_distinct_traces() -> None:
    """Two spans of one trace are one link; without a template there are bare ids."""
    assert links(event(), JAEGER) == [f"http://jaeger/trace/{TRACE}"]
    assert links(event(), "") == [TRACE]


def test_webhook_has_everything() -> None:
    """One document with all incidents of the moment, times as text."""
    body = webhook([event(), CLOSED], Webhook(url=URL), JAEGER, 0)
    assert body["version"] == 1
    first, last = body["incidents"]
    assert (first["id"], first["status"], first["severity"]) == (INCIDENT, "opened", "critical")
    assert first["model"] == {"name": "fraud", "version": "7"}
    assert (first["value"], first["expected"], first["effect"]) == (0.86, 0.93, -0.07)
    assert (first["since"], first["opened"], first["closed"]) == ("2023-11-14T22:13:20Z", "2023-11-14T22:14:20Z", None)
    assert first["features"] == ["age"]
    assert first["traces"] == [f"http://jaeger/trace/{TRACE}"]
    assert last["closed"] == "2023-11-14T22:15:20Z"


def test_slack_message_is_readable_without_attachments() -> None:
    """Text names what, whose and how bad; control characters are escaped; links are Slack's."""
    body = slack([event()], Slack(url=URL, channel="#ml"), JAEGER, 0)
    assert body["text"] == "🔴 OPENED critical: fraud 7: accuracy fell from 0.93 to 0.86"
    assert body["channel"] == "#ml"
    [attachment] = body["attachments"]
    assert attachment["color"] == "danger"
    assert "drift of &lt;age&gt;: effect 0.4" in attachment["text"]
    fields = {field["title"]: field["value"] for field in attachment["fields"]}
    assert fields["traces"] == f"<http://jaeger/trace/{TRACE}|trace 1>"
    assert fields["features"] == "age"
    assert slack([CLOSED], Slack(url=URL), "", 0)["attachments"][0]["color"] == "good"


def test_alertmanager_gets_firing_and_resolved_alerts() -> None:
    """The labels of both are the same; a firing one ends a while after it was last heard of, a resolved one then."""
    target = Alertmanager(url=URL, labels={"team": "ml"})
    [firing], [resolved] = (alertmanager([one], target, JAEGER, START / 1e9) for one in (event(), CLOSED))
    assert firing["labels"] == resolved["labels"]
    assert firing["labels"] == {
        "alertname": "MlspanIncident", "model": "fraud", "model_version": "7", "severity": "critical",
        "incident": INCIDENT, "team": "ml",
    }  # fmt: skip
    assert firing["startsAt"] == "2023-11-14T22:14:20Z"
    assert firing["endsAt"] == "2023-11-14T22:17:20.000+00:00"
    assert resolved["endsAt"] == "2023-11-14T22:15:20Z"
    assert firing["generatorURL"] == f"http://jaeger/trace/{TRACE}"
    assert all(isinstance(text, str) for text in firing["annotations"].values())
