"""Stage 5, labels: late ground truth to labelled predictions.

In: predictions as they are made, labels as they come, in either order. Out: rows with both, to the model
version that made the prediction. A label names a prediction id; without a model's name it is for whatever
model used that id, and invalid when several models did. What becomes of a label is counted:
  joined       its prediction is known; several versions of a model that predicted the same id each take it
  waiting      its prediction is not known yet: kept for `wait`, at most `waiting_capacity`, the oldest
      dropped expired      … and never came (not sampled, not captured, older than `retention`)
  duplicate    the same label came before: nothing changes
  conflicting  another label came before: the first stays (a label is taken for the truth once; sums that
      others have
               read are not taken back)
  invalid      no number where one is due, outputs that the model lacks, not finite, too long, or ambiguous
Memory: that of pending.py, and about 300 bytes a waiting label, 30 MB by default.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlspan_processor.identity import id_keys, spans_of
from mlspan_processor.outputs import MAX_OUTPUTS
from mlspan_processor.outputs import Label as Value
from mlspan_processor.pending import Pending, Predictions
from mlspan_processor.runs import SortedRuns

STATES: Final = ("joined", "waiting", "expired", "duplicate", "conflicting", "not_captured", "invalid")
MAX_TEXT: Final = 1024
"""Characters of a label, or of the model's name beside it."""


@dataclass(frozen=True, slots=True)
class Label:
    """The truth of one prediction.

    Attributes:
        prediction_id: the user's id of the row, or "{trace id}-{span id}-{row}".
        label: a class as text, or a number; of several outputs the names of those that hold, or whether each does.
        model: the model's name, for ids that several models share; None for any.
        timestamp_ns: when the truth was known, or None; kept for people, the join does not need it.
    """

    prediction_id: str
    label: Value
    model: str | None = None
    timestamp_ns: int | None = None


@dataclass(frozen=True, slots=True)
class LabelReceipt:
    """What became of a list of labels.

    Attributes:
        joined, waiting, duplicate, conflicting, not_captured: how many.
        rejected: (index, reason) of those that are invalid.
        durable: whether they survive the process's end, now that this is told.
    """

    joined: int = 0
    waiting: int = 0
    duplicate: int = 0
    conflicting: int = 0
    rejected: tuple[tuple[int, str], ...] = ()
    not_captured: int = 0
    durable: bool = False


class Join(NamedTuple):
    """Rows of one model version that have a label now: places (n,) in the pending ring."""

    slot: int
    places: NDArray[np.intp]


class Predicted(NamedTuple):
    """What became of predictions.

    Attributes:
        new: (n,) indices of the rows that were not known, and their `places` (n,).
        joins: rows that found their label.
        late_predictions, late_scores: places of labelled rows of which another call with the same id has now
            brought the
            prediction or the scores.
    """

    new: NDArray[np.intp]
    places: NDArray[np.intp]
    joins: list[Join]
    late_predictions: NDArray[np.intp]
    late_scores: NDArray[np.intp]


class Resolver(NamedTuple):
    """What the join asks: about model versions, by slot (their name; a label's value, or why it has none); and which
    spans, by traces (n, 2) and ids (n,), came lately."""

    name: Callable[[int], str]
    value: Callable[[int, Value], float | str]
    seen: Callable[[NDArray[np.uint64], NDArray[np.uint64]], NDArray[np.bool_]]


