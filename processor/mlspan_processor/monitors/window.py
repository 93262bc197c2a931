"""Stage 6, part 6: closed windows: panes summed up, each once, until there are enough rows or the time is over.

In: the panes of one model version, as they grow. Out: windows that do not overlap and do not change any more: a pane
counts once it has been over for a while (`until`), so that spans which come a little late are in it; what comes later
is in the published figures, but not judged again. Windows that do not overlap are what keeps the false alarms of
judgement to its level. No clock: what is over is an argument.
"""

from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from mlspan_processor.window import Mergeable, Pane, Panes


class Counted(Mergeable, Protocol):
    """Statistics that know how many rows they are of."""

    @property
    def rows(self) -> float:
        """Rows, weighted or not."""


M = TypeVar("M", bound=Counted)


class Closed(NamedTuple):
    """The statistics of one window; `start` and `end` in nanoseconds since the epoch."""

    stats: Any
    start: int
    end: int


class OpenWindow(Generic[M]):
    """The window that is being filled.

    Attributes:
        begun: where it begins; panes that start earlier have been judged.
    """

    def __init__(
        self,
        rows: int,
        duration_ns: int | None = None,
        begun: int = 0,
    ) -> None:
        """A window ends when it holds so many `rows`, or with `duration_ns` at its multiples."""
        self._rows = rows
        self._duration = duration_ns
        self.begun = begun
        self._total: M | None = None
        self._start = 0
        self._next = begun

    def advance(self, panes: Panes[M], until: int, most: int) -> list[Closed]:
        """Add the panes that have ended by `until`; at most `most` windows that are complete now."""
        closed: list[Closed] = []
        for pane in panes:
            if pane.start < self._next:
                continue
            if pane.end > until:
                break
            self._before(pane, closed)
            if len(closed) >= most:
                return closed
            if self._total is None:
                self._total, self._start = panes.sum(0, 0), pane.start
            self._total.merge(pane.stats)
            self._next = pane.end
            if self._duration is None and self._total.rows >= self._rows:
                self._close(pane.end, closed)
                if len(closed) >= most:
                    return closed
        if self._duration is not None and self._total is not None:
            end = self._end()
            if end <= until and len(closed) < most:
                self._close(end, closed)
        return closed

    def restart(self, begun: int) -> None:
        """Begin anew with the panes from `begun` on."""
        self._total = None
        self.begun = self._next = begun

    def _before(self, pane: Pane[M], closed: list[Closed]) -> None:
        """Close the window by time that a pane lies behind."""
        if self._duration is not None and self._total is not None and pane.start >= self._end():
            self._close(self._end(), closed)

    def _end(self) -> int:
        assert self._duration is not None
        return self._start - self._start % self._duration + self._duration

    def _close(self, end: int, closed: list[Closed]) -> None:
        closed.append(Closed(self._total, self._start, end))
        self._total = None
        self.begun = self._next
