"""Stage 5, labels: recent predictions, kept until their labels come.

In: predicted rows. Out: their places, by key. Rows lie in a ring of `capacity` places, so that the oldest
    make way; their scores in a second ring of `4 * capacity` floats (a row whose scores have made way counts
    without them). An index of sorted runs finds places by key; entries whose place holds another key by now
    are passed over and swept out in time.
Rows are counted on for ever (`total`): row r lies in place r modulo the capacity. What changes of rows that are older
    than the last look (a label, an answer that came late) is noted when somebody keeps them (`watch`).
Memory: 78 bytes a row, 4 bytes a score and 2 a segment, 16 MB of scores and 102 MB in all when a million rows are
    pending; pages that were never filled take none.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlspan_processor.quality.base import Labelled
from mlspan_processor.runs import Keys, SortedRuns

DEAD: Final = -1
NO_SEGMENT: Final = -1
_SCORES_PER_ROW: Final = 4
_COLUMNS: Final = {
    "key": "<u8",
    "time": "<i8",
    "slot": "<i4",
    "prediction": "<f8",
    "weight": "<f8",
    "label": "<f8",
    "trace_0": "<u8",
    "trace_1": "<u8",
    "span": "<u8",
    "score_at": "<i8",
    "score_width": "<i2",
    "score_kind": "u1",
}


class Predictions(NamedTuple):
    """Predicted rows of one model version, n rows.

    Attributes:
        slot: the model version's number.
        keys: (n,) of their ids.
        named: (n,) bool, True for a user's own id, which may come twice.
        times: (n,) nanoseconds since the epoch.
        predictions: (n,) class index, number or packed outputs, NaN for none.
        scores: (n, width) float32, or None.
        score_kind: as in a payload.
        weights: (n,) rows that each stands for.
        traces: (n, 2); spans: (n,).
    """

    slot: int
    keys: Keys
    named: NDArray[np.bool_]
    times: NDArray[np.int64]
    predictions: NDArray[np.float64]
    scores: NDArray[np.float32] | None
    score_kind: int
    weights: NDArray[np.float64]
    traces: NDArray[np.uint64]
    spans: NDArray[np.uint64]


class Added(NamedTuple):
    """What became of predicted rows.

    Attributes:
        new: (n,) indices of the rows that were not known, and their `places` (n,).
        filled_predictions, filled_scores: places of known rows that now have what they lacked.
    """

    new: NDArray[np.intp]
    places: NDArray[np.intp]
    filled_predictions: NDArray[np.intp]
    filled_scores: NDArray[np.intp]


class Pending:
    """The ring of pending predictions."""

    def __init__(self, capacity: int) -> None:
        self.capacity = max(1, capacity)
        self.columns = {name: np.zeros(self.capacity, dtype) for name, dtype in _COLUMNS.items()}
        self.columns["slot"][:] = DEAD
        self._scores = np.zeros(self.capacity * _SCORES_PER_ROW, np.float32)
        self._score_head = 0
        self.total = 0
        self._index = SortedRuns()
        self._segment_names: tuple[str, ...] = ()
        self._segments: NDArray[np.int16] | None = None
        self._labelled: list[int] | None = None
        self._refilled: list[int] = []
        self.size = 0
        self.evicted = 0
        self.repeated = 0

    @property
    def nbytes(self) -> int:
        """Bytes in use: of the filled places, their scores and the index."""
        row = sum(column.itemsize for column in self.columns.values())
        return self.size * row + min(self._score_head, len(self._scores)) * 4 + self._index.nbytes

    def find(self, keys: Keys, since: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """All (index into keys, place) whose row is alive and not older than `since`."""
        which, places = self._index.find(keys)
        at = places.astype(np.intp)
        columns = self.columns
        alive = (columns["key"][at] == keys[which]) & (columns["slot"][at] != DEAD) & (columns["time"][at] >= since)
        return which[alive], at[alive]

    def add(self, rows: Predictions, since: int) -> Added:
        """Keep rows; a row whose (model, id) is known fills in what the known one lacks."""
        new = np.ones(len(rows.keys), bool)
        none = np.zeros(0, np.intp)
        predictions = scores = none
        if rows.named.any():
            named = np.flatnonzero(rows.named)
            _, first = np.unique(rows.keys[named], return_index=True)
            again = np.ones(len(named), bool)
            again[first] = False
            new[named[again]] = False
            self.repeated += int(again.sum())
            asked = named[~again]
            which, places = self.find(rows.keys[asked], since)
            same = self.columns["slot"][places] == rows.slot
            known, places = asked[which[same]], places[same]
            new[known] = False
            predictions, scores = self._fill(rows, known, places)
        at = np.flatnonzero(new)
        self.evicted += max(0, len(at) - self.capacity)
        at = at[-self.capacity :]
        places = self._append(rows, at) if len(at) else none
        return Added(at, places, predictions, scores)

    def set_label(self, place: int, value: float) -> None:
        """Give a row its label, as class index, number or packed outputs."""
        self.columns["label"][place] = value
        if self._labelled is not None:
            self._labelled.append(place)

    def has_spans(self, traces: NDArray[np.uint64], spans: NDArray[np.uint64], since: int) -> NDArray[np.bool_]:
        """Which of these spans (n,), with their traces (n, 2), have rows that are alive and not older than `since`, and
        none that has made way."""
        columns = self.columns
        known = np.zeros(len(spans), bool)
        asked, which = np.unique(spans, return_inverse=True)
        column = columns["span"][: self.size]
        if not len(asked) or not len(column):
            return known
        at = np.flatnonzero(asked.take(np.searchsorted(asked, column), mode="clip") == column)
        oldest = self.total % self.capacity if self.size == self.capacity else DEAD
        for i in range(len(spans)):
            mine = at[column[at] == asked[which[i]]] if len(asked) > 1 else at
            mine = mine[(columns["trace_0"][mine] == traces[i, 0]) & (columns["trace_1"][mine] == traces[i, 1])]
            alive = (columns["slot"][mine] != DEAD) & (columns["time"][mine] >= since) & (mine != oldest)
            known[i] = len(mine) > 0 and alive.all()
        return known

    def scores(self, places: NDArray[np.intp]) -> NDArray[np.float32] | None:
        """Scores (n, width) of rows of one width, NaN where they have made way; None without any."""
        widths = self.columns["score_width"][places]
        width = int(widths.max(initial=0))
        if not width:
            return None
        at = self.columns["score_at"][places]
        # A score's offset counts on for ever; only the last ring's length of it is still there.
        there = (widths == width) & (at >= self._score_head - len(self._scores))
        scores: NDArray[np.float32] = self._scores[(at[:, None] + np.arange(width)) % len(self._scores)]
        scores[~there] = np.nan
        return scores

    def labelled(self, places: NDArray[np.intp], score_kind: int) -> Labelled:
        """Rows of one width and kind of scores, as they lie here."""
        columns = self.columns
        labels, predictions = columns["label"][places], columns["prediction"][places]
        return Labelled(labels, predictions, self.scores(places), score_kind, columns["weight"][places])

    def forget(self, slot: int) -> None:
        """Forget a model version's rows."""
        self.columns["slot"][self.columns["slot"] == slot] = DEAD

    # --- segments

    def name_segments(self, names: Sequence[str]) -> None:
        """What rows are cut by, besides their model version; before any row."""
        self._segment_names = tuple(names)
        if names:
            self._segments = np.full((self.capacity, len(names)), NO_SEGMENT, np.int16)

    def set_segments(self, places: NDArray[np.intp], codes: NDArray[np.int16]) -> None:
        """Numbers of their values (n, n_names) to rows."""
        assert self._segments is not None
        self._segments[places] = codes

    def segments(self, places: NDArray[np.intp]) -> NDArray[np.int16] | None:
        """Numbers of their values (n, n_names), NO_SEGMENT without one; None where nothing is cut."""
        return None if self._segments is None else self._segments[places]

    # --- for whoever keeps the rows

    @property
    def first(self) -> int:
        """The oldest row that has not made way."""
        return self.total - self.size

    def watch(self) -> None:
        """Note from now on which rows change after they were added."""
        self._labelled = []

    def changed(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows that got a label, and rows that got an answer late, since `unchanged` was called."""
        return self._rows(self._labelled or []), self._rows(self._refilled)

    def unchanged(self) -> None:
        """What `changed` told has been kept."""
        if self._labelled is not None:
            self._labelled, self._refilled = [], []

    def unlabelled(self) -> None:
        """Whoever keeps the rows will look at all labels."""
        if self._labelled is not None:
            self._labelled = []

    def snapshot(self, first: int, until: int) -> dict[str, Any]:
        """The rows [first, until), all of them alive or dead: columns, and scores by width and kind."""
        places = np.arange(first, until) % self.capacity
        fields: dict[str, Any] = {
            name: self.columns[name][places] for name in _COLUMNS if name not in {"score_at", "score_width"}
        }
        widths = self.columns["score_width"][places].copy()
        widths[self.columns["score_at"][places] < self._score_head - len(self._scores)] = 0
        fields["score_width"] = widths
        fields["scores"] = [
            [width, self.scores(places[widths == width])] for width in np.unique(widths[widths > 0]).tolist()
        ]
        if self._segments is not None:
            fields["segment_names"] = list(self._segment_names)
            fields["segments"] = self._segments[places]
        return fields

    def resume(self, total: int) -> None:
        """Count on from `total` rows of an earlier process."""
        self.total = total

    def restore(self, first: int, fields: Mapping[str, Any], slots: Collection[int]) -> None:
        """Take the rows from `first` on of an earlier process, after `resume`; rows of other `slots` are dead.

        Raises:
            KeyError, ValueError: fields are missing or do not fit.
        """
        n = len(fields["key"])
        columns = {name: np.asarray(fields[name]).astype(kind) for name, kind in _COLUMNS.items() if name in fields}
        if set(columns) != set(_COLUMNS) - {"score_at"} or {len(one) for one in columns.values()} != {n}:
            raise ValueError("columns of other lengths")
        skip = max(0, self.total - self.capacity - first)
        if skip >= n or first + n > self.total:
            return
        places = np.arange(first, first + n) % self.capacity
        columns["slot"][~np.isin(columns["slot"], list(slots))] = DEAD
        for name, column in columns.items():
            self.columns[name][places[skip:]] = column[skip:]
        self.columns["score_width"][places[skip:]] = 0
        for width, scores in fields["scores"]:
            rows = np.flatnonzero(columns["score_width"] == width)
            for kind in np.unique(columns["score_kind"][rows]).tolist():
                mine = (columns["score_kind"][rows] == kind) & (rows >= skip)
                self._keep_scores(places[rows[mine]], np.asarray(scores, np.float32)[mine], kind)
        self._restore_segments(places[skip:], skip, fields)
        self.size = max(self.size, self.total - max(first, self.total - self.capacity))
        self._indexed(columns["key"][skip:], places[skip:])

    def _restore_segments(self, places: NDArray[np.intp], skip: int, fields: Mapping[str, Any]) -> None:
        """Take the columns that are cut by now and were then, by name."""
        if self._segments is None:
            return
        self._segments[places] = NO_SEGMENT
        before = list(fields.get("segment_names", ()))
        for k, name in enumerate(self._segment_names):
            if name in before:
                self._segments[places, k] = np.asarray(fields["segments"], np.int16)[skip:, before.index(name)]

    def restore_labels(self, rows: NDArray[np.int64], labels: NDArray[np.float64]) -> None:
        """Labels (n,) of rows (n,) of an earlier process; rows that have made way are passed over."""
        there = (rows >= self.first) & (rows < self.total)
        self.columns["label"][rows[there] % self.capacity] = labels[there]

    def labels(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Labels (n,) of rows (n,), NaN for none."""
        found: NDArray[np.float64] = self.columns["label"][rows % self.capacity]
        return found

    def _rows(self, places: list[int]) -> NDArray[np.int64]:
        """The rows (n,) that lie in these places, in order."""
        at = np.array(places, np.int64)
        return np.unique(self.total - 1 - (self.total - 1 - at) % self.capacity)

    def _append(self, rows: Predictions, at: NDArray[np.intp]) -> NDArray[np.intp]:
        n = len(at)
        places = (self.total + np.arange(n)) % self.capacity
        columns = self.columns
        gone = (columns["slot"][places] != DEAD) & np.isnan(columns["label"][places])
        self.evicted += int(gone.sum())
        columns["key"][places] = rows.keys[at]
        columns["time"][places] = rows.times[at]
        columns["slot"][places] = rows.slot
        columns["prediction"][places] = rows.predictions[at]
        columns["weight"][places] = rows.weights[at]
        columns["label"][places] = np.nan
        columns["trace_0"][places] = rows.traces[at, 0]
        columns["trace_1"][places] = rows.traces[at, 1]
        columns["span"][places] = rows.spans[at]
        columns["score_width"][places] = 0
        if self._segments is not None:
            self._segments[places] = NO_SEGMENT
        if rows.scores is not None:
            self._keep_scores(places, rows.scores[at], rows.score_kind)
        self.total += n
        self.size = min(self.size + n, self.capacity)
        self._indexed(rows.keys[at], places)
        return places

    def _indexed(self, keys: Keys, places: NDArray[np.intp]) -> None:
        self._index.add(keys, places.astype(np.uint32))
        if len(self._index) > 1.5 * self.capacity + 1024:
            self._index.keep(lambda keys, where: self.columns["key"][where] == keys)

    def _keep_scores(self, places: NDArray[np.intp], scores: NDArray[np.float32], kind: int) -> None:
        n, width = scores.shape
        if n * width > len(self._scores):
            return
        room = len(self._scores) - self._score_head % len(self._scores)
        if n * width > room:  # a block of scores is never broken over the ring's end
            self._score_head += room
        start = self._score_head % len(self._scores)
        self._scores[start : start + n * width] = scores.ravel()
        self.columns["score_at"][places] = self._score_head + np.arange(n) * width
        self.columns["score_width"][places] = width
        self.columns["score_kind"][places] = kind
        self._score_head += n * width

    def _fill(
        self, rows: Predictions, known: NDArray[np.intp], places: NDArray[np.intp]
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Give known rows the prediction or the scores they lack; returns the places of each."""
        columns = self.columns
        silent = np.isnan(columns["prediction"][places]) & ~np.isnan(rows.predictions[known])
        columns["prediction"][places[silent]] = rows.predictions[known[silent]]
        bare = np.zeros(len(places), bool)
        if rows.scores is not None:
            bare = columns["score_width"][places] == 0
            if bare.any():
                self._keep_scores(places[bare], rows.scores[known[bare]], rows.score_kind)
        self.repeated += int((~(silent | bare)).sum())
        if self._labelled is not None:
            self._refilled += places[silent | bare].tolist()
        return places[silent], places[bare]
