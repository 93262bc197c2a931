"""Stage 5, labels: recent predictions, kept until their labels come.

In: predicted rows. Out: their places, by key. Rows lie in a ring of `capacity` places, so that the oldest
    make way; their scores in a second ring of `4 * capacity` floats (a row whose scores have made way counts
    without them). An index of sorted runs finds places by key; entries whose place holds another key by now
    are passed over and swept out in time.
Memory: 70 bytes a row and 4 bytes a score, 16 MB of scores and 94 MB in all when a million rows are pending;
    pages that were never filled take none.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlspan_processor.runs import Keys, SortedRuns

DEAD: Final = -1
_SCORES_PER_ROW: Final = 4
_COLUMNS: Final = {
    "key": "<u8",
    "time": "<i8",
    "slot": "<i4",
    "prediction": "<f4",
    "weight": "<f4",
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
        predictions: (n,) class index or number, NaN for none.
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
        self._head = 0
        self._index = SortedRuns()
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

    def forget(self, slot: int) -> None:
        """Forget a model version's rows."""
        self.columns["slot"][self.columns["slot"] == slot] = DEAD

    def _append(self, rows: Predictions, at: NDArray[np.intp]) -> NDArray[np.intp]:
        n = len(at)
        places = (self._head + np.arange(n)) % self.capacity
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
        if rows.scores is not None:
            self._keep_scores(places, rows.scores[at], rows.score_kind)
        self._head = (self._head + n) % self.capacity
        self.size = min(self.size + n, self.capacity)
        self._index.add(rows.keys[at], places.astype(np.uint32))
        if len(self._index) > 2 * self.capacity + 1024:
            self._index.keep(lambda keys, where: columns["key"][where] == keys)
        return places

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
        return places[silent], places[bare]
