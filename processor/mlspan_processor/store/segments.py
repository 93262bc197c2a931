"""State that survives, part 3: rows that are only ever appended, kept as few blobs of neighbouring rows.

In: how many rows there are by now. Out: from which row on a new blob must reach to the end, which older ones it
replaces, and which are to be written anew. New rows are joined with the newest blobs while these are small (below
`SMALL`) and not much larger than what comes, as a binary counter adds: a row is written at most log2(SMALL) times, and
ten rows every ten seconds for a week make a few dozen blobs.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

SMALL: Final = 16_384
"""Rows from which a blob is left alone."""


class Span(NamedTuple):
    """The rows [first, until)."""

    first: int
    until: int


class Plan(NamedTuple):
    """What to write: blobs for `spans`, in place of those that begin at `replaced`."""

    spans: list[Span]
    replaced: list[int]


class Segments:
    """The blobs that are on disk.

    Attributes:
        spans: their rows, oldest first.
        until: the first row that was never written.
    """

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.until = 0

    def plan(self, first: int, until: int, changed: Iterable[int] = ()) -> Plan:
        """How to write the rows up to `until`, of which those before `first` no longer exist.

        Args:
            first, until: the rows there are.
            changed: rows that have changed since they were written.
        """
        start = max(first, self.until)
        gone = [span.first for span in self.spans if span.until <= first]
        left = [span for span in self.spans if span.until > first]
        rewritten: list[int] = []
        if start < until:
            while left and left[-1].until == start and start - left[-1].first < min(SMALL, 2 * (until - start)):
                start = left.pop().first
                rewritten.append(start)
        dirty: set[Span] = set()
        for row in changed:
            dirty.update(span for span in left if span.first <= row < span.until)
        spans = sorted(dirty)
        if start < until:
            spans.append(Span(max(start, first), until))
        return Plan(spans, [*gone, *rewritten, *(span.first for span in dirty)])

    def written(self, plan: Plan) -> None:
        """The plan's blobs are on disk."""
        replaced = set(plan.replaced)
        self.spans = sorted([span for span in self.spans if span.first not in replaced] + plan.spans)
        self.until = max([self.until, *(span.until for span in plan.spans)])

    def forget(self, firsts: Iterable[int]) -> None:
        """These blobs are no longer on disk."""
        gone = set(firsts)
        self.spans = [span for span in self.spans if span.first not in gone]
