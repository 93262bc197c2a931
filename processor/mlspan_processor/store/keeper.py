"""State that survives, part 10: a State and its file: read at the start, saved at intervals, bounded.

A save is one transaction: what has changed of models, panes, predictions, labels and sections, and the end of the
journal's entries whose effect is in it. After a ``kill -9`` the state is that of the last save, and the labels in the
journal are applied once more; what else came since is lost, at most one interval of statistics. A save that fails (a
full disk) is tried again at the next interval with all that has changed until then; meanwhile the processor runs on,
says so in its log and its health, and counts. A file that turns out to be damaged is put aside and written anew from
memory.
"""

import logging
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mlspan_processor.settings import MlspanSettings
from mlspan_processor.store.database import Database, StoreError, is_damage
from mlspan_processor.store.journal import NOT_WRITTEN, Entry, Journal
from mlspan_processor.store.models import ModelStore
from mlspan_processor.store.predictions import PredictionStore
from mlspan_processor.store.work import Work

if TYPE_CHECKING:
    from mlspan_processor.state import State

JOURNAL_BYTES: Final = 16 * 1024 * 1024
"""Bytes of requests that wait for a save; beyond it one is due at once."""
_ROOM: Final = 0.9
"""What is left of `max_bytes` once the oldest has been dropped."""
_SECOND: Final = 1_000_000_000
_log = logging.getLogger(__name__)


