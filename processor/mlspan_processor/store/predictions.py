"""State that survives, part 8: rows that wait for their labels, labels that came, and labels that wait for their rows.

Written: the rows that are new since the last commit, as one blob of columns (see segments.py); labels of rows that were
written before, as one blob of (row, label), which are joined into one when they are many; each waiting label that is
new, has joined or has expired; and how many labels became what. Read: the ring as it was, what is beyond its capacity
and older than the retention left out. Spans whose rows are there are known as seen again, so that a sender that repeats
them is not counted twice.
"""

import json
from collections.abc import Collection, Iterator
from functools import partial
from typing import Any, Final

import numpy as np

from mlspan_processor.duplicates import RecentSpans, recent_keys
from mlspan_processor.labels import Label, Labels
from mlspan_processor.pending import DEAD
from mlspan_processor.store.codec import CodecError, pack, unpack
from mlspan_processor.store.database import Database
from mlspan_processor.store.segments import Plan, Segments, Span
from mlspan_processor.store.work import Work

_MANY: Final = 64
"""Blobs of labels from which on they become one."""
_TOTAL: Final = "predictions"
_COUNT: Final = "labels "
"""Before the state of labels that a number is of."""
_SIGN: Final = 1 << 64


class PredictionStore:
    """Predictions, labels and waiting labels on disk."""

    def __init__(self) -> None:
        self.segments = Segments()
        self._newest: dict[int, int] = {}
        self._label_blobs = 0
        self._all_labels = False
        self._all_waiting = True
        self._counts: dict[str, int] = {}
        self.unreadable: list[tuple[str, Exception]] = []

    def add_work(self, labels: Labels, before: int, work: Work) -> None:
        """What has changed; `before` is the time, in nanoseconds, from which on predictions are kept."""
        self._add_rows(labels, before, work)
        self._add_waiting(labels, work)
        self._add_counts(labels, work)

    def failed(self, labels: Labels) -> None:
        """A save has failed: the next one writes all labels, so that nothing gathers meanwhile."""
        self._all_labels = self._all_waiting = True
        labels.unchanged()
        labels.pending.unlabelled()

    def dropped(self, firsts: Collection[int]) -> None:
        """These blobs of rows have been deleted, for want of room."""
        self.segments.forget(firsts)

    def _add_rows(self, labels: Labels, before: int, work: Work) -> None:
        pending = labels.pending
        labelled, refilled = pending.changed()
        old = [span.first for span in self.segments.spans if self._newest.get(span.first, before) < before]
        plan = self.segments.plan(pending.first, pending.total, refilled.tolist())
        plan = Plan(plan.spans, [*plan.replaced, *(first for first in old if first not in plan.replaced)])
        for first in plan.replaced:
            work.add("DELETE FROM prediction WHERE first = ?", first)
        newest = {}
        for span in plan.spans:
            first, until = max(span.first, pending.first), span.until
            fields = pending.snapshot(first, until)
            newest[span.first] = int(fields["time"].max(initial=0))
            data = pack({"first": first, **fields})
            work.add("REPLACE INTO prediction VALUES (?, ?, ?, ?)", span.first, until, newest[span.first], data)
        if plan.spans:
            work.add("REPLACE INTO meta VALUES (?, ?)", _TOTAL, pending.total)
        beginning = plan.spans[-1].first if plan.spans and plan.spans[-1].until == pending.total else pending.total
        self._add_labels(labels, labelled[(labelled < beginning) & (labelled >= pending.first)], work)

        def note() -> None:
            self.segments.written(plan)
            for first in plan.replaced:
                self._newest.pop(first, None)
            self._newest.update(newest)
            pending.unchanged()

        work.then(note)

    def _add_labels(self, labels: Labels, rows: Any, work: Work) -> None:
        """Labels of rows that were written without them."""
        pending = labels.pending
        if self._label_blobs:
            work.add("DELETE FROM label WHERE newest < ?", pending.first)
        if not len(rows) and not self._all_labels:
            return
        blobs = self._label_blobs + 1
        if blobs > _MANY or self._all_labels:
            rows = np.arange(pending.first, pending.total)
            rows = rows[~np.isnan(pending.labels(rows))]
            work.add("DELETE FROM label WHERE id >= ?", 0)
            blobs = 1
        if len(rows):
            data = pack({"rows": rows, "labels": pending.labels(rows)})
            work.add("INSERT INTO label (newest, data) VALUES (?, ?)", int(rows[-1]), data)

        def note() -> None:
            self._label_blobs, self._all_labels = blobs, False

        work.then(note)

    def _add_waiting(self, labels: Labels, work: Work) -> None:
        if self._all_waiting:
            work.add("DELETE FROM waiting WHERE since >= ?", 0)
        for key, entries in (labels.all_waiting() if self._all_waiting else labels.changed()).items():
            signed = key - _SIGN if key >= _SIGN >> 1 else key
            if entries:
                texts = [[one.label, one.model, one.timestamp_ns, since, done] for one, since, done in entries]
                work.add("REPLACE INTO waiting VALUES (?, ?, ?)", signed, entries[0][1], json.dumps(texts))
            else:
                work.add("DELETE FROM waiting WHERE key = ?", signed)

        def note() -> None:
            self._all_waiting = False
            labels.unchanged()

        work.then(note)

    def _add_counts(self, labels: Labels, work: Work) -> None:
        """In the transaction that ends the journal's entries of these labels: those left over count once more."""
        counts = labels.all_counts
        for state, count in counts.items():
            if count != self._counts.get(state, 0):
                work.add("REPLACE INTO meta VALUES (?, ?)", _COUNT + state, count)
        work.then(partial(setattr, self, "_counts", counts))

    def restore(self, database: Database, labels: Labels, slots: Collection[int], recent: RecentSpans) -> None:
        """Read everything into new Labels, of the model versions that are there."""
        pending = labels.pending
        spans = [
            (Span(first, until), newest)
            for first, until, newest in database.rows("SELECT first, until, newest FROM prediction ORDER BY first")
        ]
        totals = dict(database.rows("SELECT key, value FROM meta"))
        pending.resume(max([totals.get(_TOTAL, 0), *(span.until for span, _ in spans)]))
        self.segments.until = pending.total
        for span, newest in spans:
            self.segments.spans.append(span)
            self._newest[span.first] = newest
            try:
                ((data,),) = database.rows("SELECT data FROM prediction WHERE first = ?", span.first)
                fields = unpack(data)
                pending.restore(fields["first"], fields, slots)
            except (CodecError, KeyError, TypeError, ValueError) as error:
                self.unreadable.append((f"{span.until - span.first} predictions", error))
        for (data,) in database.rows("SELECT data FROM label ORDER BY id"):
            self._label_blobs += 1
            try:
                fields = unpack(data)
                pending.restore_labels(fields["rows"], fields["labels"])
            except (CodecError, KeyError, TypeError, ValueError) as error:
                self.unreadable.append(("labels that have joined", error))
        waiting = dict(self._waiting(database))
        self._counts = {key.removeprefix(_COUNT): n for key, n in totals.items() if key.startswith(_COUNT)}
        labels.restore(waiting, self._counts)
        self._all_waiting = False
        rows = np.arange(pending.first, pending.total) % pending.capacity
        rows = rows[pending.columns["slot"][rows] != DEAD]
        traces = np.column_stack([pending.columns["trace_0"][rows], pending.columns["trace_1"][rows]])
        recent.remember(recent_keys(traces, pending.columns["span"][rows]))

    def _waiting(self, database: Database) -> Iterator[tuple[int, list[tuple[Label, int, bool]]]]:
        for signed, text in database.rows("SELECT key, data FROM waiting ORDER BY since"):
            try:
                entries = [
                    (Label("", tuple(label) if isinstance(label, list) else label, model, timestamp), since, done)
                    for label, model, timestamp, since, done in json.loads(text)
                ]
            except (TypeError, ValueError) as error:
                self.unreadable.append(("a waiting label", error))
                continue
            if entries:
                yield signed % _SIGN, entries
