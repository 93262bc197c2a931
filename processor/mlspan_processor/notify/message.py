"""Stage 6, notifications: events as the bodies that each kind of target takes. BODIES is the table: one row a kind.

Pure functions: events in, JSON-able documents out. Every message says what is wrong, how much in units, since when, of
which model version, which features, and where to look.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from mlspan_processor.events import Event, as_json, rfc3339
from mlspan_processor.notify.settings import Alertmanager, Slack, Target

MAX_TRACES: Final = 5
MAX_DETAILS: Final = 8
_ALIVE_FACTOR: Final = 4
"""Alertmanager ends an alert after so many repeat intervals without a word, as Prometheus' own alerts do."""
_SIGNS: Final = {"info": "ℹ️", "warning": "⚠️", "critical": "🔴"}


def links(event: Event, trace_url: str) -> list[str]:
    """Links to traces behind the incident, or their ids where there is no template."""
    ids = list(dict.fromkeys(trace for trace, _ in event.exemplars))[:MAX_TRACES]
    return [trace_url.replace("{trace_id}", one) if trace_url else one for one in ids]


def title(event: Event) -> str:
    """One line: "OPENED critical: fraud-model 7: accuracy fell …"."""
    return f"{event.change.upper()} {event.severity}: {event.model} {event.version}: {event.summary}"


def webhook(events: Sequence[Event], _: Target, trace_url: str, __: float) -> Any:
    """{"version": 1, "incidents": […]}; docs/monitors.md describes it."""
    incidents = [{**as_json(event), "traces": links(event, trace_url)} for event in events]
    return {"version": 1, "incidents": incidents}


def slack(events: Sequence[Event], target: Target, trace_url: str, _: float) -> Any:
    """One message with an attachment for each incident; `text` alone is readable where attachments are not shown."""
    assert isinstance(target, Slack)
    attachments = []
    for event in events:
        lines = [_escaped(line) for line in event.details[:MAX_DETAILS]]
        more = len(event.details) - MAX_DETAILS
        lines += [f"… and {more} more"] if more > 0 else []
        found = links(event, trace_url)
        traces = [f"<{one}|trace {number}>" if trace_url else f"`{one}`" for number, one in enumerate(found, 1)]
        fields = [
            {"title": "model", "value": _escaped(f"{event.model} {event.version}"), "short": True},
            {"title": "since", "value": rfc3339(event.since_ns), "short": True},
        ]
        if event.features:
            fields.append({"title": "features", "value": _escaped(", ".join(event.features)), "short": False})
        if traces:
            fields.append({"title": "traces", "value": " ".join(traces), "short": False})
        color = "good" if event.change == "closed" else {"critical": "danger"}.get(event.severity, "warning")
        attachments.append(
            {"color": color, "title": _escaped(event.why), "text": "\n".join(lines), "fields": fields, "fallback": ""}
        )
    signs = ("✅" if event.change == "closed" else _SIGNS[event.severity] for event in events)
    text = "\n".join(f"{sign} {_escaped(title(event))}" for sign, event in zip(signs, events, strict=True))
    return {"text": text, "attachments": attachments, **({"channel": target.channel} if target.channel else {})}


def alertmanager(events: Sequence[Event], target: Target, trace_url: str, now: float) -> Any:
    """Alerts of API v2; one alert for each severity that an incident has had, since routes go by the label."""
    assert isinstance(target, Alertmanager)
    alerts = []
    for event in events:
        closed = event.change == "closed"
        until = datetime.fromtimestamp(now, UTC) + timedelta(seconds=_ALIVE_FACTOR * target.repeat_interval)
        end = rfc3339(event.closed_ns or event.updated_ns) if closed else until.isoformat(timespec="milliseconds")
        traces = links(event, trace_url)
        annotations = {
            "summary": event.summary,
            "description": "\n".join(event.details),
            "since": rfc3339(event.since_ns),
            "features": ", ".join(event.features),
            "traces": " ".join(traces),
        }
        alerts.append(
            {
                "labels": {
                    "alertname": "MlspanIncident",
                    "model": event.model,
                    "model_version": event.version,
                    "severity": event.severity,
                    "incident": event.id,
                    **target.labels,
                },
                "annotations": {key: text for key, text in annotations.items() if text},
                "startsAt": rfc3339(event.opened_ns),
                "endsAt": end,
                "generatorURL": traces[0] if trace_url and traces else "",
            }
        )
    return alerts


Body = Callable[[Sequence[Event], Target, str, float], Any]
"""Events, target, template of trace links, seconds since the epoch; a JSON-able document."""

BODIES: Final[Mapping[str, tuple[Body, str]]] = {
    "webhook": (webhook, ""),
    "slack": (slack, ""),
    "alertmanager": (alertmanager, "/api/v2/alerts"),
}
"""By kind of target: the body, and the path after the URL."""


def _escaped(text: str) -> str:
    """Slack's three control characters."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
