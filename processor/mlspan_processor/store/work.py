"""State that survives, part 6: what one save writes, gathered before anything is written."""

import sqlite3
from collections.abc import Callable
from typing import Any


class Work:
    """Statements of one transaction, and what is to be noted once it has been committed.

    Attributes:
        unwritable: (what, error) of things that could not be made into bytes; they stay unsaved.
    """

    def __init__(self) -> None:
        self._statements: dict[str, list[tuple[Any, ...]]] = {}
        self._notes: list[Callable[[], object]] = []
        self.unwritable: list[tuple[str, Exception]] = []

    def add(self, statement: str, *values: Any) -> None:
        """One row for a statement; statements run in the order in which each was first added."""
        self._statements.setdefault(statement, []).append(values)

    def then(self, note: Callable[[], object]) -> None:
        """Do this after the commit."""
        self._notes.append(note)

    def run(self, db: sqlite3.Connection) -> None:
        """Execute everything.

        Raises:
            sqlite3.Error: the transaction must be rolled back.
        """
        for statement, rows in self._statements.items():
            db.executemany(statement, rows)

    def done(self) -> None:
        """It has been committed."""
        for note in self._notes:
            note()