class Labels:
    """Predictions and labels that look for each other.

    Attributes:
        counts: labels by what became of them, since the start.
    """

    def __init__(self, resolver: Resolver, capacity: int, retention: int, waiting_capacity: int, wait: int) -> None:
        """`retention` of predictions and `wait` of labels in nanoseconds; capacities in rows and labels."""
        self.pending = Pending(capacity)
        self.counts = dict.fromkeys(STATES, 0)
        self._counted_before = dict.fromkeys(STATES, 0)
        self._resolver = resolver
        self._retention = retention
        self._wait = wait
        self._waiting_capacity = waiting_capacity
        self._waiting: dict[int, list[tuple[Label, int, bool]]] = {}
        self._waiting_index = SortedRuns()
        self._changed: set[int] | None = None

    @property
    def all_counts(self) -> dict[str, int]:
        """Likewise, with those of earlier processes."""
        return {state: count + self._counted_before[state] for state, count in self.counts.items()}

    @property
    def waiting(self) -> int:
        """Ids of labels that wait for their prediction."""
        return len(self._waiting)

    def predict(self, rows: Predictions, now: int) -> Predicted:
        """Keep predictions; labels that waited for them join."""
        added = self.pending.add(rows, now - self._retention)
        labels = self.pending.columns["label"]
        joins = self._join_waiting(rows, added.new, added.places) if self._waiting else []
        late_predictions, late_scores = (
            places[~np.isnan(labels[places])] for places in (added.filled_predictions, added.filled_scores)
        )
        return Predicted(added.new, added.places, joins, late_predictions, late_scores)

    def label(self, labels: Sequence[Label], now: int) -> tuple[LabelReceipt, list[Join]]:
        """Take labels in."""
        before = dict(self.counts)
        joined: dict[int, list[int]] = {}
        keys = id_keys([label.prediction_id for label in labels])
        matches: dict[int, list[int]] = {}
        which, places = self.pending.find(keys, now - self._retention)
        for i, place in zip(which.tolist(), places.tolist(), strict=True):
            matches.setdefault(i, []).append(place)
        absent: list[int] = []
        rejected: list[tuple[int, str]] = []
        for i, label in enumerate(labels):
            found = matches.get(i, [])
            if label.model:
                found = [place for place in found if self._name(place) == label.model]
            if not label.prediction_id:
                rejected.append((i, "no prediction id"))
            elif (reason := _unusable(label)) is not None:
                rejected.append((i, reason))
            elif not found:
                absent.append(i)
            else:
                state, reason = self._attach(label, found, joined)
                self.counts[state] += state != "invalid"
                if state == "invalid":
                    rejected.append((i, reason))
        self.counts["invalid"] += len(rejected)
        waits = self._may_come(labels, absent, now - self._retention)
        self._hold([labels[i] for i in waits], keys[np.array(waits, np.intp)], now)
        joins, waiting, duplicate, conflicting, not_captured = (
            self.counts[state] - before[state]
            for state in ("joined", "waiting", "duplicate", "conflicting", "not_captured")
        )
        receipt = LabelReceipt(joins, waiting, duplicate, conflicting, tuple(rejected), not_captured)
        return receipt, _joins(joined)

    def expire(self, now: int) -> None:
        """Drop labels that have waited too long."""
        for key in list(self._waiting):
            entries = self._waiting[key]
            if entries[0][1] > now - self._wait:
                break  # insertion order is the order of arrival
            del self._waiting[key]
            self._touch(key)
            self.counts["expired"] += sum(not done for _, _, done in entries)
        if len(self._waiting_index) > 2 * len(self._waiting) + 1024:
            waiting = np.fromiter(self._waiting, np.uint64, len(self._waiting))
            self._waiting_index = SortedRuns()
            self._waiting_index.add(waiting, np.zeros(len(waiting), np.uint32))

    # --- for whoever keeps the waiting labels

    def watch(self) -> None:
        """Note from now on which waiting labels change."""
        self._changed = set()

    def changed(self) -> dict[int, list[tuple[Label, int, bool]]]:
        """Waiting labels by key that are new, or have joined, since `unchanged` was called; [] for those gone: (label,
        since when in nanoseconds, whether it has joined)."""
        return {key: list(self._waiting.get(key, ())) for key in self._changed or ()}

    def all_waiting(self) -> dict[int, list[tuple[Label, int, bool]]]:
        """Every waiting label by key, the oldest first."""
        return {key: list(entries) for key, entries in self._waiting.items()}

    def unchanged(self) -> None:
        """What `changed` told has been kept."""
        if self._changed is not None:
            self._changed = set()

    def restore(self, waiting: Mapping[int, list[tuple[Label, int, bool]]], counts: Mapping[str, int]) -> None:
        """Take the waiting labels of an earlier process, the oldest first, and what it had in `all_counts`."""
        self._counted_before = {state: counts.get(state, 0) for state in STATES}
        self._waiting = dict(waiting)
        keys = np.fromiter(self._waiting, np.uint64, len(self._waiting))
        self._waiting_index = SortedRuns()
        self._waiting_index.add(keys, np.zeros(len(keys), np.uint32))

    def _touch(self, key: int) -> None:
        if self._changed is not None:
            self._changed.add(key)

    def _may_come(self, labels: Sequence[Label], absent: Sequence[int], since: int) -> list[int]:
        """Those of the labels without a row for which one may still come; counts the others."""
        default, traces, spans = spans_of([labels[i].prediction_id for i in absent])
        seen = self._resolver.seen(traces, spans)
        if not seen.any():
            return list(absent)
        places, which = np.unique(np.column_stack([traces[seen], spans[seen]]), axis=0, return_inverse=True)
        known = self.pending.has_spans(places[:, :2], places[:, 2], since)[which.reshape(-1)]
        never = {absent[default[i]] for i in np.flatnonzero(seen)[known].tolist()}
        self.counts["not_captured"] += len(never)
        return [i for i in absent if i not in never]

    def _name(self, place: int) -> str:
        return self._resolver.name(int(self.pending.columns["slot"][place]))

    def _attach(self, label: Label, places: list[int], joined: dict[int, list[int]]) -> tuple[str, str]:
        """Give the label to these rows; returns its state and, when it is invalid, why."""
        columns = self.pending.columns
        if not label.model and len({self._name(place) for place in places}) > 1:
            return "invalid", "several models used this prediction id; name the model"
        states = set()
        why = ""
        for place in places:
            slot = int(columns["slot"][place])
            value = self._resolver.value(slot, label.label)
            had = columns["label"][place]
            if isinstance(value, str):
                why = value
                states.add("invalid")
            elif np.isnan(had):
                self.pending.set_label(place, value)
                joined.setdefault(slot, []).append(place)
                states.add("joined")
            else:
                states.add("duplicate" if had == value else "conflicting")
        state = next(s for s in ("joined", "conflicting", "duplicate", "invalid") if s in states)
        return state, why if state == "invalid" else ""

    def _hold(self, labels: Sequence[Label], keys: NDArray[np.uint64], now: int) -> None:
        fresh = []
        for key, label in zip(keys.tolist(), labels, strict=True):
            entries = self._waiting.get(key)
            self._touch(key)
            # The key says which prediction; its id may be long.
            label = replace(label, prediction_id="")  # noqa: PLW2901
            if entries is None:
                self._waiting[key] = [(label, now, False)]
                fresh.append(key)
                self.counts["waiting"] += 1
            elif any(other.model == label.model for other, _, _ in entries):
                same = any((other.model, other.label) == (label.model, label.label) for other, _, _ in entries)
                self.counts["duplicate" if same else "conflicting"] += 1
            elif len(entries) < 16:  # one id, labels for several models
                entries.append((label, now, False))
                self.counts["waiting"] += 1
            else:
                self.counts["invalid"] += 1
        if fresh:
            self._waiting_index.add(np.array(fresh, np.uint64), np.zeros(len(fresh), np.uint32))
        while len(self._waiting) > self._waiting_capacity:
            oldest = next(iter(self._waiting))
            self._touch(oldest)
            entries = self._waiting.pop(oldest)
            self.counts["expired"] += sum(not done for _, _, done in entries)

    def _join_waiting(self, rows: Predictions, new: NDArray[np.intp], places: NDArray[np.intp]) -> list[Join]:
        which, _ = self._waiting_index.find(rows.keys[new])
        joined: dict[int, list[int]] = {}
        for i in np.unique(which).tolist():
            key = int(rows.keys[new[i]])
            entries = self._waiting.get(key, [])
            for at, (label, since, done) in enumerate(entries):
                if label.model in {None, "", self._resolver.name(rows.slot)}:
                    state, _ = self._attach(label, [int(places[i])], joined)
                    # It stays until it expires, for another version of the model that predicts the same id.
                    entries[at] = (label, since, True)
                    self._touch(key)
                    if not done:
                        self.counts[state] += 1
                    break
        return _joins(joined)


def _unusable(label: Label) -> str | None:
    """Why a label can be no class and no value of any model; None when it can."""
    if isinstance(label.label, float) and not math.isfinite(label.label):
        return f'label "{label.label}" is not finite'
    if isinstance(label.label, tuple):
        if len(label.label) > MAX_OUTPUTS:
            return f"label is of {len(label.label)} outputs; at most {MAX_OUTPUTS} are joined"
        if any(isinstance(one, str) and len(one) > MAX_TEXT for one in label.label):
            return f"label has a name longer than {MAX_TEXT} characters"
    if isinstance(label.label, str) and len(label.label) > MAX_TEXT:
        return f"label is longer than {MAX_TEXT} characters"
    if label.model and len(label.model) > MAX_TEXT:
        return f"model is longer than {MAX_TEXT} characters"
    return None


def _joins(joined: dict[int, list[int]]) -> list[Join]:
    return [Join(slot, np.array(places, np.intp)) for slot, places in joined.items()]
