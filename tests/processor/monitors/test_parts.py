"""Parts of the judgement in the stream: windows that close once, persistence, series of calls."""

import numpy as np
import pytest

from mlspan_processor.anomaly.findings import Finding
from mlspan_processor.instruments import Exemplar, Instruments
from mlspan_processor.monitors.calls import Calls
from mlspan_processor.monitors.persistence import Persistence
from mlspan_processor.monitors.window import OpenWindow
from mlspan_processor.window import Panes

SECOND = 1_000_000_000
PLACE = ("accuracy", "")


class Count:
    """Rows, and nothing else."""

    def __init__(self, rows: int = 0) -> None:
        self.rows = rows

    @property
    def nbytes(self) -> int:
        """None to speak of."""
        return 8

    def merge(self, other: "Count") -> None:
        """Add."""
        self.rows += other.rows


def panes(rows: dict[int, int]) -> Panes[Count]:
    """Panes of ten units with these rows, by their start."""
    result: Panes[Count] = Panes(Count, 10, 100)
    for start, count in rows.items():
        result.at(start).rows += count
    return result


def finding(certain: bool = False, value: float = 0.8) -> Finding:
    """A finding on accuracy."""
    return Finding("accuracy", "realised", "fraud", "7", value=value, certain=certain, exemplars=(("a", "b"),))


def test_windows_do_not_overlap_and_every_pane_counts_once() -> None:
    """A window closes with the pane that fills it; what has not ended yet waits."""
    window: OpenWindow[Count] = OpenWindow(100)
    kept = panes({0: 60, 10: 60, 20: 150, 30: 50})
    first = window.advance(kept, 40, 10)
    assert [(one.start, one.end, one.stats.rows) for one in first] == [(0, 20, 120), (20, 30, 150)]
    assert window.advance(kept, 40, 10) == []
    kept.at(5).rows += 1000
    kept.at(40).rows += 60
    assert window.advance(kept, 49, 10) == []
    [last] = window.advance(kept, 50, 10)
    assert (last.start, last.end, last.stats.rows) == (30, 50, 110)
    assert window.begun == 50


def test_a_tick_closes_no_more_windows_than_it_may() -> None:
    """The others close at the next one, and none is lost."""
    window: OpenWindow[Count] = OpenWindow(100)
    kept = panes(dict.fromkeys(range(0, 50, 10), 100))
    sizes = [len(window.advance(kept, 100, 2)) for _ in range(4)]
    assert sizes == [2, 2, 1, 0]


def test_windows_by_time_close_at_multiples() -> None:
    """Whatever is in them, but none without a row; one closes though nothing follows."""
    window: OpenWindow[Count] = OpenWindow(0, 60)
    kept = panes({0: 5, 70: 1, 100: 1, 310: 2})
    assert [(one.start, one.end, one.stats.rows) for one in window.advance(kept, 330, 10)] == [(0, 60, 5), (70, 120, 2)]
    assert window.advance(kept, 359, 10) == []
    assert [one.end for one in window.advance(kept, 360, 10)] == [360]


def test_a_window_goes_on_after_a_restart() -> None:
    """From where it began; what had been judged is not judged again."""
    window: OpenWindow[Count] = OpenWindow(100)
    kept = panes({0: 100, 10: 60})
    assert len(window.advance(kept, 20, 10)) == 1
    again: OpenWindow[Count] = OpenWindow(100)
    again.restart(window.begun)
    kept.at(20).rows += 50
    [closed] = again.advance(kept, 30, 10)
    assert (closed.start, closed.stats.rows) == (10, 110)


def test_one_bad_window_is_no_finding() -> None:
    """Two of the last three are, and one that is certain; two fine ones end it."""
    found = Persistence()
    looks = [finding(), None, None, finding(), None, finding(), None, finding(value=0.7), None, None]
    held = []
    for look in looks:
        found.see(PLACE, look)
        held.append([one.value for one in found.findings()])
    assert held == [[], [], [], [], [], [0.8], [0.8], [0.7], [0.7], []]
    found.see(PLACE, finding(certain=True))
    assert len(found.findings()) == 1


def test_persistence_survives_a_restart() -> None:
    """Through JSON, with what holds."""
    found = Persistence()
    found.see(PLACE, finding(certain=True))
    found.see(("errors", "x=y"), finding())
    again = Persistence.from_dict(found.to_dict())
    assert again.findings() == [finding(certain=True)]
    assert again.subjects() == [PLACE, ("errors", "x=y")]


def test_calls_are_counted_by_window() -> None:
    """Rate, share of errors and 95th percentile of what came within it; a model that falls silent has rate 0."""
    instruments = Instruments()
    good = (("ml.model.name", "fraud"), ("ml.model.version", "7"), ("ml.operation.name", "predict"))
    bad = (*good, ("error.type", "ValueError"))
    series = Calls(60 * SECOND)
    assert series.advance(instruments, 1) == {}
    ids = [bytes([i]) * 16 for i in range(100)]
    for now in (61 * SECOND, 122 * SECOND):
        instruments.observe_durations(
            [good, bad],
            np.array([0] * 90 + [1] * 10),
            np.full(100, 0.015),
            np.ones(100),
            np.full(100, now),
            ids,
            [one[:8] for one in ids],
        )
        windows = series.advance(instruments, now)
    window = windows["fraud", "7"]
    assert (window.calls, window.errors, window.error_share) == (100, 10, 0.1)
    assert window.rate == pytest.approx(100 / 61)
    assert window.latency == pytest.approx(0.0195)
    assert all(isinstance(one, Exemplar) for one in window.failed)
    silent = series.advance(instruments, 200 * SECOND)["fraud", "7"]
    assert (silent.rate, silent.error_share, silent.latency) == (0.0, None, None)
