"""Stage 6, part 20: the windows that monitors ask for: of rows for drift, of labels for realised figures."""

from typing import Final

from mlspan_processor.monitors.metrics import CUSTOM, FIGURES, GAPS, RATES, TOGETHER, VERSIONS
from mlspan_processor.monitors.settings import DEFAULT_LEVEL, Monitor
from mlspan_processor.settings import Window

_SECOND: Final = 1_000_000_000
Spec = tuple[int, int]
"""Size of a window: rows (0: by time), nanoseconds (0: by rows)."""


class Specs:
    """What monitors ask for.

    Attributes:
        rows, labels: of those that say nothing else.
    """

    def __init__(self, window: Window) -> None:
        self.rows: Spec = window.min_rows, 0
        self.labels: Spec = window.min_labels, 0

    def drift(self, monitor: Monitor) -> tuple[Spec, float] | None:
        """Windows and level of a monitor of drift by feature; None for other metrics."""
        metric = monitor.metric
        if metric in {*FIGURES, *GAPS, *RATES, "label_coverage", TOGETHER, VERSIONS} or metric.startswith(CUSTOM):
            return None
        level = monitor.level if monitor.uses == "drift" else DEFAULT_LEVEL
        return _spec(monitor, self.rows), level

    def labelled(self, monitor: Monitor) -> Spec | None:
        """Windows of a monitor of realised figures; None for other metrics, and where every label is looked at."""
        figure = monitor.metric in FIGURES or monitor.metric == "label_coverage"
        if not figure or monitor.uses == "risk" or monitor.kind == "estimated":
            return None
        return _spec(monitor, self.labels)


def _spec(monitor: Monitor, otherwise: Spec) -> Spec:
    window = monitor.window
    if window is None:
        return otherwise
    return window.rows or 0, int((window.duration or 0) * _SECOND)
