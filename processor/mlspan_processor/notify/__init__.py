"""Stage 6, notifications: who is told of incidents. settings.py is what a user writes, message.py the bodies,
backlog.py what a target is to hear and has heard, outbox.py its thread."""

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Final

import orjson

from mlspan_processor.events import Event
from mlspan_processor.notify.outbox import Outbox
from mlspan_processor.notify.settings import Notify
from mlspan_processor.store import Sections

__all__ = ["Notifier", "Notify", "Outbox"]

SECTION: Final = "notify"
_VERSION: Final = "version"


class Notifier:
    """All targets. What they are still to hear, and have heard, is kept in a section of the store."""

    def __init__(self, settings: Notify, sections: Sections | None = None) -> None:
        self.outboxes = {name: Outbox(name, target, settings.trace_url) for name, target in settings.targets.items()}
        self._is_restored = False
        if sections is not None:
            sections.on_restore(SECTION, self._restore)
            sections.before_save(partial(self._save, sections))

    def hold(self, events: Sequence[Event], whom: Mapping[str, Collection[str]]) -> None:
        """Take the changes of one moment, one message for each target, which is told at `release`: once that is on
        disk.

        Args:
            events: the changes.
            whom: targets by incident id.
        """
        for name, outbox in self.outboxes.items():
            outbox.hold([event for event in events if name in whom.get(event.id, ())])

    def release(self) -> None:
        """Tell what is held."""
        for outbox in self.outboxes.values():
            outbox.release()

    def tell(self, events: Sequence[Event], whom: Mapping[str, Collection[str]]) -> None:
        """Take these changes and tell them."""
        self.hold(events, whom)
        self.release()

    def remember(self, opened: Sequence[Event], whom: Mapping[str, Collection[str]]) -> None:
        """Incidents that were open before a restart; targets hear of those that they were not told of."""
        for name, outbox in self.outboxes.items():
            mine = [event for event in opened if name in whom.get(event.id, ())]
            # A store without this section was written by a version that told all or nothing.
            outbox.remember(mine, is_all_told=not self._is_restored)

    def _save(self, sections: Sections) -> None:
        sections.put(SECTION, _VERSION, b"1")
        for name, outbox in self.outboxes.items():
            sections.put(SECTION, name, outbox.state())

    def _restore(self, values: Mapping[str, bytes]) -> None:
        for name, outbox in self.outboxes.items():
            if name in values:
                outbox.restore(orjson.loads(values[name]))
        self._is_restored = True

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

    def settle(self, is_kept: bool) -> None:
        """After `shutdown`: whether what still waits is kept for the next start."""
        for outbox in self.outboxes.values():
            outbox.settle(is_kept)

    def counters(self) -> dict[str, int]:
        """Messages by what became of them."""
        boxes = self.outboxes.values()
        return {
            "notifications_sent": sum(one.sent for one in boxes),
            "notifications_failed": sum(one.failed for one in boxes),
            "notifications_dropped": sum(one.dropped for one in boxes),
            "notifications_waiting": sum(one.waiting for one in boxes),
        }
