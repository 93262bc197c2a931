"""Stage 6, part 25: the last closed incidents, which the report still shows.

In: every event of an incident. Out: the closings, newest last; each incident at most once, and not while it is open.
Memory: `MAX_EVENTS` events.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any, Final

from mlspan_processor.events import Event, event_from

MAX_EVENTS: Final = 100


class Closed:
    """The events of their closing."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque(maxlen=MAX_EVENTS)

    def __reversed__(self) -> Iterator[Event]:
        """Newest first."""
        return reversed(self._events)

    def see(self, event: Event) -> None:
        """Any change of an incident: an earlier closing of it counts no longer."""
        for one in [one for one in self._events if one.id == event.id]:
            self._events.remove(one)
        if event.change == "closed":
            self._events.append(event)

    def to_list(self) -> list[dict[str, Any]]:
        """Everything, as JSON takes it."""
        return [asdict(event) for event in self._events]

    def restore(self, state: Iterable[dict[str, Any]], opened: Iterable[Event]) -> None:
        """What `to_list` described; older versions kept each closing, and those of incidents that came back."""
        for event in (*(event_from(one) for one in state), *opened):
            self.see(event)
