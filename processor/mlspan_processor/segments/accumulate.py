"""Stage 5, segments: quality sums by the values of one segment, mergeable and bounded.

In: labelled rows with a value each. Out: sums by value. The first `max_values` values have sums of their own, further
ones share those of "other"; rows without a value are kept as "missing", so that all parts together are the whole. Parts
merge by addition, in any order as long as no value overflows; where one does, which values go to "other" depends on the
order, their sum does not. Memory: one Quality a value (quality/), at most max_values + 2.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mlspan_processor.quality.base import Labelled

OTHER: Final = "other"
MISSING: Final = "missing"


class SegmentedQuality:
    """Quality by value.

    Attributes:
        parts: sums by value, "other" and "missing" among them where they have rows.
    """

    def __init__(self, empty: Callable[[], Any], max_values: int = 50) -> None:
        """`empty` makes a Quality of nothing; at least one value."""
        self._empty = empty
        self._most = max(1, max_values)
        self.parts: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"SegmentedQuality({len(self.parts)} values)"

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(part.nbytes + 64 for part in self.parts.values())

    def of(self, value: str) -> Any:
        """The sums that rows of this value belong to, made when there are none."""
        if value not in self.parts:
            own = sum(name not in {OTHER, MISSING} for name in self.parts)
            if value not in {OTHER, MISSING} and own >= self._most:
                return self.of(OTHER)
            self.parts[value] = self._empty()
        return self.parts[value]

    def update(self, batch: Labelled, codes: NDArray[np.integer[Any]], values: Sequence[str]) -> None:
        """Add labelled rows with their values: codes (n,) indices into `values`, negative without one."""
        for code in np.unique(codes).tolist():
            rows = np.flatnonzero(codes == code)
            self.of(values[code] if code >= 0 else MISSING).update(_taken(batch, rows))

    def merge(self, other: "SegmentedQuality") -> None:
        """Add another's rows."""
        for value, part in other.parts.items():
            self.of(value).merge(part)

    def whole(self) -> Any:
        """The sums of all rows."""
        total = self._empty()
        for part in self.parts.values():
            total.merge(part)
        return total

    def rests(self) -> dict[str, Any]:
        """By value the sums of all rows that do not have it; takes two merges a value."""
        names = list(self.parts)
        after = [self._empty()]
        for name in reversed(names[1:]):
            after.append(_sum(self._empty, after[-1], self.parts[name]))
        before, result = self._empty(), {}
        for name, rest in zip(names, reversed(after), strict=False):
            result[name] = _sum(self._empty, before, rest)
            before = _sum(self._empty, before, self.parts[name])
        return result

    def snapshot(self) -> dict[str, Any]:
        """Everything, as plain values and arrays."""
        from mlspan_processor.store.codec import fields_of  # noqa: PLC0415 only where something is kept

        return {"values": list(self.parts), "parts": [fields_of(part) for part in self.parts.values()]}

    def restore(self, fields: Mapping[str, Any]) -> None:
        """Take what `snapshot` gave."""
        from mlspan_processor.store.codec import fill  # noqa: PLC0415

        self.parts = {}
        for value, kept in zip(fields["values"], fields["parts"], strict=True):
            self.parts[value] = self._empty()
            fill(self.parts[value], kept)


def _sum(empty: Callable[[], Any], a: Any, b: Any) -> Any:
    total = empty()
    total.merge(a)
    total.merge(b)
    return total


def _taken(batch: Labelled, rows: NDArray[np.intp]) -> Labelled:
    scores = None if batch.scores is None else batch.scores[rows]
    labels, predictions = batch.labels[rows], batch.predictions[rows]
    return Labelled(labels, predictions, scores, batch.score_kind, batch.weights[rows], batch.epsilon)
