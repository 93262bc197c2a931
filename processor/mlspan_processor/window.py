"""Stage 4, part 2: panes of event time, mergeable, bounded in number, and the trailing window over them.

In: counts with a time. Out: sums over windows. A pane covers `width` of event time when young; when a model
has more than `max_panes`, the neighbours whose union is smallest for its age merge, so that old history gets
coarser (exponentially, as in Datar et al., SIAM J. Comput. 2002) and never lost before `retention`. A late
item goes to the pane that covers its time. Merging is addition: a window's sum is that of one pass over its
rows. No clock in here: now is an argument.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Generic, Protocol, Self, TypeVar

OPEN_END: Final = 1 << 63
"""The end of a window that has none."""


class Mergeable(Protocol):
    """Statistics that add up."""

    def merge(self, other: Self) -> None:
        """Add the other's rows to these."""

    @property
    def nbytes(self) -> int:
        """Bytes held."""


M = TypeVar("M", bound=Mergeable)


class Pane(Generic[M]):
    """Statistics of the event time [start, end), in nanoseconds since the epoch."""

    __slots__ = ("end", "start", "stats")

    def __init__(self, start: int, end: int, stats: M) -> None:
        self.start = start
        self.end = end
        self.stats = stats


class Panes(Generic[M]):
    """The panes of one model version, oldest first."""

    def __init__(self, empty: Callable[[], M], width: int, max_panes: int) -> None:
        """`empty` makes statistics of nothing; `width` in nanoseconds; at least 2 panes."""
        self._empty = empty
        self._width = width
        self._max = max(2, max_panes)
        self._panes: list[Pane[M]] = []
        self._starts: list[int] = []
        self.dirty: set[int] = set()
        """Starts of the panes that may have changed since whoever keeps them last emptied the set."""

    def __len__(self) -> int:
        return len(self._panes)

    def __iter__(self) -> Iterator[Pane[M]]:
        return iter(self._panes)

    @property
    def nbytes(self) -> int:
        """Bytes of all statistics."""
        return sum(pane.stats.nbytes for pane in self._panes)

    def at(self, time: int) -> M:
        """The statistics of the pane that covers `time`, to be added to."""
        index = bisect_right(self._starts, time) - 1
        if index >= 0 and time < self._panes[index].end:
            self.dirty.add(self._starts[index])
            return self._panes[index].stats
        start = time - time % self._width
        # Next to a merged pane the new one may be narrower.
        if index >= 0:
            start = max(start, self._panes[index].end)
        end = time - time % self._width + self._width
        if index + 1 < len(self._panes):
            end = min(end, self._panes[index + 1].start)
        pane = Pane(start, end, self._empty())
        self._panes.insert(index + 1, pane)
        self._starts.insert(index + 1, start)
        self.dirty.add(start)
        if len(self._panes) > self._max:
            self.coarsen(self._max)
            return self.at(time)
        return pane.stats

    def empty(self) -> M:
        """Statistics of nothing."""
        return self._empty()

    @property
    def starts(self) -> list[int]:
        """Starts of all panes, oldest first."""
        return list(self._starts)

    def restore(self, panes: Iterable[Pane[M]]) -> None:
        """Take panes of an earlier process, in place of all; those that overlap an older one are left out."""
        self._panes, self._starts = [], []
        for pane in sorted(panes, key=lambda one: one.start):
            if pane.start < pane.end and (not self._panes or pane.start >= self._panes[-1].end):
                self._panes.append(pane)
                self._starts.append(pane.start)
        self.dirty = set()
        self.coarsen(self._max)

    def sum(self, start: int, end: int) -> M:
        """The statistics of all panes that overlap [start, end)."""
        total = self._empty()
        for pane in self._panes:
            if pane.start < end and pane.end > start:
                total.merge(pane.stats)
        return total

    def trailing(self, enough: Callable[[M], bool]) -> tuple[M, int, int]:
        """Newest panes back until `enough` says so, or all: their sum, its start and its end (0, 0 without
        any)."""
        total = self._empty()
        start = end = 0
        for pane in reversed(self._panes):
            total.merge(pane.stats)
            start, end = pane.start, end or pane.end
            if enough(total):
                break
        return total, start, end

    def expire(self, before: int) -> int:
        """Drop panes that end at or before this time; returns how many."""
        expired = 0
        while expired < len(self._panes) and self._panes[expired].end <= before:
            expired += 1
        self.dirty.difference_update(self._starts[:expired])
        del self._panes[:expired], self._starts[:expired]
        return expired

    def coarsen(self, most: int) -> None:
        """Merge neighbours, those whose union is smallest for its age first, until at most `most` panes are
        left."""
        while len(self._panes) > max(1, most):
            newest = self._panes[-1].end
            pairs = range(len(self._panes) - 1)
            best = min(pairs, key=lambda i: self._relative_width(i, newest))
            younger = self._panes.pop(best + 1)
            self.dirty.discard(self._starts.pop(best + 1))
            self.dirty.add(self._starts[best])
            self._panes[best].stats.merge(younger.stats)
            self._panes[best].end = younger.end

    def _relative_width(self, i: int, newest: int) -> float:
        """Width of the union of panes i and i + 1 over its age."""
        younger = self._panes[i + 1]
        return (younger.end - self._panes[i].start) / (newest - younger.end + self._width)


class Paned(Protocol):
    """A model version, as far as its panes go."""

    drift: Panes[Any]
    quality: Panes[Any]


def bound_panes(models: Sequence[Paned], most: int) -> None:
    """Halve the panes of the largest models until all panes of all models hold at most so many bytes."""
    sizes = [model.drift.nbytes + model.quality.nbytes for model in models]
    total = sum(sizes)
    for i in sorted(range(len(models)), key=lambda one: -sizes[one]):
        if total <= most:
            break
        model = models[i]
        model.drift.coarsen(len(model.drift) // 2)
        model.quality.coarsen(len(model.quality) // 2)
        total += model.drift.nbytes + model.quality.nbytes - sizes[i]
