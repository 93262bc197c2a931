"""State that survives, part 4: the tables, and how a file of an older version becomes one of this version.

A change of the tables is a new version: add the step from the version before to MIGRATIONS, and change TABLES. What a
blob holds is told by its own keys (codec.py): it may gain and lose some without a new version.
"""

import sqlite3
from collections.abc import Callable, Mapping
from typing import Final

APPLICATION_ID: Final = 0x6D6C7370
"""In the file's header, "mlsp": this file is ours."""
VERSION: Final = 1

TABLES: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL);
-- Requests that carry labels, from before they are acknowledged until their effect is in the other tables.
CREATE TABLE journal (id INTEGER PRIMARY KEY, at INTEGER NOT NULL, kind TEXT NOT NULL, data BLOB NOT NULL);
-- Model versions by their number, which is never given twice.
CREATE TABLE model (slot INTEGER PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE profile (slot INTEGER, part TEXT, data BLOB NOT NULL, PRIMARY KEY (slot, part));
CREATE TABLE pane (
  slot INTEGER, kind TEXT, start INTEGER, until INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (slot, kind, start)
);
CREATE TABLE learning (
  slot INTEGER, first INTEGER, until INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (slot, first)
);
-- Rows that wait for their labels, counted from the first one ever, and labels that came after their rows were written.
CREATE TABLE prediction (
  first INTEGER PRIMARY KEY, until INTEGER NOT NULL, newest INTEGER NOT NULL, data BLOB NOT NULL
);
CREATE TABLE label (id INTEGER PRIMARY KEY, newest INTEGER NOT NULL, data BLOB NOT NULL);
-- Labels that wait for their rows.
CREATE TABLE waiting (key INTEGER PRIMARY KEY, since INTEGER NOT NULL, data BLOB NOT NULL);
CREATE TABLE section (section TEXT, key TEXT, data BLOB NOT NULL, PRIMARY KEY (section, key));
"""

Migration = Callable[[sqlite3.Connection], None]
MIGRATIONS: Final[Mapping[int, Migration]] = {}
"""The step from each older version to the next one; runs in one transaction with all that follow it."""
