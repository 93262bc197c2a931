"""Panes: which pane a time goes to, trailing windows, bounded number, nothing lost."""

from itertools import pairwise

import numpy as np
import pytest

from mlspan_processor.window import Panes

WIDTH = 10


class Rows:
    """Counts rows by the second they came in."""

    def __init__(self) -> None:
        self.times: list[int] = []

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return 8 * len(self.times)

    def merge(self, other: "Rows") -> None:
        """Add the other's rows."""
        self.times += other.times


def panes(times: list[int], most: int = 100) -> Panes[Rows]:
    """Panes of rows at these times."""
    made = Panes(Rows, WIDTH, most)
    for time in times:
        made.at(time).times.append(time)
    return made


def test_times_go_to_their_pane() -> None:
    """A pane covers [start, start + width); later and earlier rows open others, in order."""
    made = panes([105, 109, 100, 110, 95, 250])
    assert [(pane.start, pane.end, pane.stats.times) for pane in made] == [
        (90, 100, [95]),
        (100, 110, [105, 109, 100]),
        (110, 120, [110]),
        (250, 260, [250]),
    ]


def test_trailing_window_takes_whole_panes_until_enough() -> None:
    """Newest panes back until there are enough rows; all of them when there are not."""
    made = panes([1, 2, 11, 12, 13, 21])
    total, start, end = made.trailing(lambda rows: len(rows.times) >= 3)
    assert (sorted(total.times), start, end) == ([11, 12, 13, 21], 10, 30)
    total, start, end = made.trailing(lambda rows: len(rows.times) >= 100)
    assert (len(total.times), start, end) == (6, 0, 30)
    total, start, end = Panes(Rows, WIDTH, 5).trailing(lambda rows: True)
    assert (total.times, start, end) == ([], 0, 0)


def test_reading_a_window_changes_nothing() -> None:
    """Sums are copies: the panes keep their own rows."""
    made = panes([1, 11])
    made.trailing(lambda rows: False)[0].times.append(99)
    made.sum(0, 100).times.append(99)
    assert [pane.stats.times for pane in made] == [[1], [11]]


@pytest.mark.parametrize("most", [2, 5, 50])
def test_number_is_bounded_and_no_row_is_lost(most: int) -> None:
    """However many rows come in whatever order, panes stay bounded, ordered, disjoint, and hold every row."""
    times = np.random.default_rng(most).permutation(3000).tolist()
    made = panes(times, most)
    assert len(made) <= most
    assert sorted(made.sum(0, 10_000).times) == sorted(times)
    edges = [(pane.start, pane.end) for pane in made]
    assert all(a[1] <= b[0] for a, b in pairwise(edges))
    for pane in made:
        assert all(pane.start <= time < pane.end for time in pane.stats.times)


def test_old_history_is_coarser_than_new() -> None:
    """In a steady stream the newest panes keep their width, older ones are wide in proportion to their age."""
    made = panes(list(range(0, 100_000, 5)), 60)
    widths = [pane.end - pane.start for pane in made]
    assert widths[-5:] == [WIDTH] * 5
    assert widths[0] > 20 * WIDTH
    assert max(widths) < 0.3 * 100_000


def test_late_rows_go_to_merged_panes() -> None:
    """A row whose pane has been merged goes to the merged one."""
    made = panes(list(range(1000)), 5)
    count = len(made)
    made.at(3).times.append(3)
    assert len(made) == count
    assert made.sum(0, 10).times.count(3) == 2


def test_expire_drops_what_ended() -> None:
    """Panes that end at or before the time go, and only they."""
    made = panes([5, 15, 25])
    assert made.expire(20) == 2
    assert [pane.start for pane in made] == [20]
    made.at(12).times.append(12)
    assert [pane.start for pane in made] == [10, 20]