class Keeper:
    """Keeps one State. Its journal takes entries from any thread; all else happens on the state thread."""

    def __init__(self, database: Database, settings: MlspanSettings) -> None:
        self._database = database
        self._settings = settings
        self._interval = int(settings.store.snapshot_interval * _SECOND)
        self._next = 0
        self._lock = threading.Lock()
        self._logged: set[str] = set()
        self.problem = ""
        """What is wrong with the file, for people; "" while all is well."""
        self._counts = dict.fromkeys(
            (
                "saves",
                "failed_saves",
                "requests_not_durable",
                "dropped_predictions",
                "dropped_panes",
                "unreadable",
                "unwritable",
            ),
            0,
        )
        self._bytes = 0
        self.journal = Journal()
        self._begin()

    @property
    def path(self) -> Path:
        """The file."""
        return self._database.path

    # --- the start and the end

    def restore(self, state: "State", now: int) -> None:
        """Read everything into a new State.

        Raises:
            Exception: the file holds something else than it should; the state is of no use, see `begin_anew`.
        """
        self._next = now + self._interval
        models = self._models.restore(self._database, self._settings, state.book.find)
        state.adopt(models, self._models.next_slot)
        slots = {model.slot for model in state.models.values()}
        self._predictions.restore(self._database, state.labels, slots, state.recent)
        state.sections.restore(self._database)
        state.labels.watch()
        state.labels.pending.watch()
        unreadable = self._models.unreadable + self._predictions.unreadable + state.sections.hand_over()
        self._counts["unreadable"] += len(unreadable)
        for what, error in unreadable[:5]:
            _log.warning('"%s": %s cannot be read and is left out: %s', self._database.path, what, error)
        rows = state.labels.pending.size
        _log.info(
            'state of %d model versions and %d predictions read from "%s"', len(models), rows, self._database.path
        )

    def begin_anew(self, reason: str) -> None:
        """Put the file aside.

        Raises:
            StoreError: that is not possible.
        """
        self._database.reopen(reason)
        self._begin()

    def left_over(self) -> Iterator[Entry]:
        """Requests whose effect an earlier process had not saved; each is to be applied."""
        return self.journal.entries(self._database)

    def close(self) -> None:
        """Let go of the file; safe twice."""
        self._database.close()

    # --- from any thread

    def write_down(self, kind: str, data: bytes, now: int) -> int:
        """Keep a request with labels until its effect is saved; its number, or NOT_WRITTEN when that failed."""
        try:
            return self.journal.append(self._database, kind, data, now)
        except sqlite3.Error as error:
            with self._lock:
                self._counts["requests_not_durable"] += 1
            self._trouble("labels are counted, but not yet on disk", error)
            return NOT_WRITTEN

    def counters(self) -> Mapping[str, int | float]:
        """Everything that is counted, by name."""
        counts = {f"store_{name}": count for name, count in self._counts.items()}
        return {**counts, "store_bytes": self._bytes, "store_journal_requests": len(self.journal)}

    # --- on the state thread

    def is_due(self, now: int) -> bool:
        """Whether it is time for a save."""
        # A clock that was set back must not put it off.
        return not self._next - self._interval <= now < self._next or self.journal.nbytes > JOURNAL_BYTES

    def save(self, state: "State", now: int) -> bool:
        """Write what has changed; whether everything is on disk."""
        self._next = now + self._interval
        before = now - int(self._settings.window.retention * _SECOND)
        work = Work()
        try:
            self._models.add_work(state.models.values(), state.next_slot, work)
            self._predictions.add_work(state.labels, before, work)
            state.sections.add_work(work)
            self.journal.add_work(work)
            with self._database.transaction() as db:
                work.run(db)
            work.done()
        except Exception as error:  # noqa: BLE001 whatever it is, the processor runs on and tries again
            self._counts["failed_saves"] += 1
            self._predictions.failed(state.labels)
            self._trouble("state could not be saved", error)
            if is_damage(error):
                self._rewrite(state, error)
            return False
        self._counts["saves"] += 1
        self._counts["unwritable"] = len(work.unwritable)
        for what, reason in work.unwritable[:1]:
            self._trouble(f"{what} could not be saved", reason)
        if self.problem and not work.unwritable:
            _log.warning('state is on disk again, in "%s"', self._database.path)
            with self._lock:
                self.problem = ""
                self._logged.clear()
        self._tidy()
        return not work.unwritable

    def _begin(self) -> None:
        self._models = ModelStore()
        self._predictions = PredictionStore()

    def _rewrite(self, state: "State", error: Exception) -> None:
        """Begin a new file; the next save writes everything that is in memory."""
        try:
            self.begin_anew(str(error))
        except (StoreError, sqlite3.Error) as reason:
            self._trouble("state could not be saved", reason)
            return
        state.sections.all_changed()
        self._next = 0

    def _tidy(self) -> None:
        """Keep the file within its bound."""
        try:
            self._bytes = self._database.used_bytes()
            if self._bytes > self._settings.store.max_bytes:
                self._drop(self._bytes - int(_ROOM * self._settings.store.max_bytes))
            self._database.shrink()
        except sqlite3.Error as error:
            self._trouble("the state file could not be tidied", error)

    def _drop(self, excess: int) -> None:
        """Delete about so many bytes of the oldest: predictions first, then panes."""
        with self._database.transaction() as db:
            firsts = []
            for first, until, size in db.execute("SELECT first, until, length(data) FROM prediction ORDER BY first"):
                if excess <= 0:
                    break
                firsts.append(first)
                self._counts["dropped_predictions"] += until - first
                excess -= size
            db.executemany("DELETE FROM prediction WHERE first = ?", [(first,) for first in firsts])
            panes = []
            for slot, kind, start, size in db.execute(
                "SELECT slot, kind, start, length(data) FROM pane ORDER BY until"
            ):
                if excess <= 0:
                    break
                panes.append((slot, kind, start))
                excess -= size
            self._counts["dropped_panes"] += len(panes)
            db.executemany("DELETE FROM pane WHERE slot = ? AND kind = ? AND start = ?", panes)
        self._predictions.dropped(firsts)

    def _trouble(self, what: str, error: Exception) -> None:
        """Say it once, until all is well again."""
        text = f'{what}: {error} ("{self._database.path}"); it is tried again'
        with self._lock:
            if not self.problem:
                since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
                self.problem = f"since {since} {text}; what is not on disk is lost if the process ends"
            kind = f"{what}:{type(error).__name__}"
            is_known = kind in self._logged
            self._logged.add(kind)
        if not is_known:
            _log.error("%s", text)
