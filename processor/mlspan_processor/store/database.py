"""State that survives, part 5: the SQLite file: whose it is, whether it can be read, and one transaction at a time.

Write-ahead log, exclusive lock: what is committed survives the process's end at any moment (with ``synchronous=FULL``
a loss of power too), and a second processor is refused. A file that is damaged or of a newer version is put aside under
another name, and a new one is made; a file of something else, or one that cannot be written, is an error at the start.
Source: https://www.sqlite.org/wal.html, https://www.sqlite.org/pragma.html#pragma_locking_mode.
"""

import contextlib
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from mlspan_processor.errors import StartError
from mlspan_processor.store import schema

_BUSY_SECONDS: Final = 1.0
_WAL_BYTES: Final = 64 * 1024 * 1024
_SHRINK_PAGES: Final = 4096
"""Free pages that are given back to the file system at a time."""
_DAMAGED: Final = frozenset({"SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_CORRUPT_INDEX", "SQLITE_CORRUPT_SEQUENCE"})
_BUSY: Final = frozenset({"SQLITE_BUSY", "SQLITE_LOCKED"})
_log = logging.getLogger(__name__)


class StoreError(StartError):
    """The file cannot be used; the message says which and why."""


class LockedError(StoreError):
    """Another processor uses it."""


class _UnusableError(Exception):
    """The file is to be put aside; the word for it goes into its new name."""

    def __init__(self, word: str, reason: str) -> None:
        super().__init__(reason)
        self.word = word


class Database:
    """One open file.

    Args:
        path: the file; its folder is made.
        full_sync: wait for the disk at every commit.
        version, migrations: of the tables; others than schema.py's for tests.

    Raises:
        StoreError: another processor uses it, it is not ours, or it cannot be written.
    """

    def __init__(
        self,
        path: Path,
        full_sync: bool = False,
        version: int = schema.VERSION,
        migrations: Mapping[int, schema.Migration] = schema.MIGRATIONS,
    ) -> None:
        self.path = path
        self.put_aside: Path | None = None
        self._full_sync = full_sync
        self._version = version
        self._migrations = migrations
        self._lock = threading.Lock()
        self._db = self._open()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Everything inside is written, or nothing; one at a time, from any thread.

        Raises:
            sqlite3.Error: nothing was written.
        """
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                # A full disk may have rolled it back already.
                if self._db.in_transaction:
                    with contextlib.suppress(sqlite3.Error):
                        self._db.execute("ROLLBACK")
                raise

    def rows(self, query: str, *values: Any) -> Iterator[tuple[Any, ...]]:
        """The rows of a query, one at a time."""
        yield from self._db.execute(query, values)

    def used_bytes(self) -> int:
        """Bytes of the pages in use."""
        with self._lock:
            return (self._pragma("page_count") - self._pragma("freelist_count")) * self._pragma("page_size")

    def shrink(self) -> None:
        """Give some free pages back to the file system, where they are many."""
        with self._lock:
            free = self._pragma("freelist_count")
            if free > _SHRINK_PAGES and free > self._pragma("page_count") // 4:
                # A script, since `execute` takes one step of it, which frees one page.
                self._db.executescript(f"PRAGMA incremental_vacuum({_SHRINK_PAGES})")

    def reopen(self, reason: str) -> None:
        """Put the file aside, since it is damaged, and begin a new one.

        Raises:
            StoreError, sqlite3.Error: neither is possible.
        """
        with self._lock:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
            self._put_aside("damaged", reason)
            self._db = self._open()

    def close(self) -> None:
        """Write the log back into the file, and let go of it; safe twice."""
        with self._lock, contextlib.suppress(sqlite3.Error):
            self._db.close()

    def _pragma(self, name: str) -> int:
        return int(self._db.execute(f"PRAGMA {name}").fetchone()[0])

    def _open(self) -> sqlite3.Connection:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            # What it holds is about people: for this user only. A file that is there is not opened here: closing it
            # would release the locks that this process may have on it.
            with contextlib.suppress(FileExistsError):
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        except OSError as error:
            raise StoreError(f'the state file "{self.path}" cannot be written: {error.strerror or error}') from None
        for _ in range(2):
            try:
                return self._connected()
            except _UnusableError as error:
                self._put_aside(error.word, str(error))
        return self._connected()

    def _connected(self) -> sqlite3.Connection:
        try:
            db = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise StoreError(f'the state file "{self.path}" cannot be written: {error}') from None
        try:
            self._prepare(db)
        except sqlite3.Error as error:
            db.close()
            name = getattr(error, "sqlite_errorname", "")
            if name in _BUSY:
                raise LockedError(f'another processor uses the state file "{self.path}"') from None
            if is_damage(error):
                raise _UnusableError("damaged", str(error)) from None
            raise StoreError(f'the state file "{self.path}" cannot be written: {error}') from None
        except BaseException:
            db.close()
            raise
        return db

    def _prepare(self, db: sqlite3.Connection) -> None:
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.execute("PRAGMA journal_mode = WAL").fetchone()
        db.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")
        db.execute(f"PRAGMA synchronous = {'FULL' if self._full_sync else 'NORMAL'}")
        db.execute("BEGIN IMMEDIATE")
        owner, version = (
            int(db.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("application_id", "user_version")
        )
        if db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0:
            for statement in schema.TABLES.split(";"):
                db.execute(statement)
            db.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        elif owner != schema.APPLICATION_ID:
            raise StoreError(f'"{self.path}" is a database of something else; name another file')
        elif version > self._version:
            raise _UnusableError("newer", f"it is of version {version}, this processor reads up to {self._version}")
        else:
            for step in range(version, self._version):
                if step not in self._migrations:
                    raise _UnusableError("older", f"it is of version {version}, from which there is no way")
                self._migrations[step](db)
        if version != self._version:  # on a full disk nothing can be written, and nothing need be
            db.execute(f"PRAGMA user_version = {self._version}")
        db.execute("COMMIT")

    def _put_aside(self, word: str, reason: str) -> None:
        stamp = time.strftime("%Y%m%dT%H%M%S")
        aside = self.path.with_name(f"{self.path.name}.{word}-{stamp}-{os.getpid()}")
        for number in range(1, 1000):
            if not aside.exists():
                break
            aside = self.path.with_name(f"{self.path.name}.{word}-{stamp}-{os.getpid()}-{number}")
        try:
            self.path.rename(aside)
            for suffix in ("-wal", "-shm"):
                beside = self.path.with_name(self.path.name + suffix)
                if beside.exists():
                    beside.rename(aside.with_name(aside.name + suffix))
        except OSError as error:
            raise StoreError(f'the state file "{self.path}" is {word} and cannot be renamed: {error}') from None
        self.put_aside = aside
        _log.error(
            'the state file "%s" cannot be used: %s; it is now "%s", and state begins anew', self.path, reason, aside
        )


def is_damage(error: BaseException) -> bool:
    """Whether the error says that the file's content is not what SQLite wrote."""
    if not isinstance(error, sqlite3.DatabaseError):
        return False
    return getattr(error, "sqlite_errorname", "") in _DAMAGED
