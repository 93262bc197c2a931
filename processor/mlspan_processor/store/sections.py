"""State that survives, part 2: named sections of bytes, for parts of the processor that keep dictionaries.

In: `put` and `delete` by a part, on the state thread. Out: `load` after a restart. What is put is written in the same
transaction as panes, predictions and labels, at the next save; `State.save` does that at once, for whoever must not
tell the world before it is on disk. Without a store everything works, and nothing is kept.
Memory: the values.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from mlspan_processor.store.database import Database
from mlspan_processor.store.work import Work

_REPLACE: Final = "REPLACE INTO section VALUES (?, ?, ?)"
_DELETE: Final = "DELETE FROM section WHERE section = ? AND key = ?"


class Sections:
    """Bytes by section and key.

    Attributes:
        kept: whether anything is kept; the store says so.

    >>> sections = Sections()
    >>> sections.kept = True
    >>> sections.put("incidents", "7", b"open")
    >>> sections.load("incidents")
    {'7': b'open'}
    """

    def __init__(self) -> None:
        self.kept = False
        self._values: dict[tuple[str, str], bytes] = {}
        self._changed: set[tuple[str, str]] = set()
        self._before_save: list[Callable[[], None]] = []
        self._restorers: dict[str, Callable[[Mapping[str, bytes]], None]] = {}

    def put(self, section: str, key: str, value: bytes) -> None:
        """Keep a value, in place of the one before."""
        if self.kept and self._values.get((section, key)) != value:
            self._values[section, key] = value
            self._changed.add((section, key))

    def delete(self, section: str, key: str) -> None:
        """Keep it no longer."""
        if self._values.pop((section, key), None) is not None:
            self._changed.add((section, key))

    def load(self, section: str) -> dict[str, bytes]:
        """What is kept of a section, by key."""
        return {key: value for (name, key), value in self._values.items() if name == section}

    def before_save(self, work: Callable[[], None]) -> None:
        """Call `work` on the state thread before every save: to put what changes all the time."""
        self._before_save.append(work)

    def on_restore(self, section: str, work: Callable[[Mapping[str, bytes]], None]) -> None:
        """Call `work` with a section's values after a restart, once models and predictions are there; not without
        any."""
        self._restorers[section] = work

    # --- for the keeper

    def add_work(self, work: Work) -> None:
        """What has changed."""
        for prepare in self._before_save:
            try:
                prepare()
            except Exception as error:  # noqa: BLE001 one part's state must not cost the others theirs
                work.unwritable.append((f"what {getattr(prepare, '__qualname__', 'a part')} keeps", error))
        changed = set(self._changed)
        for place in changed:
            if place in self._values:
                work.add(_REPLACE, *place, self._values[place])
            else:
                work.add(_DELETE, *place)
        work.then(partial(self._changed.difference_update, changed))

    def all_changed(self) -> None:
        """What was written is lost: write it again."""
        self._changed.update(self._values)

    def restore(self, database: Database) -> None:
        """Read everything."""
        self.kept = True
        self._values = {
            (section, key): data for section, key, data in database.rows("SELECT section, key, data FROM section")
        }

    def hand_over(self) -> list[tuple[str, Exception]]:
        """Give those who wait for it what was read; returns the sections that they could not read."""
        unreadable: list[tuple[str, Exception]] = []
        for section, work in self._restorers.items():
            found = self.load(section)
            try:
                if found:
                    work(found)
            except Exception as error:  # noqa: BLE001 one part's state must not cost the others theirs
                unreadable.append((section, error))
        return unreadable
