"""State that survives a restart, and a ``kill -9``: one SQLite file.

::

    keeper.py        a State and its file: read at the start, saved at intervals, bounded
    ├── database.py      the file: lock, damage, versions (schema.py), one transaction at a time
    ├── models.py        model versions, profiles, panes, rows they learn from
    ├── predictions.py   rows that wait for labels, labels that wait for rows
    ├── journal.py       requests with labels, written down before they are acknowledged
    ├── sections.py      named bytes, for parts that keep dictionaries
    ├── segments.py      rows that are only appended, as few blobs
    ├── codec.py         values, arrays and statistics as bytes
    └── work.py          the statements of one transaction
"""

from mlspan_processor.store.sections import Sections

__all__ = ["Sections"]
