"""Stage 6, notifications: what one target is still to hear, and what it has been told.

In: changes of incidents, whatever their kind. Out: messages in the target's own terms, which depend on what it was
told: the first change at which an incident is bad enough for it is `opened` to it, a return after closing likewise, and
it hears of a closing only where it knows of the opening. Both go to the store, so that a restart neither repeats nor
forgets. In a full queue the states between an incident's first and its newest make way, then messages become one: the
newest state of an incident is never dropped for another incident's.
Memory: `MAX_STATES` events that wait, `MAX_TOLD` that were told.
"""

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from mlspan_processor.anomaly.findings import SEVERITIES
from mlspan_processor.events import Event, event_from
from mlspan_processor.notify.settings import Alertmanager, ChangeKind, Target

MAX_STATES: Final = 2_000
"""Changes that wait for one target; beyond it the incident that has waited longest is dropped and counted."""
MAX_TOLD: Final = 1_000
"""Open incidents that a target is known to have heard of, and that are repeated to Alertmanager."""
_RANK: Final = {severity: rank for rank, severity in enumerate(SEVERITIES)}


class Backlog:
    """One target; whoever owns it holds a lock.

    Attributes:
        waiting: messages, oldest first.
        sending: the message that `take` has given out.
        told: open incidents that the target knows of, as it last heard of them.
        dropped: changes that it will never hear of, for want of room.
    """

    def __init__(self, target: Target) -> None:
        self.waiting: deque[list[Event]] = deque()
        self.sending: list[Event] = []
        self.told: dict[str, Event] = {}
        self.dropped = 0
        self._target = target
        self._repeats = isinstance(target, Alertmanager)
        self._told_then: dict[str, Event] = {}

    def __len__(self) -> int:
        """Messages that are not told yet."""
        return len(self.waiting) + bool(self.sending)

    def put(self, events: Sequence[Event]) -> None:
        """One message more: what has changed at one moment."""
        message = [event for event in events if self._is_bad_enough(event)]
        if not message:
            return
        self.waiting.append(message)
        if len(self.waiting) > self._target.queue_size:
            self._thin_out()
        while len(self.waiting) > self._target.queue_size:
            oldest = self.waiting.popleft()
            self.waiting[0] = oldest + self.waiting[0]
        while sum(map(len, self.waiting)) > MAX_STATES:
            self._drop(self.waiting[0][0].id)

    def take(self) -> list[Event]:
        """The next message, as the target is to hear it; [] when there is none. `delivered` or `lost` follows."""
        while self.waiting:
            self.sending = self.waiting.popleft()
            events = self._in_its_terms(self.sending)
            if events:
                return events
            self.delivered()
        return []

    def delivered(self) -> None:
        """The target has taken the message."""
        self.sending, self.told = [], self._told_then

    def lost(self) -> None:
        """It never will. Alertmanager hears of what is open all the same, when that is repeated."""
        self.sending, self.told = [], self._told_then if self._repeats else self.told

    def clear(self) -> int:
        """Forget the messages that are not told; how many."""
        left = len(self)
        self.waiting.clear()
        self.sending = []
        return left

    def open(self) -> list[Event]:
        """What the target knows to be open, but for what is about to close."""
        left = (self.sending, *self.waiting)
        closing = {event.id for message in left for event in message if event.change == "closed"}
        return [replace(event, change="updated") for event in self.told.values() if event.id not in closing]

    def state(self) -> dict[str, Any]:
        """Everything, for orjson."""
        sending = [self.sending] if self.sending else []
        return {"waiting": [*sending, *self.waiting], "told": list(self.told.values())}

    def restore(self, state: Mapping[str, Any]) -> None:
        """What `state` was in an earlier process."""
        self.told = {one["id"]: event_from(one) for one in state["told"]}
        for message in state["waiting"]:
            self.put([event_from(one) for one in message])

    def remember(self, opened: Sequence[Event], is_all_told: bool) -> None:
        """After a restart: what is open now. What the target was not told of, and is not waiting, it is to hear."""
        waiting = {event.id for message in self.waiting for event in message}
        if is_all_told:
            self.told = {event.id: event for event in opened if self._is_bad_enough(event)}
        # Whatever has closed without a word, as when the state could not be read, must not be repeated for ever.
        known: Collection[str] = {event.id for event in opened} | waiting
        self.told = {key: event for key, event in self.told.items() if key in known}
        self.put([event for event in opened if event.id not in self.told and event.id not in waiting])

    def _is_bad_enough(self, event: Event) -> bool:
        return _RANK[event.severity] >= _RANK[self._target.min_severity]

    def _in_its_terms(self, events: Sequence[Event]) -> list[Event]:
        """What the target hears of these; notes what it knows then."""
        changes, told, result = self._target.changes, dict(self.told), []
        for event in events:
            known = told.pop(event.id, None)
            if event.change == "closed":
                if known is not None and "closed" in changes:
                    result.append(event)
                continue
            change: ChangeKind = "opened" if known is None else "updated"
            is_told = change in changes
            if is_told and known is not None and self._repeats and known.severity != event.severity:
                # An alert of another severity has other labels: it is another alert, and this one ends.
                result.append(replace(known, change="closed", closed_ns=event.updated_ns))
            if is_told:
                result.append(replace(event, change=change))
            # An opening that it does not ask for counts as told.
            told[event.id] = event if is_told or known is None else known
            if len(told) > MAX_TOLD:
                del told[next(iter(told))]
        self._told_then = told
        return result

    def _thin_out(self) -> None:
        """Drop the states of an incident that lie between the first that is news to the target, and the newest."""
        newest = {event.id: event for message in self.waiting for event in message}
        known = set(self._told_then if self.sending else self.told)
        thinned: deque[list[Event]] = deque()
        for message in self.waiting:
            kept = [event for event in message if event is newest[event.id] or _is_news(event, known)]
            self.dropped += len(message) - len(kept)
            if kept:
                thinned.append(kept)
        self.waiting = thinned

    def _drop(self, incident: str) -> None:
        """An incident for which there is no room."""
        before = sum(map(len, self.waiting))
        thinned = ([event for event in message if event.id != incident] for message in self.waiting)
        self.waiting = deque(message for message in thinned if message)
        self.dropped += before - sum(map(len, self.waiting))
        self.told.pop(incident, None)
        self._told_then.pop(incident, None)


def _is_news(event: Event, known: set[str]) -> bool:
    """Whether it is the first of its incident; notes that it is known from now on."""
    is_news = event.id not in known
    known.add(event.id)
    return is_news
