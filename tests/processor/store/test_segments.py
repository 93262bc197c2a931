"""Rows that are only appended: few blobs, little written twice, nothing lost."""

import numpy as np
import pytest

from mlspan_processor.store.segments import SMALL, Plan, Segments, Span


def rows_of(segments: Segments) -> list[int]:
    """All rows on disk."""
    return [row for span in segments.spans for row in range(*span)]


@pytest.mark.parametrize("sizes", [[1] * 300, [7, 1, 1, 20, 3] * 20, [5000, 1, 20_000, 3, 3, 40_000]])
def test_few_blobs_hold_every_row_once(sizes: list[int]) -> None:
    """Whatever the portions, rows are there once and in order, in a number of blobs that grows with the logarithm."""
    segments, total, written = Segments(), 0, 0
    for size in sizes:
        total += size
        plan = segments.plan(0, total)
        written += sum(span.until - span.first for span in plan.spans)
        segments.written(plan)
        assert segments.until == total
    assert rows_of(segments) == list(range(total))
    assert len(segments.spans) <= np.log2(total) + total / SMALL + 2
    assert written <= total * (np.log2(SMALL) + 1)


def test_nothing_new_writes_nothing() -> None:
    """Without new or changed rows there is nothing to do."""
    segments = Segments()
    segments.written(segments.plan(0, 10))
    assert segments.plan(0, 10) == Plan([], [])


def test_rows_that_made_way_go() -> None:
    """A blob goes once all of its rows are gone; one that still has some stays."""
    segments = Segments()
    for total in (SMALL, 2 * SMALL, 3 * SMALL):
        segments.written(segments.plan(0, total))
    plan = segments.plan(SMALL + 1, 3 * SMALL)
    assert plan == Plan([], [0])
    segments.written(plan)
    assert [span.first for span in segments.spans] == [SMALL, 2 * SMALL]


def test_changed_rows_are_written_anew() -> None:
    """A blob in which a row has changed is written again, in its place."""
    segments = Segments()
    for total in (SMALL, 2 * SMALL):
        segments.written(segments.plan(0, total))
    plan = segments.plan(0, 2 * SMALL, [5, 6])
    assert plan == Plan([Span(0, SMALL)], [0])
    segments.written(plan)
    assert len(segments.spans) == 2


def test_a_failed_save_is_made_up_for() -> None:
    """A plan that was not carried out comes again, with what came meanwhile."""
    segments = Segments()
    segments.written(segments.plan(0, 100))
    segments.plan(0, 5000)
    segments.written(segments.plan(0, 9000))
    assert rows_of(segments) == list(range(9000))


def test_what_was_dropped_is_not_written_again() -> None:
    """Blobs that were dropped for want of room stay away; new rows are written."""
    segments = Segments()
    segments.written(segments.plan(0, SMALL))
    segments.forget([0])
    assert segments.plan(0, SMALL).spans == []
    segments.written(segments.plan(0, SMALL + 5))
    assert segments.spans == [Span(SMALL, SMALL + 5)]
