"""Stage 6: judgement in the stream: what is watched of every model version, incidents, and who is told of them.

In: rows and labels as the state takes them in (a slice of a block, never a span), the models at every tick. Out: events
of incidents: as log records and spans, as metrics, to the notifier, for the report. Owned by the state thread, knows no
clock. A tick judges at most `WINDOWS_A_TICK` windows, model versions in turn, so that it takes bounded time. What must
survive a restart goes to the store's sections: incidents before anybody hears of them.
Memory: see monitors/watch.py; rows that are kept, `ROWS_BYTES` over all model versions.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from mlspan_processor.anomaly.findings import Change
from mlspan_processor.anomaly.incidents import Incidents, Limits
from mlspan_processor.closed import Closed
from mlspan_processor.decode import Calls as DecodedCalls
from mlspan_processor.events import Event, as_json, event_of, rfc3339
from mlspan_processor.gone import Gone
from mlspan_processor.instruments import Instruments
from mlspan_processor.model import Model
from mlspan_processor.monitors.calls import Calls, CallWindow
from mlspan_processor.monitors.defaults import with_defaults
from mlspan_processor.monitors.matching import call_durations
from mlspan_processor.monitors.one_thread import one_thread
from mlspan_processor.monitors.segments import Resources
from mlspan_processor.monitors.watch import Watch
from mlspan_processor.notify import Notifier
from mlspan_processor.pending import Pending, Predictions
from mlspan_processor.quality.custom import CustomMetrics
from mlspan_processor.rows import Block
from mlspan_processor.sample import Sample
from mlspan_processor.settings import MlspanSettings
from mlspan_processor.store import Sections

WINDOWS_A_TICK: Final = 50
WINDOWS_A_MODEL: Final = 5
WATCHES_A_SAVE: Final = 20
ROWS_BYTES: Final = 128 * 1024 * 1024
LEARNT_BYTES: Final = 128 * 1024 * 1024
"""Of rows that detectors are learnt from, over all model versions."""
INCIDENTS: Final = "incidents"
WATCHES: Final = "watches"
ESTIMATORS: Final = "estimators"
DETECTORS: Final = "multivariate"
VALUES: Final = "segments"
# A finding comes here when it has persisted (monitors/persistence.py): subjects are judged at different times.
LIMITS: Final = Limits(persistence=(1, 1), cool_down=360)
_OF_WATCHES: Final = (WATCHES, ESTIMATORS, DETECTORS, VALUES)
_log = logging.getLogger(__name__)
Key = tuple[str, str]


class Judge:
    """All model versions.

    Attributes:
        incidents: open ones and those that cool down.
        opened: how many were opened, by (model, version, severity).
        closed: the last closed ones.
    """

    def __init__(
        self,
        settings: MlspanSettings,
        sections: Sections,
        save: Callable[[int], bool],
        sample_of: Callable[[str, str], Sample | None] = lambda *_: None,
    ) -> None:
        """`save` writes the sections to disk, now; `sample_of` gives the labelled rows beside a profile."""
        self._sample_of = sample_of
        self._custom = CustomMetrics.installed()
        self._settings = settings
        self._save = save
        self._sections = sections
        self._monitors = with_defaults(settings.monitors, settings.default_monitors)
        self._targets = {
            one.name: settings.notify.targets if one.notify is None else one.notify for one in self._monitors
        }
        self._watches: dict[Key, Watch] = {}
        self._restored: dict[Key, dict[str, bytes]] = {}
        self._calls = [Calls(duration) for duration in call_durations(self._monitors)]
        self._waiting_calls: dict[Key, dict[int, CallWindow]] = {}
        self._turn: deque[Key] = deque()
        self._changed: deque[Key] = deque()
        self._done: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._todo: SimpleQueue[tuple[Callable[[], Any], Callable[[Any], None]]] = SimpleQueue()
        self._fitting: threading.Thread | None = None
        self._running = 0
        self._resources = Resources(settings.segments.resource)
        self.incidents = Incidents(LIMITS)
        self._gone = Gone(int(settings.window.idle * 10**9))
        self._monitors_of: dict[str, set[str]] = {}
        self.opened: dict[tuple[str, str, str], int] = {}
        self.closed = Closed()
        self.notifier = Notifier(settings.notify, sections)
        self.counters = dict.fromkeys(("judged_windows", "failed_judgements", "incidents_opened"), 0)
        sections.on_restore(INCIDENTS, self._restore_incidents)
        for section in _OF_WATCHES:
            sections.on_restore(section, partial(self._restore_watches, section))
        sections.before_save(self._save_watches)

    # --- as data comes
    # ------------------------------------------------------------------------------------------------

    def rows(
        self,
        model: Model,
        block: Block,
        weights: NDArray[np.float64],
        times: NDArray[np.int64],
        used: NDArray[np.bool_],
        predictions: Predictions | None,
    ) -> None:
        """Rows of a block that count; those that labels are for as `predictions`."""
        if model.reference is None or not self._monitors:
            return
        watch = self._watch(model)
        if watch.rows.full or sum(one.rows.nbytes for one in self._watches.values()) > ROWS_BYTES:
            return
        watch.add_rows(block, weights, times, used, predictions)

    def placed(
        self,
        model: Model,
        calls: DecodedCalls,
        block: Block,
        at: NDArray[np.intp],
        places: NDArray[np.intp],
        pending: Pending,
    ) -> None:
        """Rows `at` (n,) of a block have these places (n,) among those that wait for labels: note their segments."""
        settings = self._settings.segments
        if not (settings.features or settings.resource) or not len(places):
            return
        resources = []
        if settings.resource:
            starts = np.array([start for start, _ in calls.resources])
            values = [self._resources.values(raw) for _, raw in calls.resources]
            owner = np.searchsorted(starts, np.arange(len(calls)), "right") - 1
            resources = [values[i] for i in owner.tolist()]
        pending.set_segments(places, self._watch(model).segmented.codes(model, block, at, resources))

    def labels(self, model: Model, places: NDArray[np.intp], pending: Pending, now: int) -> None:
        """Rows whose label has just come."""
        segments = pending.segments(places)
        if self._monitors or segments is not None:
            self._watch(model).add_labels(places, pending, now, segments)

    def forget(self, model: Model) -> None:
        """A model version that is idle; its incident closes at the next tick."""
        self._gone.forget(model.key, f"no calls since {rfc3339(model.last_seen)}")
        self._waiting_calls.pop(model.key, None)
        if self._watches.pop(model.key, None) is not None:
            for section in _OF_WATCHES:
                self._sections.delete(section, _name(model.key))

    # --- at ticks
    # -----------------------------------------------------------------------------------------------------

    def tick(self, models: Mapping[Key, Model], instruments: Instruments, now: int) -> list[Event]:
        """Judge what is over, open and close incidents; returns what is to be told."""
        self.catch_up()
        # Nothing is replayed here: an earlier time is a clock that was set back.
        self.incidents.set_back(now)
        for calls in self._calls:
            for key, window in calls.advance(instruments, now).items():
                if key in models:
                    self._watch(models[key])
                    self._waiting_calls.setdefault(key, {})[calls.duration_ns] = window
        looked = self._look(models, now)
        if sum(one.together.nbytes for one in self._watches.values()) > LEARNT_BYTES:
            max(self._watches.values(), key=lambda one: one.together.nbytes).together.hurry()
        # What still holds is found again at every look, though its window was judged before.
        findings = [replace(one, end_ns=now) for key in looked for one in self._watches[key].persistence.findings()]
        changes = self.incidents.step(now, findings, looked, {key: self._watches[key].usual for key in looked})
        gone = self._gone.at(now, self.incidents.open, models)
        changes += filter(None, [self.incidents.end(*key, now, why) for key, why in gone])
        return self._told(changes, now)

    def watch(self, key: Key) -> Watch | None:
        """What is watched of a model version, for metrics and the report."""
        return self._watches.get(key)

    def watches(self) -> Iterable[Watch]:
        """Of all model versions."""
        return self._watches.values()

    def events(self) -> list[Event]:
        """Incidents that are open, as they are now."""
        return [self._event(Change("updated", one, "")) for one in self.incidents.open]

    def report(self, key: Key | None = None) -> dict[str, Any]:
        """Incidents that are open and the last closed ones, newest first; of one model version where a key is given."""
        opened = [event for event in reversed(self.events()) if key in {None, (event.model, event.version)}]
        closed = [event for event in reversed(self.closed) if key in {None, (event.model, event.version)}]
        return {"open": [as_json(event) for event in opened], "closed": [as_json(event) for event in closed[:100]]}

    @property
    def busy(self) -> bool:
        """Whether something is still being fitted or estimated."""
        return self._running > 0

    def catch_up(self) -> None:
        """Take over what the background has finished; a tick does that first."""
        while True:
            try:
                finish = self._done.get_nowait()
            except Empty:
                return
            finish()

    def _look(self, models: Mapping[Key, Model], now: int) -> list[Key]:
        """Judge model versions in turn; those that were looked at."""
        known = set(self._turn)
        self._turn.extend(key for key in self._watches if key not in known)
        left, looked = WINDOWS_A_TICK, []
        for _ in range(len(self._turn)):
            if left <= 0:
                break
            key = self._turn.popleft()
            watch = self._watches.get(key)
            if watch is None or key not in models:
                continue
            self._turn.append(key)
            try:
                done = watch.look(now, self._waiting_calls.pop(key, {}), min(left, WINDOWS_A_MODEL), models.values())
            except Exception as error:  # noqa: BLE001 one model's judgement must not cost the others theirs
                self.counters["failed_judgements"] += 1
                if self.counters["failed_judgements"] == 1:
                    _log.error("no judgement of %s: %s: %s", key, type(error).__name__, error, exc_info=error)
                continue
            if done:
                left -= done
                looked.append(key)
                if key not in self._changed:
                    self._changed.append(key)
                self.counters["judged_windows"] += done
        return looked

    def _told(self, changes: list[Change], now: int) -> list[Event]:
        if not changes:
            return []
        events = [self._event(change) for change in changes]
        for event in events:
            if event.change == "opened":
                place = (event.model, event.version, event.severity)
                self.opened[place] = self.opened.get(place, 0) + 1
                self.counters["incidents_opened"] += 1
            self.closed.see(event)
        # On disk, with who is to hear, before anybody does: a restart then opens nothing twice, and forgets nobody.
        self.notifier.hold(events, self._whom(events))
        self._save_incidents()
        self._save(now)
        self.notifier.release()
        for event in events:
            if event.change == "closed":
                self._monitors_of.pop(event.id, None)
        return events

    def _event(self, change: Change) -> Event:
        incident = change.incident
        monitors = self._monitors_of.setdefault(incident.id, set())
        watch = self._watches.get((incident.model, incident.version))
        if watch is not None:
            for subject in incident.subjects:
                monitors |= watch.said.get((subject.finding.subject, subject.finding.segment), set())
        return event_of(change, monitors)

    def _whom(self, events: Iterable[Event]) -> dict[str, set[str]]:
        return {
            event.id: {target for name in event.monitors for target in self._targets.get(name, ())} for event in events
        }

    def _watch(self, model: Model) -> Watch:
        watch = self._watches.get(model.key)
        if watch is None:
            kept = self._restored.pop(model.key, {})
            watch = self._watches[model.key] = self._new_watch(model, kept)
            if WATCHES in kept:
                try:
                    watch.restore(orjson.loads(kept[WATCHES]), kept.get(ESTIMATORS, b""), kept.get(DETECTORS, b""))
                except Exception as error:  # noqa: BLE001 as above: it is watched anew
                    _log.warning(
                        "what was watched of %s cannot be read: %s: %s", model.key, type(error).__name__, error
                    )
                    watch = self._watches[model.key] = self._new_watch(model, kept)
        return watch

    def _new_watch(self, model: Model, kept: Mapping[str, bytes]) -> Watch:
        watch = Watch(model, self._monitors, self._settings, self._background, self._sample_of, self._custom)
        # Rows that wait for labels have numbers of these values.
        watch.segmented.restore(kept.get(VALUES, b""))
        return watch

    # --- in the background
    # -------------------------------------------------------------------------------------------

    def _background(self, work: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """Run `work` in a thread; `then` gets its result, None where it failed, on the state thread, at a tick."""
        self._running += 1
        self._todo.put((work, then))
        if self._fitting is None:
            self._fitting = threading.Thread(target=self._fit, name="mlspan-fit", daemon=True)
            self._fitting.start()

    def _fit(self) -> None:
        """Work off what is to be fitted, one after the other."""
        while True:
            work, then = self._todo.get()
            result = None
            try:
                result = one_thread(work)
            except Exception as error:  # noqa: BLE001 an estimator's bug must not stop anything
                _log.error("an estimate failed: %s: %s", type(error).__name__, error, exc_info=error)
            self._done.put(partial(self._finished, partial(then, result)))

    def _finished(self, then: Callable[[], None]) -> None:
        self._running -= 1
        then()

    # --- what survives
    # ------------------------------------------------------------------------------------------------

    def _save_incidents(self) -> None:
        state = {
            "incidents": self.incidents.to_dict(),
            "monitors": {key: sorted(names) for key, names in self._monitors_of.items()},
            "opened": [[list(place), count] for place, count in self.opened.items()],
            "closed": self.closed.to_list(),
        }
        self._sections.put(INCIDENTS, "all", orjson.dumps(state))

    def _restore_incidents(self, values: Mapping[str, bytes]) -> None:
        try:
            self._take_incidents(orjson.loads(values["all"]))
        except Exception as error:  # noqa: BLE001 what an older version wrote must not cost the rest of the state
            _log.warning("incidents of before the restart cannot be read: %s: %s", type(error).__name__, error)
            self.incidents = Incidents(LIMITS)
            self.notifier.remember([], {})

    def _take_incidents(self, state: dict[str, Any]) -> None:
        self.incidents = Incidents.from_dict(state["incidents"], LIMITS)
        self._monitors_of = {key: set(names) for key, names in state["monitors"].items()}
        self.opened = {(place[0], place[1], place[2]): count for place, count in state["opened"]}
        events = self.events()
        self.closed.restore(state["closed"], events)
        self.notifier.remember(events, self._whom(events))

    def _save_watches(self) -> None:
        self._save_incidents()
        for key, watch in self._watches.items():
            values = watch.segmented.unsaved()
            if values is not None:
                self._sections.put(VALUES, _name(key), values)
        # A few at a time: what is a little older is judged once more after a restart, with the same result.
        for _ in range(min(WATCHES_A_SAVE, len(self._changed))):
            key = self._changed.popleft()
            known = self._watches.get(key)
            if known is None:
                continue
            self._sections.put(WATCHES, _name(key), orjson.dumps(known.to_dict()))
            for section, part in ((ESTIMATORS, known.performance), (DETECTORS, known.together)):
                data = part.unsaved()
                if data is not None:
                    self._sections.put(section, _name(key), data)

    def _restore_watches(self, section: str, values: Mapping[str, bytes]) -> None:
        for name, data in values.items():
            self._restored.setdefault(_key(name), {})[section] = data


def _name(key: Key) -> str:
    return orjson.dumps(key).decode()


def _key(name: str) -> Key:
    model, version = orjson.loads(name)
    return model, version
