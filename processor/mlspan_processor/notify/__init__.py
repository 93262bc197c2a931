"""Stage 6, notifications: who is told of incidents. settings.py is what a user writes, message.py the bodies, outbox.py
one target's queue and thread."""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from mlspan_processor.anomaly.findings import SEVERITIES
from mlspan_processor.events import Event
from mlspan_processor.notify.outbox import Outbox
from mlspan_processor.notify.settings import Notify, Target

__all__ = ["Notifier", "Notify", "Outbox"]

_RANK: Final = {severity: rank for rank, severity in enumerate(SEVERITIES)}


class Notifier:
    """All targets."""

    def __init__(self, settings: Notify) -> None:
        self.outboxes = {name: Outbox(name, target, settings.trace_url) for name, target in settings.targets.items()}

    def tell(self, events: Sequence[Event], whom: Mapping[str, Collection[str]]) -> None:
        """Put one message into each target's queue: the events that are for it.

        Args:
            events: the changes of one moment.
            whom: targets by incident id.
        """
        for name, outbox in self.outboxes.items():
            outbox.put([event for event in events if name in whom.get(event.id, ()) and _wanted(event, outbox.target)])

    def remember(self, events: Sequence[Event], whom: Mapping[str, Collection[str]]) -> None:
        """Incidents that were open before a restart."""
        for name, outbox in self.outboxes.items():
            mine = [event for event in events if name in whom.get(event.id, ())]
            outbox.remember([event for event in mine if _RANK[event.severity] >= _RANK[outbox.target.min_severity]])

    def start(self) -> None:
        """Start all threads."""
        for outbox in self.outboxes.values():
            outbox.start()

    def shutdown(self, timeout_seconds: float) -> None:
        """Stop all, at the same time."""
        for outbox in self.outboxes.values():
            outbox.stop()
        for outbox in self.outboxes.values():
            outbox.shutdown(timeout_seconds)

    def counters(self) -> dict[str, int]:
        """Messages by what became of them."""
        boxes = self.outboxes.values()
        return {
            "notifications_sent": sum(one.sent for one in boxes),
            "notifications_failed": sum(one.failed for one in boxes),
            "notifications_dropped": sum(one.dropped for one in boxes),
        }


def _wanted(event: Event, target: Target) -> bool:
    return event.change in target.changes and _RANK[event.severity] >= _RANK[target.min_severity]
