"""The file itself: lock, damage, versions, what is not ours, what cannot be written."""

import logging
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mlspan_processor.store import schema
from mlspan_processor.store.database import Database, LockedError, StoreError

ROOT = Path(__file__).parents[3]


def write(database: Database, key: str, value: int) -> None:
    """One number into the file."""
    with database.transaction() as db:
        db.execute("REPLACE INTO meta VALUES (?, ?)", (key, value))


def numbers(path: Path) -> dict[str, int]:
    """The numbers in the file."""
    database = Database(path)
    found = dict(database.rows("SELECT key, value FROM meta"))
    database.close()
    return found


def test_a_new_file(tmp_path: Path) -> None:
    """Its folders are made, only this user may read it, and it is marked as ours."""
    path = tmp_path / "a" / "b" / "state.db"
    Database(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA application_id").fetchone() == (schema.APPLICATION_ID,)
        assert db.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)
        assert db.execute("PRAGMA auto_vacuum").fetchone() == (2,)
    db.close()


def test_a_transaction_is_whole_or_nothing(tmp_path: Path) -> None:
    """What fails on the way leaves no trace, and the next one works."""
    path = tmp_path / "state.db"
    database = Database(path)
    write(database, "a", 1)
    with pytest.raises(sqlite3.IntegrityError), database.transaction() as db:
        db.executemany("REPLACE INTO meta VALUES (?, ?)", [("a", 2), ("c", None)])
    write(database, "b", 3)
    database.close()
    database.close()
    assert numbers(path) == {"a": 1, "b": 3}


def test_a_second_processor_is_refused(tmp_path: Path) -> None:
    """Also from another process; once the first has let go, the file is free."""
    path = tmp_path / "state.db"
    first = Database(path)
    with pytest.raises(LockedError, match="another processor uses the state file"):
        Database(path)
    code = "import sys, pathlib, mlspan_processor.store.database as d; d.Database(pathlib.Path(sys.argv[1]))"
    other = subprocess.run(
        [sys.executable, "-c", code, str(path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "LockedError: another processor uses the state file" in other.stderr
    first.close()
    Database(path).close()


def test_a_damaged_file_is_put_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is no database, or one with a damaged page, gets another name, and state begins anew."""
    path = tmp_path / "state.db"
    path.write_bytes(b"not a database" * 1000)
    database = Database(path)
    write(database, "a", 1)
    database.close()
    assert numbers(path) == {"a": 1}
    (aside,) = tmp_path.glob("state.db.damaged-*")
    assert aside.read_bytes().startswith(b"not a database")
    assert "state begins anew" in caplog.text
    content = bytearray(path.read_bytes())
    content[100:4096] = b"\xff" * 3996  # the page that lists the tables
    path.write_bytes(content)
    assert numbers(path) == {}
    assert len(list(tmp_path.glob("state.db.damaged-*"))) == 2


def test_damage_while_it_runs(tmp_path: Path) -> None:
    """`reopen` puts the file aside and begins a new one in its place."""
    path = tmp_path / "state.db"
    database = Database(path)
    write(database, "a", 1)
    database.reopen("for a test")
    write(database, "b", 2)
    database.close()
    assert numbers(path) == {"b": 2}
    assert database.put_aside is not None
    assert numbers(database.put_aside) == {"a": 1}


def test_versions(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An older file takes the steps to this version; a newer one is put aside, as is one from which no step leads."""
    path = tmp_path / "state.db"
    database = Database(path, version=3)
    write(database, "a", 1)
    database.close()

    def double(db: sqlite3.Connection) -> None:
        db.execute("UPDATE meta SET value = 2 * value")

    Database(path, version=5, migrations={3: double, 4: double}).close()
    assert numbers_of_version(path, 5) == {"a": 4}
    Database(path, version=6, migrations={}).close()
    assert len(list(tmp_path.glob("state.db.older-*"))) == 1
    caplog.set_level(logging.ERROR)
    Database(path, version=1).close()
    (aside,) = tmp_path.glob("state.db.newer-*")
    assert "it is of version 6, this processor reads up to 1" in caplog.text
    assert numbers_of_version(aside, 6) == {}


def numbers_of_version(path: Path, version: int) -> dict[str, int]:
    """The numbers in a file of another version."""
    database = Database(path, version=version)
    found = dict(database.rows("SELECT key, value FROM meta"))
    database.close()
    return found


def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    """The file stays as it was, of the version it was."""
    path = tmp_path / "state.db"
    Database(path).close()

    def half(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO meta VALUES ('half', 1)")
        db.execute("INSERT INTO nowhere VALUES (1)")

    with pytest.raises(StoreError, match="no such table"):
        Database(path, version=2, migrations={1: half})
    assert numbers(path) == {}


def test_somebody_elses_database(tmp_path: Path) -> None:
    """Another program's file is neither written nor renamed."""
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE theirs (x)")
    db.close()
    with pytest.raises(StoreError, match="is a database of something else"):
        Database(path)
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT name FROM sqlite_schema").fetchall() == [("theirs",)]
    db.close()


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    """A folder, or a path below a file: an error that names the path."""
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "state.db"):
        with pytest.raises(StoreError, match=rf'the state file "{path}" cannot be written'):
            Database(path)


@pytest.mark.parametrize(("full", "level"), [(False, 1), (True, 2)])
def test_how_much_a_commit_waits_for(tmp_path: Path, full: bool, level: int) -> None:
    """Write-ahead log always; the disk at every commit only where that was asked for."""
    database = Database(tmp_path / "state.db", full_sync=full)
    assert next(database.rows("PRAGMA journal_mode")) == ("wal",)
    assert next(database.rows("PRAGMA synchronous")) == (level,)
    database.close()


def test_free_pages_are_given_back(tmp_path: Path) -> None:
    """After much has been deleted the file gets smaller."""
    path = tmp_path / "state.db"
    database = Database(path)
    with database.transaction() as db:
        db.executemany("INSERT INTO section VALUES ('a', ?, ?)", [(str(i), b"x" * 100_000) for i in range(300)])
    with database.transaction() as db:
        db.execute("DELETE FROM section")
    used = database.used_bytes()
    for _ in range(3):
        database.shrink()
    database.close()
    assert used < 1_000_000
    assert path.stat().st_size < 20_000_000
