"""What a user can set of notifications: where messages go, by kind and name."""

from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr

from mlspan_processor.anomaly.findings import Severity
from mlspan_processor.config.durations import Duration, PositiveDuration
from mlspan_processor.config.schema import Retry, Section

ChangeKind = Literal["opened", "updated", "closed"]
CHANGES: Final[tuple[ChangeKind, ...]] = ("opened", "updated", "closed")


def _url(secret: SecretStr) -> SecretStr:
    try:
        parts = urlsplit(secret.get_secret_value())
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
        # In https://https://host the host is "https", with a colon and no port.
        usable = usable and not parts.netloc.endswith(":") and not any(map(str.isspace, parts.netloc))
    except ValueError:
        usable = False
    if not usable:
        raise ValueError('expected a URL, "https://host/path"')
    return secret


def _trace_url(text: str) -> str:
    if text and "{trace_id}" not in text:
        raise ValueError('expected "{trace_id}" in it, such as "http://localhost:16686/trace/{trace_id}"')
    return text


Url = Annotated[SecretStr, AfterValidator(_url)]
"""A URL that may hold a secret and is never shown."""


class Retries(Retry):
    """What happens after a failure that may pass: an incident is worth telling for an hour."""

    initial_interval: PositiveDuration = 1.0
    """Wait before the first retry."""
    max_elapsed_time: Duration = 3600.0
    """After this time the message is dropped and counted. 0: never."""


class Target(Section):
    """What every kind of target has."""

    url: Url
    """Where messages go. Put secrets into ${env:NAME}; the URL is never logged beyond its host."""
    headers: dict[str, SecretStr] = Field(default_factory=dict)
    """Further request headers, such as Authorization; never logged."""
    min_severity: Severity = "warning"
    """Incidents that are less bad are not told here; one that becomes so bad is opened here then."""
    changes: list[ChangeKind] = Field(default_factory=lambda: [*CHANGES], min_length=1)
    """What is told of an incident; its return after closing is an opening."""
    timeout: PositiveDuration = 5.0
    """How long one attempt may take."""
    queue_size: int = Field(default=100, ge=1, le=10_000)
    """Messages that may wait; beyond it older states of an incident make way, counted, and messages become one."""
    retry_on_failure: Retries = Field(default_factory=Retries)
    """Retries."""


class Webhook(Target):
    """Posts JSON: {"version": 1, "incidents": […]}."""


class Alertmanager(Target):
    """Posts to Prometheus' Alertmanager, API version 2: firing alerts, again and again, then the resolved one."""

    labels: dict[str, str] = Field(default_factory=dict)
    """Labels put on every alert, for Alertmanager's routes."""
    repeat_interval: PositiveDuration = 60.0
    """How often an open incident is sent again; Alertmanager ends one it has not heard of for four times as long."""


class Slack(Target):
    """Posts to an incoming webhook of Slack, or of what understands its format (Mattermost, Rocket.Chat, Discord's
    /slack)."""

    channel: str = ""
    """Another channel than the webhook's own, where the service allows it."""


class Notify(Section):
    """Who is told; monitors name them as "webhook/NAME", "alertmanager/NAME", "slack/NAME"."""

    trace_url: Annotated[str, AfterValidator(_trace_url)] = ""
    """Link to a trace, "http://jaeger.example.com/trace/{trace_id}"; without it messages have bare ids."""
    webhook: dict[str, Webhook] = Field(default_factory=dict)
    """JSON by HTTP POST."""
    alertmanager: dict[str, Alertmanager] = Field(default_factory=dict)
    """Prometheus' Alertmanager."""
    slack: dict[str, Slack] = Field(default_factory=dict)
    """Slack's incoming webhooks."""

    @property
    def targets(self) -> dict[str, Target]:
        """All targets by "kind/name", in the order written."""
        kinds: dict[str, dict[str, Target]] = {
            "webhook": {**self.webhook},
            "alertmanager": {**self.alertmanager},
            "slack": {**self.slack},
        }
        return {f"{kind}/{name}": one for kind, named in kinds.items() for name, one in named.items()}
