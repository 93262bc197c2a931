"""State that survives, part 9: requests that carry labels, written down before they are acknowledged.

In: the bytes of a request, from receivers' threads. Out: after a restart, those whose effect had not been saved, in the
order they came. An entry goes in the transaction that saves its effect, so that it counts once, whenever the process
ends. An entry that could not be written (a full disk) is counted: its labels count, and survive once a save succeeds.
"""

import json
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Final, NamedTuple

from mlspan_processor.labels import Label
from mlspan_processor.store.database import Database
from mlspan_processor.store.work import Work

NOT_WRITTEN: Final = 0
_APPEND: Final = "INSERT INTO journal VALUES (?, ?, ?, ?)"


class Entry(NamedTuple):
    """One request.

    Attributes:
        number: what `applied` is told.
        at: when it came, nanoseconds since the epoch.
        kind: "traces", "logs" or "labels".
        data: its bytes.
    """

    number: int
    at: int
    kind: str
    data: bytes


class Journal:
    """Requests whose effect is not saved yet."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._applied: list[int] = []
        self._sizes: dict[int, int] = {}
        self._last = NOT_WRITTEN
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._sizes)

    def append(self, database: Database, kind: str, data: bytes, now: int) -> int:
        """Write a request down; its number.

        Raises:
            sqlite3.Error: it was not written.
        """
        with database.transaction() as db:
            # Never given twice, also when a damaged file has been replaced meanwhile.
            number = self._last = self._last + 1
            db.execute(_APPEND, (number, now, kind, data))
        self._note(number, len(data))
        return number

    def applied(self, number: int) -> None:
        """The state has the request's effect: the next save ends its entry. Called on the state thread."""
        if number != NOT_WRITTEN:
            self._applied.append(number)

    def add_work(self, work: Work) -> None:
        """End the entries whose effect is saved with the same transaction."""
        applied = list(self._applied)
        for number in applied:
            work.add("DELETE FROM journal WHERE id = ?", number)
        work.then(partial(self._end, applied))

    def entries(self, database: Database) -> Iterator[Entry]:
        """What an earlier process has left, one at a time."""
        numbers = [number for (number,) in database.rows("SELECT id FROM journal ORDER BY id")]
        self._last = max([self._last, *numbers])
        for number in numbers:
            for row in database.rows("SELECT id, at, kind, data FROM journal WHERE id = ?", number):
                self._note(number, len(row[3]))
                yield Entry(*row)

    def _note(self, number: int, size: int) -> None:
        with self._lock:
            self._sizes[number] = size
            self.nbytes += size

    def _end(self, applied: list[int]) -> None:
        with self._lock:
            for number in applied:
                self.nbytes -= self._sizes.pop(number, 0)
        del self._applied[: len(applied)]


def labels_to_bytes(labels: Sequence[Label]) -> bytes:
    """Labels as an entry's data."""
    rows = [[one.prediction_id, one.label, one.model, one.timestamp_ns] for one in labels]
    return json.dumps(rows, separators=(",", ":")).encode()


def labels_from_bytes(data: bytes) -> list[Label]:
    """What `labels_to_bytes` was given.

    Raises:
        ValueError, TypeError: the bytes are something else.
    """
    rows = json.loads(data)
    return [Label(one, tuple(label) if isinstance(label, list) else label, *rest) for one, label, *rest in rows]
